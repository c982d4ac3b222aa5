"""Which signals interrupt a process, and which do not."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from machine.signals import interrupted_by_signals, signals_held

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of a new process; after the test those of pytest."""
    before = [(number, signal.getsignal(number)) for number in HANDLED]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_interrupts_as_sigterm_does(number: signal.Signals) -> None:
    interrupted_by_signals()

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_closed_terminal_does_not_interrupt_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    interrupted_by_signals()

    signal.raise_signal(signal.SIGHUP)


def test_a_closed_terminal_interrupts_once() -> None:
    interrupted_by_signals()

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGHUP)


def test_nothing_interrupts_work_that_must_be_done() -> None:
    interrupted_by_signals()
    before = [signal.getsignal(number) for number in HANDLED]

    with signals_held():
        for number in HANDLED:
            signal.raise_signal(number)

    assert [signal.getsignal(number) for number in HANDLED] == before
