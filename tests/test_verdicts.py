"""From test results to verdicts, and to what a person reads of them."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from runner.catalogue import Behavior
from runner.verdicts import Ledger, TestResult, summary, write

CATALOGUE = {
    name: Behavior(name, "pods", "It does.", "that it does", planned=name.endswith("planned"))
    for name in ("objects/a", "objects/b", "objects/planned")
}


def report(
    test: str,
    shows: list[str],
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    when: Literal["setup", "call", "teardown"] = "call",
    why: Any = None,
) -> pytest.TestReport:
    properties: list[tuple[str, object]] = [("behavior", name) for name in shows]
    return pytest.TestReport(test, ("x.py", 1, test), {}, outcome, why, when, duration=0.5, user_properties=properties)


def verdict_of(*reports: pytest.TestReport, behavior: str = "objects/a") -> tuple[str, str | None]:
    ledger = Ledger(CATALOGUE)
    for one in reports:
        ledger.add(one)
    row = next(row for row in ledger.verdicts() if row["id"] == behavior)
    return row["verdict"], row["reason"]


def test_a_passed_test_shows_that_its_behavior_holds() -> None:
    shows = ["objects/a"]

    assert verdict_of(*(report("t", shows, when=when) for when in ("setup", "call", "teardown"))) == ("holds", None)


def test_a_failed_test_breaks_its_behavior() -> None:
    assert verdict_of(report("t", ["objects/a"], "failed", why="E  the Pod is Pending")) == (
        "broken",
        "E  the Pod is Pending",
    )


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_an_error_could_not_look(when: Literal["setup", "teardown"]) -> None:
    failed = report("t", ["objects/a"], "failed", when, "no client Pod")

    assert verdict_of(report("t", ["objects/a"]), failed) == ("could not look", "no client Pod")


def test_a_set_up_alone_shows_nothing() -> None:
    assert verdict_of(report("t", ["objects/a"], when="setup")) == ("could not look", "its test did not end")


def test_a_skip_is_not_observed_and_says_why() -> None:
    skipped = report("t", ["objects/a"], "skipped", "setup", ("x.py", 1, "Skipped: the cluster lacks storage"))

    assert verdict_of(skipped) == ("not observed", "the cluster lacks storage")


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ([("failed", "call"), ("failed", "setup"), ("skipped", "setup"), ("passed", "call")], "broken"),
        ([("failed", "setup"), ("skipped", "setup"), ("passed", "call")], "could not look"),
        ([("skipped", "setup"), ("passed", "call")], "not observed"),
    ],
)
def test_the_worst_of_several_tests_counts(others: list[tuple[Any, Any]], verdict: str) -> None:
    reports = [report(f"t{n}", ["objects/a"], outcome, when, "x") for n, (outcome, when) in enumerate(others)]

    assert verdict_of(*reports)[0] == verdict


def test_a_chosen_test_without_a_report_could_not_look() -> None:
    ledger = Ledger(CATALOGUE, chosen={"t": ["objects/a"]})

    (row, _) = ledger.verdicts()
    assert (row["verdict"], row["reason"]) == ("could not look", "its test did not end")


def test_what_was_not_chosen_has_no_verdict_and_what_is_planned_says_so() -> None:
    ledger = Ledger(CATALOGUE)
    ledger.add(report("t", ["objects/a"]))

    assert {row["id"]: row["verdict"] for row in ledger.verdicts()} == {
        "objects/a": "holds",
        "objects/planned": "planned",
    }


def test_the_seconds_of_all_phases_and_tests_are_added() -> None:
    ledger = Ledger(CATALOGUE)
    for when in ("setup", "call", "teardown"):
        ledger.add(report("t", ["objects/a"], when=when))

    assert ledger.verdicts()[0]["seconds"] == 1.5


def test_a_failed_call_is_not_made_milder_by_its_teardown() -> None:
    result = TestResult()
    result.add(report("t", [], "failed", "call", "first"))
    result.add(report("t", [], "failed", "teardown", "second"))

    assert (result.verdict, result.reason) == ("broken", "first")


def test_a_reason_is_one_line_of_bounded_length() -> None:
    why = f"AssertionError: {'x' * 500}\nstill so after 3 looks"

    _, reason = verdict_of(report("t", ["objects/a"], "failed", why=why))

    assert reason == f"{'x' * 300}... (still so after 3 looks)"


def test_a_test_says_what_it_waited_for() -> None:
    ledger = Ledger(CATALOGUE)
    ended = report("t", ["objects/a"], when="teardown")
    ended.user_properties.append(("waited for pod_starts", "2.50"))
    for one in (report("t", ["objects/a"], when="setup"), report("t", ["objects/a"]), ended):
        ledger.add(one)

    assert ledger.tests() == {"t": {"seconds": 1.5, "waited": {"pod_starts": 2.5}}}


def test_behaviors_json_and_summary(tmp_path: Path) -> None:
    ledger = Ledger(CATALOGUE)
    ledger.add(report("t", ["objects/a"]))
    ledger.add(report("u", ["objects/b"], "failed", why="E  two Pods, not three"))
    rows = ledger.verdicts()

    write(tmp_path / "report" / "behaviors.json", run={"id": "1"}, behaviors=rows, tests=ledger.tests())

    written = json.loads((tmp_path / "report" / "behaviors.json").read_text())
    assert written["run"] == {"id": "1"}
    assert set(written["behaviors"][0]) == {*("id", "topic", "verdict", "reason", "decided_by", "tests", "seconds")}
    assert set(written["tests"]) == {"t", "u"}
    assert summary(rows) == [
        "1 holds, 1 broken (1 more are planned)",
        "  broken: objects/b, u: E  two Pods, not three",
    ]
