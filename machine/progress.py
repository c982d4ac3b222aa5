"""Lines of progress."""

from __future__ import annotations

from collections.abc import Callable

#: A function that takes one line of progress.
Say = Callable[[str], None]


def say(line: str) -> None:
    """Print one line of progress, at once."""
    print(f"kubehave: {line}", flush=True)


def line_of(error: BaseException) -> str:
    """An exception in one line: the first one of its text, or its class."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
