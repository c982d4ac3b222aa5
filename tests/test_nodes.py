"""Which nodes tests use, which engine runs them, and how long a command on a node may take."""

from __future__ import annotations

import subprocess
from typing import cast

import pytest

from fixtures import nodes
from fixtures.api import Api, ApiRefusal
from fixtures.fields import Fields
from fixtures.nodes import KindNodes, engine_of_nodes, is_worker, left_out
from fixtures.patience import patience
from machine.engine import CLUSTER, Engine
from machine.output import Output


def node(name: str, system: str | None = "linux") -> Fields:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    meta = {"name": name, "labels": {"kubernetes.io/os": system} if system else {}}
    return Fields.of({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": status})


def test_a_node_of_another_system_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    windows, bare = node("win", "windows"), node("bare", None)
    monkeypatch.setattr(nodes, "all_nodes", lambda _: [node("one"), windows, bare])

    found = nodes.nodes._get_wrapped_function()(cast("Api", object()))

    assert [one.metadata.name for one in found] == ["one"]
    assert left_out(windows) == "node win runs windows, not Linux: tests leave it out"
    assert left_out(bare) == "node bare has no label kubernetes.io/os: tests leave it out"
    assert not is_worker(windows)
    assert not is_worker(bare)
    assert left_out(node("one")) is None


class Records(Engine):
    """An engine that only records how long its commands may take."""

    def output(self, *_: str, timeout: float | None = None) -> Output:
        """Print the limit."""
        return Output(f"{timeout or 0:g}", "", 0)


@pytest.mark.parametrize(("asked", "limit"), [(None, "90"), (5, "5")])
def test_the_limit_of_a_command_on_a_node_scales_with_patience(
    monkeypatch: pytest.MonkeyPatch, asked: float | None, limit: str
) -> None:
    monkeypatch.setattr(patience, "factor", 3.0)

    assert KindNodes(Records("podman"), "k").run("worker", ["true"], timeout=asked).stdout == limit


class Lists(Engine):
    """An engine that runs the node a, and has a stopped node b."""

    def run(self, *args: str, **_: object) -> str:
        """List the nodes of the cluster k."""
        assert f"label={CLUSTER}=k" in args
        return "a\nb" if "--all" in args else "a"


@pytest.mark.parametrize(("names", "stopped"), [(("a",), ()), (("a", "b"), ("b",)), (("a", "c"), None)])
def test_nodes_whose_container_is_stopped_are_known(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], stopped: tuple[str, ...] | None
) -> None:
    specs = [{"providerID": f"kind://podman/k/{name}"} for name in names]
    listed = [Fields.of({"apiVersion": "v1", "kind": "Node", "spec": spec}) for spec in specs]
    monkeypatch.setattr(nodes, "all_nodes", lambda _: listed)
    monkeypatch.setattr(nodes, "engine_named", lambda name, _: Lists(name))
    monkeypatch.setattr("shutil.which", lambda name: name)

    found = nodes.kind_nodes(cast("Api", object()))

    assert found == (None if stopped is None else KindNodes(Lists("podman"), "k", stopped))


@pytest.mark.parametrize(
    "error", [ApiRefusal("GET", 403, ""), RuntimeError("docker ps: exit 1"), subprocess.TimeoutExpired("docker", 60)]
)
def test_an_engine_that_cannot_be_asked_is_none(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: Api) -> KindNodes:
        raise error

    monkeypatch.setattr(nodes, "kind_nodes", lambda _: KindNodes(Engine("podman"), "k"))
    assert engine_of_nodes(cast("Api", None)) == Engine("podman")

    for cannot_tell in (fail, lambda _: None):
        monkeypatch.setattr(nodes, "kind_nodes", cannot_tell)
        assert engine_of_nodes(cast("Api", None)) is None
