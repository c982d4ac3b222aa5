"""What CI systems read of a run: the stored junit.xml of a sample run. `python -m tests.junit` writes it again."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from runner.report import finish_junit
from runner.verdicts import Ledger, TestResult
from tests.junit import STORED
from tests.test_run import EXPECTED

#: The element of a case that did not pass, by the test's verdict.
ELEMENTS = {"holds": None, "broken": "failure", "inconclusive": "error", "not observed": "skipped"}


@pytest.fixture(scope="module")
def suite() -> ElementTree.Element:
    """The only suite of the stored file."""
    (found,) = ElementTree.parse(STORED).iter("testsuite")
    return found


@pytest.fixture(scope="module")
def cases(suite: ElementTree.Element) -> list[ElementTree.Element]:
    """Its cases."""
    found = list(suite.iter("testcase"))
    assert len(found) > len(EXPECTED)
    return found


def properties(case: ElementTree.Element) -> dict[str | None, str | None]:
    """The properties of a case."""
    return {it.get("name"): it.get("value") for it in case.iter("property")}


def elements(case: ElementTree.Element) -> list[ElementTree.Element]:
    """What a case says about phases that did not pass."""
    return [it for it in case if it.tag in ("failure", "error", "skipped")]


def test_every_case_names_its_file_and_its_line(cases: list[ElementTree.Element]) -> None:
    lines = [int(case.get("line", "0")) for case in cases]

    assert {case.get("file") for case in cases} == {"suites/test_sample.py"}
    assert min(lines) > 1
    assert len(set(lines)) >= len(EXPECTED)


def test_every_case_has_its_behavior_and_its_verdict(cases: list[ElementTree.Element]) -> None:
    found: dict[str, set[str | None]] = {}
    for case in cases:
        about = properties(case)
        found.setdefault(str(about["behavior"]).removeprefix("objects/"), set()).add(about["verdict"])

    several = found.pop("several")
    assert several == {"holds", "inconclusive", "broken"}
    assert found == {name: {verdict} for name, verdict in EXPECTED.items() if name != "several"}


def test_a_case_says_what_its_test_waited_for(cases: list[ElementTree.Element]) -> None:
    (waited,) = (properties(case).get("waited for pod_starts") for case in cases if case.get("name") == "test_waits")

    assert 0 < float(str(waited)) < 10


def test_a_case_is_a_failure_an_error_or_skipped_by_its_verdict(cases: list[ElementTree.Element]) -> None:
    for case in cases:
        tag = ELEMENTS[str(properties(case)["verdict"])]
        assert [it.tag for it in elements(case)] == ([tag] if tag else []), case.get("name")


def test_the_suite_counts_its_cases(suite: ElementTree.Element, cases: list[ElementTree.Element]) -> None:
    tags = [it.tag for case in cases for it in elements(case)]

    assert suite.get("tests") == str(len(cases))
    for tag, name in {"failure": "failures", "error": "errors", "skipped": "skipped"}.items():
        assert suite.get(name) == str(tags.count(tag))
        assert tags.count(tag) > 1


def test_a_message_is_the_reason_in_one_line(cases: list[ElementTree.Element]) -> None:
    messages = {str(case.get("name")): it.get("message", "") for case in cases for it in elements(case)}

    assert messages["test_broken"] == "assert 2 == 3"
    assert messages["test_inconclusive"] == "no client"
    assert messages["test_failed_fixture"] == "assert 0 == 1"
    assert messages["test_not_observed"] == "no second worker"
    assert messages["test_server_trouble[503]"].startswith("ApiRefusal: GET /x: 503")
    assert [text for text in messages.values() if not text or "\n" in text] == []


def test_the_whole_failure_is_the_text(cases: list[ElementTree.Element]) -> None:
    (failure,) = (it for case in cases if case.get("name") == "test_broken" for it in elements(case))

    assert {">   def test_broken(): assert 2 == 3", "E   assert 2 == 3"} <= set(str(failure.text).splitlines())


TWO_CASES = """<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="0" tests="2">
<testcase classname="suites.test_x.TestGroup" name="test_a[a::b]@cluster" file="suites/test_x.py" line="9">
<failure message="ConnectionError: reset&#10;last read: no Pod">whole</failure></testcase>
<testcase classname="suites.test_x.TestGroup" name="test_a[a::b]@cluster" file="suites/test_x.py" line="9">
<properties><property name="behavior" value="objects/a"/><property name="verdict" value="inconclusive"/></properties>
<error message="failed on teardown with &quot;AssertionError: left&#10;more&quot;">whole</error></testcase>
<testcase classname="" name="suites.test_y"><error message="collection&#10;failure">whole</error></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def twice(tmp_path: Path) -> ElementTree.Element:
    """A suite whose test failed in its call and again in its clean-up, and one that could not be collected."""
    ledger = Ledger({})
    phases = [("inconclusive", "ConnectionError: reset"), ("inconclusive", "left")]
    result = TestResult("inconclusive", "ConnectionError: reset", not_passed=phases)
    ledger.results["suites/test_x.py::TestGroup::test_a[a::b]"] = result
    file = tmp_path / "junit.xml"
    file.write_text(TWO_CASES)
    finish_junit(file, ledger)
    (suite,) = ElementTree.parse(file).iter("testsuite")
    return suite


def test_both_cases_of_a_test_that_failed_twice_are_errors_with_their_own_reasons(twice: ElementTree.Element) -> None:
    first, second, _ = twice.iter("testcase")

    assert [(it.tag, it.get("message")) for it in elements(first)] == [("error", "ConnectionError: reset")]
    assert [(it.tag, it.get("message")) for it in elements(second)] == [("error", "left")]
    assert (twice.get("failures"), twice.get("errors")) == ("0", "3")
    assert properties(first) == properties(second) == {"behavior": "objects/a", "verdict": "inconclusive"}


def test_a_case_has_the_tests_own_name_and_its_line_as_editors_count(twice: ElementTree.Element) -> None:
    case = next(twice.iter("testcase"))

    assert (case.get("name"), case.get("line")) == ("test_a[a::b]", "10")


def test_what_the_run_knows_nothing_of_has_one_line_too(twice: ElementTree.Element) -> None:
    *_, last = twice.iter("testcase")

    assert [it.get("message") for it in elements(last)] == ["collection"]
