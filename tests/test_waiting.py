"""The waiting verbs stop when they should, and say what they saw."""

import time
import traceback

import pytest

from fixtures.patience import BUDGETS, Patience
from fixtures.waiting import eventually, throughout, waited


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


def test_throughout_looks_until_the_time_is_over_and_once_more() -> None:
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


def test_what_was_waited_for_is_known_by_its_budget() -> None:
    budgets, waits = Patience(), 0
    waited()
    for _ in range(2):
        for look in eventually(within=budgets.pod_goes, every=0.01):
            with look:
                waits += 1
                assert waits % 2 == 0
    with pytest.raises(AssertionError):
        for look in eventually(within=0.02, every=0.01):
            with look:
                raise AssertionError("no")

    seconds = waited()
    assert seconds.keys() == {"pod_goes", "0.02 s"}
    assert 0.02 <= seconds["pod_goes"] < 1
    assert waited() == {}


def test_patience_multiplies_every_budget() -> None:
    slow = Patience()
    slow.multiply(3)

    assert "pod_starts" in BUDGETS
    assert all(getattr(slow, name) == 3 * getattr(Patience, name) for name in BUDGETS)
    assert slow.pod_starts.name == "pod_starts"


def test_patience_with_pods_is_over_when_none_ever_starts() -> None:
    patience = Patience()

    patience.ran_out(patience.pod_starts)
    patience.ran_out(patience.pod_goes)
    assert patience.pod_starts == Patience.pod_starts

    patience.ran_out(patience.rollout)
    assert patience.pod_starts == Patience.POD_STARTS_AT_LAST
    assert patience.rollout == 2 * Patience.POD_STARTS_AT_LAST
