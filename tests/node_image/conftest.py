"""A running cluster of kind whose node image was built here. KUBEHAVE_KUBECONFIG names its kubeconfig."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import engine as engines
from machine.engine import Engine

Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """The kubeconfig of the cluster. Without it the tests are skipped."""
    given = os.environ.get("KUBEHAVE_KUBECONFIG")
    if not given:
        pytest.skip("needs a cluster with our node image: set KUBEHAVE_KUBECONFIG to its kubeconfig")
    return given


@pytest.fixture(scope="session")
def engine(kubeconfig: str) -> Engine:
    """The engine in which the nodes are containers."""
    return engines.find(install=False, say=print)


@pytest.fixture(scope="session")
def nodes(engine: Engine, kubeconfig: str) -> list[str]:
    """The names of the cluster's nodes, the control plane first."""
    context = re.search(r"^current-context: kind-(\S+)$", Path(kubeconfig).read_text(), re.MULTILINE)
    assert context, f"{kubeconfig} does not belong to a kind cluster"
    label = f"label=io.x-k8s.kind.cluster={context[1]}"
    names = engine.run("ps", "--filter", label, "--format", "{{.Names}}").split()
    assert f"{context[1]}-control-plane" in names
    if "/kubehave-node:" not in engine.run("inspect", "--type", "container", names[0]):
        pytest.skip("the cluster's node image was not built here")
    return sorted(names)


@pytest.fixture(scope="session")
def kubectl(engine: Engine, nodes: list[str]) -> Kubectl:
    """`kubectl(*arguments, input=...)`: the control-plane node's own kubectl, as its administrator."""

    def run(*arguments: str, input: str | None = None) -> str:
        command = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", *arguments]
        stdin = ["--interactive"] if input is not None else []
        return engine.run("exec", *stdin, nodes[0], *command, input=input, timeout=90)

    return run


@pytest.fixture(scope="session")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for the Pods of these tests, deleted after them."""
    name = "node-image-tests"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def client(kubectl: Kubectl, namespace: str) -> tuple[str, str]:
    """A Pod with curl, dig and nc, and the node on which it runs."""
    image = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
    kubectl("run", "client", "--namespace", namespace, "--image", image, "--", "netexec")
    kubectl("wait", "--namespace", namespace, "--for=condition=Ready", "pod/client", "--timeout=60s")
    node = kubectl("get", "pod", "client", "--namespace", namespace, "--output=jsonpath={.spec.nodeName}")
    return "client", node


@pytest.fixture(scope="session")
def in_client(engine: Engine, nodes: list[str], namespace: str, client: tuple[str, str]) -> Callable[..., Any]:
    """`in_client(*command)`: run a command in the client Pod, and return its output."""
    kubectl = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "exec", "--namespace", namespace, client[0], "--"]
    return lambda *command: engine.output("exec", nodes[0], *kubectl, *command)


@pytest.fixture(scope="session")
def counted(engine: Engine) -> Callable[[str, str], int]:
    """`counted(node, counter)`: how many packets the node has refused; the counter is `strayed` or `asked_outside`."""

    def packets(node: str, counter: str) -> int:
        listed = json.loads(engine.run("exec", node, "nft", "-j", "list", "counter", "inet", "confine", counter))
        return int(next(entry["counter"]["packets"] for entry in listed["nftables"] if "counter" in entry))

    return packets


@pytest.fixture(scope="session")
def stray_address() -> str:
    """An address of the Services' range that no Service has."""
    return "10.96.254.254"
