"""A cluster of the suite's own: an interrupt ends kind, and a kept cluster is not dead while its nodes come back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from fixtures import nodes
from fixtures.api import Api, Connection
from fixtures.fields import Fields
from fixtures.nodes import KindNodes
from fixtures.patience import Budget, patience
from machine.engine import Engine
from machine.exits import CannotRun
from runner import cluster as clusters
from runner import run
from runner.cluster import OwnCluster, run_kind, wait_until_ready

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


Away = Callable[[float, KindNodes | Exception | None], None]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    """`away(looks, told)`: the API server answers, but the worker is not Ready until somebody has looked so often.

    `told` is what the engine tells about the nodes.
    """

    def begin(looks: float, told: KindNodes | Exception | None) -> None:
        left = looks

        def look(_: Api) -> list[Fields]:
            nonlocal left
            left -= 1
            ready = {"type": "Ready", "status": "Unknown" if left >= 0 else "True"}
            node = {"metadata": {"name": "worker", "labels": {}}, "status": {"conditions": [ready]}}
            return [Fields.of({"apiVersion": "v1", "kind": "Node"} | node)]

        def ask(_: Api) -> KindNodes | None:
            if isinstance(told, Exception):
                raise told
            return told

        monkeypatch.setattr(Connection, "api", lambda _: None)
        monkeypatch.setattr(clusters, "all_nodes", look)
        monkeypatch.setattr(clusters, "kind_nodes", ask)

    return begin


RUNNING, SPARE_STOPPED, WORKER_STOPPED = (
    KindNodes(Engine("podman"), "mine", stopped) for stopped in ((), ("spare",), ("worker",))
)


@pytest.mark.parametrize("told", [RUNNING, SPARE_STOPPED, None, RuntimeError("podman ps: exit 125")])
def test_a_kept_cluster_whose_nodes_come_back_is_used(
    tmp_path: Path, away: Away, told: KindNodes | Exception | None
) -> None:
    said: list[str] = []
    away(2, told)

    assert OwnCluster(tmp_path / "mine", -1).answers(said.append)
    assert said == [f"cluster mine answers; waiting up to {patience.node_returns:g} s until Ready: worker"]


def test_a_kept_cluster_whose_nodes_stay_away_is_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, away: Away
) -> None:
    away(math.inf, RUNNING)
    monkeypatch.setattr(patience, "node_returns", Budget(0.05, "node_returns"))

    assert not OwnCluster(tmp_path, -1).answers(lambda _: None)


def test_a_node_whose_container_is_stopped_is_not_awaited(tmp_path: Path, away: Away) -> None:
    said: list[str] = []
    away(1, WORKER_STOPPED)

    assert not OwnCluster(tmp_path, -1).answers(said.append)
    assert said == []


def test_an_api_server_that_does_not_answer_is_not_awaited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_: Api) -> list[Fields]:
        raise ConnectionError("refused")

    said: list[str] = []
    monkeypatch.setattr(Connection, "api", lambda _: None)
    monkeypatch.setattr(clusters, "all_nodes", refuse)

    assert not OwnCluster(tmp_path, -1).answers(said.append)
    assert said == []


def test_a_kept_cluster_that_was_wrong_on_purpose_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = OwnCluster(tmp_path, -1)
    (own.folder / "kept").touch()
    own.spoil()

    assert not run._can_reuse(own, None)

    assert "was wrong on purpose when its run was killed: replacing it" in capsys.readouterr().out
    assert not own.kept
    assert not own.spoiled


def test_a_cluster_that_is_right_again_is_not_replaced_for_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = OwnCluster(tmp_path, -1)
    (own.folder / "kept").touch()
    own.spoil()
    own.mend()
    monkeypatch.setattr(OwnCluster, "answers", lambda *_: True)

    assert run._can_reuse(own, None)


@pytest.mark.parametrize("keep", [True, False])
def test_an_interrupt_before_the_tests_leaves_a_kept_cluster_that_is_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keep: bool
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    own = OwnCluster(tmp_path / "mine", os.open(tmp_path, os.O_RDONLY))
    own.folder.mkdir()
    (own.folder / "kept").touch()
    monkeypatch.setattr(clusters, "take_free", lambda _: own)
    monkeypatch.setattr(run, "_can_reuse", interrupt)
    monkeypatch.setattr(run, "Run", lambda *_: SimpleNamespace(phases={}, phase=nullcontext, faults=[]))
    option = SimpleNamespace(context=None, node_image=None, keep=keep)

    with pytest.raises(KeyboardInterrupt):
        run._begin(cast("pytest.Config", SimpleNamespace(option=option)))

    assert own.kept is keep


def test_a_new_cluster_has_more_time_with_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "factor", 3.0)
    monkeypatch.setattr(clusters, "READY_WITHIN", 0.01)
    monkeypatch.setattr(clusters, "all_nodes", lambda _: [])

    with pytest.raises(CannotRun, match=r"^the new cluster was not ready within 0\.03 s: no node has joined"):
        wait_until_ready(cast("Api", None))


def test_the_engine_of_a_cluster_has_the_runs_patience(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It makes the cluster, finds its nodes, and removes it."""
    told: list[float] = []

    def engine(*args: Any) -> NoReturn:
        told.append(args[-1])
        raise FileNotFoundError

    own = OwnCluster(tmp_path / "mine", os.open(tmp_path, os.O_RDONLY))
    own.folder.mkdir()
    (own.folder / "engine").write_text("podman")
    node = Fields.of({"apiVersion": "v1", "kind": "Node", "spec": {"providerID": "kind://podman/mine/mine-worker"}})
    monkeypatch.setattr(patience, "factor", 3.0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(nodes, "all_nodes", lambda _: [node])
    monkeypatch.setattr(run, "Run", lambda *_: SimpleNamespace(phases={}, phase=nullcontext, faults=[]))
    monkeypatch.setattr(clusters, "take_free", lambda _: own)
    monkeypatch.setattr("machine.engine.find", engine)
    for module in (nodes, clusters):
        monkeypatch.setattr(module, "engine_named", engine)
    option = SimpleNamespace(context=None, node_image=None, keep=False, no_install=True)

    with pytest.raises(FileNotFoundError):
        nodes.kind_nodes(cast("Api", object()))
    with pytest.raises(FileNotFoundError):
        run._begin(cast("pytest.Config", SimpleNamespace(option=option)))

    assert told == [3.0, 3.0, 3.0]
