"""Runs of `./verify` on one foreign cluster, and their results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fixtures.api import Api
from fixtures.patience import patience
from fixtures.waiting import eventually
from lessons.catalogue import catalogue
from machine.progress import Say
from measure.foreign.cluster import Foreign
from measure.foreign.expected import Expected, counts, differences
from measure.foreign.unchanged import Snapshot, changes, snapshot

ROOT = Path(__file__).parent.parent.parent

#: Seconds after which `./verify` is interrupted, and the seconds that it then has to clean up.
RUN_ENDS_WITHIN, CLEANS_UP_WITHIN = 900, 120

#: Seconds within which a run that will be killed must have changed one of the cluster's own objects.
CHANGES_WITHIN = 180

#: Seconds between two looks for that change. It lasts for some tenths of a second.
EVERY = 0.02


@dataclass
class Result:
    """One line of the table: a run's name, exit code, counts of verdicts, wall time, and problems."""

    name: str
    code: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0
    problems: list[str] = field(default_factory=list)


class Play:
    """A row that is running: its cluster, the options of all its runs, and the results so far."""

    def __init__(self, row: str, cluster: Foreign, reports: Path, factor: float, write: bool, say: Say) -> None:
        self.row, self.cluster, self.write, self._say = row, cluster, write, say
        self._reports, self._factor = reports / row, factor
        self._path = os.environ["PATH"]
        self.results: list[Result] = []
        shutil.rmtree(self._reports, ignore_errors=True)
        if bin := cluster.take_kubectl():
            self._path = f"{bin}:{self._path}"
        self.api: Api = cluster.api()

    def problem(self, *lines: str) -> None:
        """Note problems of the latest run."""
        self.results[-1].problems += lines

    def _start(self, name: str, user: str | None, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a run in its own process group. Its report and log are in a folder that has the run's name."""
        folder = self._reports / name.replace(" ", "-")
        folder.mkdir(parents=True)
        self._say(f"{name}: ./verify {' '.join(options)} (log {folder / 'verify.log'})")
        command = [ROOT / "verify", "--context", self.cluster.context, "--report", folder / "report"]
        # A pipeline's own page is about the cluster that is tested, and not about those that are made for checks.
        environment = {"PATH": self._path, "KUBECONFIG": str(self.cluster.kubeconfig(user)), "GITHUB_STEP_SUMMARY": ""}
        with (folder / "verify.log").open("wb") as log:
            process = subprocess.Popen(
                [*map(str, command), "--patience", str(self._factor), *options],
                cwd=ROOT,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process, folder

    def verify(self, expected: Expected, *options: str, name: str = "", user: str | None = None) -> None:
        """Do one run, and check its exit code and its verdicts."""
        result = Result(f"{self.row}, {name}" if name else self.row)
        self.results.append(result)
        began = time.monotonic()
        process, folder = self._start(name or "run", user, options)
        try:
            process.wait(RUN_ENDS_WITHIN * self._factor)
        except subprocess.TimeoutExpired:
            result.problems.append(f"had not ended after {RUN_ENDS_WITHIN * self._factor:g} s")
        finally:
            _end(process)
        result.code, result.seconds = process.returncode, time.monotonic() - began
        report = {}
        with suppress(FileNotFoundError):
            report = json.loads((folder / "report" / "behaviors.json").read_text(encoding="utf-8"))
        result.counts = counts(report.get("behaviors", ()))
        chosen = any(option.startswith("suites/") for option in options)
        result.problems += differences(expected, process.returncode, report, catalogue(), chosen)
        self._log = folder / "verify.log"

    def lines(self, words: str) -> list[str]:
        """The lines in the latest run's output that contain these words."""
        return [line for line in self._log.read_text(encoding="utf-8", errors="replace").splitlines() if words in line]

    @contextmanager
    def unchanged(self) -> Iterator[Snapshot]:
        """Check after the block, when the namespaces are gone, that every cluster-scoped object is as before."""
        before = snapshot(self.api)
        yield before
        lines: list[str] = []
        try:
            for look in eventually(within=patience.namespace_goes, every=1):
                with look:
                    lines = changes(before, snapshot(self.api))
                    assert not lines
        except AssertionError:
            self.problem(*lines)

    def kill(self, when: Callable[[], bool], *options: str) -> None:
        """Start a run, and kill it with all its processes when `when()` is true."""
        self.results.append(result := Result(f"{self.row}, killed"))
        began = time.monotonic()
        process, _ = self._start("killed", None, options)
        try:
            while not when():
                if process.poll() is not None or time.monotonic() - began > CHANGES_WITHIN * self._factor:
                    self.problem("the run ended, or took too long, before it had changed an object")
                    break
                time.sleep(EVERY)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        result.code, result.seconds = process.returncode, time.monotonic() - began


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a run that has not ended, let it clean up, and kill the rest of it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLEANS_UP_WITHIN)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
