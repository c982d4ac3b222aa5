"""What an engine removes with a cluster, and how long its commands may take."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from machine import engine as engines
from machine.engine import Engine
from node_image.choose import _registry_answers


@dataclass(frozen=True)
class Machine(Engine):
    """An engine in memory: its containers, volumes and networks, and for each the filters that let it through."""

    things: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def run(self, *args: str, **_: object) -> str:
        """List or remove things of one kind."""
        things = self.things.get(args[0], self.things["container"])
        if "rm" in args:
            for name in things.keys() & set(args):
                del things[name]
            return ""
        filters = {arg for option, arg in pairwise(args) if option == "--filter"}
        found = {name: passes for name, passes in things.items() if filters <= passes}
        if args[0] == "volume":
            return "\n".join(f"{name} {' '.join(labels)}" for name, labels in found.items())
        return "\n".join(found)

    def names(self) -> set[str]:
        """The names of all things that are left."""
        return {name for things in self.things.values() for name in things}


def node(cluster: str) -> set[str]:
    """The filters that let a node of this cluster through."""
    return {"label=io.x-k8s.kind.cluster", f"label=io.x-k8s.kind.cluster={cluster}", f"network={cluster}"}


@pytest.fixture
def machine() -> Machine:
    containers = {
        "mine-control-plane": node("mine"),
        "mine-of-any-role": node("mine"),
        "mine-2-worker": node("mine-2"),
        "mine-too-worker": node("mine-too"),
        "outside": {"network=mine"},
        "another": {"network=podman"},
    }
    nodes = (
        "mine-of-any-role",
        "mine-worker2",
        "mine-2-worker",
        "mine-too-worker",
    )  # there is no container mine-worker2
    volumes = {f"var-{name}": {f"{name}=", "io.podman=x"} for name in nodes}
    networks = {name: set[str]() for name in ("mine", "mine-2", "mine-too", "podman")}
    return Machine("podman", things={"container": containers, "volume": volumes, "network": networks})


def test_a_cluster_is_removed_with_all_that_is_its_own(machine: Machine) -> None:
    machine.remove_cluster("mine")

    of_others = {f"{prefix}mine-{name}-worker" for prefix in ("", "var-") for name in ("2", "too")}
    assert machine.names() == of_others | {"another", "mine-2", "mine-too", "podman"}


def test_a_cluster_that_is_not_there_is_not_removed(machine: Machine) -> None:
    before = machine.names()

    machine.remove_cluster("min")

    assert machine.names() == before


def test_the_limits_of_an_engines_commands_scale_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def run(command: list[str], timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
        limits.append(timeout)
        return subprocess.CompletedProcess(command, 0, "1 1 engine", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(engines, "_prepare_machine", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda name: name)
    engine = engines.find(False, lambda _: None, 3.0)

    engine.run("ps")
    engine.output("ps")
    engine.has_image("node")
    assert _registry_answers(engine)
    assert engine.name == "docker"
    assert limits == [30, 180, 180, 180, 24]
    assert engine.run("ps", timeout=5)
    assert engine.output("ps", timeout=5)
    assert limits[5:] == [5, 5]
