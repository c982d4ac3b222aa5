"""Clients: an error when no request was sent, and the nodes that must have a client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from fixtures import clients
from fixtures.api import Api, ApiRefusal, PodStreams
from fixtures.clients import Inside
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.manifests import load_all
from fixtures.namespaces import PATCHED, RunId
from fixtures.nodes import KindNodes
from fixtures.patience import patience
from fixtures.session import Sessions
from machine.engine import Engine
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
    assert clients._reply(output).status == status


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
        clients._reply(output)


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


class Containers(Engine):
    """An engine that records the containers that it runs."""

    started: ClassVar[list[tuple[str, ...]]] = []

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


def test_the_clients_outside_get_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "kind_nodes", lambda _: Nodes(Containers("podman"), "k"))

    fixture = clients.outside._get_wrapped_function()
    for _ in fixture(cast("Api", object()), RunId("abc", "host", "1.1"), "main"):
        pass

    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    assert len(Containers.started) == 2
    for command in Containers.started:
        assert [name for name in names if f"--env={name}=" not in command] == []


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
