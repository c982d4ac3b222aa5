"""The network of the nodes, and the network of the Pods, which spans the nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

import pytest

from fixtures.api import Api
from fixtures.clients import NEVER_SENT, PORT, Inside, silence
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.interfaces import INTERFACES, addresses, by_interface
from fixtures.kube import Kube, is_ready
from fixtures.kubelets import silent_kubelets
from fixtures.nodes import internal_ip, is_ours
from fixtures.patience import patience
from fixtures.pod_ranges import ips_of, is_in
from fixtures.waiting import eventually
from machine.output import Output

RunOnNode = Callable[..., Output]

#: Opens a TCP connection to an address and a port.
CONNECT = 'exec 3<>"/dev/tcp/$0/$1"'

#: What `seen` has for a server that accepted no connection: it was refused or had no route (curl's 7), or got no answer (28).
CLOSED = ("curl error 7", "curl error 28")


def names(nodes: Iterable[Fields]) -> list[str]:
    """The nodes' names, in order."""
    return [node.metadata.name for node in nodes]


def seen(inside: Inside, client: str, servers: Collection[str]) -> dict[str, str]:
    """Which address of the client on a node the servers at these addresses see, or curl's error ("curl error 7").

    Raises RuntimeError if curl has not asked all of them, because that says nothing about the cluster.
    """
    urls = [f"http://{f'[{it}]' if ':' in it else it}:{PORT}/clientip" for it in servers]
    options = ("--silent", "--show-error", "--max-time", f"{silence():g}", "--write-out", "\t%{exitcode}\n")
    done = inside.run("curl", *options, *urls, node=client, timeout=30 + 2 * len(urls))
    answers = re.findall(r"(\S*)\s*\t(\d+)\n", done.stdout)
    if len(answers) != len(urls) or {int(code) for _, code in answers} & set(NEVER_SENT):
        raise RuntimeError(f"curl has not asked: exit code {done.code}, {done.stderr.strip() or 'no error message'}")
    told = [f"curl error {code}" if code != "0" else answer.rpartition(":")[0].strip("[]") for answer, code in answers]
    return dict(zip(servers, told, strict=False))


# --- the network of the nodes


@pytest.mark.behavior("controllers/nodes-share-a-network")
def test_all_nodes_have_ips_of_one_network(nodes: list[Fields], run_on_node: RunOnNode) -> None:
    """Each node has an IP of its own on one of its interfaces, and all these IPs belong to one network."""
    ips = {node.metadata.name: ip_address(internal_ip(node)) for node in nodes}

    own = {node: addresses(run_on_node(node, *INTERFACES)) for node in ips}

    networks = {node: {str(it.network) for it in own[node] if it.ip == ip} for node, ip in ips.items()}
    (shared,) = exactly(1, {network for found in networks.values() for network in found})
    assert networks == {node: {shared} for node in ips}
    assert len(set(ips.values())) == len(nodes)


@pytest.mark.behavior("controllers/nodes-share-a-network")
def test_every_node_reaches_every_other_node(nodes: list[Fields], run_on_node: RunOnNode) -> None:
    """From each node, every other node is reachable at its IP: its kubelet accepts a connection there."""
    pairs = [(node, other) for node in nodes for other in nodes if node is not other]
    assert pairs

    def connects(node: Fields, other: Fields) -> bool:
        to = (internal_ip(other), str(other.status.daemonEndpoints.kubeletEndpoint.Port))
        limit = ("timeout", f"{2 * silence():g}")
        return run_on_node(node.metadata.name, *limit, "bash", "-c", CONNECT, *to).code == 0

    for look in eventually(within=patience.server_listens):
        with look:
            failed = [" to ".join(names(pair)) for pair in pairs if not connects(*pair)]
            assert failed == [], f"the kubelet's port cannot be reached from {', '.join(failed)}"


@pytest.mark.behavior("controllers/nodes-share-a-network")
def test_a_pods_port_is_closed_on_the_ip_of_its_node(api: Api, nodes: list[Fields], inside: Inside) -> None:
    """A node's IP leads to the node and not to its Pods: a Pod's port is open at the Pod's IP, and closed at the node's."""
    client, hosts = inside.nodes[0], [node for node in nodes if node.metadata.name in inside.nodes]
    servers = [inside.pod_ip(node) for node in inside.nodes]
    for look in eventually(within=patience.server_listens):
        with look:
            at_pods = seen(inside, client, servers)
            assert at_pods == dict.fromkeys(servers, inside.pod_ip(client))

    for look in eventually(within=patience.server_listens):
        with look:
            at_nodes = seen(inside, client, [internal_ip(node) for node in hosts])
            assert silent_kubelets(api, inside, hosts, client) == [], "the client does not reach these nodes"

    assert len(at_nodes) == len(servers)
    opened = {ip: answer for ip, answer in at_nodes.items() if answer not in CLOSED}
    assert opened == {}, f"port {PORT} is open at IPs of nodes: {opened}"


# --- the network of the Pods


@pytest.fixture
def client_pods(inside: Inside) -> dict[str, Fields]:
    """The client Pod on each node."""
    return {node: inside.pod(node) for node in inside.nodes}


@pytest.fixture
def system_pods(api: Api) -> list[Fields]:
    """The Pods of kube-system that are Ready; there is at least one."""
    found = [pod for pod in Kube(api, "kube-system").pods() if is_ready(pod)]
    assert found, "no Pod of kube-system is Ready"
    return found


@pytest.mark.behavior("controllers/cni-gives-each-pod-an-ip")
def test_each_pod_has_an_ip_of_its_own_on_its_own_interface(
    inside: Inside, client_pods: dict[str, Fields], system_pods: list[Fields]
) -> None:
    """The network plugin gives each Pod an interface and an IP that no other Pod has. The node's IP is not on it.

    One interface has exactly the IPs in the Pod's status, and addresses that are valid on its link only.
    """
    for node, pod in client_pods.items():
        own = by_interface(inside.run(*INTERFACES, node=node))
        ips = {name: {str(it.ip) for it in found if not it.ip.is_link_local} for name, found in own.items()}
        assert ips_of(pod) in ips.values(), f"the interfaces of the Pod on {node} have the IPs {ips}"
        assert [name for name, found in ips.items() if pod.status.hostIP in found] == []

    pods = [*client_pods.values(), *(pod for pod in system_pods if not pod.spec.hostNetwork)]
    owners = Counter(ip for pod in pods for ip in ips_of(pod))
    assert {ip: count for ip, count in owners.items() if count > 1} == {}


@pytest.mark.behavior("controllers/cni-gives-each-pod-an-ip")
def test_each_nodes_pods_have_ips_of_its_range(
    pod_ranges: dict[str, list[str]], client_pods: dict[str, Fields]
) -> None:
    """Each node has a range of IPs for its Pods, and a Pod's IP is from the range of its own node and of no other."""
    found = {
        node: [other for other, blocks in pod_ranges.items() if is_in(blocks, ips_of(pod))]
        for node, pod in client_pods.items()
    }

    assert found == {node: [node] for node in client_pods}


@pytest.fixture
def node_ips(nodes: list[Fields]) -> dict[str, set[str]]:
    """The IPs of each node."""
    return {node.metadata.name: {it.address for it in node.status.addresses} for node in nodes}


@pytest.fixture
def host_pods(api: Api, node_ips: dict[str, set[str]], system_pods: list[Fields]) -> list[Fields]:
    """The Pods of kube-system that use the network of their nodes. Skips if there are none; our own clusters have some."""
    found = [pod for pod in system_pods if pod.spec.hostNetwork and pod.spec.nodeName in node_ips]
    if not found and not is_ours(api):
        pytest.skip("no Pod of kube-system has `hostNetwork: true`; use a cluster whose kube-proxy runs in Pods")
    return found


@pytest.mark.behavior("controllers/cni-gives-each-pod-an-ip")
def test_pods_on_the_hosts_network_have_the_ip_of_their_node(
    host_pods: list[Fields], client_pods: dict[str, Fields], node_ips: dict[str, set[str]]
) -> None:
    """Pods with `hostNetwork: true`, such as kube-proxy's, get no IP of their own: theirs is the node's. Others' never is."""
    assert host_pods, "no Pod of kube-system has `hostNetwork: true`"
    strangers = {pod.metadata.name: ips_of(pod) for pod in host_pods if not ips_of(pod) <= node_ips[pod.spec.nodeName]}

    assert strangers == {}
    of_others = {ip for pod in client_pods.values() for ip in ips_of(pod)}
    assert of_others & {ip for ips in node_ips.values() for ip in ips} == set()


@pytest.fixture
def pod_ips(inside: Inside) -> dict[str, str]:
    """The IP of the client Pod on each node; there are at least two nodes."""
    found = {node: inside.pod_ip(node) for node in inside.nodes}
    assert len(found) > 1, f"clients run on these nodes only: {', '.join(found)}"
    return found


@pytest.mark.behavior("core-concepts/pods-reach-each-other-across-nodes")
def test_every_pod_reaches_every_pod_with_its_own_ip(inside: Inside, pod_ips: dict[str, str]) -> None:
    """One network connects all Pods: each reaches each, on whatever nodes they are, and is seen with its own IP (no NAT)."""
    for look in eventually(within=patience.server_listens):
        with look:
            for node, own in pod_ips.items():
                others = {ip: address for ip, address in seen(inside, node, pod_ips.values()).items() if address != own}
                assert others == {}, f"servers do not see the Pod on {node} with its IP {own}: {others}"
