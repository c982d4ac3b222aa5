"""The Docker engine of `tox run -e docker`: what its runtime is given, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from machine.exits import USAGE, CannotRun
from machine.progress import Say
from measure import docker

CAPABILITIES = {
    "bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_SYS_TIME"],
    "effective": ["CAP_CHOWN", "CAP_SYS_RESOURCE"],
}
FEWER = {"bounding": ["CAP_CHOWN", "CAP_SYS_TIME"], "effective": ["CAP_CHOWN"]}


@pytest.fixture
def runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a runc on PATH writes its arguments."""
    said = tmp_path / "said"
    program = tmp_path / "bin" / "runc"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$*" >{said}\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return said


@pytest.mark.parametrize(
    ("file", "content", "expected", "options"),
    [
        (
            "config.json",
            {"process": {"capabilities": CAPABILITIES}},
            {"process": {"capabilities": FEWER}},
            "create --bundle {folder} ID",
        ),
        ("process", {"capabilities": CAPABILITIES}, {"capabilities": FEWER}, "exec --process {folder}/process ID"),
    ],
    ids=["a container", "a command in it"],
)
def test_the_missing_capability_is_taken_out_of_what_runc_gets(
    runc: Path, tmp_path: Path, file: str, content: object, expected: object, options: str
) -> None:
    (tmp_path / file).write_text(json.dumps(content, separators=(",", ":")))
    arguments = f"--root /run {options.format(folder=tmp_path)}"

    done = subprocess.run([docker.RUNTIME, *arguments.split()], check=False)

    assert json.loads((tmp_path / file).read_text()) == expected
    assert runc.read_text() == f"{arguments}\n"
    assert done.returncode == 3


def test_other_commands_of_runc_are_passed_on(runc: Path) -> None:
    subprocess.run([docker.RUNTIME, "state", "ID"], check=False)

    assert runc.read_text() == "state ID\n"


@pytest.mark.parametrize("options", [["--keep"], ["--remove"], ["--context", "mine"], ["--context=mine"]])
def test_options_for_other_clusters_are_refused(options: list[str]) -> None:
    with pytest.raises(CannotRun, match=options[0].partition("=")[0]) as stop:
        docker.main(options)

    assert stop.value.exit_code == USAGE


@pytest.mark.parametrize(("options", "may"), [(["--no-install"], False), ([], True)])
def test_only_with_leave_is_anything_installed(monkeypatch: pytest.MonkeyPatch, options: list[str], may: bool) -> None:
    def asked(packages: set[str], why: str, install: bool, say: Say) -> None:
        raise CannotRun(f"{sorted(packages)} {install}")

    monkeypatch.setattr("shutil.which", lambda program: None if program == "dockerd" else program)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(docker, "install_packages", asked)

    with pytest.raises(CannotRun) as stop:
        docker.main(options)

    assert str(stop.value) == f"['docker.io'] {may}"
