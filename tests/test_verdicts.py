"""Test results become verdicts, reasons and the summary."""

from typing import Any, Literal

import pytest

from fixtures.api import ApiRefusal
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.waiting import Wait
from lessons.catalogue import Behavior
from lessons.verdict_names import summary
from machine.exits import BROKEN, HOLDS, NOTHING
from runner.evidence import IMAGE_MISSING, POD_REFUSED
from runner.verdicts import Ledger, TestResult, bounded, by_budget, judge, longest

CATALOGUE = {
    name: Behavior(name, "pods", "It does.", "that it does", planned=name.endswith("planned"))
    for name in ("objects/a", "objects/b", "objects/planned")
}

Phase = Literal["setup", "call", "teardown"]


def report(
    test: str,
    shows: list[str],
    outcome: Literal["passed", "failed", "skipped"] = "passed",
    when: Phase = "call",
    why: Any = None,
    verdict: str | None = None,
) -> pytest.TestReport:
    properties: list[tuple[str, object]] = [("behavior", name) for name in shows]
    made = pytest.TestReport(test, ("x.py", 1, test), {}, outcome, why, when, duration=0.5, user_properties=properties)
    if outcome == "failed":
        vars(made)["verdict"] = verdict or ("broken" if when == "call" else "inconclusive")
    return made


def ledger_of(*reports: pytest.TestReport, every: dict[str, list[str]] | None = None) -> Ledger:
    tests = {one.nodeid: [str(value) for _, value in one.user_properties] for one in reports}
    ledger = Ledger(CATALOGUE, every=tests if every is None else every)
    for one in reports:
        ledger.add(one)
    return ledger


def verdict_of(*reports: pytest.TestReport, behavior: str = "objects/a") -> tuple[str, str | None]:
    row = next(row for row in ledger_of(*reports).verdicts() if row["id"] == behavior)
    return row["verdict"], row["reason"]


def test_a_passed_test_shows_that_its_behavior_holds() -> None:
    shows = ["objects/a"]

    assert verdict_of(*(report("t", shows, when=when) for when in ("setup", "call", "teardown"))) == ("holds", None)


def test_a_failed_test_breaks_its_behavior() -> None:
    assert verdict_of(report("t", ["objects/a"], "failed", why="E  the Pod is Pending")) == (
        "broken",
        "E  the Pod is Pending",
    )


def refusal(status: int, message: str = "") -> ApiRefusal:
    return ApiRefusal("GET /x", status, f'{{"message": "{message}"}}')


POD_SECURITY = 'pods "web" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'


def noted(error: Exception, note: str) -> Exception:
    """The exception, with a note."""
    error.add_note(note)
    return error


@pytest.mark.parametrize(
    ("error", "when", "verdict"),
    [
        (AssertionError("no"), "call", "broken"),
        (AssertionError("no"), "setup", "inconclusive"),
        (refusal(404), "call", "broken"),
        (refusal(404), "setup", "inconclusive"),
        (refusal(503), "call", "inconclusive"),
        (refusal(403, "a webhook says no"), "call", "inconclusive"),
        (TimeoutError("no answer"), "call", "inconclusive"),
        (ValueError("not enough values to unpack"), "call", "inconclusive"),
        (pytest.fail.Exception("Timeout (>180.0s)"), "call", "inconclusive"),
        (Inconclusive("no client"), "call", "inconclusive"),
        (NotObserved("no worker"), "call", "not observed"),
        (NotObserved("no worker"), "setup", "not observed"),
        (AssertionError(f"kubectl: {POD_SECURITY}"), "call", "not observed"),
        (noted(AssertionError("no Pod"), f"{POD_REFUSED}: {POD_SECURITY}"), "call", "not observed"),
        (noted(Inconclusive("no Pod"), f"{POD_REFUSED}: {POD_SECURITY}"), "setup", "not observed"),
        (noted(AssertionError("no Pod"), f"last read: {POD_SECURITY}"), "call", "broken"),
        (noted(AssertionError("no Pod"), f"{IMAGE_MISSING}nginx:1"), "call", "inconclusive"),
        (noted(refusal(400, "no container to exec in"), f"{IMAGE_MISSING}nginx:1"), "call", "inconclusive"),
    ],
)
def test_only_an_assertion_or_a_refusal_in_the_call_breaks(error: Exception, when: Phase, verdict: str) -> None:
    assert judge(error, when) == verdict


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_an_error_is_inconclusive(when: Phase) -> None:
    failed = report("t", ["objects/a"], "failed", when, "no client Pod")

    assert verdict_of(report("t", ["objects/a"]), failed) == ("inconclusive", "no client Pod")


def test_a_worker_that_died_is_inconclusive() -> None:
    died = report("t", ["objects/a"], "failed", why="worker 'gw0' crashed while running 't'")
    del vars(died)["verdict"]

    assert verdict_of(died)[0] == "inconclusive"


def test_a_set_up_without_a_call_shows_nothing() -> None:
    assert verdict_of(report("t", ["objects/a"], when="setup")) == ("inconclusive", "its test began and did not end")


def test_a_test_that_runs_once_more_does_not_hold_before_that() -> None:
    """A plugin that repeats failed tests gives the first report of a call an outcome of its own."""
    again = report("t", ["objects/a"])
    vars(again)["outcome"] = "rerun"

    assert verdict_of(again) == ("inconclusive", "its test began and did not end")


def test_a_skip_is_not_observed_and_says_why() -> None:
    skipped = report("t", ["objects/a"], "skipped", "setup", ("x.py", 1, "Skipped: the cluster lacks storage"))

    assert verdict_of(skipped) == ("not observed", "the cluster lacks storage")


@pytest.mark.parametrize(
    ("others", "verdict"),
    [
        ([("failed", "call"), ("failed", "setup"), ("skipped", "setup"), ("passed", "call")], "broken"),
        ([("failed", "setup"), ("skipped", "setup"), ("passed", "call")], "inconclusive"),
        ([("skipped", "setup"), ("passed", "call")], "not observed"),
    ],
)
def test_the_worst_verdict_of_several_tests_counts(others: list[tuple[Any, Any]], verdict: str) -> None:
    reports = [report(f"t{n}", ["objects/a"], outcome, when, "x") for n, (outcome, when) in enumerate(others)]

    assert verdict_of(*reports)[0] == verdict


@pytest.mark.parametrize(
    ("outcome", "verdict", "reason"),
    [("passed", "in part", "1 of 3 tests ran"), ("failed", "broken", "x"), ("skipped", "not observed", "x")],
)
def test_some_of_a_behaviors_tests_can_break_it_but_not_make_it_hold(outcome: Any, verdict: str, reason: str) -> None:
    every = {name: ["objects/a"] for name in ("t", "u", "v")}

    ledger = ledger_of(report("t", ["objects/a"], outcome, why="x"), every=every)

    row = ledger.verdicts()[0]
    assert (row["verdict"], row["reason"]) == (verdict, reason)
    assert row["tests"] == ["t", "u", "v"]
    assert row["ran"] == ["t"]


def test_nothing_holds_if_the_other_tests_are_not_known() -> None:
    ledger = ledger_of(report("t", ["objects/a"]))
    ledger.every = None

    assert ledger.verdicts()[0]["verdict"] == "in part"


def test_tests_that_never_began_and_tests_that_did_not_end_have_different_reasons() -> None:
    ledger = Ledger(CATALOGUE, every={"t": ["objects/a"], "u": ["objects/b"]})
    ledger.choose(["t", "u"])
    ledger.begin("t")

    assert [(row["verdict"], row["reason"]) for row in ledger.verdicts()[:2]] == [
        ("inconclusive", "its test began and did not end"),
        ("inconclusive", "its test never began"),
    ]


def test_only_chosen_and_planned_behaviors_have_a_verdict() -> None:
    assert {row["id"]: row["verdict"] for row in ledger_of(report("t", ["objects/a"])).verdicts()} == {
        "objects/a": "holds",
        "objects/planned": "planned",
    }


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], NOTHING),
        (["skipped"], NOTHING),
        (["passed", "skipped"], HOLDS),
        (["passed", "failed"], BROKEN),
    ],
)
def test_the_exit_code_comes_from_the_verdicts(outcomes: list[Any], code: int) -> None:
    reports = [report(f"t{n}", ["objects/a"], outcome, why="x") for n, outcome in enumerate(outcomes)]

    assert ledger_of(*reports).exit_code() == code


def test_a_chosen_test_that_never_ran_is_no_success() -> None:
    ledger = ledger_of(report("t", ["objects/a"]))
    ledger.choose(["u"])

    assert ledger.exit_code() == BROKEN


def test_the_seconds_of_all_phases_and_tests_are_added() -> None:
    phases: tuple[Phase, ...] = ("setup", "call", "teardown")

    assert ledger_of(*(report("t", ["objects/a"], when=when) for when in phases)).verdicts()[0]["seconds"] == 1.5


def test_the_verdict_of_a_failed_call_stays_after_its_teardown() -> None:
    result = TestResult()
    result.add(report("t", [], "failed", "call", "first"))
    result.add(report("t", [], "failed", "teardown", "second"))

    assert (result.verdict, result.reason) == ("broken", "first")


def test_a_reason_is_one_line_of_bounded_length() -> None:
    why = f"AssertionError: {'x' * 500}\nstill so after 3 looks"

    _, reason = verdict_of(report("t", ["objects/a"], "failed", why=why))

    assert reason == f"{'x' * 300}... (still so after 3 looks)"


def test_a_test_says_what_it_waited_for() -> None:
    ended = report("t", ["objects/a"], when="teardown")
    ended.user_properties.append(("waited for pod_starts", "2.50"))

    ledger = ledger_of(report("t", ["objects/a"], when="setup"), report("t", ["objects/a"]), ended)

    assert ledger.tests() == {
        "t": {"verdict": "holds", "reason": None, "seconds": 1.5, "waited": {"pod_starts": 2.5}},
    }


def test_a_test_says_when_it_ran_and_what_it_saw() -> None:
    setup, call, teardown = (report("t", ["objects/a"], when=when) for when in ("setup", "call", "teardown"))
    for number, phase in enumerate((setup, call, teardown)):
        vars(phase).update(start=1000.0 + number, worker_id="gw1")
    vars(teardown).update(seen=["Pod web is Running"], waits=[("pod_starts", 1001.25, 0.5)])

    (more,) = ledger_of(setup, call, teardown).tests(since=990.0).values()

    assert (more["began"], more["worker"], more["behaviors"]) == (10.0, "gw1", ["objects/a"])
    assert more["phases"] == {"setup": 0.5, "call": 0.5, "teardown": 0.5}
    assert more["waits"] == [{"for": "pod_starts", "began": 11.25, "seconds": 0.5}]
    assert more["seen"] == ["Pod web is Running"]
    assert (more["failure"], more["evidence"]) == (None, None)


def test_of_many_waits_the_longest_are_kept_in_their_order() -> None:
    waits = [Wait("pod_starts", 1000.0 + number, 1 + number / 10) for number in range(60)]

    kept = longest([*waits, Wait("stays_so", 999.0, 0.05)])

    assert [began for _, began, _ in kept] == [1020.0 + number for number in range(40)]
    assert by_budget(waits) == {"pod_starts": pytest.approx(60 + 177)}


def test_the_text_of_a_failure_is_bounded() -> None:
    lines = bounded("\n".join(["x" * 1000, *map(str, range(200))])).splitlines()

    assert len(lines) == 101
    assert lines[0] == "x" * 400 + "..."
    assert lines[50] == "(101 lines are left out)"
    assert lines[-1] == "199"


def test_a_behavior_says_what_was_simulated() -> None:
    ended = report("t", ["objects/a"], when="teardown")
    ended.user_properties.append(("load balancer", "simulated by the suite"))

    rows = ledger_of(report("t", ["objects/a"]), ended).verdicts()

    assert rows[0]["remarks"] == ["load balancer: simulated by the suite"]
    assert "  load balancer: simulated by the suite: objects/a" in summary(rows)


def test_behaviors_that_never_began_share_one_line_of_the_summary() -> None:
    ledger = Ledger(CATALOGUE, every={"t": ["objects/a"], "u": ["objects/b"]})
    ledger.choose(["t", "u"])

    assert "  inconclusive: its test never began: objects/a, objects/b" in summary(ledger.verdicts())


def test_the_summary_has_the_reasons_of_behaviors_that_do_not_hold() -> None:
    lacks = ("x.py", 1, "Skipped: the cluster lacks storage")
    catalogue = {name: Behavior(name, "pods", "It does.", "that") for name in ("objects/c", "objects/d")}
    ledger = ledger_of(
        report("t", ["objects/a"]),
        report("u", ["objects/b"], "failed", why="E  two Pods, not three"),
        *(report(name, [name], "skipped", why=lacks) for name in catalogue),
    )
    ledger.catalogue = CATALOGUE | catalogue

    assert summary(ledger.verdicts()) == [
        "1 of 4 behaviors hold, 1 broken, 2 not observed (1 more are planned)",
        "  broken: objects/b, u: E  two Pods, not three",
        "  not observed: the cluster lacks storage: objects/c, objects/d",
    ]


def test_walkthroughs_are_counted_apart() -> None:
    names = ("objects/a", "walkthroughs/a", "walkthroughs/b")
    ledger = ledger_of(
        report("t", ["objects/a"]),
        report("u", ["walkthroughs/a"]),
        report("v", ["walkthroughs/b"], "failed", why="E  x"),
    )
    ledger.catalogue = {name: Behavior(name, "pods", "It does.", "that it does") for name in names}

    assert summary(ledger.verdicts()) == [
        "1 of 1 behaviors hold; 1 of 2 walkthroughs hold, 1 broken",
        "  broken: walkthroughs/b, v: E  x",
    ]
    assert ledger.exit_code() == BROKEN


def test_a_run_without_a_verdict_says_so() -> None:
    assert summary([]) == ["0 of 0 behaviors hold"]
