"""The Docker engine of `tox run -e docker`: what its runtime is given, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from machine.exits import USAGE, CannotRun
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


def test_a_cluster_cannot_outlive_its_engine() -> None:
    with pytest.raises(CannotRun, match="--keep") as stop:
        docker.main(["--keep"])

    assert stop.value.exit_code == USAGE
