"""Measure whole runs, as JSON: `tox run -e bench` (or `python -m measure.bench`).

A run is a plain `./verify`: it creates its cluster, and the cluster goes with it. Its figures are the median, the
smallest and the largest of all runs:

- `seconds`: the phases, as the run itself measures them. "tests" is the run; "cluster" is from nothing to ready,
- `cpu`: CPU-seconds in the phase "tests", by program (`measure/bench/usage.py` says how each is found),
- `requests`: requests to the API server in the phase "tests": all, and the ten largest by verb and resource,
- `count`: Pods that were created, tests, behaviors that hold,
- `memory`: the peak of the machine's memory, compared with the start of the run.

CPU time and requests are steadier than seconds, which depend on what else the machine and its host do ("machine, busy"
and "machine, stolen" show it).

`--against PATH` measures a second checkout of this project, also an older one: that one, this one, that one, this one.
`ratios` are this checkout's figures divided by the other's, pair by pair: 0.8 is a fifth less.
Runs are compared as a whole, even if the checkouts have different tests; see `count`.

On one more cluster, which is kept for it, `pod` is the cost of a Pod, from 100 that start and are deleted together, and
`conformance` compares the run with Kubernetes' own specs (not with `--no-conformance`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import engine as engines
from machine.exits import MACHINE, USAGE, CannotRun
from measure.bench.beside import compare
from measure.bench.figures import Figures, chosen, ratios, readme, shown, spreads
from measure.bench.run import Run, cold, measured
from runner.cluster import own_folders

ROOT = Path(__file__).parent.parent.parent

COLD = """also measure one run of each checkout's commit without Python environment and node image, and with empty caches of
pip, Go and this project, in temporary folders: "cold" has its phases. It takes 15 to 20 minutes and 16 GB. It does not
cover what stays where it is: Debian's packages that are installed, the container engine, and what registries and
mirrors keep. Where kind's public node image is on the machine or its registry answers, no image is built."""


def say(line: str) -> None:
    """Print one line of progress to stderr, because stdout is for the JSON."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m measure.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="PATH", help="compare with this checkout")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each checkout (default: 3)")
    parser.add_argument("--cold", action="store_true", help=COLD)
    parser.add_argument(
        "--no-conformance", action="store_true", help="neither the cost of a Pod nor Kubernetes' own specs"
    )
    parser.add_argument(
        "--readme", type=Path, metavar="FILE", help="print the README's lines from this JSON, and measure nothing"
    )
    parser.add_argument(
        "options", nargs="*", help="passed to every ./verify, after --, e.g. -- suites/test_pods.py --node-image NAME"
    )
    asked = parser.parse_args(arguments)
    if asked.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if asked.against and not (asked.against / "verify").exists():
        parser.error(f"--against: no ./verify in {asked.against}")
    return asked


def slowest(runs: Sequence[Run], number: int = 10) -> list[dict[str, Any]]:
    """The slowest tests, the slowest first, each with what it waited for."""
    worst: dict[str, dict[str, Any]] = {}
    for run in runs:
        for test, times in run.tests.items():
            if times["seconds"] > worst.get(test, {"seconds": 0})["seconds"]:
                worst[test] = {"test": test.removeprefix("suites/"), **times}
    return sorted(worst.values(), key=lambda times: -times["seconds"])[:number]


def commit(checkout: Path) -> str:
    """The commit of a checkout, with "-dirty" if files differ from it."""
    described = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(described, check=True, capture_output=True, text=True).stdout.strip()


def about(asked: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """What was measured, when, and on what machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(ROOT),
        "against": commit(asked.against) if asked.against else None,
        "options": asked.options,
        "repeats": repeats,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
    }


def measure(asked: argparse.Namespace, result: dict[str, Any]) -> None:
    """Measure everything that the command line asks for, into `result`, step by step. Raises CannotRun."""
    if kept := [folder.name for folder in own_folders() if (folder / "kept").exists()]:
        raise CannotRun(
            f"cluster {kept[0]} is kept, and a run would remove it: ./verify --remove, then try again", USAGE
        )
    engine = engines.find(install=False, say=say)
    checkouts = {"against": asked.against.resolve(), "this": ROOT} if asked.against else {"this": ROOT}
    runs: dict[str, list[Run]] = {name: [] for name in checkouts}
    for number in range(1, asked.repeats + 1):
        for name, checkout in checkouts.items():
            say(f"run {number} of {asked.repeats} of {checkout}")
            runs[name].append(measured(engine, checkout, asked.options, say))
            say(in_short(runs[name][-1].figures))
        result |= {"about": about(asked, number), **compared(runs), "slowest": slowest(runs["this"])}
    if asked.cold:
        result["cold"] = {name: cold(engine, checkout, asked.options) for name, checkout in checkouts.items()}
    if not asked.no_conformance:
        result["pod"], result["conformance"] = compare(engine, ROOT, asked.options, say)


def in_short(figures: Figures) -> str:
    """A run's main figures, on one line."""
    main = ("seconds/cluster", "seconds/tests", "cpu/nodes", "requests/all", "count/tests")
    return ", ".join(f"{name} {figures.get(name, 0):.0f}" for name in main)


def compared(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """The spread of the figures; if there is another checkout, also of its figures and of the ratios."""
    figures = {name: [run.figures for run in several] for name, several in runs.items()}
    ours = spreads(figures["this"])
    names = shown(ours)
    result = {"figures": chosen(ours, names)}
    if "against" in figures:
        result["against"] = chosen(spreads(figures["against"]), names)
        result["ratios"] = chosen(ratios(figures["this"], figures["against"]), names)
    return result


def main() -> int:
    """Print the JSON, also if something fails after the first run; or the README's lines from an earlier JSON."""
    asked = parse()
    if asked.readme:
        print(readme(json.loads(asked.readme.read_text())))
        return 0
    code = 0
    result: dict[str, Any] = {}
    try:
        measure(asked, result)
    except (CannotRun, RuntimeError) as stop:  # RuntimeError: the engine's command failed
        say(str(stop))
        code = getattr(stop, "exit_code", MACHINE)
    if result:
        print(json.dumps(result, indent=1))
    return code


if __name__ == "__main__":
    sys.exit(main())
