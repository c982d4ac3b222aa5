"""Runs `./verify` on docker: `tox run -e docker`. All other options go to ./verify.

The Docker engine is one of its own: it has a socket and a data folder of its own, and it is stopped at the end. It runs
in a network namespace that leads nowhere, so its bridges, rules and policies end with it, and this machine's stay as they
are. What a run downloads is therefore fetched before. The exit code is that of ./verify.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fixtures.waiting import eventually
from machine import kind as kinds
from machine.cache import cache_folder
from machine.engine import may_raise_limits
from machine.exits import INTERRUPTED, USAGE, CannotRun
from machine.packages import install_packages
from machine.progress import say
from machine.signals import interrupted_by_signals, signals_held
from machine.steps import end
from node_image.build import fetch_and_compile

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / "measure" / "runc-with-fewer-capabilities"
INSIDE = "--inside"
"""The option with which this program starts itself again in the network namespace."""

CGROUPS = Path("/sys/fs/cgroup")
"""Where a Docker engine makes a group for its containers, on cgroup v1 one in each hierarchy."""

STARTS, STOPS = 60, 60
"""Seconds within which the engine must answer, and must have ended its containers and itself."""


def prepare(install: bool) -> None:
    """Install (as far as allowed), download and compile what a run needs of the network. Raises CannotRun."""
    if os.geteuid() != 0:
        raise CannotRun("a Docker engine in a network namespace of its own needs root")
    packages = {
        "dockerd": "docker.io",
        "docker": "docker.io",
        "ip": "iproute2",
        "iptables": "iptables",
        "unshare": "util-linux",
    }
    if missing := {package for program, package in packages.items() if not shutil.which(program)}:
        install_packages(missing, "a Docker engine of its own needs more packages", install, say)
    kinds.find(install, say)
    # makes its environment; a line on stderr says why it cannot
    if subprocess.run([ROOT / "verify", "--list-images"], stdout=subprocess.DEVNULL, check=False).returncode:
        raise CannotRun("./verify cannot start")
    fetch_and_compile(say, install)


@contextmanager
def docker() -> Iterator[dict[str, str]]:
    """A Docker engine in this network namespace. Yields the environment variables with which ./verify uses it."""
    folder = cache_folder() / "docker"
    _end_left(folder)
    shutil.rmtree(folder, ignore_errors=True)
    cache = folder / "cache" / "kubehave"
    cache.mkdir(parents=True)
    # what has been prepared; what is known of clusters goes with the engine
    for name in ("kind", "node-image"):
        (cache_folder() / name).mkdir(exist_ok=True)
        (cache / name).symlink_to(cache_folder() / name)
    log = cache_folder() / "logs" / "dockerd.log"
    log.parent.mkdir(exist_ok=True)
    address = f"unix://{folder}/socket"
    command = ["dockerd", "--host", address, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/run"]
    command += ["--pidfile", f"{folder}/pid"]
    if not may_raise_limits():
        command += ["--add-runtime", f"less={RUNTIME}", "--default-runtime", "less"]
    with log.open("w") as output:
        # in a session of its own, so that Ctrl-C does not reach it before the run has removed its cluster
        engine = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    environment = {"DOCKER_HOST": address, "XDG_CACHE_HOME": str(cache.parent)}
    try:
        if not _answers(engine, environment):
            raise CannotRun(f"the Docker engine does not answer; log: {log}")
        yield environment
    finally:
        with signals_held():
            end(engine, STOPS)
            shutil.rmtree(folder)
            for cgroup in [*CGROUPS.glob("docker"), *CGROUPS.glob("*/docker")]:
                with suppress(OSError):  # another engine's containers are below it
                    cgroup.rmdir()


def _end_left(folder: Path) -> None:
    """End the engine of a run that was killed."""
    with suppress(OSError, ValueError):
        number = int((folder / "pid").read_text())
        process = Path(f"/proc/{number}")
        if (process / "comm").read_text().strip() == "dockerd":
            say("ending the Docker engine of a run that was killed")
            os.kill(number, signal.SIGTERM)
            for look in eventually(within=STOPS):
                with look:
                    assert not process.exists(), f"dockerd {number} does not end"


@contextmanager
def _alone() -> Iterator[None]:
    """Raises CannotRun if another process has such an engine on this machine."""
    with (cache_folder() / "docker.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun("another process has a Docker engine of its own; try again when it has ended") from None
        yield


def _answers(engine: subprocess.Popen[bytes], environment: dict[str, str]) -> bool:
    """Whether the engine answers before it ends and before the time is over."""

    def answers() -> bool:
        asked = subprocess.run(["docker", "version"], env=os.environ | environment, capture_output=True, check=False)
        return asked.returncode == 0

    with suppress(AssertionError):
        for look in eventually(within=STARTS):
            with look:
                assert engine.poll() is not None or answers()
    return engine.poll() is None and answers()


def main(arguments: Sequence[str]) -> int:
    """Prepare, enter a network namespace, start the engine, run ./verify on it, and stop it."""
    if refused := {option.partition("=")[0] for option in arguments} & {"--keep", "--remove", "--context"}:
        raise CannotRun(f"{min(refused)}: the cluster is made on a Docker engine of its own, and goes with it", USAGE)
    if INSIDE not in arguments:
        prepare("--no-install" not in arguments)
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "measure.docker", INSIDE, *arguments])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with _alone(), docker() as environment:
        options = [option for option in arguments if option != INSIDE]
        process = subprocess.Popen([ROOT / "verify", *options], env=os.environ | environment)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise


if __name__ == "__main__":
    interrupted_by_signals()
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except CannotRun as stop:
        print(f"kubehave: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
