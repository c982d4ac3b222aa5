"""What a report says about its cluster and about itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
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


def facts_of(stub: StubCluster, folder: Path, ours: bool = False) -> dict[str, Any]:
    kubeconfig(folder / "kubeconfig", stub.address)
    return facts.of_cluster(Connection(str(folder / "kubeconfig"), "there").api(), ours)


def test_the_nodes_are_described(stub: StubCluster, tmp_path: Path) -> None:
    (node,) = facts_of(stub, tmp_path)["nodes"]

    assert (node["name"], node["roles"], node["ready"], node["spare"]) == ("one", ["control-plane"], True, False)
    assert (node["os"], node["kernel"], node["runtime"]) == ("Debian GNU/Linux 12", "6.1.0", "containerd://2.1.4")


def test_what_the_cluster_lacks_or_hides_is_none(stub: StubCluster, tmp_path: Path) -> None:
    stub.answers["GET", "/api/v1/nodes"] = 403, {"message": 'User "u" cannot list resource "nodes"'}
    stub.answers["GET", "/version"] = 500, {}

    found = facts_of(stub, tmp_path)

    assert found["nodes"] == found["ingress_classes"] == []
    assert {name for name, value in found.items() if value is None} == {
        *("kubernetes", "network_plugin", "kube_proxy", "dns", "storage_class", "load_balancer"),
    }


def test_on_our_own_cluster_the_suite_plays_the_provider(stub: StubCluster, tmp_path: Path) -> None:
    assert facts_of(stub, tmp_path, ours=True)["load_balancer"] == "played by the suite"


def test_the_command_is_as_its_user_typed_it() -> None:
    assert facts.command(("-n", "auto", "--dist", "loadgroup", "--keep", "-x")) == ["./verify", "--keep", "-x"]


def test_the_version_is_the_commit(root: Path) -> None:
    commit = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    said = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()

    assert facts.version().removesuffix("-dirty") == said


def answers(stub: StubCluster, path: str, kind: str, *items: dict[str, Any]) -> None:
    """Let the simulated cluster list these objects."""
    group, version = path.split("/")[1:-1][-2:] if path.startswith("/apis") else ("", "v1")
    stub.answers["GET", path] = (
        200,
        {"apiVersion": f"{group}/{version}" if group else version, "kind": f"{kind}List", "items": list(items)},
    )


def test_what_the_cluster_is_made_of_is_named(stub: StubCluster, tmp_path: Path) -> None:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    writes_cni = {"volumes": [{"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}}]}
    answers(
        *(stub, "/apis/storage.k8s.io/v1/storageclasses", "StorageClass"),
        {"metadata": {"name": "other"}, "provisioner": "other.io"},
        {"metadata": {"name": "standard", "annotations": default}, "provisioner": "local.io"},
    )
    answers(
        *(stub, "/apis/networking.k8s.io/v1/ingressclasses", "IngressClass"),
        {"metadata": {"name": "edge"}, "spec": {"controller": "edge.io/it"}},
    )
    answers(
        *(stub, "/apis/apps/v1/daemonsets", "DaemonSet"),
        {"metadata": {"name": "kube-proxy"}, "spec": {"template": {"spec": {}}}},
        {"metadata": {"name": "flannel"}, "spec": {"template": {"spec": writes_cni}}},
    )
    stub.pods = [{"metadata": {"name": "dns"}, "spec": {"containers": [{"name": "c", "image": "x.io/coredns:v1"}]}}]

    found = facts_of(stub, tmp_path)

    assert found["storage_class"] == "standard (local.io)"
    assert found["ingress_classes"] == ["edge (edge.io/it)"]
    assert found["network_plugin"] == "flannel"
    assert found["dns"] == "coredns:v1"
