"""What a report says about its cluster and about itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.api import Connection
from runner import facts
from tests.stub_cluster import StubCluster, kubeconfig

NODE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "one", "labels": {"node-role.kubernetes.io/control-plane": ""}},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "nodeInfo": {
            "osImage": "Debian GNU/Linux 12",
            "kernelVersion": "6.1.0",
            "architecture": "amd64",
            "containerRuntimeVersion": "containerd://2.1.4",
            "kubeletVersion": "v1.36.3",
        },
    },
}


@pytest.fixture
def stub() -> Iterator[StubCluster]:
    cluster = StubCluster([NODE])
    yield cluster
    cluster.close()


def facts_of(stub: StubCluster, folder: Any, ours: bool = False) -> dict[str, Any]:
    kubeconfig(folder / "kubeconfig", stub.address)
    return facts.of_cluster(Connection(str(folder / "kubeconfig"), "there").api(), ours)


def test_the_nodes_are_described(stub: StubCluster, tmp_path: Any) -> None:
    (node,) = facts_of(stub, tmp_path)["nodes"]

    assert (node["name"], node["roles"], node["ready"], node["spare"]) == ("one", ["control-plane"], True, False)
    assert (node["os"], node["kernel"], node["runtime"]) == ("Debian GNU/Linux 12", "6.1.0", "containerd://2.1.4")


def test_what_the_cluster_lacks_or_hides_is_none(stub: StubCluster, tmp_path: Any) -> None:
    stub.answers["GET", "/api/v1/nodes"] = 403, {"message": 'User "u" cannot list resource "nodes"'}
    stub.answers["GET", "/version"] = 500, {}

    found = facts_of(stub, tmp_path)

    assert found["nodes"] == found["ingress_classes"] == []
    assert {name for name, value in found.items() if value is None} == {
        *("kubernetes", "network_plugin", "kube_proxy", "dns", "storage_class", "load_balancer"),
    }


def test_on_our_own_cluster_the_suite_plays_the_provider(stub: StubCluster, tmp_path: Any) -> None:
    assert facts_of(stub, tmp_path, ours=True)["load_balancer"] == "played by the suite"


def test_the_command_is_as_its_user_typed_it() -> None:
    assert facts.command(("-n", "auto", "--dist", "loadgroup", "--keep", "-x")) == ["./verify", "--keep", "-x"]


def test_the_version_is_the_commit() -> None:
    assert facts.version()
