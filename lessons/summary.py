"""What a pipeline shows of a run: only what does not hold, as Markdown, which GitHub also shows on the page of a job."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lessons.verdict_names import BROKEN, IN_PART, INCONCLUSIVE, NEVER_BEGAN, NOT_COLLECTED, NOT_OBSERVED, summary
from machine import exits
from machine.progress import line_of

#: The most bytes of a summary. GitHub refuses more than 1 MiB from a step, and a step may write several.
LIMIT = 60_000

#: The most characters of one text in it.
LONGEST = 1000

#: What the exit code says about a run in which nothing is broken or inconclusive.
ENDS = {
    None: "the run did not end",
    exits.HOLDS: "everything that ran holds",
    exits.BROKEN: "not all tests could run",
    exits.INTERRUPTED: "interrupted",
    exits.USAGE: "usage error",
    exits.NOTHING: "nothing was observed",
    exits.CLUSTER: "the cluster could not be tested",
    exits.MACHINE: "this machine lacks something",
    exits.LEFTOVERS: "something was left behind",
}

#: Characters that mean something to Markdown or HTML within a line.
SPECIAL = re.compile(r"[\\`*_\[\]<>|~$&#!]")

#: A heading, the lines of a table's head, and the lines below it.
Section = tuple[str, Sequence[str], Sequence[str]]


def escaped(text: object) -> str:
    """The text in one line of Markdown that shows it as it is, in a paragraph or in a table; long ones are cut."""
    line = " ".join(str(text).split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    return SPECIAL.sub(r"\\\g<0>", line)


def verdict_on(report: Mapping[str, Any]) -> str:
    """The verdict on a whole run in a few words: "2 broken, 1 inconclusive", "everything that ran holds"."""
    code = report["run"]["exit_code"]
    counts = Counter(row["verdict"] for row in report["behaviors"])
    bad = [f"{counts[verdict]} {verdict}" for verdict in (BROKEN, INCONCLUSIVE) if counts[verdict]]
    ended = [] if code == exits.BROKEN and bad else [ENDS.get(code, f"exit code {code}")]
    return ", ".join([*ended, *bad])


def cluster_of(run: Mapping[str, Any]) -> str:
    """The cluster of a run in a few words: "Kubernetes v1.36.3, 4 nodes, the suite's own cluster"; "" if it had none."""
    cluster = run.get("cluster") or {}
    parts = [f"Kubernetes {cluster['kubernetes']}"] if cluster.get("kubernetes") else []
    if nodes := cluster.get("nodes"):
        parts.append(f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}")
    if run.get("own_cluster"):
        parts.append("the suite's own cluster")
    elif run.get("context"):
        parts.append(f"context {run['context']}")
    return ", ".join(parts)


def times_of(run: Mapping[str, Any]) -> str:
    """The seconds of a run's phases: "cluster 23.4 s, tests 199.2 s"; "" if it had none."""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in (run.get("phases") or {}).items())


def markdown(report: Mapping[str, Any]) -> str:
    """The summary of a run: the verdict, counts, time and cluster, and what does not hold, with the reasons."""
    run, rows = report["run"], report["behaviors"]
    version = f"kubehave {run['version']}" if run.get("version") else ""
    rerun = f"again what did not hold in {run['rerun_of']}" if run.get("rerun_of") else ""
    about = [cluster_of(run), times_of(run), f"began {run['began']}" if run.get("began") else "", version, rerun]
    head = [
        f"# kubehave: {escaped(verdict_on(report))}",
        *(f"This cluster was wrong on purpose: {escaped(fault['says'])}" for fault in run.get("faults") or ()),
        f"{escaped(summary(list(rows))[0])}." if rows else "",
        f"{escaped('; '.join(part for part in about if part))}." if any(about) else "",
    ]
    return bounded(head, [_trouble(run), _not_holding(rows), _not_seen(rows)])


def bounded(head: Iterable[str], sections: Iterable[Section]) -> str:
    """A document of at most LIMIT bytes. Of what is too much, it says how many lines are left out."""
    sections = list(sections)
    blocks = [block for block in head if block]
    left_out = 0
    heads = [line for title, top, _ in sections for line in (f"## {title}", *top)]
    # The rest is room for the line that says how many are left out.
    room = LIMIT - 200 - sum(map(_size, [*blocks, *heads]))
    for title, top, lines in sections:
        kept = []
        for line in lines:
            if room < _size(line):
                left_out += 1
            else:
                room -= _size(line)
                kept.append(line)
        if kept:
            blocks += [f"## {title}", "\n".join([*top, *kept])]
    if left_out:
        blocks.append(f"{left_out} more lines are left out here; behaviors.json has everything.")
    return "\n\n".join(blocks) + "\n"


def _size(line: str) -> int:
    """The bytes of a line with its end, and with an empty line after it."""
    return len(line.encode()) + 2


def _trouble(run: Mapping[str, Any]) -> Section:
    told = {
        "trouble": [run["reason"]] if run["reason"] else [],
        "left behind, not removed": run.get("left_behind", ()),
        "not used": run.get("nodes_left_out", ()),
    }
    return "Trouble", (), [f"- **{what}**: {escaped(line)}" for what, lines in told.items() for line in lines]


def _not_holding(rows: Iterable[Mapping[str, Any]]) -> Section:
    """A table of what is broken, and below that of what is inconclusive although its test began."""
    lines = []
    for verdict in (BROKEN, INCONCLUSIVE):
        for row in rows:
            if row["verdict"] == verdict and not _never_ran(row):
                test = str(row.get("decided_by", "")).rpartition("::")[2]
                cells = (f"**{escaped(row['id'])}**: {escaped(row['says'])}", escaped(row["reason"]), escaped(test))
                lines.append(f"| {verdict} | {' | '.join(cells)} |")
    return "What does not hold", ("| verdict | behavior | reason | test |", "|---|---|---|---|"), lines


def _not_seen(rows: Iterable[Mapping[str, Any]]) -> Section:
    """What was not observed, or in part, or never ran. A reason that several behaviors share is written once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["verdict"] in (NOT_OBSERVED, IN_PART) or _never_ran(row):
            found.setdefault((row["verdict"], str(row["reason"])), []).append(row["id"])
    lines = [
        f"- **{verdict}** ({len(ids)}): {escaped(reason)}: {', '.join(map(escaped, ids))}"
        for (verdict, reason), ids in found.items()
    ]
    return "What was not seen", (), lines


def _never_ran(row: Mapping[str, Any]) -> bool:
    return row["reason"] in (NEVER_BEGAN, NOT_COLLECTED)


def append_to_step_summary(text: str) -> None:
    """Append the text to the file that GitHub shows on the job's page, if GITHUB_STEP_SUMMARY names one.

    A file that cannot be written is named on stderr; it changes nothing else.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        print(f"kubehave: the step summary cannot be written: {line_of(error)}", file=sys.stderr)
