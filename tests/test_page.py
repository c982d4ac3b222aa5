"""The page about a run: whole, safe, and readable whatever the report lacks. No browser is needed here."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fixtures import manifests
from lessons import highlight
from lessons import page as pages
from lessons.catalogue import DOCUMENTS, catalogue
from lessons.layout import TEMPLATES, css_class, prose, seconds
from lessons.page import DID_NOT_RUN, EXITS, MEANINGS, book, page
from lessons.sources import INFRASTRUCTURE, every
from lessons.timeline import timeline
from lessons.verdict_names import HOLDS
from machine import exits

REPORTS = Path(__file__).parent / "reports"

#: Elements that have no end.
VOID = {"meta", "link", "input", "br"}

#: What must not become HTML, wherever it comes from.
HOSTILE = "</script><b onclick=x>'\"&amp;"


class Document(HTMLParser):
    """A page as its elements: ids, links, and its text; `flaws` says where the tags do not fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.html = text
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.flaws: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.flaws += [f"<{tag}> has no end" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element; one that has an end is open now."""
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids.update(value or "" for name, value in attrs if name == "id")

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what was opened last."""
        if not self._open or self._open.pop() != tag:
            self.flaws.append(f"</{tag}> in line {self.getpos()[0]} ends another element")

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        if self._open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, without style and script."""
        return "".join(self.texts)

    def values(self, name: str) -> list[str]:
        """The values of all attributes of this name."""
        return [value for attribute, value in self.attributes if attribute == name]


@cache
def stored(name: str) -> dict[str, Any]:
    """A stored report. Tests that change it copy it."""
    found: dict[str, Any] = json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@cache
def html_of(name: str) -> str:
    """The page of a stored report; "book" is the page without one."""
    return book() if name == "book" else page(stored(name))


@cache
def shown(name: str) -> Document:
    """The same, parsed."""
    return Document(html_of(name))


NAMES = sorted(path.stem for path in REPORTS.glob("*.json"))
ALL = [*NAMES, "book"]
WITH_TESTS = [name for name in NAMES if name != "empty"]


def test_there_are_reports_of_every_kind() -> None:
    assert set(NAMES) == {"whole", "failures", "interrupted", "empty", "foreign"}


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_well_formed(name: str) -> None:
    document = shown(name)

    assert document.flaws == []
    assert [id for id, count in document.ids.items() if count > 1 or not id or re.search(r"\s", id)] == []


@pytest.mark.parametrize("name", ALL)
def test_every_link_within_a_page_leads_somewhere(name: str) -> None:
    document = shown(name)

    links = {value[1:] for value in document.values("href") if value.startswith("#")}
    assert links - {""} - document.ids.keys() == set()
    assert set(document.values("data-copy")) <= document.ids.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_page_names_no_outside_address(name: str) -> None:
    document = shown(name)
    addresses = [
        value for key in ("href", "src", "srcset", "action", "data", "xlink:href") for value in document.values(key)
    ]
    style = document.html.partition("<style>")[2].partition("</style>")[0]

    assert [address for address in addresses if re.match(r"(?!data:)\w+:|//", address)] == []
    assert style
    assert not re.search(r"url\(|@import", style)


@pytest.mark.parametrize("name", ALL)
def test_the_policy_of_a_page_allows_only_its_own_style_and_script(name: str) -> None:
    html = shown(name).html

    for element in ("style", "script"):
        (text,) = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html
    assert not re.search(r"<[a-z][^<>]* (?:style|on\w+)=", html)


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_small(name: str) -> None:
    assert len(shown(name).html.encode()) < 3_000_000


@pytest.mark.parametrize("name", [*WITH_TESTS, "book"])
def test_a_page_has_every_behavior_of_the_catalogue(name: str) -> None:
    assert catalogue().keys() <= shown(name).ids.keys()


@pytest.mark.parametrize("name", ["whole", "book"])
def test_the_code_of_every_test_and_every_manifest_is_in_a_page_once(name: str) -> None:
    text = shown(name).text

    assert [test for test in every() if text.count(f"def {test.rpartition('::')[2]}(") != 1] == []
    printed = [value for value in shown(name).ids if value.startswith("manifest:")]
    assert sorted(printed) == [f"manifest:{it}" for it in manifests.names() if it not in INFRASTRUCTURE]


def test_the_behaviors_of_a_topic_are_in_the_order_of_its_suite() -> None:
    lines: dict[str, int] = {}
    for one in every().values():
        for name in one.behaviors:
            if one.file == "suites/test_services.py":
                lines.setdefault(name, one.line)

    order = [lines[name] for name in shown("book").ids if name in lines and catalogue()[name].topic == "services"]

    assert len(order) > 10
    assert order == sorted(order)


def test_the_ids_in_a_claim_are_links(few: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    behavior = dataclasses.replace(catalogue()[few[0]], observe=f"as {few[1]}, and/or objects/no-such")
    monkeypatch.setattr(pages, "catalogue", lambda: {few[0]: behavior, few[1]: catalogue()[few[1]]})

    html = page(part_of("whole", few[:1]))

    assert f'as <a href="#{few[1]}">{few[1]}</a>, and/or objects/no-such.' in html


def test_the_book_has_every_claim_with_its_correction_and_no_verdict() -> None:
    text = shown("book").text

    for behavior in catalogue().values():
        for words in (behavior.says, behavior.observe, behavior.outdated or ""):
            assert words.replace("`", "") in text, behavior.id
    assert [value for value in shown("book").values("class") if "badge" in value or "mark" in value] == []
    assert "svg" not in shown("book").tags


def test_a_run_in_which_everything_holds_says_so() -> None:
    document = shown("whole")

    assert heading(document) == "All 163 behaviors hold"
    assert "not-well" not in document.ids
    assert "v1.36.3" in document.text
    assert "the run's own, a kind cluster" in document.text
    assert document.values("aria-label").count("objects/pod-from-yaml: holds") == 2


def test_what_does_not_hold_comes_first_with_its_reason_its_failure_and_the_evidence() -> None:
    document, report = shown("failures"), stored("failures")
    failed = {name: test for name, test in report["tests"].items() if test["verdict"] in ("broken", "inconclusive")}

    assert failed
    assert "<h2>What does not hold</h2>" in document.html
    assert document.html.index('id="not-well"') < document.html.index('id="behaviors"')
    for test in failed.values():
        assert test["reason"] in document.text
        assert test["failure"] in document.text
        assert test["evidence"] in document.values("href")
    assert document.text.count("What ran beside it") == len(failed)


def test_a_page_of_many_long_failures_stays_small(few: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    report = part_of("failures", few)
    text = "".join(f"line {number}\n" for number in range(100))
    for test in report["tests"].values():
        test.update(verdict="broken", failure=text)
    monkeypatch.setattr(pages, "WHOLE", 2 * len(text))

    shown = Document(page(report)).text

    assert shown.count(text) == 2
    assert shown.count("(88 more lines are in behaviors.json and junit.xml)") == len(report["tests"]) - 2


def test_reasons_that_several_failures_share_are_told_before_them(few: list[str]) -> None:
    report = part_of("failures", few)
    for number, test in enumerate(report["tests"].values()):
        test.update(verdict="broken", reason=f"Pod web-{number}x{number} was not Ready within {number} s")

    document = Document(page(report))

    assert f"{len(report['tests'])} tests: Pod web-0x0 was not Ready within 0 s" in document.text


def test_what_was_not_observed_is_told_once_for_each_reason_with_the_remedy() -> None:
    document, report = shown("foreign"), stored("foreign")
    reasons = {row["reason"] for row in report["behaviors"] if row["verdict"] == "not observed"}

    part = document.html.partition('id="not-well"')[2].partition('id="behaviors"')[0]
    assert "What was not observed" in part
    assert reasons
    assert len(re.findall('class="why"', part)) >= len(reasons)
    assert "What the cluster lacks" in document.text
    for line in report["run"]["nodes_left_out"]:
        assert line in document.text


def test_an_interrupted_run_says_that_it_is_not_the_whole_story() -> None:
    document = shown("interrupted")

    assert "Exit code 2: the run was interrupted." in document.text
    assert "its test never began" in document.text


def test_a_run_that_never_reached_its_tests_says_why() -> None:
    document = shown("empty")

    assert heading(document) == "No behavior was tested"
    assert stored("empty")["run"]["reason"] in document.text
    assert "behaviors" not in document.ids


def heading(document: Document) -> str:
    """The only heading of the first level."""
    (found,) = re.findall("<h1>(.*?)</h1>", document.html)
    return str(found)


# --- reports that lack something


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the only behaviors that the catalogue has: these pages are small."""
    names = [
        "objects/pod-from-yaml",
        "objects/exec-into-a-pod",
        "objects/replicaset-of-three",
        "walkthroughs/core-concepts-pod",
    ]
    some = {name: catalogue()[name] for name in names}
    monkeypatch.setattr(pages, "catalogue", lambda: some)
    return names


Change = Callable[[dict[str, Any]], None]


def part_of(name: str, behaviors: list[str]) -> dict[str, Any]:
    """A stored report with these behaviors only, to be changed."""
    report = copy.deepcopy(stored(name))
    report["behaviors"] = [row for row in report["behaviors"] if row["id"] in behaviors]
    tests = {test for row in report["behaviors"] for test in row["tests"]}
    report["tests"] = {test: it for test, it in report["tests"].items() if test in tests}
    return report


def without_new_keys(report: dict[str, Any]) -> None:
    """Leave what a report of an earlier version has."""
    old = {
        "exit_code",
        "reason",
        "context",
        "own_cluster",
        "node_image",
        "id",
        "phases",
        "nodes_left_out",
        "left_behind",
    }
    report["run"] = {key: value for key, value in report["run"].items() if key in old}
    for name, test in report["tests"].items():
        report["tests"][name] = {key: test[key] for key in ("verdict", "seconds", "waited")}


def nothing_known(report: dict[str, Any]) -> None:
    for key in report["run"]:
        report["run"][key] = None
    for test in report["tests"].values():
        test.update({key: None for key in test if key != "verdict"})


def never_begun(report: dict[str, Any]) -> None:
    report["tests"] = {}
    for row in report["behaviors"]:
        row.update(verdict="inconclusive", reason="its test never began")


def planned(report: dict[str, Any]) -> None:
    for row in report["behaviors"]:
        row.update(verdict="planned", reason=None, tests=[])
        for key in ("decided_by", "ran", "remarks", "seconds"):
            row.pop(key, None)


def of_another_version(report: dict[str, Any]) -> None:
    row = report["behaviors"][0]
    row.update(id="objects/no-more", topic="gone", tests=["suites/test_gone.py::test_gone[a]"])
    report["tests"]["suites/test_gone.py::test_gone[a]"] = {
        "verdict": "broken",
        "reason": "x",
        "began": 1,
        "seconds": 2,
    }


def still_running(report: dict[str, Any]) -> None:
    report["run"].update(exit_code=None, ended=None)


@pytest.mark.parametrize(
    "change", [without_new_keys, nothing_known, never_begun, planned, of_another_version, still_running]
)
@pytest.mark.parametrize("name", ["whole", "failures"])
def test_a_report_may_lack_a_lot(few: list[str], name: str, change: Change) -> None:
    report = part_of(name, few)
    change(report)

    document = Document(page(report))

    assert document.flaws == []
    assert {*few, *(row["id"] for row in report["behaviors"])} <= document.ids.keys()
    assert not re.search('(?<!class="k")>None<', document.html)


@pytest.mark.parametrize(
    "report", [{}, {"run": {"exit_code": 4, "reason": "no such context"}}, {"behaviors": [], "tests": {}}]
)
def test_a_report_may_lack_almost_everything(report: dict[str, Any]) -> None:
    assert heading(Document(page(report))) == "No behavior was tested"


def test_a_run_that_has_not_ended_says_so(few: list[str]) -> None:
    report = part_of("whole", few)
    still_running(report)

    assert "The run has not ended" in Document(page(report)).text


def test_behaviors_that_were_not_chosen_are_shown_as_that(few: list[str]) -> None:
    report = part_of("whole", few[:1])

    document = Document(page(report))

    assert heading(document) == "The chosen behavior holds"
    assert document.values("aria-label").count(f"{few[1]}: not chosen") == 2
    assert document.values("aria-label").count(f"{few[0]}: holds") == 2


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["holds", "holds", "holds"], "All 3 behaviors hold"),
        (["holds", "broken", "holds"], "2 of 3 behaviors hold: 1 is broken"),
        (["broken", "broken", "inconclusive"], "0 of 3 behaviors hold: 2 are broken, 1 is inconclusive"),
        (["holds", "not observed", "in part"], "1 of 3 behaviors holds: 1 was not observed, 1 was seen in part"),
        (["holds", "planned", "planned"], "The chosen behavior holds"),
    ],
)
def test_the_headline_is_the_verdict_as_a_sentence(few: list[str], verdicts: list[str], words: str) -> None:
    report = part_of("whole", few)
    rows = {row["id"]: row for row in report["behaviors"]}
    for name, verdict in zip(few, verdicts, strict=False):
        rows[name].update(verdict=verdict, reason=None)

    assert heading(Document(page(report))) == words


def test_walkthroughs_are_counted_apart(few: list[str]) -> None:
    assert "Counted apart: 1 of 1 walkthroughs hold." in Document(page(part_of("whole", few))).text
    assert heading(Document(page(part_of("whole", few[3:])))) == "The chosen walkthrough holds"


def test_nothing_of_a_report_becomes_html(few: list[str]) -> None:
    report = part_of("failures", few)
    harmless = Document(page(report))
    run, row = report["run"], report["behaviors"][0]
    run.update(
        reason=HOSTILE,
        left_behind=[HOSTILE],
        nodes_left_out=[HOSTILE],
        version=HOSTILE,
        command=[HOSTILE],
        began=HOSTILE,
    )
    run.update(
        rerun_of=HOSTILE, node_image=HOSTILE, context=HOSTILE, phases={HOSTILE: 1}, capabilities={HOSTILE: HOSTILE}
    )
    run["cluster"] = dict.fromkeys(
        ("kubernetes", "network_plugin", "kube_proxy", "dns", "storage_class", "load_balancer"), HOSTILE
    )
    run["cluster"] |= {"ingress_classes": [HOSTILE], "nodes": [{"name": HOSTILE, "roles": [HOSTILE], "os": HOSTILE}]}
    row.update(reason=HOSTILE, remarks=[HOSTILE], verdict=HOSTILE)
    for test in report["tests"].values():
        test.update(
            reason=HOSTILE, seen=[HOSTILE], failure=HOSTILE, evidence=HOSTILE, worker=HOSTILE, waited={HOSTILE: 1.0}
        )

    document = Document(page(report))

    assert document.flaws == []
    assert document.tags["b"] == harmless.tags["b"] == 0
    assert "onclick" not in dict(document.attributes)
    assert document.text.count(HOSTILE) > 20


@pytest.mark.parametrize("color", [highlight.python, highlight.yaml])
def test_nothing_of_code_and_manifests_becomes_html(color: Callable[[str], str]) -> None:
    document = Document(color(f'a: "{HOSTILE}" # {HOSTILE}'))

    assert document.tags.keys() == {"span"}
    assert document.text.count(HOSTILE) == 2


def test_evidence_cannot_be_a_script(few: list[str]) -> None:
    report = part_of("failures", few)
    for test in report["tests"].values():
        test["evidence"] = "javascript:alert(1)"

    assert [link for link in Document(page(report)).values("href") if link.startswith("javascript:")] == []


# --- time


def a_test(began: float, worker: str = "gw0", verdict: str = HOLDS, **more: Any) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "began": began,
        "worker": worker,
        "seconds": 3,
        "phases": {"setup": 1, "call": 1.5, "teardown": 0.5},
    } | more


def test_the_timeline_has_a_lane_for_each_worker_in_their_order() -> None:
    found = timeline({"tests": {"a": a_test(0, "gw10"), "b": a_test(0, "gw9"), "c": a_test(3, "gw9")}})

    assert found
    assert [name for name, _ in found.lanes] == ["gw9", "gw10"]
    assert [bar.test for bar in found.bars] == ["b", "c", "a"]
    assert found.seconds == 6
    assert found.busy == pytest.approx(9 / 12)


def test_a_bar_has_its_phases_in_order_and_its_waits() -> None:
    waits = [{"for": "pod_starts", "began": 0.5, "seconds": 1}, {"for": "pod_goes", "began": 2.9, "seconds": 9}]

    found = timeline({"tests": {"a": a_test(0, waits=waits)}})

    assert found
    (bar,) = found.bars
    assert [part.kind for part in bar.parts] == ["setup", "call", "teardown"]
    ends = [part.x + part.width for part in bar.parts]
    assert [part.x for part in bar.parts[1:]] == pytest.approx(ends[:2], abs=0.2)
    assert bar.waits[1].x + bar.waits[1].width == pytest.approx(ends[2], abs=0.2)


def test_what_ran_beside_a_test_is_known_with_the_time_in_common() -> None:
    tests = {"a": a_test(0), "b": a_test(2, "gw1"), "c": a_test(2.5, "gw2"), "d": a_test(3), "e": a_test(9, "gw1")}

    found = timeline({"tests": tests})

    assert found
    assert [(bar.test, both) for bar, both in found.beside("a")] == [("b", 1), ("c", 0.5)]


def test_a_report_without_times_has_no_timeline() -> None:
    assert timeline({"tests": {"a": {"verdict": HOLDS, "seconds": 1}}}) is None
    assert timeline({}) is None


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "1:40 min"), (3605, "60:05 min")],
)
def test_times_are_written_for_people(number: float, words: str) -> None:
    assert seconds(number) == words


@pytest.mark.parametrize(
    ("text", "html"),
    [("a `b` c", "a <code>b</code> c"), ("`<b>`", "<code>&lt;b&gt;</code>"), ("a ` b", "a ` b"), ("<i>", "&lt;i&gt;")],
)
def test_backticks_mark_code(text: str, html: str) -> None:
    assert prose(text) == html


# --- what is written by hand


def test_the_documents_are_those_of_the_readme(root: Path) -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", (root / "README.md").read_text(), re.MULTILINE)

    assert [row for row in rows if row[0] in DOCUMENTS] == list(DOCUMENTS.items())
    assert {entry.document for entry in catalogue().values() if not entry.is_walkthrough} == DOCUMENTS.keys()


def test_every_exit_code_has_a_meaning() -> None:
    assert EXITS.keys() == {value for value in vars(exits).values() if isinstance(value, int)}


def test_every_verdict_has_a_mark_of_its_own() -> None:
    style = (TEMPLATES / "page.css").read_text()
    marks = dict(re.findall(r'^\.([\w-]+) \{.*--mark: "(.)";', style, re.MULTILINE))

    assert {css_class(verdict) for verdict in (*MEANINGS, DID_NOT_RUN)} == marks.keys()
    assert len({marks[css_class(verdict)] for verdict in MEANINGS}) == len(MEANINGS)


def test_a_cluster_that_was_wrong_on_purpose_is_said_above_everything() -> None:
    run = {"exit_code": 1, "reason": None, "faults": [{"name": "no-x", "says": f"There is no x. {HOSTILE}"}]}

    document = Document(page({"run": run, "behaviors": [], "tests": {}}))

    assert "wrong on purpose" in " ".join(document.texts)
    assert HOSTILE not in document.html
