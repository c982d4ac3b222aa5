"""Clients: an error when no request was sent, and the nodes that must have a client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures import clients
from fixtures.api import Api, ApiRefusal, PodStreams
from fixtures.clients import Inside, remove_clients, sweep_clients
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.manifests import load_all
from fixtures.namespaces import PATCHED, RUN, RunId
from fixtures.nodes import KindNodes
from fixtures.patience import patience
from fixtures.session import Sessions
from machine.engine import CLUSTER, Engine
from machine.output import Output

READY, NOT_READY = ({"conditions": [{"type": "Ready", "status": status}]} for status in ("True", "Unknown"))
LINUX = {"kubernetes.io/os": "linux"}


def node(
    name: str = "n",
    status: Any = READY,
    labels: Any = LINUX,
    annotations: Any = None,
    **spec: Any,
) -> dict[str, Any]:
    meta = {"name": name, "labels": labels, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status}


# --- replies


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (Output("hello\n200", "", 0), 200),
        (Output("\n404", "", 0), 404),
        (Output("\n000", "curl: (7) refused", 7), None),
        (Output("\n000", "curl: (28) silence", 28), None),
        (Output("half\n200", "curl: (18) cut off", 18), None),
    ],
)
def test_the_reply_has_curls_status(output: Output, status: int | None) -> None:
    assert clients._reply("http://web", output).status == status


@pytest.mark.parametrize(
    "output",
    [
        Output("", "Error: no container with this name", 125),
        Output("", "curl: not found", 127),
        Output("", "", 0),
        Output("\n000", "curl: (3) bad URL", 3),
    ],
)
def test_a_request_that_was_not_sent_is_an_error(output: Output) -> None:
    with pytest.raises(RuntimeError, match="could not send its request"):
        clients._reply("http://web", output)


class Refusing:
    """A namespace in which no command can be run."""

    namespace = "home"

    def __init__(self, status: int) -> None:
        self.api, self.status = self, status

    def shell(self, *_: object) -> PodStreams:
        """The API server refuses."""
        raise ApiRefusal("exec", self.status, "{}")


@pytest.mark.parametrize(("status", "error"), [(404, RuntimeError), (500, RuntimeError), (403, ApiRefusal)])
def test_only_a_missing_right_to_use_a_client_pod_is_a_refusal(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        Inside(cast("Kube", Refusing(status)), {"worker": "inside-1"}).get("http://web")


@pytest.mark.parametrize("code", [126, 127])
def test_a_command_that_cannot_be_started_in_a_client_pod_is_an_error(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(Sessions, "run", lambda *_, **__: Output("", "dig: not found", code))

    with pytest.raises(RuntimeError, match="dig cannot be run in the client Pod inside-1: dig: not found"):
        Inside(cast("Kube", Refusing(0)), {"worker": "inside-1"}).addresses("web")


def test_limits_of_clients_scale_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "factor", 3.0)

    command = clients._curl("http://web", None, ())

    assert command[command.index("--max-time") + 1] == "6"


@dataclass(frozen=True)
class Containers(Engine):
    """An engine that records the containers that it runs."""

    started: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, *args: str, **_: Any) -> str:
        """Run a container, or tell about one."""
        if args[0] == "run":
            self.started.append(args)
        told = {"NetworkSettings": {"Networks": {"kind": {"IPAddress": "10.0.0.9"}}}, "ImageName": "node"}
        return "k-worker" if args[0] == "ps" else json.dumps([told])

    def remove_containers(self, *_: str) -> None:
        """Nothing to remove."""


class Ready(Sessions):
    """Shells in which every command succeeds."""

    def run(self, place: str, command: Sequence[str], timeout: float) -> Output:
        """The client is ready."""
        return Output("", "", 0)


class Nodes(KindNodes):
    """Nodes with such shells."""

    def sessions(self) -> Sessions:
        """Shells that nobody has opened."""
        return Ready(lambda _: cast("PodStreams", None))


RUN_ID = RunId("abc", "host", "1.1")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that start the clients outside."""
    engine = Containers("podman")
    monkeypatch.setattr(clients, "kind_nodes", lambda _: Nodes(engine, "k"))
    for _ in clients.outside._get_wrapped_function()(cast("Api", object()), RUN_ID, "main"):
        pass
    assert len(engine.started) == 2
    return engine.started


def test_the_clients_outside_get_no_proxy(started: list[tuple[str, ...]]) -> None:
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

    for command in started:
        assert [name for name in names if f"--env={name}=" not in command] == []


def test_the_clients_outside_have_the_labels_of_their_run(started: list[tuple[str, ...]]) -> None:
    for command in started:
        assert [key for key, value in RUN_ID.labels.items() if f"--label={key}={value}" not in command] == []


@dataclass(frozen=True)
class Beside(Engine):
    """An engine in memory: its containers, with their labels."""

    there: dict[str, dict[str, str]] = field(default_factory=dict)

    def containers(self, filter: str) -> list[str]:
        """The names of the containers with a label."""
        key, _, value = filter.removeprefix("label=").partition("=")
        return [name for name, labels in self.there.items() if key in labels and value in ("", labels[key])]

    def run(self, *args: str, **_: object) -> str:
        """What docker's `inspect` prints."""
        born = "2020-01-01T00:00:00.123456789Z"
        found = [name for name in self.there if name in args]
        return json.dumps(
            [{"Name": f"/{name}", "Created": born, "Config": {"Labels": self.there[name]}} for name in found]
        )

    def remove_containers(self, *names: str) -> None:
        """Remove these containers."""
        for name in names:
            del self.there[name]


@dataclass(frozen=True)
class Fails(Beside):
    """An engine that removes nothing."""

    error: Exception = field(default_factory=RuntimeError)

    def remove_containers(self, *_: str) -> None:
        """The engine is too busy, or hangs."""
        raise self.error


def clients_of(*runs: RunId) -> dict[str, dict[str, str]]:
    """A node, and one client of each run."""
    return {"k-worker": {CLUSTER: "k"}} | {f"{run.namespace}-outside": run.labels for run in runs}


def test_the_end_of_a_run_removes_the_clients_of_its_killed_processes_and_no_others() -> None:
    mine, other = RunId.new(), RunId.new()
    engine = Beside("podman", there=clients_of(mine, other))

    assert remove_clients(engine, mine) == []
    assert engine.there == clients_of(other)


def test_the_next_run_removes_the_clients_of_runs_that_are_over_and_no_others() -> None:
    alive, dead = RunId.new(), RunId("dead", RunId.new().host, "4194305.1")
    engine = Beside("docker", there=clients_of(alive, dead) | {"of-an-earlier-version": {RUN: "old"}})

    assert list(sweep_clients(engine)) == ["container kubehave-dead-outside", "container of-an-earlier-version"]
    assert engine.there == clients_of(alive)


@pytest.mark.parametrize("error", [RuntimeError("docker rm: exit 1: busy"), subprocess.TimeoutExpired("docker", 60)])
def test_clients_that_cannot_be_removed_are_named_at_the_end_and_stop_no_next_run(error: Exception) -> None:
    dead = RunId("dead", RunId.new().host, "4194305.1")
    engine = Fails("docker", there=clients_of(dead), error=error)

    assert remove_clients(engine, dead) == [f"clients outside the cluster: {error}"]
    assert list(sweep_clients(engine)) == ["container kubehave-dead-outside"]


# --- the clients' DaemonSet


@pytest.mark.parametrize(
    ("one", "awaited"),
    [
        (node(), True),
        (node(taints=[{"key": "foreign", "effect": "NoExecute"}]), True),
        (node(status=NOT_READY), False),
        (node(status={}), False),
        (node(unschedulable=True), False),
        (node(unschedulable=True, annotations={PATCHED: "{}"}), True),
        (node(labels={"kubernetes.io/os": "windows"}), False),
    ],
)
def test_a_node_must_have_a_client_if_pods_can_run_there(one: dict[str, Any], awaited: bool) -> None:
    assert clients._takes_a_client(Fields.of(one)) is awaited


class Shared:
    """The shared namespace, for a user who may not list Nodes."""

    def __init__(self, scheduled: int, *nodes: str) -> None:
        self.api, self._scheduled, self._nodes = self, scheduled, nodes

    def resource(self, kind: str) -> Any:
        """The API resource of Nodes."""
        return SimpleNamespace(namespaced=False, path=lambda *_: f"/api/v1/{kind}")

    def call(self, *_: Any, **__: Any) -> Any:
        """A LIST of Nodes is forbidden."""
        raise ApiRefusal("GET /api/v1/nodes", 403, "{}")

    def get(self, kind: str, name: str) -> Fields:
        """The DaemonSet."""
        status = {"desiredNumberScheduled": 2, "currentNumberScheduled": self._scheduled}
        return Fields.of({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "status": status})

    def pods(self, **_: str) -> list[Fields]:
        """The DaemonSet's Pods."""
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {}}
        return [Fields.of(pod | {"spec": {"nodeName": name}}) for name in self._nodes]


def test_without_the_right_to_list_nodes_the_daemonset_decides() -> None:
    assert clients._awaited_nodes(cast("Kube", Shared(2, "one", "two"))) == {"one", "two"}
    with pytest.raises(AssertionError, match="on 1 of 2 nodes"):
        clients._awaited_nodes(cast("Kube", Shared(1, "one")))


@pytest.mark.parametrize(
    "manifest", ["clients/inside.yaml", "control_plane/certificates.yaml", "namespaces/db-service.yaml"]
)
def test_pods_that_only_help_comply_with_the_restricted_standard(manifest: str) -> None:
    workloads = [document["spec"] for document in load_all(manifest) if document["kind"] != "Service"]
    assert workloads

    for workload in workloads:
        spec = workload["template"]["spec"] if "template" in workload else workload
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & spec.keys()
