"""What a run's report says about its cluster and about itself: versions, nodes, and what the cluster is made of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from urllib3.exceptions import HTTPError

from fixtures.api import Api, ApiRefusal
from fixtures.fields import Fields
from fixtures.in_brief import is_ready
from fixtures.interfaces import is_network_agent
from fixtures.kube import Kube
from fixtures.nodes import all_nodes, is_spare
from fixtures.storage import DEFAULT_CLASS

ROOT = Path(__file__).parent.parent

#: How the labels of a node name its roles.
ROLE = "node-role.kubernetes.io/"


@cache
def version() -> str:
    """This checkout: its commit, with "-dirty" if files differ from it. "unknown" without git."""
    described = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(described, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return "unknown"


def command(args: tuple[str, ...]) -> list[str]:
    """The command line as its user typed it. `args` are pytest's, which ./verify has put some options before."""
    words = list(args)
    added = ["-n", "auto", "--dist", "loadgroup"]
    return ["./verify", *words[len(added) :]] if words[: len(added)] == added else ["python", "-m", "runner", *words]


def of_cluster(api: Api, ours: bool) -> dict[str, Any]:
    """What the cluster is. None or an empty list stands for what it lacks, and for what this user may not read."""
    found: dict[str, Any] = dict.fromkeys(("kubernetes", "network_plugin", "kube_proxy", "dns", "storage_class"))
    found |= {"nodes": [], "ingress_classes": [], "load_balancer": "played by the suite" if ours else None}
    system = Kube(api, "kube-system").aside()
    with _readable():
        found["kubernetes"] = api.call("GET", "/version")["gitVersion"]
    with _readable():
        found["nodes"] = [_node(node) for node in all_nodes(api)]
    with _readable():
        agents = [it.metadata.name for it in Kube(api, "").aside().list("DaemonSet") if is_network_agent(it)]
        found["network_plugin"] = ", ".join(agents) or None
    with _readable():
        found["kube_proxy"] = _proxy_mode(system)
    with _readable():
        found["dns"] = _dns(system)
    with _readable():
        classes = [it for it in system.list("StorageClass") if it.metadata.annotations.get(DEFAULT_CLASS) == "true"]
        found["storage_class"] = ", ".join(f"{it.metadata.name} ({it.provisioner})" for it in classes) or None
    with _readable():
        classes = system.list("IngressClass")
        found["ingress_classes"] = [f"{it.metadata.name} ({it.spec.controller})" for it in classes]
    return found


@contextmanager
def _readable() -> Iterator[None]:
    """What cannot be read is left out: a report is no reason to end a run."""
    with suppress(ApiRefusal, HTTPError, OSError, KeyError, ValueError, TypeError, AttributeError):
        yield


def _node(node: Fields) -> dict[str, Any]:
    info = node.status.nodeInfo
    return {
        "name": node.metadata.name,
        "roles": sorted(label.removeprefix(ROLE) for label in node.metadata.labels if label.startswith(ROLE)),
        "ready": is_ready(node),
        "spare": is_spare(node),
        "os": info.osImage or "",
        "kernel": info.kernelVersion or "",
        "architecture": info.architecture or "",
        "runtime": info.containerRuntimeVersion or "",
        "kubelet": info.kubeletVersion or "",
    }


def _proxy_mode(system: Kube) -> str | None:
    """kube-proxy's mode, by the configuration that kubeadm stores; iptables is its default."""
    config = yaml.safe_load(system.get("ConfigMap", "kube-proxy").data["config.conf"])
    return config.get("mode") or "iptables"


def _dns(system: Kube) -> str | None:
    """The images behind the cluster's DNS, without registry."""
    images = [
        container.image.rpartition("/")[2]
        for pod in system.list("Pod", **{"k8s-app": "kube-dns"})
        for container in pod.spec.containers
    ]
    return ", ".join(dict.fromkeys(images)) or None
