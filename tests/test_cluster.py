"""A cluster of the suite's own: an interrupt ends kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine.engine import Engine
from runner import cluster as clusters
from runner.cluster import run_kind

#: A program that runs a command, says that it has done something, and ends after that command.
KIND = """#!/bin/sh
{first}
exec 9>"{alive}"
sleep 60 &
echo " ✓ Preparing nodes"
wait
"""


@pytest.mark.parametrize("first", ["", "trap '' TERM"])
def test_an_interrupt_ends_kind_and_what_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    kind, alive = tmp_path / "kind", tmp_path / "alive"
    kind.write_text(KIND.format(first=first, alive=alive))
    kind.chmod(0o755)
    os.mkfifo(alive)
    writers = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(clusters, "ENDS_WITHIN", 0.5)

    with pytest.raises(KeyboardInterrupt):
        run_kind(kind, Engine("podman"), "mine", "node", tmp_path / "kind.yaml", tmp_path / "kubeconfig", interrupt)

    assert os.read(writers, 1) == b"", "nobody has the pipe open any more"  # BlockingIOError if somebody has
    os.close(writers)
