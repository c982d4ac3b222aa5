"""Build steps that run once for the same inputs: digests, a cache, logs, progress, a lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from machine.exits import CannotRun
from machine.progress import Say

PROGRESS_PERIOD = 20.0
"""Seconds between two lines that say that a long command is still running."""


class Runner:
    """Runs the commands of one step. Their output goes to the step's log, and long ones print progress.

    If `stop` is set meanwhile, the command is ended.
    """

    #: All that wait for a command now. On a terminal they share one line of progress.
    _waiting: ClassVar[list[Runner]] = []

    def __init__(self, name: str, log: Path, say: Say, stop: threading.Event | None = None) -> None:
        self.name = name
        self.log = log
        self._print = say
        self._stop = stop or threading.Event()
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")

    @contextlib.contextmanager
    def reported(self) -> Iterator[None]:
        """Print the step's name and log before the block, and its time after it."""
        self._say(f"{self.name} ... (log {self.log})")
        yield
        self._say(f"{self.name}: {self._so_far()}")

    def run(self, command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        """Run a command to its end. Raises CannotRun, which names the log, if the command fails."""
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait(process)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for a process that writes to the log, and print progress. Raises CannotRun if it fails."""
        self._waiting.append(self)
        try:
            code = self._code_of(process)
        except BaseException:
            end(process, 10)
            raise
        finally:
            self._waiting.remove(self)
            self._clear_line()
        if code:
            raise self.failure(self._last_line())

    def _code_of(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of the process. Raises CannotRun if it is to be stopped before it ends."""
        said = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(1.0)
            if self._stop.is_set():
                raise self.failure("stopped")
            if self._terminal or time.monotonic() - said >= PROGRESS_PERIOD:
                said = time.monotonic()
                self._say_progress()

    def failure(self, reason: str) -> CannotRun:
        """The exception that ends a build, with one line: the step, the reason, the log."""
        return CannotRun(f"{self.name}: {reason}; log: {self.log}")

    def _say_progress(self) -> None:
        if self._terminal:
            line = ", ".join(f"{runner.name}: {runner._so_far()}" for runner in [*self._waiting])
            sys.stderr.write(f"\r\x1b[K  {line} so far, logs in {self.log.parent}")
            sys.stderr.flush()
        else:
            self._print(f"  {self.name}: {self._so_far()} so far, log {self.log}")

    def _say(self, line: str) -> None:
        self._clear_line()
        self._print(line)

    def _clear_line(self) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[K")

    def _so_far(self) -> str:
        return duration(time.monotonic() - self._started)

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no output"


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a process; before it is killed, it has so many seconds to clean up (mmdebstrap must unmount file systems)."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Step:
    """One part of a build. Its output is a folder that depends only on `inputs`, `files` and the needed steps.

    `make` gets an empty folder to fill and a Runner. `inputs` are versions and commands. `files` are files and whole
    folders; their names and contents count.
    """

    name: str
    make: Callable[[Path, Runner], None]
    inputs: Sequence[str] = ()
    files: Sequence[Path] = ()
    needs: Sequence[Step] = ()

    def digest(self) -> str:
        """A digest of all inputs: 16 hexadecimal digits."""
        content = {
            "name": self.name,
            "inputs": list(self.inputs),
            "files": [[path.name, _content(path)] for path in self.files],
            "needs": [step.digest() for step in self.needs],
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def output(self, cache: Path) -> Path:
        """Where the finished output is, or will be."""
        return cache / f"{self.name}-{self.digest()}"

    def done(self, cache: Path) -> bool:
        """Whether the output for these inputs exists."""
        return self.output(cache).is_dir()


def _content(path: Path) -> str:
    """A digest of a file's content, or of the relative names and contents of a folder's files."""
    if path.is_dir():
        parts = [
            [str(file.relative_to(path)), _content(file)]
            for file in sorted(path.rglob("*"))
            if file.is_file() and "__pycache__" not in file.parts
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def perform(step: Step, cache: Path, say: Say, stop: threading.Event | None = None) -> Path:
    """Return the step's output; make it if it is missing. An interrupted attempt leaves no output.

    Raises CannotRun if the step fails, or if `stop` is set meanwhile.
    """
    output = step.output(cache)
    if output.is_dir():
        return output
    attempt = cache / f"attempt-{step.name}"
    shutil.rmtree(attempt, ignore_errors=True)
    attempt.mkdir(parents=True)
    runner = Runner(step.name, cache / "logs" / f"{step.name}.log", say, stop)
    with runner.reported():
        step.make(attempt, runner)
        attempt.rename(output)
    return output


def perform_lanes(lanes: Sequence[Sequence[Step]], cache: Path, say: Say) -> dict[str, Path]:
    """Perform the lanes side by side, and the steps of a lane one after the other. Returns the outputs by step.

    The first failure stops all lanes, and is raised.
    """
    stop = threading.Event()

    def perform_lane(steps: Sequence[Step]) -> dict[str, Path]:
        outputs = {}
        for step in steps:
            if stop.is_set():
                break
            outputs[step.name] = perform(step, cache, say, stop)
        return outputs

    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(perform_lane, steps) for steps in lanes]
        try:
            for ended in wait_for(running, return_when=FIRST_EXCEPTION).done:
                ended.result()  # raises what ended it
            return {name: output for lane in running for name, output in lane.result().items()}
        finally:
            stop.set()


def prune(steps: Iterable[Step], cache: Path) -> None:
    """Remove the outputs of these steps for other inputs, and what an interrupted attempt has left."""
    steps = list(steps)
    current = {step.output(cache) for step in steps}
    for step in steps:
        for folder in cache.glob(f"{step.name}-" + "[0-9a-f]" * 16):
            if folder not in current:
                shutil.rmtree(folder)
        shutil.rmtree(cache / f"attempt-{step.name}", ignore_errors=True)


@contextlib.contextmanager
def lock(cache: Path, say: Say) -> Iterator[None]:
    """Let one build at a time use the cache. A second one says that it waits, and waits."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build of the node image on this machine")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def duration(seconds: float) -> str:
    """`75.3` becomes `1 min 15 s`, `3.21` becomes `3.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
