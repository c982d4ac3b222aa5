"""Two runs side by side: what is newly broken, lost from sight, newly seen or mended, and what has become slower."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from lessons.layout import render
from lessons.summary import append_to_step_summary, bounded, cluster_of, escaped
from lessons.verdict_names import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED
from machine import exits
from machine.exits import CannotRun
from machine.progress import line_of, say

#: A test is slower if it took this many times as long, and at least this many seconds more.
TIMES, MORE_SECONDS = 1.5, 2.0

#: Tests shorter than this say nothing about the speed of a machine, and fewer tests than this do not either.
TELLING_SECONDS, TELLING_TESTS = 1.0, 5

#: Two runs whose tests took this many times as long, in the median, were not equally fast.
SAME_SPEED = 1.25

VERDICTS = (HOLDS, BROKEN, INCONCLUSIVE, NOT_OBSERVED, IN_PART, PLANNED)
ABSENT = "not there"

NEWLY_BROKEN, LOST, NEWLY_SEEN, MENDED = "newly broken", "lost from sight", "newly seen", "mended"

#: What each kind of change means. The first two are a step back.
KINDS = {
    NEWLY_BROKEN: "broken or inconclusive now, and it was not before",
    LOST: "it held, and now it is not observed, shown in part only, or not in the report",
    NEWLY_SEEN: "it holds now, and was not shown before",
    MENDED: "it holds now, and was broken or inconclusive before",
}


@dataclass(frozen=True)
class Change:
    """What became of a behavior: its verdicts in both runs ("not there" if one has no row of it), and the new reason."""

    id: str
    says: str
    before: str
    after: str
    reason: str

    @property
    def line(self) -> str:
        """The change in a line."""
        return f"{self.id}: {self.before} -> {self.after}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Slower:
    """Something that took longer, and its seconds in both runs."""

    what: str
    before: float
    after: float

    @property
    def line(self) -> str:
        """The times in a line."""
        return f"{self.what}: {self.before:.1f} s -> {self.after:.1f} s"


@dataclass(frozen=True)
class Comparison:
    """An earlier report and a later one."""

    old: Mapping[str, Any]
    new: Mapping[str, Any]

    @cached_property
    def changes(self) -> dict[str, list[Change]]:
        """The behaviors that changed, by the kinds of change, in the order of the reports."""
        before, after = ({row["id"]: row for row in report["behaviors"]} for report in (self.old, self.new))
        found: dict[str, list[Change]] = {kind: [] for kind in KINDS}
        for name in dict.fromkeys([*after, *before]):
            was, now = (rows.get(name, {"verdict": ABSENT}) for rows in (before, after))
            if kind := _kind(was["verdict"], now["verdict"]):
                says = (after.get(name) or before[name]).get("says", "")
                found[kind].append(Change(name, says, was["verdict"], now["verdict"], now.get("reason") or ""))
        return found

    @cached_property
    def slower(self) -> list[Slower]:
        """The phase of all tests, if it is slower, and each test that held in both runs and is; the largest loss first."""
        before, after = (report["run"].get("phases") or {} for report in (self.old, self.new))
        tests = [Slower(test, *seconds) for test, seconds in self._held_twice()]
        tests.sort(key=lambda test: test.before - test.after)
        whole = [Slower("all tests", before["tests"], after["tests"])] if "tests" in before and "tests" in after else []
        return [it for it in (*whole, *tests) if it.after > TIMES * it.before and it.after - it.before >= MORE_SECONDS]

    def _held_twice(self) -> Iterator[tuple[str, tuple[float, float]]]:
        """The tests that passed in both runs, with their seconds in both. Only their times are about the same thing."""
        for name, now in self.new["tests"].items():
            was = self.old["tests"].get(name, {})
            if was.get("verdict") == now["verdict"] == HOLDS:
                yield name, (was["seconds"], now["seconds"])

    @cached_property
    def warnings(self) -> list[str]:
        """What makes the two runs less comparable, one line each."""
        return [*self._without_verdicts(), *self._other_cluster(), *self._other_speed()]

    def _without_verdicts(self) -> Iterator[str]:
        for name, report in (("old", self.old), ("new", self.new)):
            run = report["run"]
            if not report["behaviors"]:
                yield f"the {name} report has no verdicts" + (f": {run['reason']}" if run.get("reason") else "")
            elif run.get("exit_code", exits.HOLDS) is None:
                yield f"the {name} run did not end: its report has the results so far"

    def _other_cluster(self) -> Iterator[str]:
        old, new = ((report["run"].get("cluster") or {}) for report in (self.old, self.new))
        was, now = (cluster.get("kubernetes") for cluster in (old, new))
        if was and now and was != now:
            yield f"not the same version of Kubernetes: {was} and {now}"
        nodes = [len(cluster.get("nodes") or ()) for cluster in (old, new)]
        if all(nodes) and nodes[0] != nodes[1]:
            yield f"not the same number of nodes: {nodes[0]} and {nodes[1]}"
        workers = [report["run"].get("workers") for report in (self.old, self.new)]
        if all(workers) and workers[0] != workers[1]:
            yield f"not the same number of tests at a time: {workers[0]} and {workers[1]}"

    def _other_speed(self) -> Iterator[str]:
        ratios = [now / was for _, (was, now) in self._held_twice() if was >= TELLING_SECONDS]
        ratio = median(ratios) if len(ratios) >= TELLING_TESTS else 1.0
        if ratio > SAME_SPEED or ratio < 1 / SAME_SPEED:
            yield (
                f"not the same speed: the tests took {ratio:.2g} times as long as before (the median of {len(ratios)}), "
                "so a slower test may only show another machine, or a busy one"
            )

    @property
    def exit_code(self) -> int:
        """1 if something is newly broken or lost from sight, otherwise 0."""
        return exits.BROKEN if self.changes[NEWLY_BROKEN] or self.changes[LOST] else exits.HOLDS

    @property
    def verdict(self) -> str:
        """How many of each kind in a line; the first two kinds even if there are none."""
        counts = {kind: len(changes) for kind, changes in self.changes.items()} | {"slower by half": len(self.slower)}
        return ", ".join(
            f"{number or 'nothing'} {kind}" for kind, number in counts.items() if number or kind in (NEWLY_BROKEN, LOST)
        )

    def runs(self) -> dict[str, dict[str, str]]:
        """What is known of the old run and of the new one: when it began, version, cluster and command; "" if unknown."""
        return {name: _about(report["run"]) for name, report in (("old", self.old), ("new", self.new))}

    def lines(self) -> list[str]:
        """The comparison for the terminal."""
        lines = [f"{name}: {_in_a_line(about)}" for name, about in self.runs().items()]
        lines += [f"warning: {line}" for line in self.warnings]
        for kind, changes in self.changes.items():
            lines += [f"  {kind}: {change.line}" for change in changes]
        lines += [f"  slower by half: {it.line}" for it in self.slower]
        return [*lines, self.verdict]

    def markdown(self) -> str:
        """The same as Markdown."""
        runs = [f"- **{name}**: {escaped(_in_a_line(about))}" for name, about in self.runs().items()]
        warnings = [f"**Warning**: {escaped(line)}." for line in self.warnings]
        head = [f"# kubehave, two runs: {escaped(self.verdict)}", "\n".join(runs), *warnings]
        lines = {kind: [it.line for it in changes] for kind, changes in self.changes.items()}
        lines["slower by half"] = [it.line for it in self.slower]
        return bounded(
            head, [(kind.capitalize(), (), [f"- {escaped(it)}" for it in some]) for kind, some in lines.items()]
        )


def _kind(before: str, after: str) -> str | None:
    """The kind of a change; None if it is none of them."""
    bad = (BROKEN, INCONCLUSIVE)
    if after in bad:
        return None if before in bad else NEWLY_BROKEN
    if after == HOLDS:
        return None if before == HOLDS else MENDED if before in bad else NEWLY_SEEN
    return LOST if before == HOLDS else None


def _in_a_line(about: Mapping[str, str]) -> str:
    return "; ".join(text for text in about.values() if text) or "unknown"


def _about(run: Mapping[str, Any]) -> dict[str, str]:
    return {
        "began": str(run.get("began") or ""),
        "version": f"kubehave {run['version']}" if run.get("version") else "",
        "cluster": cluster_of(run),
        "command": " ".join(map(str, run.get("command") or ())),
    }


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare two parsed reports."""
    return Comparison(old, new)


def read(path: Path) -> dict[str, Any]:
    """The report in a file, or in the behaviors.json of a folder.

    Raises CannotRun with the exit code of a usage error if there is none.
    """
    file = path / "behaviors.json" if path.is_dir() else path
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"{file} cannot be read: {error.strerror or line_of(error)}", exits.USAGE) from error
    except ValueError as error:
        raise CannotRun(f"{file} is not JSON: {line_of(error)}", exits.USAGE) from error
    if not _is_report(found):
        raise CannotRun(f"{file} is not a report: docs/behaviors.schema.json says what a report has", exits.USAGE)
    report: dict[str, Any] = found
    return report


def _is_report(found: Any) -> bool:
    """Whether a comparison can read this: what it takes from a report has the types that the schema says."""
    match found:
        case {"run": {**run}, "behaviors": [*rows], "tests": {**tests}}:
            cluster: Any = run.get("cluster") or {}
            phases: Any = run.get("phases") or {}
            return (
                isinstance(cluster, dict)
                and isinstance(cluster.get("nodes") or [], list)
                and isinstance(run.get("command") or [], list)
                and isinstance(phases, dict)
                and all(isinstance(seconds, int | float) for seconds in phases.values())
                and all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows)
                and all(
                    isinstance(test, dict) and isinstance(test.get("seconds"), int | float) for test in tests.values()
                )
                and all(thing.get("verdict") in VERDICTS for thing in (*rows, *tests.values()))
            )
    return False


def compare_page(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The comparison as a page of one file."""
    return render("compare.html", comparison=compare(old, new), kinds=KINDS)


def compare_files(old: Path, new: Path, folder: Path | None) -> int:
    """Print the comparison of two reports, write it as a page into the folder if one is named, and return the exit code.

    Where GITHUB_STEP_SUMMARY is set, the comparison is appended to that file.
    Raises CannotRun if there is no report, or if the page cannot be written.
    """
    earlier, later = read(old), read(new)
    comparison = compare(earlier, later)
    lines = comparison.lines()
    append_to_step_summary(comparison.markdown())
    if folder:
        page = folder / "compare.html"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            page.write_text(compare_page(earlier, later), encoding="utf-8")
        except OSError as error:
            raise CannotRun(f"the page cannot be written: {line_of(error)}") from error
        lines.append(f"page: {page}")
    with suppress(OSError):  # what reads the lines may have ended
        for line in lines:
            say(line)
    return comparison.exit_code
