"""The progress of a run: on a terminal one line that is rewritten in place, in a log a line from time to time.

    87 of 179, about 1:10 left, running: a_node_is_lost (12 s), a_pod_restarts (3 s)

A test that does not hold is printed at once. With pytest's own -v, -s, --pdb or --setup-show, pytest prints what it always does,
and none of this is printed.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median
from threading import RLock, Thread
from typing import Any, TextIO

import pytest

from lessons.catalogue import test_id
from lessons.verdict_names import INCONCLUSIVE
from runner import inquiry
from runner.reasons import reason_of

#: Seconds between two looks of the line on a terminal, and between two lines in a log.
ON_A_TERMINAL, IN_A_LOG = 1.0, 20.0

#: The most characters of a line in a log, and of the line about a test that does not hold.
LOG_LINE, FAILED_LINE = 200, 400

#: For so many seconds of work the estimate assumes that all workers were busy and as fast as in the earlier run.
WARM_UP = 10.0

#: The estimate is rounded up to a multiple of so many seconds.
ROUNDED_TO = 5


@dataclass
class Course:
    """Which of the chosen tests have ended, which run, and how long the rest will take. Moments are monotonic, in seconds."""

    #: The seconds that tests took in an earlier run, by node id.
    earlier: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    #: The tests that have not begun, each with its group: the tests of a group run one after another.
    waiting: dict[str, str] = field(default_factory=dict)
    #: The tests that run, each with the moment of its beginning.
    running: dict[str, float] = field(default_factory=dict)
    #: The seconds of the tests that have ended.
    took: dict[str, float] = field(default_factory=dict)
    began: float | None = None
    _groups: dict[str, str] = field(default_factory=dict)

    def choose(self, nodeids: Iterable[str]) -> None:
        """Add the tests that will run."""
        for nodeid in nodeids:
            test = test_id(nodeid)
            if test not in self._groups:
                self._groups[test] = nodeid.removeprefix(test) or test
                self.waiting[test] = self._groups[test]

    def begin(self, nodeid: str, now: float) -> None:
        """A test begins."""
        self.began = now if self.began is None else self.began
        self.waiting.pop(test_id(nodeid), None)
        self.running[test_id(nodeid)] = now

    def end(self, nodeid: str, seconds: float) -> None:
        """A test has ended."""
        self.running.pop(test_id(nodeid), None)
        self.took[test_id(nodeid)] = seconds

    def left(self, now: float) -> float | None:
        """The seconds until all tests have ended; None if no test's time is known."""
        known = {**self.took, **self.earlier}
        if not known or self.began is None:
            return None
        usual = median(known.values())
        rest = {test: self.earlier.get(test, usual) for test in self.waiting}
        done = sum(known[test] for test in self.took)
        for test, since in self.running.items():
            whole = self.earlier.get(test, usual)
            rest[test] = max(0.0, whole - (now - since))
            done += whole - rest[test]
        groups: dict[str, float] = {}
        for test, seconds in rest.items():
            group = self._groups.get(test, test)
            groups[group] = groups.get(group, 0) + seconds
        # Seconds of work per second: how many tests run at a time, and how fast this machine is today.
        pace = (done + self.workers * WARM_UP) / (now - self.began + WARM_UP)
        return max([sum(rest.values()) / pace, *groups.values()])

    def summary(self, now: float) -> str:
        """How many tests have ended, and about how long the rest takes."""
        ended = f"{len(self.took)} of {len(self.took) + len(self.running) + len(self.waiting)}"
        left = self.left(now)
        return ended if left is None else f"{ended}, about {_as_clock(left)} left"

    def line(self, now: float) -> str:
        """The summary and the tests that run. The one that runs longest is first."""
        longest = sorted(self.running.items(), key=lambda pair: pair[1])
        running = ", ".join(f"{_name(test)} ({now - since:.0f} s)" for test, since in longest)
        return f"{self.summary(now)}, running: {running}" if running else self.summary(now)


def _as_clock(seconds: float) -> str:
    """Seconds as minutes and seconds, rounded up: "1:10"."""
    rounded = max(1, math.ceil(seconds / ROUNDED_TO)) * ROUNDED_TO
    minutes, rest = divmod(rounded, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _name(test: str) -> str:
    return test.rpartition("::")[2].removeprefix("test_")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: max(0, limit - 3)]}..."


class Screen:
    """A stream with at most one line at its end that is rewritten in place. Printing never fails: the terminal may be closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._shown, self._lock = stream, "", RLock()

    def rewrite(self, line: str) -> None:
        """Put this line, cut to the terminal's width, in the place of the present one."""
        with self._lock:
            line = _cut(line, self._columns() - 1)  # in the last column the terminal would begin another line
            if line != self._shown:
                self._write("\r" + line.ljust(len(self._shown)))
                self._shown = line

    def clear(self) -> None:
        """Take the line away. The cursor is then at the beginning of an empty line."""
        with self._lock:
            if self._shown:
                self._write("\r" + " " * len(self._shown) + "\r")
                self._shown = ""

    def say(self, *lines: str) -> None:
        """Print lines that stay."""
        with self._lock:
            self.clear()
            self._write("".join(f"kubehave: {line}\n" for line in lines))

    def end_line(self) -> None:
        """End the line that pytest has begun."""
        with self._lock:
            self._write("\n")

    @contextmanager
    def beside(self, writer: Any) -> Iterator[None]:
        """In this block everything that pytest's terminal writer prints takes the line away first."""
        write = writer.write_raw

        def write_raw(text: str, *, flush: bool = False) -> None:
            with self._lock:
                self.clear()
                write(text, flush=flush)

        vars(writer)["write_raw"] = write_raw
        try:
            yield
        finally:
            del vars(writer)["write_raw"]

    def _columns(self) -> int:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        return 80

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def seconds_of(report: Path) -> dict[str, float]:
    """The seconds that each test took, from the behaviors.json of an earlier run; none if there is no such file."""
    try:
        tests = json.loads(report.read_text(encoding="utf-8"))["tests"]
        return {test: float(result["seconds"]) for test, result in tests.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class Progress:
    """Prints the progress of the run, and answers SIGUSR1, in a thread of its own.

    `earlier` is the behaviors.json of an earlier run, and `answers` the folder that the run's processes share.
    """

    def __init__(self, config: pytest.Config, earlier: Path, answers: Path) -> None:
        self._config, self._answers = config, answers
        self._course = Course(seconds_of(earlier))
        self._seconds: dict[str, float] = {}
        self._lock = RLock()
        #: What wakes the thread: SIGUSR1 with what this process's own test does, or None at the end. Unlike a lock, it may
        #: be used in a handler of a signal.
        self._wakes: SimpleQueue[inquiry.Look | None] = SimpleQueue()
        self._screen: Screen | None = None
        self._stdout = sys.stdout
        self._replaces_pytest = self._on_a_terminal = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Print while the tests run."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        self._course.workers = self._config.getoption("numprocesses", None) or 1  # xdist has made a number of "auto"
        # Without xdist pytest captures the standard output while a test runs. This is the original one.
        self._stdout = sys.stdout
        stream = _copy_of(self._stdout) if reporter else None
        if reporter is None or stream is None:
            return (yield)
        self._replaces_pytest = not _prints_itself(self._config)
        self._on_a_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        if self._replaces_pytest:
            reporter.showfspath = False
        self._screen = screen = Screen(stream)
        thread = Thread(target=self._work, args=(screen,), name="progress", daemon=True)
        thread.start()
        with stream, screen.beside(self._config.get_terminal_writer()), inquiry.answered_by(self._wakes.put):
            try:
                return (yield)
            finally:
                self._replaces_pytest = False
                self._wakes.put(None)
                thread.join(inquiry.WITHIN + 1)
                screen.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> Generator[None, tuple[str, str, Any], tuple[str, str, Any]]:
        """Keep pytest from printing a letter for each test."""
        category, letter, word = yield
        return (category, "", "") if self._replaces_pytest else (category, letter, word)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Without xdist: count the tests."""
        self._choose(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """With xdist: count the tests. All workers have the same ones."""
        self._choose(ids)

    def _choose(self, ids: Iterable[str]) -> None:
        with self._lock:
            self._course.choose(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Count a test that begins."""
        self._flush()  # before pytest captures it
        with self._lock:
            self._course.begin(nodeid, time.monotonic())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that ends, and print it if it does not hold."""
        test = report.nodeid
        with self._lock:
            self._seconds[test] = self._seconds.get(test, 0) + report.duration
            if report.when not in ("setup", "call"):  # it is the clean-up, or its worker has died
                self._course.end(test, self._seconds.pop(test))
        if report.failed and self._replaces_pytest and self._screen:
            verdict = getattr(report, "verdict", INCONCLUSIVE)
            self._flush()
            self._screen.say(_cut(f"{verdict}: {test_id(test)}: {reason_of(report)}", FAILED_LINE))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Send no signal to a worker that has ended."""
        inquiry.forget(self._answers, node.workerinput["workerid"])

    def _flush(self) -> None:
        """Print what pytest has printed into the buffer of the standard output."""
        if self._screen:
            with suppress(OSError, ValueError):
                self._stdout.flush()

    def _work(self, screen: Screen) -> None:
        """Print until the tests have ended."""
        every = (ON_A_TERMINAL if self._on_a_terminal else IN_A_LOG) if self._replaces_pytest else None
        following = time.monotonic() + (every or 0)
        while True:
            try:
                own = self._wakes.get(timeout=None if every is None else max(0.0, following - time.monotonic()))
            except Empty:
                following = time.monotonic() + (every or 0)
                self._show(screen)
                continue
            if own is None:
                return
            self._answer(screen, own)

    def _show(self, screen: Screen) -> None:
        with self._lock:
            if self._course.began is None:
                return
            line = self._course.line(time.monotonic())
        if not self._on_a_terminal:
            if self._config.option.verbose >= 0:
                screen.say(_cut(line, LOG_LINE))
        elif not self._in_a_line():
            screen.rewrite(line)

    def _answer(self, screen: Screen, own: inquiry.Look) -> None:
        looks = inquiry.ask(self._answers) or ([own] if own else [])
        now = time.monotonic()
        with self._lock:
            running = {test: now - since for test, since in self._course.running.items()}
            summary = self._course.summary(now)
        if self._in_a_line():
            screen.end_line()
        screen.say(f"{summary}; running:" if running else summary, *inquiry.told(running, looks))

    def _in_a_line(self) -> bool:
        """Whether pytest has printed a line that has not ended."""
        return bool(self._config.get_terminal_writer().width_of_current_line)


def _copy_of(stream: TextIO) -> TextIO | None:
    """The same file again; None if the stream is no file, or is closed."""
    with suppress(OSError, ValueError):
        return os.fdopen(os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="replace")
    return None


def _prints_itself(config: pytest.Config) -> bool:
    """Whether pytest shall print what it always prints, because the tests or their details are printed, too."""
    details = ("setupshow", "usepdb", "trace")
    return (
        config.option.verbose > 0
        or config.getoption("capture", None) == "no"
        or any(config.getoption(name, False) for name in details)
    )
