"""Lines of progress."""

from __future__ import annotations

from collections.abc import Callable

#: A function that takes one line of progress.
Say = Callable[[str], None]


def say(line: str) -> None:
    """Print one line of progress, at once."""
    print(f"kubehave: {line}", flush=True)
