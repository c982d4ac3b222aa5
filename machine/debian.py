"""Debian packages of any suite, and root file systems made of them, without changing the system's own apt."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from machine.exits import CannotRun
from machine.steps import Runner

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable")
RELEASED = ("bookworm", "trixie")
"""The suites that have security updates."""

MIRROR_VARIABLE = "KUBEHAVE_DEBIAN_MIRROR"
PACKAGE_LIST = "packages.txt"
"""A file in a root file system: one line for each package, its name and version separated by a tab."""


def architecture() -> str:
    """This machine's architecture, by the name that Debian and Go use."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def mirror() -> str:
    """The Debian mirror of this machine's apt, or the one that the environment names."""
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return named.rstrip("/")
    for suite, address in _indexes():
        if suite in SUITES:
            return address
    raise CannotRun(f"apt knows no Debian mirror here: set {MIRROR_VARIABLE} to one")


def security_mirror() -> str | None:
    """The mirror of Debian's security updates, if this machine's apt has one."""
    if os.environ.get(MIRROR_VARIABLE):
        return None
    return next((address for suite, address in _indexes() if suite.endswith("-security")), None)


def _indexes() -> list[tuple[str, str]]:
    """(suite, address) of every package index in apt's configuration."""
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return []
    pairs = (line.split() for line in done.stdout.splitlines())
    return [(suite, address.rstrip("/")) for suite, address in pairs]


def sources(suite: str) -> list[str]:
    """The lines of a sources.list for this suite: the mirror, and the security updates of a released suite."""
    option = f"[signed-by={KEYRING}]" if KEYRING.exists() else ""
    lines = [f"deb {option} {mirror()} {suite} main"]
    security = security_mirror()
    if security and suite in RELEASED:
        lines.append(f"deb {option} {security} {suite}-security main")
    return lines


def transport_settings() -> str:
    """How this machine's apt reaches its mirrors (proxies, certificates, validity of old snapshots)."""
    dump = subprocess.run(
        ["apt-config", "dump"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return "".join(line + "\n" for line in dump.splitlines() if line.startswith(wanted))


def download(suite: str, packages: Sequence[str], folder: Path, runner: Runner) -> dict[str, Path]:
    """Download packages of a suite as .deb files with verified signatures. Returns the file of each package.

    apt has its own lists and sources in `folder`; the system's are neither read nor written.
    """
    if not KEYRING.exists():
        raise CannotRun(f"{KEYRING} is missing: install the package debian-archive-keyring")
    root = folder / f"apt-{suite}"
    for part in ("lists/partial", "archives/partial"):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    (root / "sources.list").write_text("\n".join(sources(suite)) + "\n")
    configuration = root / "apt.conf"
    configuration.write_text(
        f'Dir::State "{root}";\n'
        f'Dir::State::status "{root}/status";\n'
        f'Dir::Cache "{root}";\n'
        f'Dir::Etc::sourcelist "{root}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\n'
        f'APT::Architecture "{architecture()}";\n'
        'APT::Sandbox::User "root";\n'
        'Acquire::Languages "none";\n'
        'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n' + transport_settings()
    )
    environment = {"APT_CONFIG": str(configuration)}
    runner.run(["apt-get", "update"], env=environment)
    for package in packages:
        runner.run(["apt-get", "download", package], env=environment, cwd=folder)
    return {package: next(folder.glob(f"{package}_*.deb")) for package in packages}


def version_of(package: Path) -> str:
    """The version of a .deb, from its file name."""
    return unquote(package.name.split("_")[1])


def root_file_system(suite: str, packages: Sequence[str], hook: Path, out: Path, runner: Runner) -> None:
    """Write a tar of a small Debian with these packages; `hook` gets the root's path before the tar is written.

    Manuals and translations are left out. `/packages.txt` lists the packages with their versions.
    """
    settings = out.with_name("apt-settings")
    settings.write_text(transport_settings())
    command = [
        "mmdebstrap",
        "--format=tar",
        "--variant=essential",
        f"--architectures={architecture()}",
        f"--include={','.join(packages)}",
        f"--aptopt={settings}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--customize-hook={hook}",
        '--customize-hook=dpkg-query --admindir="$1/var/lib/dpkg" --show > "$1/' + PACKAGE_LIST + '"',
        suite,
        str(out),
        *sources(suite),
    ]
    runner.run(command)
    settings.unlink()
