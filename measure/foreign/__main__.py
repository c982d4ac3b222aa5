"""Makes clusters that are not the suite's own, runs `./verify --context` on each, and checks the results.

`tox run -e foreign` does this for all rows, one after another. `tox run -e foreign -- admin one-node` does it for these
rows. Reports and logs stay in the cache folder, under foreign/. Exit code 0: every row gave the expected result;
otherwise 1.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from machine import engine as engines
from machine import kind as kinds
from machine.cache import cache_folder
from machine.engine import Engine
from machine.exits import BROKEN, HOLDS, INTERRUPTED, MACHINE, USAGE, CannotRun
from machine.signals import interrupted_by_signals, signals_held
from machine.steps import duration
from measure.foreign.cluster import Foreign, remove_left
from measure.foreign.expected import VERDICTS
from measure.foreign.play import Play, Result
from measure.foreign.rows import ROWS, Row
from node_image.choose import choose

#: The most seconds that a row may take on an idle machine.
ROW_TAKES = 300


def say(line: str) -> None:
    """Print one line of progress to stderr, because stdout is for the table."""
    print(f"foreign: {line}", file=sys.stderr, flush=True)


@contextmanager
def locked_reports() -> Iterator[Path]:
    """The folder of reports, locked so that a second process does not remove the clusters of the first one."""
    folder = cache_folder() / "foreign"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                "another process uses foreign clusters on this machine; try again when it has ended", MACHINE
            ) from None
        yield folder


def run_row(row: Row, engine: Engine, kind: Path, image: str, reports: Path, asked: argparse.Namespace) -> list[Result]:
    """Make a row's cluster, run its runs, remove the cluster, and return the results."""
    began = time.monotonic()
    cluster = Foreign(row.name, engine)
    say(f"{row.name}: {row.about}")
    results = [Result(row.name)]
    try:
        cluster.make(kind, image, row.workers, row.server, say)
        say(f"cluster {cluster.name} is ready after {duration(time.monotonic() - began)}")
        play = Play(row.name, cluster, reports, asked.patience, asked.write, say)
        with ExitStack() as stack:
            row.prepare(play, stack)
            results = play.results
            row.act(play, row.expected)
    except Exception as error:  # the other rows must still run
        line = str(error).splitlines()[0] if str(error) else ""
        results = results or [Result(row.name)]
        results[-1].problems.append(f"{type(error).__name__}: {line}")
    finally:
        if asked.keep:
            say(
                f"cluster {cluster.name} is kept until the next run: kubectl --kubeconfig {cluster.kubeconfig()} get nodes"
            )
        else:
            with signals_held():
                cluster.remove()
            say(f"cluster {cluster.name} is removed")
    took, wrong = time.monotonic() - began, sum(len(result.problems) for result in results)
    late = "" if took <= ROW_TAKES else f", more than {duration(ROW_TAKES)}"
    say(f"{row.name}: {duration(took)}{late}, {wrong or 'nothing'} wrong")
    return results


def table(results: Sequence[Result]) -> list[str]:
    """The results as lines: run, exit code, seconds, a count of each verdict, number of problems; then the problems."""
    head = ["row", "exit", "seconds", *VERDICTS, "wrong"]
    body = [
        [
            result.name,
            "-" if result.code is None else str(result.code),
            f"{result.seconds:.0f}",
            *(str(result.counts[verdict]) for verdict in VERDICTS),
            str(len(result.problems)) if result.problems else "nothing",
        ]
        for result in results
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    lines = []
    for line, result in zip([head, *body], [None, *results], strict=True):
        lines.append("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
        lines += [f"    {problem}" for problem in (result.problems if result else ())]
    return lines


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line. Raises CannotRun for an unknown row, and for options that exclude each other."""
    parser = argparse.ArgumentParser(
        prog="python -m measure.foreign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a row of --list; by default all rows")
    parser.add_argument("--list", action="store_true", help="list the rows, and do nothing else")
    parser.add_argument(
        "--keep", action="store_true", help="keep the cluster of the one named row until the next foreign run"
    )
    parser.add_argument("--write", action="store_true", help="write the files of runner/rbac instead of comparing them")
    parser.add_argument("--node-image", metavar="NAME", help="make the clusters from this node image")
    parser.add_argument(
        "--patience", metavar="FACTOR", type=float, default=1, help="passed to ./verify, for a slow machine"
    )
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.rows if name not in ROWS]:
        raise CannotRun(f"no row {', '.join(unknown)}; there are: {', '.join(ROWS)}", USAGE)
    if asked.keep and len(asked.rows) != 1:
        raise CannotRun("--keep takes one row, because there is one cluster at a time", USAGE)
    return asked


def main() -> int:
    """Run the rows, and print the table."""
    interrupted_by_signals()
    results: list[Result] = []
    try:
        asked = arguments()
        if asked.list:
            for row in ROWS.values():
                print(f"{row.name:16} {row.about}")
            return HOLDS
        with locked_reports() as reports:
            engine, kind = engines.find(True, say), kinds.find(True, say)
            remove_left(engine, list(ROWS), say)
            image, reason = choose(engine, asked.node_image, say, True)
            say(f"node image {image}: {reason}")
            for name in asked.rows or ROWS:
                results += run_row(ROWS[name], engine, kind, image, reports, asked)
    except CannotRun as stop:
        print(f"foreign: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("foreign: interrupted", file=sys.stderr)
        return INTERRUPTED
    print("\n".join(table(results)))
    return BROKEN if any(result.problems for result in results) else HOLDS


if __name__ == "__main__":
    sys.exit(main())
