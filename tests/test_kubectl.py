"""Where kubectl comes from, what it is told, and which port it forwards. Here kubectl is replaced by a script."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures import kubectl as kubectls
from fixtures.api import Api, ApiRefusal, Connection
from fixtures.fields import Fields
from fixtures.inconclusive import Inconclusive
from fixtures.kubectl import Kubectl, print_of
from fixtures.nodes import KindNodes
from machine.engine import Engine

#: Records the ports that it should forward, and prints the local one: 4711 if it may choose. Port 1 is taken.
FORWARDS = """#!/bin/bash
ports="${@: -1}"
echo "$ports" >>"$0.asked"
[ "$ports" = refused:80 ] && { echo "error: no such Service" >&2; exit 1; }
[ "$ports" = 1:80 ] && { echo "error: unable to listen on any of the requested ports: [{1 80}]" >&2; exit 1; }
local="${ports%%:*}"
echo "Forwarding from 127.0.0.1:${local:-4711} -> 80"
exec sleep 100
"""

FORBIDDEN = 'Error from server (Forbidden): pods is forbidden: User "u" cannot list resource "pods" in API group ""'

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "k-control-plane", "labels": {"node-role.kubernetes.io/control-plane": ""}},
    "status": {"nodeInfo": {"kubeletVersion": "v1.99.0", "architecture": "amd64"}},
}


#: A user's kubeconfig.
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: c, user: u}}
- {name: two, context: {cluster: d, user: v}}
clusters:
- {name: c, cluster: {server: "https://one:1"}}
- {name: d, cluster: {server: "https://two:1"}}
users:
- {name: u, user: {token: secret}}
- {name: v, user: {token: secret}}
"""


def script(path: Path, text: str) -> Kubectl:
    """A script in the place of kubectl, with a folder beside it."""
    path.write_text(text)
    path.chmod(0o755)
    folder = path.with_name("folder")
    folder.mkdir()
    return Kubectl(str(path), folder, {"PATH": "/usr/bin:/bin"})


@pytest.fixture
def forwards(tmp_path: Path) -> Kubectl:
    return script(tmp_path / "kubectl", FORWARDS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asked(tmp_path: Path) -> str:
    return (tmp_path / "kubectl.asked").read_text().strip()


def test_a_free_port_is_forwarded(forwards: Kubectl, tmp_path: Path) -> None:
    port = free_port()

    with forwards.forward("svc/web", port, 80) as ask:
        assert ask().code == 1  # the script listens to nothing

    assert asked(tmp_path) == f"{port}:80"


def test_kubectl_chooses_another_port_if_the_port_is_taken(forwards: Kubectl, tmp_path: Path) -> None:
    with forwards.forward("svc/web", 1, 80):
        pass

    assert asked(tmp_path).split() == ["1:80", ":80"]


@pytest.mark.parametrize(
    ("complaint", "error"),
    [("Unable to connect to the server: EOF", ConnectionError), ("Error from server: error dialing", Inconclusive)],
)
def test_a_port_that_is_not_forwarded_for_another_reason_is_no_result(
    tmp_path: Path, complaint: str, error: type[Exception]
) -> None:
    kubectl = script(tmp_path / "kubectl", f"#!/bin/sh\necho '{complaint}' >&2; exit 1\n")

    with pytest.raises(error, match=complaint), kubectl.forward("svc/web", free_port(), 80):
        pass


def test_the_error_of_kubectl_is_quoted(forwards: Kubectl) -> None:
    with (
        pytest.raises(AssertionError, match="error: no such Service"),
        forwards.forward("svc/web", cast("int", "refused"), 80),
    ):
        pass


def test_kubectl_runs_in_its_folder_with_its_editor(tmp_path: Path) -> None:
    kubectl = script(tmp_path / "kubectl", '#!/bin/sh\n"$KUBE_EDITOR" pod.yaml; cat pod.yaml -; exit 3\n')

    done = kubectl("edit", input={"kind": "Pod"}, editor='echo edited >"$1"')

    assert (done.stdout, done.code) == ("edited\nkind: Pod\n", 3)


def test_a_missing_right_is_a_refusal(tmp_path: Path) -> None:
    kubectl = script(tmp_path / "kubectl", f"#!/bin/sh\necho '{FORBIDDEN}' >&2; exit $1\n")

    assert kubectl("0").code == 0
    with pytest.raises(ApiRefusal) as caught:
        kubectl("1")

    assert caught.value.why_not_permitted == "the right to list pods is missing for this context's user; grant it"


@pytest.mark.parametrize(
    "said",
    [
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?",
        'error: error when creating "web.yaml": Post "https://127.0.0.1:1/api/v1/namespaces/web/pods": EOF',
    ],
)
def test_no_answer_is_no_result(tmp_path: Path, said: str) -> None:
    kubectl = script(tmp_path / "kubectl", f"#!/bin/sh\necho '{said}' >&2; exit 1\n")

    with pytest.raises(ConnectionError, match="kubectl get pods: "):
        kubectl("get", "pods")


def test_a_webhooks_refusal_is_a_result(tmp_path: Path) -> None:
    said = 'Error from server: admission webhook "no.example.com" denied the request: no'
    kubectl = script(tmp_path / "kubectl", f"#!/bin/sh\necho '{said}' >&2; exit 1\n")

    assert kubectl("create", "-f", "web.yaml").code == 1


@pytest.mark.parametrize(
    "reason",
    ["", " (InternalError)", " (ServerTimeout)", " (ServiceUnavailable)", " (Timeout)", " (TooManyRequests)"],
)
def test_a_server_in_trouble_is_inconclusive(tmp_path: Path, reason: str) -> None:
    said = f"Error from server{reason}: etcdserver: leader changed"
    kubectl = script(tmp_path / "kubectl", f"#!/bin/sh\necho '{said}' >&2; exit $1\n")

    assert kubectl("0").code == 0
    with pytest.raises(Inconclusive, match=r"kubectl 1: .* leader changed"):
        kubectl("1")


class Copies(Engine):
    """An engine whose `cp` writes a file."""

    def run(self, *args: str, **_: Any) -> str:
        """Copy a file from a node, once."""
        command, source, target = args
        assert (command, source) == ("cp", "k-control-plane:/usr/bin/kubectl")
        assert not Path(target).exists(), "it was copied before"
        Path(target).write_text("kubectl")
        return ""


def test_the_nodes_kubectl_is_copied_once_if_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(kubectls, "kind_nodes", lambda _: KindNodes(Copies("podman"), "k"))
    monkeypatch.setattr(kubectls, "all_nodes", lambda _: [Fields.of(NODE)])

    found = {kubectls.program(cast("Api", object())) for _ in range(2)}

    assert found == {str(tmp_path / "kubehave" / "kubectl" / "v1.99.0-amd64" / "kubectl")}
    assert [Path(path).read_text() for path in found] == ["kubectl"]
    assert kubectls.why_no_kubectl(cast("Api", object())) is None


@pytest.mark.parametrize("nodes", [None, KindNodes(Engine("podman"), "k")])
def test_a_machine_that_cannot_run_the_nodes_kubectl_needs_its_own(
    monkeypatch: pytest.MonkeyPatch, nodes: KindNodes | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(kubectls, "kind_nodes", lambda _: nodes)
    monkeypatch.setattr(sys, "platform", "darwin" if nodes else "linux")

    assert kubectls.why_no_kubectl(cast("Api", object())) == "there is no kubectl on the PATH; install it"


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("u, user: {token: secret}", "u, user: {token: another}", True),
        ("https://one:1", "https://one:2", True),
        ("cluster: c, user: u", "cluster: c, user: u, namespace: n", True),
        ("kind: Config", "kind: Config\npreferences: {colors: true}", True),
        ("cluster: d, user: v", "cluster: d, user: v, namespace: n", False),
        ("current-context: one", "current-context: two", False),
    ],
)
def test_the_fingerprint_is_of_what_the_runs_context_says(tmp_path: Path, old: str, new: str, differs: bool) -> None:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    connection = Connection(str(path), "one")
    before = print_of(connection)

    path.write_text(KUBECONFIG.replace(old, new))

    assert (print_of(connection) != before) == differs
