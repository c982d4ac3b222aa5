"""What an engine removes with a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from machine.engine import Engine


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
        return "\n".join(name for name, passes in things.items() if filters <= passes)

    def names(self) -> set[str]:
        """The names of all things that are left."""
        return {name for things in self.things.values() for name in things}


def node(cluster: str) -> set[str]:
    """The filters that let a node of this cluster through."""
    return {f"label=io.x-k8s.kind.cluster={cluster}", f"network={cluster}"}


@pytest.fixture
def machine() -> Machine:
    containers = {
        "mine-control-plane": node("mine"),
        "mine-of-any-role": node("mine"),
        "mine-2-worker": node("mine-2"),
        "outside": {"network=mine"},
        "another": {"network=podman"},
    }
    volumes = {name: {f"label={name.removeprefix('var-')}"} for name in ("var-mine-of-any-role", "var-mine-2-worker")}
    networks = {name: set[str]() for name in ("mine", "mine-2", "podman")}
    return Machine("podman", things={"container": containers, "volume": volumes, "network": networks})


def test_a_cluster_is_removed_with_all_that_is_its_own(machine: Machine) -> None:
    machine.remove_cluster("mine")

    assert machine.names() == {"mine-2-worker", "another", "var-mine-2-worker", "mine-2", "podman"}


def test_a_cluster_that_is_not_there_is_not_removed(machine: Machine) -> None:
    before = machine.names()

    machine.remove_cluster("min")

    assert machine.names() == before
