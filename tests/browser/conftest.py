"""Pages of stored reports, open in headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.install import CHROMIUM
from tests.test_page import few  # noqa: F401

#: Chromium refuses to run as root with its sandbox, and in a container /dev/shm may be too small for it.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]

# What a click leads to may follow a moment later, and much later on a busy machine.
expect.set_options(timeout=30_000)

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium. Without it the tests are skipped, unless KUBEHAVE_BROWSER=required."""
    program = shutil.which(CHROMIUM)
    if program is None:
        why = f"there is no browser; install {CHROMIUM} (Debian's package name)"
        if os.environ.get("KUBEHAVE_BROWSER") == "required":
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    """`opened("whole", size=NARROW, dark=True)`: a page in a window of its own. It is closed after the test.

    The test fails if the page has requested anything but its own file, or has written an error to the console.
    """
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def note(what: str, is_wrong: bool = True) -> None:
        if is_wrong:
            complaints.append(what)

    def show(html: str, size: dict[str, int] = WIDE, dark: bool = False, script: bool = True, part: str = "") -> Page:
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": size["width"], "height": size["height"]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        own = file.as_uri()
        page.on("request", lambda request: note(request.url, request.url.partition("#")[0] != own))
        page.on("console", lambda message: note(message.text, message.type in ("error", "warning")))
        page.on("pageerror", lambda error: note(str(error)))
        page.goto(own + part)
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []
