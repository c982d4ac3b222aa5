"""SIGUSR1 asks a run what it does now: which tests run, for how long, what each waits for, and what it saw last.

Nothing is done until somebody asks. The controller then sends the signal on to its workers, and each of them writes a file
into the folder that the run's processes share. A handler never raises, and Python goes on with what the signal interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fixtures import waiting
from fixtures.hidden import hide
from fixtures.kube import last_read
from fixtures.patience import name_of
from lessons.catalogue import test_id
from machine.progress import line_of
from runner.capabilities import ANSWERS

#: Seconds within which workers must answer. One that is in a long call into the system's libraries cannot.
WITHIN = 2.0

#: The most characters of a line.
WIDTH = 300

#: The file of a worker that answers has its process id; the one of its answer what its test does.
PROCESS, ANSWER = ".process", ".answer"

#: What a process's test does now: `test`, `phase`, `at` (file and line), `wait` and `read`. Empty if it runs no test.
Look = dict[str, Any]

_listener: Callable[[Look], None] | None = None


def listen() -> None:
    """From now on SIGUSR1 asks this process, which is the run's controller."""
    signal.signal(signal.SIGUSR1, lambda _, frame: _asked(frame))


def _asked(frame: FrameType | None) -> None:
    with suppress(Exception):
        if _listener:
            _listener(look(frame))
        else:  # `print` may be at work already
            os.write(1, b"kubehave: no test runs now\n")


@contextmanager
def answered_by(listener: Callable[[Look], None]) -> Iterator[None]:
    """In this block `listener` gets what this process's own test does whenever SIGUSR1 arrives. It must use no lock."""
    global _listener
    _listener = listener
    try:
        yield
    finally:
        _listener = None


def pytest_sessionstart(session: pytest.Session) -> None:
    """In a worker of a run: answer the controller."""
    worker = getattr(session.config, "workerinput", {}).get("workerid")
    if worker and ANSWERS in session.config.stash:
        answer(session.config.stash[ANSWERS], worker)


def answer(folder: Path, worker: str) -> None:
    """From now on SIGUSR1 makes this process write what its test does into the folder. Say so there."""

    def write(_: int, frame: FrameType | None) -> None:
        with suppress(Exception):
            attempt = folder / f"{worker}{ANSWER}.new"
            attempt.write_text(json.dumps(look(frame)), encoding="utf-8")
            os.replace(attempt, folder / f"{worker}{ANSWER}")

    signal.signal(signal.SIGUSR1, write)
    (folder / f"{worker}{PROCESS}").write_text(str(os.getpid()), encoding="utf-8")


def forget(folder: Path, worker: str) -> None:
    """This worker has ended. Its process id may soon be another process's."""
    (folder / f"{worker}{PROCESS}").unlink(missing_ok=True)


def look(frame: FrameType | None) -> Look:
    """What the test of this process does now."""
    test, _, phase = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    if not test:
        return {}
    going = waiting.current()
    wait = None
    if going:
        seconds = time.monotonic() - going.since
        wait = {"for": name_of(going.budget), "allowed": float(going.budget), "seconds": seconds, "said": ""}
        if going.error:
            wait["said"] = _one_line(line_of(going.error))
    try:
        read = _one_line(last_read())
    except Exception as trouble:  # an object that cannot be described
        read = f"not known, because of {trouble}"
    return {"test": test_id(test), "phase": phase.strip("()"), "at": _place(frame), "wait": wait, "read": read}


def _place(frame: FrameType | None) -> str:
    """The line of the test that is carried out, or of its fixture: "suites/test_pods.py:71"; "" if it is in neither."""
    found = {"suites": "", "fixtures": ""}
    while frame:
        path = Path(frame.f_code.co_filename)
        if path.parent.name in found:
            found[path.parent.name] = f"{path.parent.name}/{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return found["suites"] or found["fixtures"]


def _one_line(text: str) -> str:
    text = " ".join(hide(text).split())
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."


def ask(folder: Path) -> list[Look]:
    """Ask all workers that answer in this folder, and return what arrives in time."""
    asked = []
    for process in folder.glob(f"*{PROCESS}"):
        file = process.with_suffix(ANSWER)
        file.unlink(missing_ok=True)
        with suppress(OSError, ValueError):
            os.kill(int(process.read_text(encoding="utf-8")), signal.SIGUSR1)
            asked.append(file)
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline and not all(file.exists() for file in asked):
        time.sleep(0.02)
    looks = []
    for file in asked:
        with suppress(OSError, ValueError):
            looks.append(json.loads(file.read_text(encoding="utf-8")))
    return [each for each in looks if each]


def told(running: Mapping[str, float], looks: Iterable[Look]) -> list[str]:
    """The tests that run, each with its seconds and what it does, as lines for people. The one that runs longest is first."""
    answers = {each["test"]: each for each in looks}
    lines = []
    for test, seconds in sorted(running.items(), key=lambda pair: -pair[1]):
        about = f"  {test}: {seconds:.0f} s"
        if test not in answers:
            lines.append(f"{about}; its process does not answer now")
            continue
        found = answers[test]
        at = f" at {found['at']}" if found["at"] else ""
        lines.append(f"{about}, {found['phase']}{at}")
        if wait := found["wait"]:
            said = f": {wait['said']}" if wait["said"] else ""
            lines.append(f"    waits for {wait['for']}, {wait['seconds']:.0f} s of {wait['allowed']:g} s{said}")
        if found["read"]:
            lines.append(f"    last read: {found['read']}")
    return lines
