"""Takes the picture of the README: `python -m tests.browser.picture`, docs/page.png."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from lessons.page import page
from tests.browser.conftest import FLAGS
from tests.browser.install import CHROMIUM
from tests.test_page import stored

FILE = Path(__file__).parent.parent.parent / "docs" / "page.png"


def main() -> None:
    """Take it of the stored report of a cluster that is not the suite's own."""
    program = shutil.which(CHROMIUM)
    if program is None:
        sys.exit(f"kubehave: there is no browser; install {CHROMIUM} (Debian's package name)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        html = Path(folder) / "index.html"
        html.write_text(page(stored("foreign")), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        window = browser.new_page(viewport={"width": 1160, "height": 1000})
        window.goto(html.as_uri())
        box = window.locator("#by-topic").bounding_box()
        assert box
        window.screenshot(
            path=FILE, full_page=True, clip={"x": 0, "y": 0, "width": 1160, "height": box["y"] + box["height"]}
        )
        browser.close()


if __name__ == "__main__":
    main()
