"""One measured run of a checkout's `./verify`.

Time, CPU time and requests are of the same run, on a cluster that goes with it. `bench_pauses` holds the run before and
after its tests, while this process reads what the nodes and the API server have counted so far. The pauses are not in
the phase "tests", and "whole run" leaves them out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.engine import Engine
from machine.exits import BROKEN, CannotRun
from machine.progress import Say
from measure.bench import served, usage
from measure.bench.bench_pauses import SOCKET
from measure.bench.figures import grouped
from node_image.build import REPOSITORY

PLUGIN = Path(__file__).parent / "bench_pauses.py"

#: A run with a broken or inconclusive behavior waits longer than others, so it is made again: at most so often in all.
ATTEMPTS = 3


@dataclass(frozen=True)
class Run:
    """What a run took: its figures by name, each test's times, and the name of its cluster."""

    figures: Mapping[str, float]
    tests: Mapping[str, dict[str, Any]]
    cluster: str


class Meter:
    """Measures what a cluster and a process with its children use from now on."""

    def __init__(self, engine: Engine, cluster: str, process: int) -> None:
        self.cluster = cluster
        self._engine, self._process = engine, process
        self._requests = served.read(engine, cluster)  # first, because the answer takes CPU time itself
        self._cpu = self._read_cpu()

    def figures(self) -> dict[str, float]:
        """The figures so far: "cpu/..." in CPU-seconds, "requests/...", and "count/Pods"."""
        cpu = usage.spent(self._cpu, self._read_cpu())
        requests = served.read(self._engine, self.cluster) - self._requests
        return {
            **grouped("cpu", cpu),
            **grouped("requests", served.by_verb_and_resource(requests)),
            "count/Pods": served.pods_made(requests),
        }

    def _read_cpu(self) -> usage.Reading:
        return usage.read(usage.node_cgroups(self._engine, self.cluster), self._process)


class Memory:
    """The peak of the whole machine's memory in MiB, compared with the start."""

    def __init__(self) -> None:
        self._start = self._used()
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _used() -> int:
        found = dict(re.findall(r"(\w+):\s+(\d+)", Path("/proc/meminfo").read_text()))
        return (int(found["MemTotal"]) - int(found["MemAvailable"])) // 1024

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, self._used() - self._start)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def measured(engine: Engine, checkout: Path, options: list[str], say: Say) -> Run:
    """A run with only verdicts that hold. Raises CannotRun if three runs in a row, or ./verify itself, fail."""
    for _ in range(ATTEMPTS):
        with images_kept(engine):
            code, run, printed = attempt(engine, checkout, options)
        if run and not code:
            return run
        if code != BROKEN:
            break
        say("not measured, because not everything holds:\n" + "\n".join(re.findall("^kubehave: .*", printed, re.M)))
    raise CannotRun(f"{checkout}/verify {' '.join(options)} ended with {code}:\n{printed[-8000:]}")


def attempt(
    engine: Engine, checkout: Path, options: list[str], env: Mapping[str, str] | None = None
) -> tuple[int, Run | None, str]:
    """Run ./verify once: its exit code, what it took, and what it printed. A run that ended before its tests took nothing."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryDirectory() as folder, Memory() as memory:
        shutil.copy(PLUGIN, folder)
        log = Path(folder, "log")
        began, paused = time.monotonic(), 0.0
        meter, figures = None, {}
        with (
            log.open("w") as output,
            subprocess.Popen(
                [checkout / "verify", "-p", PLUGIN.stem, *options],
                cwd=checkout,
                env={**os.environ, **(env or {}), "PYTHONPATH": folder, SOCKET: str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            ) as process,
            ours,  # closed first, so that the run never waits for a bench that has failed
        ):
            theirs.close()
            try:
                while ours.recv(1):  # nothing if the run has ended
                    pause = time.monotonic()
                    if meter is None:
                        meter = Meter(engine, cluster_named(log.read_text()), process.pid)
                    else:
                        figures = meter.figures()
                    ours.send(b".")
                    paused += time.monotonic() - pause
            except Exception:
                process.terminate()
                raise
        wall = time.monotonic() - began - paused
        printed = log.read_text()
    if meter is None or not figures:
        return process.returncode, None, printed
    report = json.loads((checkout / "report" / "behaviors.json").read_text())
    figures |= grouped("seconds", {**report["run"]["phases"], "whole run": wall})
    figures |= {
        "memory/peak MiB": memory.peak,
        "count/tests": len(report["tests"]),
        "count/behaviors": sum(row["verdict"] == "holds" for row in report["behaviors"]),
    }
    return process.returncode, Run(figures, report["tests"], meter.cluster), printed


def cluster_named(printed: str) -> str:
    """The cluster that a run has made, by what it has printed. Older checkouts print the same. Raises CannotRun."""
    found = re.search(r"cluster (\S+) is ready after", printed)
    if not found:
        raise CannotRun(f"the run does not name its cluster:\n{printed[-2000:]}")
    return found[1]


@contextmanager
def images_kept(engine: Engine) -> Iterator[None]:
    """Keep all node images of this machine: a run that builds one removes those of other checkouts."""
    names = [name for name in engine.images(REPOSITORY) if name.startswith(f"{REPOSITORY}:")]
    aside = {name: name.replace(REPOSITORY, "localhost/bench-keeps") for name in names}
    for name, other in aside.items():
        engine.run("tag", name, other)
    try:
        yield
    finally:
        for name, other in aside.items():
            engine.run("tag", other, name)
            engine.run("rmi", other)


def cold(engine: Engine, checkout: Path, options: list[str]) -> dict[str, float]:
    """The seconds of a run of the checkout's commit with empty caches and no environment; see `--cold`. Raises CannotRun.

    The copy of the checkout differs in a comment from the original, so its node image has another name and is built.
    """
    with tempfile.TemporaryDirectory() as folder, images_kept(engine):
        copy = Path(folder, "checkout")
        archive = Path(folder, "checkout.tar")
        subprocess.run(["git", "-C", checkout, "archive", "--output", archive, "HEAD"], check=True)
        shutil.unpack_archive(archive, copy)
        with (copy / "node_image" / "versions.py").open("a") as inputs:
            inputs.write(f"# cold build {time.time()}\n")
        caches = {"XDG_CACHE_HOME": "cache", "PIP_CACHE_DIR": "pip", "GOCACHE": "go", "GOMODCACHE": "modules"}
        before = engine.images(REPOSITORY)
        try:
            code, run, printed = attempt(
                engine, copy, options, {name: str(Path(folder, cache)) for name, cache in caches.items()}
            )
        finally:
            for image in set(engine.images(REPOSITORY)) - set(before):
                engine.run("rmi", image, check=False)
    if run is None or code not in (0, BROKEN):
        raise CannotRun(f"the cold run of {checkout} ended with {code}:\n{printed[-8000:]}")
    return {name: seconds for name, seconds in run.figures.items() if name.startswith("seconds/")}
