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
