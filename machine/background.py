"""Work that goes on beside a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeatedly(work: Callable[[], object], every: float) -> Iterator[None]:
    """During the block call `work` in a thread of its own, each time `every` seconds after it has ended. It must not raise."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
