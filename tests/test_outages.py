"""One run at a time cuts off the spare worker, and what a killed run has cut off is given back."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures import namespaces, nodes, outages
from fixtures.api import Api, ApiRefusal, Connection
from fixtures.fields import Fields
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.kube import Kube
from fixtures.namespaces import PATCHED, RunId, leftovers, remove_run, sweep, temporarily_patched
from fixtures.nodes import CONNECT, CUT_OFF, OUTAGE, SPARE, KindNodes, cut_off, reconnect
from fixtures.outages import reserved_spare_worker
from fixtures.patience import Budget, patience
from machine.engine import Engine
from machine.output import Output
from runner import cluster as clusters

Object = dict[str, Any]


def merged(one: Any, patch: Any) -> Any:
    """What a merge patch makes of an object."""
    if not isinstance(patch, dict):
        return patch
    whole = dict(one or {})
    for key, value in patch.items():
        whole[key] = merged(whole.get(key), value)
    return {key: value for key, value in whole.items() if value is not None}


class Cluster:
    """An API server with a spare worker and nothing else. `events` are the changes of the node, and its cuts, in their order."""

    def __init__(self) -> None:
        self.node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "spare", "labels": {SPARE: ""}, "annotations": {}, "resourceVersion": "1"},
            "spec": {"taints": [{"key": SPARE, "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        #: How often somebody must look at the node before it is Ready.
        self.looks = 0.0
        self.events: list[str] = []

    def resource(self, kind: str) -> Any:
        """Like Api.resource."""
        name = kind.rpartition("/")[2]

        class Resource:
            namespaced = False

            @staticmethod
            def path(name: str | None, namespace: str | None, kind: str = name) -> str:
                return f"/{kind}/{name}" if name else f"/{kind}"

        return Resource

    def call(self, method: str, path: str, body: Any = None, query: Any = (), content_type: str = "") -> Object:
        """Like Api.call; the only object is the node."""
        if path != "/Node/spare":
            return {"apiVersion": "v1", "kind": "List", "items": [self.node] if path == "/Node" else []}
        if method == "PATCH":
            version = self.node["metadata"]["resourceVersion"]
            if body["metadata"].get("resourceVersion", version) != version:
                raise ApiRefusal("PATCH", 409, "")
            self.node = merged(self.node, body)
            self.node["metadata"]["resourceVersion"] = str(int(version) + 1)
            self.events.append("reserved" if PATCHED in self.node["metadata"]["annotations"] else "free")
        else:
            self.node["status"]["conditions"][0]["status"] = "Unknown" if self.looks > 0 else "True"
            self.looks -= 1
        return self.node


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    there = Cluster()
    for module in (namespaces, outages):
        monkeypatch.setattr(module, "reconnect", lambda _, node: there.events.append(f"{node} connected"))
    return there


def kube(cluster: Cluster, run: RunId) -> Kube:
    return Kube(cast(Api, cluster), "lost-nodes", run.labels)


def killed() -> RunId:
    """A run whose process is gone."""
    return RunId("dead", RunId.new().host, "4194305.1")


def leave_cut_off(cluster: Cluster, run: RunId) -> None:
    """The spare worker as a run leaves it that reserves it and is killed."""
    with reserved_spare_worker(kube(cluster, run)):
        reserved = copy.deepcopy(cluster.node)
    cluster.node = reserved
    cluster.events.clear()


def test_the_spare_worker_is_connected_before_another_run_may_have_it(cluster: Cluster) -> None:
    with reserved_spare_worker(kube(cluster, RunId.new())) as node:
        assert (node.metadata.name, cluster.events) == ("spare", ["reserved", "spare connected"])

    assert cluster.events == ["reserved", "spare connected", "spare connected", "free"]
    assert cluster.node["metadata"]["annotations"] == {}


def test_a_node_that_another_run_has_cut_off_is_left_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_cut_off(cluster, RunId.new())
    monkeypatch.setattr(patience, "other_outage", Budget(0.05, "other_outage"))

    with (
        pytest.raises(NotObserved, match=r"only one run at a time .* another run has patched Node spare"),
        reserved_spare_worker(kube(cluster, RunId.new())),
    ):
        pass
    assert list(sweep(cast(Api, cluster))) == []
    assert cluster.events == []


def test_what_another_run_has_patched_is_no_verdict_about_the_cluster(cluster: Cluster) -> None:
    leave_cut_off(cluster, RunId.new())

    with (
        pytest.raises(Inconclusive, match="another run has patched Node spare"),
        temporarily_patched(kube(cluster, RunId.new()), "Node", "spare", {"metadata": {}}, within=0.05),
    ):
        pass


def test_a_spare_worker_that_is_not_ready_is_no_verdict_about_lost_nodes(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.looks = math.inf
    monkeypatch.setattr(patience, "node_returns", Budget(0.05, "node_returns"))

    with (
        pytest.raises(AssertionError, match="the spare worker spare is not Ready"),
        reserved_spare_worker(kube(cluster, RunId.new())),
    ):
        pass
    assert cluster.events == ["reserved", "spare connected", "spare connected", "free"]


def test_the_next_run_gives_back_what_a_killed_run_has_cut_off(cluster: Cluster) -> None:
    leave_cut_off(cluster, killed())
    cluster.looks = 2

    assert list(sweep(cast(Api, cluster))) == ["the outage of Node spare"]
    assert cluster.events == ["spare connected", "free"]
    assert cluster.looks < 0, "the run has not waited for the node"


def test_a_node_that_stays_away_does_not_keep_the_next_run_from_its_tests(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_cut_off(cluster, killed())
    cluster.looks = math.inf
    monkeypatch.setattr(patience, "node_returns", Budget(0.05, "node_returns"))

    assert list(sweep(cast(Api, cluster))) == ["the outage of Node spare"]
    assert cluster.events == ["spare connected", "free"]


def test_a_node_that_cannot_be_connected_stays_marked(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_cut_off(cluster, killed())

    def fail(*_: object) -> None:
        raise RuntimeError("the container is stopped")

    monkeypatch.setattr(namespaces, "reconnect", fail)

    assert list(sweep(cast(Api, cluster))) == ["the outage of Node spare"]
    assert cluster.node["metadata"]["annotations"].keys() == {OUTAGE, PATCHED}


def test_the_end_of_a_run_gives_back_what_its_worker_process_has_cut_off(cluster: Cluster) -> None:
    run = RunId.new()
    leave_cut_off(cluster, run)
    assert leftovers(cast(Api, cluster), run, 0.05) == ["the patch of Node spare"]

    remove_run(cast(Api, cluster), run)

    assert cluster.events == ["spare connected", "free"]
    assert leftovers(cast(Api, cluster), run, 0.05) == []


@pytest.mark.parametrize(("change", "commands"), [(cut_off, CUT_OFF), (reconnect, CONNECT)])
def test_a_command_that_fails_on_the_node_is_named(monkeypatch: pytest.MonkeyPatch, change: Any, commands: str) -> None:
    asked = []

    def run(_: object, node: str, command: list[str], timeout: float) -> Output:
        asked.append((node, command))
        return Output("", "nft: not found", 127)

    monkeypatch.setattr(nodes, "kind_nodes", lambda _: KindNodes(Engine("podman"), "mine"))
    monkeypatch.setattr(KindNodes, "run", run)

    with pytest.raises(RuntimeError, match="nft on node spare: exit 127: nft: not found"):
        change(cast(Api, None), "spare")
    assert asked == [("spare", ["nft", commands])]


def test_a_cut_may_be_repeated() -> None:
    assert CUT_OFF.startswith(CONNECT)
    assert CONNECT.split("; ") == ["add table inet kubehave", "delete table inet kubehave"]


@pytest.mark.parametrize(("lost", "alive"), [(None, True), ("spare", True), ("worker", False)])
def test_a_kept_cluster_is_not_dead_because_its_spare_worker_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: str | None, alive: bool
) -> None:
    def node(name: str) -> Fields:
        ready = {"type": "Ready", "status": "Unknown" if name == lost else "True"}
        labels = {SPARE: ""} if name == "spare" else {}
        meta = {"name": name, "labels": labels}
        return Fields.of({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"conditions": [ready]}})

    monkeypatch.setattr(Connection, "api", lambda _: None)
    monkeypatch.setattr(clusters, "all_nodes", lambda _: [node("control-plane"), node("worker"), node("spare")])
    monkeypatch.setattr(clusters, "kind_nodes", lambda _: None)
    monkeypatch.setattr(patience, "node_returns", Budget(0.05, "node_returns"))

    assert clusters.OwnCluster(tmp_path, -1).answers(lambda _: None) is alive
