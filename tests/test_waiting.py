"""`eventually` and `throughout` stop when they should, and say what they saw."""

import itertools
import re
import time
import traceback
from types import SimpleNamespace

import pytest

from fixtures import waiting
from fixtures.inconclusive import Inconclusive
from fixtures.patience import BUDGETS, Budget, Patience
from fixtures.waiting import eventually, throughout, waits


def test_eventually_ends_at_the_first_look_that_holds() -> None:
    looks = 0
    for look in eventually(within=5, every=0.01):
        with look:
            looks += 1
            assert looks == 3
    assert looks == 3


def test_eventually_raises_the_last_assertion_with_a_note() -> None:
    looks = 0
    with pytest.raises(AssertionError, match="saw nothing") as failure:
        for look in eventually(within=0.05, every=0.03):
            with look:
                looks += 1
                raise AssertionError(f"look {looks} saw nothing")

    (note,) = failure.value.__notes__
    assert note.startswith(f"still so after {looks} looks in 0.")
    assert note.endswith("(allowed: 0.05 s)")
    assert str(failure.value) == f"look {looks} saw nothing"


def test_no_look_counts_for_more_than_half_of_the_budget() -> None:
    looks = 0
    with pytest.raises(AssertionError):
        for look in eventually(within=0.05, every=0):
            with look:
                looks += 1
                if looks <= 2:
                    time.sleep(0.06)
                raise AssertionError("no")
    assert looks == 3


@pytest.mark.parametrize("error", [KeyError("typo"), ConnectionError("reset"), pytest.fail.Exception("no")])
def test_eventually_looks_again_after_assertions_only(error: BaseException) -> None:
    looks = 0
    with pytest.raises(type(error)):
        for look in eventually(within=5):
            with look:
                looks += 1
                raise error
    assert looks == 1


def test_the_report_of_a_failed_wait_shows_no_frame_of_tenacity() -> None:
    with pytest.raises(AssertionError) as failure:
        for look in eventually(within=0):
            with look:
                raise AssertionError("no")

    assert any("tenacity" in frame.filename for frame in traceback.extract_tb(failure.value.__traceback__))
    shown = failure.traceback.filter(failure)
    assert shown
    assert not any("tenacity" in str(entry.path) for entry in shown)


def test_throughout_looks_until_its_time_is_over_and_once_more() -> None:
    began = time.monotonic()
    looks = 0
    for look in throughout(lasting=0.1, every=0.02):
        with look:
            looks += 1
    assert looks >= 2
    assert time.monotonic() - began >= 0.1


def test_throughout_fails_at_the_first_look_that_does_not_hold() -> None:
    looks = 0
    with pytest.raises(AssertionError, match="gone") as failure:
        for look in throughout(lasting=5, every=0.01):
            with look:
                looks += 1
                assert looks < 3, "gone"
    (note,) = failure.value.__notes__
    assert note.startswith("no longer so at look 3")


def test_each_wait_is_noted_with_its_budget_its_beginning_and_its_seconds() -> None:
    budgets, looks = Patience(), 0
    waits()
    before = time.time()
    for _ in range(2):
        for look in eventually(within=budgets.pod_goes, every=0.01):
            with look:
                looks += 1
                assert looks % 2 == 0
    with pytest.raises(AssertionError):
        for look in eventually(within=0.02, every=0.01):
            with look:
                raise AssertionError("no")

    noted = waits()
    assert [wait.budget for wait in noted] == ["pod_goes", "pod_goes", "0.02 s"]
    assert all(0.01 <= wait.seconds < 1 for wait in noted)
    assert all(before <= wait.began <= time.time() for wait in noted)
    assert waits() == []


def test_patience_multiplies_every_budget_and_has_the_factor() -> None:
    slow = Patience()
    slow.multiply(3)

    assert "pod_starts" in BUDGETS
    assert all(getattr(slow, name) == 3 * getattr(Patience, name) for name in BUDGETS)
    assert slow.pod_starts.name == "pod_starts"
    assert (slow.factor, Patience().factor) == (3, 1)


@pytest.mark.parametrize(
    ("budget", "periods"),
    [
        ("pod_starts", [10, 15]),  # the scheduler's longest back-off, the kubelet's second try
        ("pod_goes", [15, 10]),  # the kubelet's second try, its report of the Pods' status
        ("pod_starts", [2, 1, 45]),  # a wait's first and next look for what makes it hopeless, and what it looks for
        ("controller_acts", [3, 3, 15, 5, 5]),  # a restart: the container, the program, the old lease, a try, the lists
        ("progress_deadline", [3, 1, 31]),  # the deadline, the controller's next look, a restart
        ("volume_binds", [15, 15, 15]),  # the volume controller's period, twice; local-path's first back-off
        ("volume_goes", [15, 15]),  # the volume controller's period, local-path's first back-off
        ("container_restarts", [30, 15]),  # the second back-off with what the kubelet adds, its second try
        ("service_rules", [30, 5]),  # kube-proxy's second try, and its wait for the xtables lock
        ("provider_answers", [5, 10]),  # a cloud's service controller's first back-offs
        ("names_follow", [30]),  # how long CoreDNS keeps "no such name"
        ("namespace_comes", [31]),  # a restart of kube-controller-manager
        ("node_is_missed", [50, 5, 31, 50]),  # the grace period twice, the node controller's period, a restart
    ],
)
def test_a_budget_outlasts_the_periods_that_can_fall_into_it(budget: str, periods: list[int]) -> None:
    assert getattr(Patience, budget) > sum(periods)


def failed_wait(patience: Patience, monkeypatch: pytest.MonkeyPatch) -> pytest.ExceptionInfo[Exception]:
    """The exception of a wait for a Pod whose two looks fail, as if each took half of its budget."""
    monkeypatch.setattr(waiting, "patience", patience)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=itertools.count(step=1000).__next__, time=time.time))
    with pytest.raises(Exception, match="web is Pending") as failure:
        for look in eventually(within=patience.pod_starts):
            with look:
                raise AssertionError("web is Pending")
    return failure


def test_after_two_failed_waits_for_pods_later_ones_are_short_and_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience()
    patience.multiply(2)

    assert failed_wait(patience, monkeypatch).type is AssertionError
    assert failed_wait(patience, monkeypatch).type is AssertionError
    assert [patience.pod_starts, patience.rollout] == [30.0, 60.0]
    third = failed_wait(patience, monkeypatch)

    assert third.type is Inconclusive
    assert str(third.value) == (
        "web is Pending; the budget pod_starts was shortened from 120 s to 30 s, because "
        "2 earlier waits for Pods had failed in this process (pod_starts, pod_starts)"
    )
    assert third.value.__notes__[0].startswith("still so after 2 looks in 0.")


def test_other_failed_waits_do_not_shorten_waits_for_pods() -> None:
    patience = Patience()

    for budget in (patience.pod_goes, patience.pod_starts, Budget(40)):
        patience.ran_out(budget)

    assert patience.pod_starts == Patience.pod_starts
    assert patience.pod_starts.shortened is None


def test_a_hopeless_wait_ends_before_its_budget() -> None:
    seen: list[tuple[str, bool]] = []

    def hopeless(error: BaseException, last: bool) -> None:
        seen.append((str(error), last))
        if len(seen) == 2:
            raise Inconclusive("no image")

    with pytest.raises(Inconclusive, match="no image") as end:
        for look in eventually(within=5, every=0.01, hopeless=hopeless):
            with look:
                raise AssertionError("Pending")

    assert seen == [("Pending", False)] * 2
    assert re.match(r"still so after 2 looks in [0-4]\.\d s \(allowed: 5 s\)", end.value.__notes__[0])


def test_hopeless_is_told_which_look_is_the_last() -> None:
    last_looks: list[bool] = []

    with pytest.raises(AssertionError, match="Pending"):
        for look in eventually(within=0.05, every=0.03, hopeless=lambda _, last: last_looks.append(last)):
            with look:
                raise AssertionError("Pending")

    assert last_looks[-1]
    assert not any(last_looks[:-1])
