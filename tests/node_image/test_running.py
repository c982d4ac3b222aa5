"""What a cluster with our node image has. It pulls no images, and sends nothing outside."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest

from fixtures.waiting import eventually
from machine.engine import Engine
from machine.output import Output
from node_image import images, versions

Counted = Callable[[str, str], int]
InClient = Callable[..., Output]
Kubectl = Callable[..., str]

VERSION_COMMANDS: Mapping[str, str] = {
    "agnhost": "/agnhost --version",
    "busybox": "busybox | head -n 1",
    "contour": "contour version",
    "coredns": "/coredns -version",
    "envoy": "envoy --version",
    "etcd": "etcd --version",
    "flannel": "/opt/bin/flanneld --version",
    "kube-apiserver": "kube-apiserver --version",
    "kube-controller-manager": "kube-controller-manager --version",
    "kube-proxy": "/usr/local/bin/kube-proxy --version",
    "kube-scheduler": "kube-scheduler --version",
    "local-path-provisioner": "local-path-provisioner --version",
    "nginx": "nginx -v",
    "pause": "/pause -v",
    "python": "python3 --version",
    "redis": "redis-server --version",
}
"""The command that prints the version of each program."""


def test_every_node_has_what_kubeadm_needs(engine: Engine, nodes: list[str]) -> None:
    """The list comes from the kubeadm on the node."""
    for node in nodes:
        wanted = engine.run(
            "exec", node, "kubeadm", "config", "images", "list", f"--kubernetes-version=v{versions.KUBERNETES}"
        )
        here = engine.run("exec", node, "ctr", "--namespace=k8s.io", "images", "list", "--quiet")

        assert len(wanted.split()) == 7
        assert set(wanted.split()) <= set(here.split())


def test_every_node_has_every_image_of_the_table(engine: Engine, nodes: list[str]) -> None:
    for node in nodes:
        here = engine.run("exec", node, "ctr", "--namespace=k8s.io", "images", "list", "--quiet")

        assert {image.name for image in images.TABLE} <= set(here.split())


def test_an_image_contains_what_the_table_says(kubectl: Kubectl, namespace: str) -> None:
    """One Pod has a container for each image, which prints the version of its program."""
    asked = [image for image in images.TABLE if image.inside.split()[0] in VERSION_COMMANDS]
    kubectl("create", "--namespace", namespace, "-f", "-", input=json.dumps(_pod(asked)))
    kubectl(
        "wait", "--namespace", namespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/versions", "--timeout=80s"
    )

    for number, image in enumerate(asked):
        said = kubectl("logs", "--namespace", namespace, "versions", "--container", f"c{number}")
        assert image.inside.split()[1] in said, f"{image.name} says {said}"


def _pod(asked: list[images.Image]) -> dict[str, object]:
    containers = [
        {"name": f"c{number}", "image": image.name, "command": _command(image)} for number, image in enumerate(asked)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "versions"},
        "spec": {"restartPolicy": "Never", "containers": containers},
    }


def _command(image: images.Image) -> list[str]:
    command = VERSION_COMMANDS[image.inside.split()[0]]
    has_shell = image.layers[0] in ("busybox", "debian", "debian-next")
    return ["sh", "-c", command] if has_shell else command.split()


def test_no_image_was_pulled(kubectl: Kubectl, client: tuple[str, str]) -> None:
    """The kubelet's Events say that images are present, and none says that it pulls one."""
    events = json.loads(kubectl("get", "events", "--all-namespaces", "--output=json"))["items"]
    # "Failed" is the reason for other failures, too, such as a container whose Pod was deleted while it started
    reasons = {event["reason"] for event in events if event["reason"] != "Failed" or "pull" in event["message"].lower()}

    assert client
    assert "Pulled" in reasons
    assert not {"Pulling", "Failed", "ErrImagePull", "BackOff"} & reasons


def test_a_pods_stray_packet_is_refused_at_once_and_counted(
    in_client: InClient, client: tuple[str, str], counted: Counted, stray_address: str
) -> None:
    """Packets to an address that no Service has do not leave the machine."""
    neighbor = in_client("curl", "--silent", "--max-time", "5", "--insecure", "https://kubernetes.default.svc/livez")
    assert neighbor.stdout, "the client reaches an existing Service"
    before = counted(client[1], "strayed")

    answer = in_client("curl", "--silent", "--max-time", "5", "--write-out", "%{time_total}", f"http://{stray_address}")

    assert answer.code == 7, "curl could not connect"
    assert float(answer.stdout) < 0.5
    assert counted(client[1], "strayed") > before


def test_a_pods_stray_datagram_is_counted_too(
    in_client: InClient, client: tuple[str, str], counted: Counted, stray_address: str
) -> None:
    before = counted(client[1], "strayed")

    in_client("sh", "-c", f"echo | nc -u -w 1 {stray_address} 9")

    assert counted(client[1], "strayed") > before


def test_a_nodes_own_stray_packet_is_refused_and_counted(
    engine: Engine, nodes: list[str], counted: Counted, stray_address: str
) -> None:
    for node in nodes:
        before = counted(node, "strayed")

        answer = engine.output("exec", node, "curl", "--silent", "--max-time", "5", f"http://{stray_address}")

        assert answer.code == 7
        assert counted(node, "strayed") > before


def test_what_stays_in_the_cluster_is_not_counted(
    in_client: InClient, engine: Engine, nodes: list[str], counted: Counted, kubectl: Kubectl, client: tuple[str, str]
) -> None:
    """Packets to a Service, to a Pod from every node, and to a node's own port pass."""
    address = kubectl(
        "get",
        "pods",
        "--all-namespaces",
        f"--field-selector=metadata.name={client[0]}",
        "--output=jsonpath={.items[0].status.podIP}",
    )
    before = [counted(node, "strayed") for node in nodes]

    for node in nodes:
        reached = engine.output("exec", node, "curl", "--silent", "--max-time", "5", f"http://{address}:8080/hostname")
        assert reached.stdout == client[0]
        own = engine.run("exec", node, "hostname", "-i").split()
        assert in_client("nc", "-z", "-w", "5", next(part for part in own if "." in part), "10250").code == 0
    assert in_client("curl", "--silent", "--max-time", "5", "--insecure", "https://kubernetes.default.svc/livez").stdout

    assert [counted(node, "strayed") for node in nodes] == before


def test_nothing_of_a_deleted_pods_network_stays_on_its_node(
    kubectl: Kubectl, engine: Engine, nodes: list[str], namespace: str
) -> None:
    """Its address, its route and the rules of its host port go, although the plugins delete only once."""
    node = nodes[1]
    ports = [{"containerPort": 8080, "hostPort": 18080}]
    spec = {"nodeName": node, "containers": [{"name": "pause", "image": images.PAUSE.name, "ports": ports}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "short"}, "spec": spec}
    kubectl("create", "--namespace", namespace, "-f", "-", input=json.dumps(pod))
    kubectl("wait", "--namespace", namespace, "--for=condition=Ready", "pod/short", "--timeout=60s")
    address = kubectl("get", "pod", "short", "--namespace", namespace, "--output=jsonpath={.status.podIP}")

    def left() -> list[bool]:
        reserved = engine.run("exec", node, "ls", "/run/cni-ipam/pods").split()
        routes = engine.run("exec", node, "ip", "route", "show", address)
        return [address in reserved, bool(routes), "dport 18080" in engine.run("exec", node, "nft", "list", "ruleset")]

    assert left() == [True, True, True]

    kubectl("delete", "--namespace", namespace, "pod", "short", "--grace-period=1")

    for look in eventually(within=30):
        with look:
            assert left() == [False, False, False]


def test_names_of_the_cluster_resolve_and_others_do_not_exist(in_client: InClient) -> None:
    """For a name outside the cluster the answer comes at once: there is no such name."""
    inside = in_client("dig", "+short", "kubernetes.default.svc.cluster.local")
    outside = in_client("dig", "+time=2", "+tries=1", "kubernetes.io")

    assert inside.stdout.strip() == "10.96.0.1"
    assert "status: NXDOMAIN" in outside.stdout


def test_a_pod_may_not_query_the_engines_name_server(
    in_client: InClient, engine: Engine, nodes: list[str], client: tuple[str, str], counted: Counted
) -> None:
    """That server would query others outside. The nodes may use it, because it knows their names."""
    servers = engine.run("exec", client[1], "sed", "-n", "s/^nameserver //p", "/etc/resolv.conf").split()
    server = next(address for address in servers if "." in address)
    before = counted(client[1], "asked_outside")

    asked = in_client("dig", "+time=1", "+tries=1", f"@{server}", nodes[0])

    assert asked.code != 0
    assert counted(client[1], "asked_outside") > before
    assert engine.output("exec", client[1], "getent", "hosts", nodes[0]).code == 0


def test_a_node_has_nothing_of_the_images_in_its_own_storage(engine: Engine, nodes: list[str]) -> None:
    """A node's /var is a copy of the image's /var, so the shared layers are elsewhere."""
    for node in nodes:
        kilobytes = engine.run(
            "exec",
            node,
            "du",
            "--one-file-system",
            "--summarize",
            "/var/lib/containerd/io.containerd.content.v1.content",
        )

        assert int(kilobytes.split()[0]) < 20_000


def test_pods_are_in_the_kubelets_cgroup(engine: Engine, client: tuple[str, str]) -> None:
    """On cgroup v1 and v2: the group that the node's script makes, and that kind's configuration names."""
    groups = engine.run("exec", client[1], "sh", "-c", "cat /proc/$(pgrep -o agnhost)/cgroup")

    assert "/kubelet.slice/" in groups or "/kubelet/" in groups


@pytest.mark.parametrize("plugin", ["forward", "loop"])
def test_the_clusters_dns_has_no_upstream_server(kubectl: Kubectl, plugin: str) -> None:
    corefile = kubectl("get", "configmap", "coredns", "--namespace=kube-system", "--output=jsonpath={.data.Corefile}")

    assert "kubernetes cluster.local" in corefile
    assert plugin not in corefile.split()
