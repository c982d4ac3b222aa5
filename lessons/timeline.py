"""The tests of a run in time: which worker ran which test when, how long it waited, and what ran beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lessons.layout import seconds
from lessons.verdict_names import BROKEN, INCONCLUSIVE

#: The size of the picture, in its own units: its width, the part for the lanes' names, a lane's height and the gap below.
WIDTH, LEFT, LANE, GAP, TOP = 1120, 44, 24, 6, 22

#: Possible distances of the ticks in seconds: the first one that gives few enough of them.
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)
TICKS = 12


@dataclass(frozen=True)
class Span:
    """A part of a bar: where it begins and its width."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class Bar:
    """A test: `began` and `ended` in seconds since the tests began, and its parts and waits in the picture's units."""

    test: str
    verdict: str
    worker: str
    began: float
    ended: float
    y: int
    parts: tuple[Span, ...]
    waits: tuple[Span, ...]
    words: str

    @property
    def failed(self) -> bool:
        """Whether the test is broken or inconclusive."""
        return self.verdict in (BROKEN, INCONCLUSIVE)

    @property
    def x(self) -> float:
        """Where it begins in the picture."""
        return self.parts[0].x


@dataclass(frozen=True)
class Timeline:
    """The picture: its height, its lanes with their names, its ticks, and the tests as bars."""

    seconds: float
    height: int
    lanes: tuple[tuple[str, int], ...]
    ticks: tuple[tuple[str, float], ...]
    bars: tuple[Bar, ...]

    @property
    def busy(self) -> float:
        """The part of the workers' time in which they had a test."""
        return min(1.0, sum(bar.ended - bar.began for bar in self.bars) / (len(self.lanes) * self.seconds))

    @property
    def last(self) -> Bar:
        """The test that ended last."""
        return max(self.bars, key=lambda bar: bar.ended)

    def beside(self, test: str) -> list[tuple[Bar, float]]:
        """The tests that ran at the same time as this one, and for how many seconds; the longest first."""
        this = next((bar for bar in self.bars if bar.test == test), None)
        if this is None:
            return []
        found = [(bar, min(bar.ended, this.ended) - max(bar.began, this.began)) for bar in self.bars if bar is not this]
        return sorted(((bar, both) for bar, both in found if both > 0), key=lambda pair: -pair[1])


def timeline(report: Mapping[str, Any]) -> Timeline | None:
    """The timeline of a report; None if it does not say when the tests began."""
    tests = {name: test for name, test in (report.get("tests") or {}).items() if test.get("began") is not None}
    if not tests:
        return None
    ended = {name: test["began"] + sum(part for _, part in _phases(test)) for name, test in tests.items()}
    whole = max(0.1, *ended.values())
    scale = (WIDTH - LEFT) / whole
    workers = sorted({_worker(test) for test in tests.values()}, key=_natural)
    places = {worker: TOP + number * (LANE + GAP) for number, worker in enumerate(workers)}
    bars = [
        Bar(
            test=name,
            verdict=test["verdict"],
            worker=_worker(test),
            began=test["began"],
            ended=ended[name],
            y=places[_worker(test)],
            parts=tuple(_parts(test, scale)),
            waits=tuple(_waits(test, ended[name], scale)),
            words=_words(test),
        )
        for name, test in tests.items()
    ]
    return Timeline(
        seconds=whole,
        height=TOP + len(workers) * (LANE + GAP),
        lanes=tuple(places.items()),
        ticks=tuple((_clock(at), round(LEFT + at * scale, 1)) for at in _ticks(whole)),
        bars=tuple(sorted(bars, key=lambda bar: (bar.y, bar.began))),
    )


def _worker(test: Mapping[str, Any]) -> str:
    return test.get("worker") or "main"


def _natural(worker: str) -> tuple[int, str]:
    """Sorts gw10 after gw9."""
    number = re.search(r"\d+$", worker)
    return (int(number[0]) if number else -1, worker)


def _phases(test: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The phases of a test in order, with their seconds. An old report does not tell them apart."""
    phases = test.get("phases")
    if not phases:
        yield "call", test.get("seconds") or 0
        return
    for name in ("setup", "call", "teardown"):
        if name in phases:
            yield name, phases[name]


def _parts(test: Mapping[str, Any], scale: float) -> Iterator[Span]:
    at = test["began"]
    for name, length in _phases(test):
        yield Span(name, round(LEFT + at * scale, 1), max(1.0 if name == "call" else 0.0, round(length * scale, 1)))
        at += length


def _waits(test: Mapping[str, Any], ended: float, scale: float) -> Iterator[Span]:
    for wait in test.get("waits") or ():
        width = round((min(wait["began"] + wait["seconds"], ended) - wait["began"]) * scale, 1)
        if width >= 0.3:
            yield Span(wait["for"], round(LEFT + wait["began"] * scale, 1), width)


def _words(test: Mapping[str, Any]) -> str:
    """How long the phases took, and what the test waited for: "3.1 s; set-up 0.5 s; waited 2.0 s for pod_starts"."""
    names = {"setup": "set-up", "teardown": "clean-up"}
    parts = [seconds(sum(length for _, length in _phases(test)))]
    parts += [f"{names[name]} {seconds(length)}" for name, length in _phases(test) if name in names and length >= 0.05]
    waited = [f"{seconds(length)} for {name}" for name, length in (test.get("waited") or {}).items() if length >= 0.05]
    return "; ".join(parts + ([f"waited {', '.join(waited)}"] if waited else []))


def _ticks(whole: float) -> Iterator[int]:
    step = next((step for step in STEPS if whole / step <= TICKS), STEPS[-1])
    return iter(range(0, int(whole) + 1, step))


def _clock(at: int) -> str:
    return f"{at} s" if at < 60 else f"{at // 60}:{at % 60:02}"
