"""The page of a comparison in a browser."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

from lessons.compare import compare_page
from tests.browser.conftest import NARROW, WIDE, Opened
from tests.test_page import stored


@pytest.mark.parametrize(
    "how", [{"size": WIDE}, {"size": WIDE, "dark": True}, {"size": NARROW}], ids=["light", "dark", "narrow"]
)
def test_a_comparison_can_be_read_by_anyone_in_any_window(opened: Opened, how: dict[str, Any]) -> None:
    page = opened(compare_page(stored("whole"), stored("failures")), **how)

    found = Axe().run(page)

    assert page.locator("#newly-broken").is_visible()
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
