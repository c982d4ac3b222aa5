"""Signals that interrupt a process, and work that no signal interrupts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def interrupted_by_signals() -> None:
    """From now on SIGTERM and a closed terminal (SIGHUP) end the process as Ctrl-C does.

    SIGTERM does so also where a shell has made the process ignore SIGINT. SIGHUP stays ignored if it is, as under nohup.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(*_: object) -> NoReturn:
    """Interrupt the process once: when a terminal is closed, the kernel and the shell each send a SIGHUP."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def signals_held() -> Iterator[None]:
    """Ignore signals in the block. Another Ctrl-C during a clean-up would only leave things behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    held = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
