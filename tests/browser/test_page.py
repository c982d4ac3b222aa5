"""The page in a browser: it opens without a request or an error, works by keyboard, and anyone can read it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from lessons.catalogue import TOPICS, WALKTHROUGHS, catalogue
from lessons.page import page as page_of
from tests.browser.conftest import NARROW, WIDE, Opened
from tests.test_page import ALL, html_of, part_of


def visible(page: Page) -> list[str]:
    """The ids of the behaviors that are shown, in their order on the page."""
    found: list[str] = page.eval_on_selector_all(".entry:not([hidden])", "all => all.map(it => it.id)")
    return found


@pytest.mark.parametrize("name", ALL)
def test_a_page_opens_without_a_request_or_an_error(opened: Opened, name: str) -> None:
    page = opened(html_of(name))

    assert page.locator("h1").is_visible()


@pytest.mark.parametrize("name", ["whole", "book"])
def test_without_javascript_everything_is_there_and_nothing_that_needs_it(opened: Opened, name: str) -> None:
    page = opened(html_of(name), script=False)

    assert page.locator(".entry").count() == len(catalogue())
    assert page.locator("#search, #toggle, .choice").locator("visible=true").count() == 0
    link = page.locator("main a[href='#objects/pod-from-yaml']").first
    if name == "book":
        page.locator("summary", has_text="objects").first.click()
    link.click()
    expect(page.locator("[id='objects/pod-from-yaml'] > .body")).to_be_visible()


def test_on_paper_everything_is_open_and_dark_on_light(opened: Opened, few: list[str]) -> None:
    page = opened(page_of(part_of("failures", few)), script=False, dark=True)
    on_screen = page.evaluate("getComputedStyle(document.body).color")

    page.emulate_media(media="print")

    assert page.locator("pre").count() > 3
    assert page.locator("pre").locator("visible=true").count() == page.locator("pre").count()
    assert page.evaluate("getComputedStyle(document.body).color") != on_screen


def test_the_search_looks_at_claims_and_at_code(opened: Opened) -> None:
    page = opened(html_of("whole"))

    page.fill("#search", "externalTrafficPolicy")

    some = visible(page)
    assert 0 < len(some) < 30
    assert page.inner_text("#found") == f"{len(some)} of {len(catalogue())} shown"
    page.fill("#search", "")
    assert len(visible(page)) == len(catalogue())


def test_a_filter_hides_a_verdict_and_the_topics_that_have_no_other(opened: Opened) -> None:
    page = opened(html_of("foreign"))
    before = visible(page)

    page.locator("#filter").get_by_label("holds").uncheck()

    after = visible(page)
    assert 0 < len(after) < len(before)
    verdicts = page.eval_on_selector_all(".entry:not([hidden])", "all => all.map(it => it.dataset.verdict)")
    assert "holds" not in verdicts
    assert page.locator(".group:not([hidden])").count() < len(TOPICS)


def test_the_order_switches_between_topics_and_documents(opened: Opened) -> None:
    page = opened(html_of("whole"))
    by_topic = visible(page)
    assert list(dict.fromkeys(catalogue()[name].topic for name in by_topic)) == list(TOPICS)

    page.locator(".tools").get_by_label("by document").check()

    headings = page.locator(".group:not([hidden]) > h3").all_inner_texts()
    assert [heading.split()[0] for heading in headings][-1] == WALKTHROUGHS
    assert len(headings) == 6
    for document in {it.document for it in catalogue().values()}:
        assert [name for name in visible(page) if name.startswith(document)] == [
            name for name in catalogue() if name.startswith(document)
        ]
    assert not page.locator("#by-topic").is_visible()
    page.locator(".switch").get_by_label("by topic").check()
    assert visible(page) == by_topic


def test_a_link_opens_what_it_leads_to_even_if_a_filter_hides_it(opened: Opened) -> None:
    page = opened(html_of("whole"))
    page.fill("#search", "no such words")
    assert visible(page) == []

    page.locator("#by-topic .square").first.click()

    expect(page.locator(".entry[open] > .body").first).to_be_visible()
    assert len(visible(page)) == len(catalogue())


def test_an_address_with_a_behavior_opens_it(opened: Opened) -> None:
    page = opened(html_of("whole"), part="#objects/pod-from-yaml")

    expect(page.locator("[id='objects/pod-from-yaml'] > .body")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.entry').id") == "objects/pod-from-yaml"


def test_what_is_printed_elsewhere_is_copied_where_it_is_opened(opened: Opened) -> None:
    page = opened(html_of("whole"))
    page.click("#toggle")

    # One that has a manifest, whose id must not be in the page twice.
    anchor = page.evaluate(
        """() => {
            const copies = [...document.querySelectorAll(".test[data-copy]")];
            const copy = copies.find(it => document.getElementById(it.dataset.copy).querySelector("[id]"));
            copy.classList.add("copied");
            return copy.dataset.copy;
        }"""
    )
    copy, source = page.locator(".copied"), page.locator(f"[id='{anchor}']")

    copy.locator("summary").first.click()

    code = copy.locator("> .body > pre")
    code.wait_for()
    assert code.text_content() == source.locator("> .body > pre").text_content()
    ids = page.eval_on_selector_all("[id]", "all => all.map(it => it.id)")
    assert len(ids) == len(set(ids))


def test_a_bar_of_the_timeline_leads_to_its_behavior(opened: Opened) -> None:
    page = opened(html_of("whole"))
    bar = page.locator(".timeline a").nth(20)

    bar.locator(".call").click(force=True)

    expect(page).to_have_url(re.compile(re.escape(bar.get_attribute("href") or "no link") + "$"))
    expect(page.locator(".entry[open]")).to_have_count(1)


def test_the_keyboard_reaches_everything_and_opens_it(opened: Opened, few: list[str]) -> None:
    page = opened(page_of(part_of("failures", few)))
    wanted = "a[href], button, summary, input:not([type=radio]), input[type=radio]:checked, [tabindex='0']"
    number = page.evaluate(
        f"""() => {{
            const all = [...document.querySelectorAll(`{wanted}`)].filter(it => it.checkVisibility() || it.matches(".skip"));
            all.forEach((it, place) => it.dataset.place = place);
            return all.length;
        }}"""
    )

    reached = []
    for _ in range(number + 5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.place ?? null"))
        if reached[-1] is None:
            break
    assert [int(place) for place in reached[:-1]] == list(range(number))

    page.locator(".entry > summary").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".entry > .body").first).to_be_visible()


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"size": WIDE},
    "dark": {"size": WIDE, "dark": True},
    "narrow": {"size": NARROW},
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("failures", LOOKS["light"]),
        ("failures", LOOKS["dark"]),
        ("failures", LOOKS["narrow"]),
        ("foreign", LOOKS["light"]),
    ],
)
def test_axe_finds_nothing(opened: Opened, few: list[str], kind: str, how: dict[str, Any]) -> None:
    page = opened(page_of(part_of(kind, few)), **how)
    page.click("#toggle")
    for one in page.locator("details:not([open]) > summary").all():
        if one.is_visible():
            one.click()

    found = Axe().run(page)

    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize(
    ("kind", "look"), [("whole", "light"), ("whole", "dark"), ("whole", "narrow"), ("failures", "narrow")]
)
def test_a_page_is_not_wider_than_its_window(opened: Opened, tmp_path: Path, kind: str, look: str) -> None:
    """It also takes pictures, which KUBEHAVE_SCREENSHOTS=FOLDER keeps."""
    how = LOOKS[look]
    page = opened(html_of(kind), **how)
    folder = Path(os.environ.get("KUBEHAVE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    page.screenshot(path=folder / f"{kind}-{look}.png")

    assert page.evaluate("document.documentElement.scrollWidth") <= how["size"]["width"]
