"""Which behaviors a run is about: --behavior and --rerun choose them, and --list and --explain show them without a run."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from subprocess import SubprocessError
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from urllib3.exceptions import HTTPError

from fixtures.api import ApiRefusal, Connection
from fixtures.namespaces import RunId
from fixtures.patience import patience
from lessons import listing
from lessons.catalogue import Behavior, catalogue
from lessons.verdict_names import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED
from machine import exits
from machine.exits import CannotRun
from machine.progress import line_of, say
from runner import cluster as clusters
from runner.agreement import shown_by
from runner.capabilities import CHECKS, Question, why_missing
from runner.options import check_usage, report_folder
from runner.report import BEHAVIORS, PREVIOUS

#: The checks of these needs create something on the cluster, so only a run makes them.
ONLY_IN_A_RUN = ("load-balancer", "no-load-balancer")

#: What --rerun runs again. In part: some of its tests never began.
AGAIN = (BROKEN, INCONCLUSIVE, IN_PART)

#: The ids of the behaviors that the command line chooses; None if it chooses none, so that all are tested.
CHOSEN: pytest.StashKey[frozenset[str] | None] = pytest.StashKey()

#: The key of a worker's input with these ids. A worker cannot look them up: the earlier report has been moved away.
BEHAVIORS_CHOSEN = "kubehave-behaviors"


# --- without a run


def show(config: pytest.Config) -> int:
    """Do what --list or --explain asks for: print lines, begin no report, change nothing. Returns the exit code."""
    try:
        check_usage(config)
        if config.option.explain:
            lines = listing.explain(config.option.explain, _last_report(config))
        else:
            only = listing.choose(config.option.behavior) if config.option.behavior else None
            lines = listing.listing(_capabilities(config), only)
    except CannotRun as refusal:
        return _refuse(refusal.exit_code, str(refusal))
    except (ApiRefusal, HTTPError, AssertionError) as error:
        return _refuse(exits.CLUSTER, f"the cluster cannot be looked at: {line_of(error)}")
    except (RuntimeError, OSError, SubprocessError) as error:
        return _refuse(exits.MACHINE, line_of(error))
    try:
        print("\n".join(lines), flush=True)
    except OSError:  # nobody reads on, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.HOLDS


def _refuse(code: int, line: str) -> int:
    print(f"kubehave: {line}", file=sys.stderr)
    return code


def _capabilities(config: pytest.Config) -> dict[str, str | None] | None:
    """Why the cluster that the command line names lacks each need, None if it has it; None if no cluster is named."""
    option = config.option
    if option.context:
        connection = clusters.find_context(option.context)
    elif option.keep:
        kept = clusters.kept_folder()
        connection = Connection(str(kept / "kubeconfig"), f"kind-{kept.name}")
    else:
        return None
    patience.multiply(option.patience)
    asked = Question(clusters.check(connection, []), RunId.new(), option.allow_cluster_scoped_changes)
    with TemporaryDirectory(prefix="kubehave-list-") as folder:
        return {need: why_missing(asked, need, Path(folder)) for need in CHECKS if need not in ONLY_IN_A_RUN}


def _last_report(config: pytest.Config) -> dict[str, Any] | None:
    """The last report with verdicts in the folder for reports; None if there is none."""
    folder = report_folder(config)
    for file in (folder / BEHAVIORS, folder / PREVIOUS / BEHAVIORS):
        try:
            report = read_report(file, str(file))
        except CannotRun:
            continue
        if report["behaviors"]:
            return report
    return None


def read_report(file: Path, named: str) -> dict[str, Any]:
    """The behaviors.json of a run. Raises CannotRun with one line, in which it is called `named`."""
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"{named} cannot be read: {error.strerror}", exits.USAGE) from None
    except ValueError as error:
        raise CannotRun(
            f"{named} is no report of a run, because it is no JSON: {line_of(error)}", exits.USAGE
        ) from None
    rows = report.get("behaviors") if isinstance(report, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"id", "verdict"} <= row.keys() for row in rows):
        raise CannotRun(f"{named} is no report of a run: it has no verdicts of behaviors", exits.USAGE)
    return report


# --- for a run


def settle(config: pytest.Config) -> int | None:
    """Settle which behaviors the run is about, before the earlier report is moved away.

    Returns the exit code if there is nothing to run, because the report that --rerun names leaves nothing to run again. Raises
    CannotRun for a name that chooses nothing, and for a report that cannot be read.
    """
    option = config.option
    chosen = None
    if option.rerun and option.behavior:
        raise CannotRun("--rerun chooses the behaviors itself; --behavior does not go with it", exits.USAGE)
    if option.behavior:
        chosen = frozenset(listing.choose(option.behavior))
    if option.rerun:
        verdicts = _verdicts_in(config, option.rerun)
        again = {name for name, verdict in verdicts.items() if verdict in AGAIN}
        if gone := sorted(again - catalogue().keys()):
            say(f"not tested again, because the catalogue no longer has them: {', '.join(gone)}")
        chosen = frozenset(again & catalogue().keys())
        if not chosen:
            counts = Counter(verdicts.values())
            holding = f"{counts[HOLDS]} of {counts.total() - counts[PLANNED]} behaviors hold"
            unseen = f", {counts[NOT_OBSERVED]} not observed" if counts[NOT_OBSERVED] else ""
            say(f"nothing is to be tested again after {option.rerun}: {holding}{unseen}")
            return exits.HOLDS if counts[HOLDS] and not gone else exits.NOTHING
    config.stash[CHOSEN] = chosen
    return None


def _verdicts_in(config: pytest.Config, named: str) -> dict[str, str]:
    """The verdicts in the report that --rerun names: a behaviors.json, or a folder that has one."""
    path = Path(config.invocation_params.dir, named)
    file = path / BEHAVIORS if path.is_dir() else path
    report = read_report(file, f"--rerun {named}")
    if not report["behaviors"]:
        why = (report.get("run") or {}).get("reason")
        told = f" ({why})" if why else ""
        raise CannotRun(f"--rerun {named} has no verdicts, because its run tested nothing{told}", exits.USAGE)
    return {str(row["id"]): str(row["verdict"]) for row in report["behaviors"]}


def of_the_run(config: pytest.Config) -> Mapping[str, Behavior]:
    """The behaviors that the run is about, by their ids. Others that its tests happen to show are no part of its report."""
    chosen = config.stash.get(CHOSEN, None)
    return {name: it for name, it in catalogue().items() if chosen is None or name in chosen}


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    chosen = node.config.stash.get(CHOSEN, None)
    if chosen is not None:
        node.workerinput[BEHAVIORS_CHOSEN] = sorted(chosen)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that show none of the chosen behaviors, in the same way in each process of the run."""
    chosen = config.stash.get(CHOSEN, None)
    if chosen is None:
        return
    kept = [item for item in items if not chosen.isdisjoint(shown_by(item))]
    others = [item for item in items if chosen.isdisjoint(shown_by(item))]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def pytest_sessionstart(session: pytest.Session) -> None:
    """Settle it in a worker, and in a process that only collects tests."""
    config = session.config
    if CHOSEN in config.stash:
        return
    given = getattr(config, "workerinput", None)
    if given is not None:
        config.stash[CHOSEN] = frozenset(given[BEHAVIORS_CHOSEN]) if BEHAVIORS_CHOSEN in given else None
        return
    try:
        if settle(config) is not None:
            config.stash[CHOSEN] = frozenset()
    except CannotRun as refusal:
        raise pytest.UsageError(str(refusal)) from None
