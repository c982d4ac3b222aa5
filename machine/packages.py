"""Installs missing packages on Debian and its derivatives."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from machine.cache import cache_folder
from machine.exits import CannotRun
from machine.progress import Say


def install_packages(packages: Iterable[str], why: str, install: bool, say: Say) -> None:
    """Say that packages are missing, and install them. Raises CannotRun with the remedy if they cannot be installed."""
    names = " ".join(sorted(packages))
    if not _is_debian():
        raise CannotRun(f"{why}: install {names} (Debian's package names), then try again")
    if not install or os.geteuid() != 0:
        raise CannotRun(f"{why}: run `apt-get install --no-install-recommends {names}` as root, then try again")
    say(f"{why}: installing {names} from {_distribution()}'s packages")
    log = cache_folder() / "install.log"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("w") as output:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *names.split()]):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
            )
    if done.returncode:
        raise CannotRun(f"apt-get could not install {names}; log: {log}")


@functools.cache
def _os_release() -> dict[str, str]:
    file = Path("/etc/os-release")
    lines = file.read_text().splitlines() if file.exists() else []
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def _is_debian() -> bool:
    names = {_os_release().get("ID", ""), *_os_release().get("ID_LIKE", "").split()}
    return bool(names & {"debian", "ubuntu"}) and shutil.which("apt-get") is not None


def _distribution() -> str:
    return _os_release().get("NAME", "Debian").split()[0]
