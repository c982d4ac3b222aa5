"""A plugin of pytest: before a run's tests begin, and after they have ended, the run waits until the bench has measured.

A plain `./verify` removes its cluster as soon as its tests have ended, and what the bench wants to read goes with it.
The first pause is before xdist starts its workers, because they would collect the tests meanwhile.
The module stands alone, because it also runs in older checkouts, whose own packages have the names of ours.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import suppress

import pytest

#: The environment variable with the number of an open socket to the bench.
SOCKET = "KUBEHAVE_BENCH"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Wait for the bench before the tests."""
    _pause(session)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Wait for the bench after the tests, whatever came of them."""
    try:
        return (yield)
    finally:
        _pause(session)


def _pause(session: pytest.Session) -> None:
    """Wait until the bench answers. A worker of xdist does not wait, and nothing waits for a bench that has ended."""
    if hasattr(session.config, "workerinput"):
        return
    with socket.socket(fileno=os.dup(int(os.environ[SOCKET]))) as bench, suppress(OSError):
        bench.send(b".")
        bench.recv(1)
