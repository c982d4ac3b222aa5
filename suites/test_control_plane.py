"""The control plane: its nodes and components, how a request becomes a running Pod, and who may talk to whom."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from urllib3 import PoolManager, Timeout

from fixtures.api import Api, ApiRefusal
from fixtures.clients import Inside, Reply, silence
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.inconclusive import NotObserved
from fixtures.interfaces import is_network_agent
from fixtures.kube import Kube, is_ready
from fixtures.manifests import load, load_all
from fixtures.namespaces import RunId, make, name_for
from fixtures.nodes import all_nodes, is_control_plane, is_ours, is_spare, kind_nodes
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.waiting import eventually, throughout
from machine.output import Output

RunOnNode = Callable[..., Output]

#: The programs that are the control plane, by the names that kubeadm gives their static Pods.
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")

#: The annotation of a mirror Pod: the API's picture of a static Pod, which the kubelet has read from a file.
MIRROR = "kubernetes.io/config.mirror"

#: Where kubeadm writes the files of static Pods.
STATIC_PODS = "/etc/kubernetes/manifests"

POD = "control_plane/pod.yaml"


def names(things: Iterable[Fields]) -> list[str]:
    """The names of these objects, sorted."""
    return sorted(thing.metadata.name for thing in things)


@pytest.fixture
def system(api: Api) -> Kube:
    """The verbs for kube-system, the cluster's own namespace; tests read there."""
    return Kube(api, "kube-system")


# --- nodes


@pytest.fixture
def control_plane(api: Api, nodes: list[Fields]) -> list[Fields]:
    """The control-plane nodes that are Ready. Not observed if the cluster hides them; our own clusters must not."""
    found = [node for node in nodes if is_control_plane(node)]
    if not found and not is_ours(api):
        raise NotObserved("no Ready node has the role control-plane; use a cluster made by kubeadm")
    return found


def refuses_pods(node: Fields) -> bool:
    """Whether the node has the taint that keeps Pods away from control-plane nodes."""
    taint = ("node-role.kubernetes.io/control-plane", "NoSchedule")
    return taint in [(it.key, it.effect) for it in node.spec.taints]


@pytest.fixture
def closed_control_plane(api: Api, control_plane: list[Fields]) -> list[Fields]:
    """The same nodes. Not observed if the owner of the cluster has opened one of them to all Pods."""
    opened = [node for node in control_plane if not refuses_pods(node)]
    if opened and not is_ours(api):
        raise NotObserved(f"{', '.join(names(opened))} has no taint NoSchedule, so Pods run there; add the taint")
    return control_plane


@pytest.mark.behavior("core-concepts/node-roles")
def test_control_plane_nodes_have_the_control_plane_and_a_taint(
    api: Api, system: Kube, closed_control_plane: list[Fields], workers: list[Fields]
) -> None:
    """Some nodes manage the cluster, and only they run its API server. A taint keeps other Pods away from them.

    On a cluster of our own every node is Ready. The owner of another one may have stopped some.
    """
    for look in eventually(within=patience.node_returns):
        with look:
            every = [node for node in all_nodes(api) if not is_spare(node)]
            unready = [node.metadata.name for node in every if not is_ready(node)]
            assert unready == [] or not is_ours(api), f"these nodes are not Ready: {unready}"
            servers = {pod.spec.nodeName for pod in system.list("Pod", component="kube-apiserver")}
            assert set(names(closed_control_plane)) <= servers <= set(names(filter(is_control_plane, every)))
    assert [node for node in workers if node.metadata.name in servers] == []
    assert [node for node in closed_control_plane if not refuses_pods(node)] == []
    assert [node for node in workers if refuses_pods(node)] == []


@pytest.mark.behavior("core-concepts/node-roles")
def test_pods_without_a_toleration_go_to_workers(kube: Kube, closed_control_plane: list[Fields]) -> None:
    """The taint is stronger than a Pod's wishes. A Pod that prefers the control plane goes to a worker, one that insists waits.

    With a toleration it goes there.
    """
    kube.apply("control_plane/where-pods-go.yaml")

    for look in eventually(within=patience.pod_starts):
        with look:
            pods = {pod.metadata.name: pod for pod in kube.list("Pod")}
            assert pods["must-and-tolerates"].spec.nodeName in names(closed_control_plane)
            assert pods["would-like-to"].spec.nodeName is not None
            waits = [(it.type, it.status, it.reason) for it in pods["must"].status.conditions]
            assert waits == [("PodScheduled", "False", "Unschedulable")]
    assert pods["would-like-to"].spec.nodeName not in names(closed_control_plane)
    assert pods["must"].spec.nodeName is None


@pytest.mark.behavior("core-concepts/container-runtime", "core-concepts/kubelet-on-every-node")
def test_container_ids_name_the_runtime_of_their_node(shared: Kube, nodes: list[Fields], inside: Inside) -> None:
    """Each node's kubelet reports which runtime it uses, and every container there has an ID of that runtime.

    The document knows Docker and rkt. Kubernetes has not used Docker directly since 1.24, and rkt is gone; containerd is usual.
    """
    runtimes = {node.metadata.name: node.status.nodeInfo.containerRuntimeVersion for node in nodes}
    for runtime in runtimes.values():
        assert re.fullmatch(r"[\w-]+://v?\d.*", runtime)

    clients = {pod.spec.nodeName: pod for pod in shared.pods(app="inside")}
    for node in inside.nodes:
        (container,) = exactly(1, clients[node].status.containerStatuses)
        assert container.containerID.partition("://")[0] == runtimes[node].partition("://")[0]


@pytest.fixture
def leases(api: Api) -> Callable[[], dict[str, Fields]]:
    """What the Leases of the nodes say now, by the node's name."""
    kube = Kube(api, "kube-node-lease")
    return lambda: {lease.metadata.name: lease.spec for lease in kube.list("Lease")}


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/kubelet-on-every-node")
def test_every_kubelet_renews_the_lease_of_its_node(
    nodes: list[Fields], leases: Callable[[], dict[str, Fields]]
) -> None:
    """Every node has a kubelet, which says again and again that it is alive: it renews the node's Lease, usually every 10 s."""
    assert [node for node in nodes if not node.status.nodeInfo.kubeletVersion] == []
    for look in eventually(within=patience.lease_renewed):  # the first Lease of a new node may come after it
        with look:
            before = leases()
            holders = {name: lease.holderIdentity for name, lease in before.items() if name in names(nodes)}
            assert holders == {name: name for name in names(nodes)}

    for look in eventually(within=patience.lease_renewed, every=1):
        with look:
            now = leases()
            old = [name for name in names(nodes) if name not in now or now[name].renewTime <= before[name].renewTime]
            assert old == [], f"the Leases of these nodes have not been renewed: {old}"


def everywhere(api: Api, kind: str) -> list[Fields]:
    """The objects of a kind in all namespaces."""
    resource = api.resource(kind)
    items = api.call("GET", resource.path())["items"]
    return [Fields.of({"apiVersion": resource.group_version, "kind": kind} | item) for item in items]


def intended(daemonset: Fields, nodes: Iterable[Fields]) -> list[str]:
    """The nodes that the DaemonSet is for: all, unless its Pods select some, such as those with Linux."""
    wanted = daemonset.spec.template.spec.nodeSelector.items()
    return names(node for node in nodes if wanted <= node.metadata.labels.items())


def ready_on(api: Api, daemonset: Fields, among: Collection[str]) -> list[str]:
    """The nodes, of these, on which a Pod of the DaemonSet is Ready; sorted, once for each Pod."""
    pods = Kube(api, daemonset.metadata.namespace).pods(**daemonset.spec.selector.matchLabels)
    own = [pod for pod in pods if daemonset.metadata.uid in [owner.uid for owner in pod.metadata.ownerReferences]]
    return sorted(pod.spec.nodeName for pod in own if is_ready(pod) and pod.spec.nodeName in among)


@pytest.fixture
def kube_proxy(api: Api, system: Kube) -> list[Fields]:
    """The DaemonSets with the name kube-proxy: one. On a cluster of our own the test says that it is not there.

    Elsewhere it is not observed if another program is there instead; then the reason names what is there.
    """
    daemonsets = system.list("DaemonSet")
    found = [daemonset for daemonset in daemonsets if daemonset.metadata.name == "kube-proxy"]
    if not found and not is_ours(api):
        others = ", ".join(names(daemonsets)) or "none, so it is in no Pod"
        raise NotObserved(
            f"this cluster has no DaemonSet kube-proxy; its replacement is one of: {others}; use one with kube-proxy"
        )
    return found


@pytest.mark.behavior("core-concepts/kube-proxy-on-every-node")
def test_kube_proxy_runs_on_every_node(api: Api, nodes: list[Fields], kube_proxy: list[Fields]) -> None:
    """A cluster made by kubeadm has kube-proxy as a DaemonSet: one Pod on each node, the control plane included."""
    (daemonset,) = exactly(1, kube_proxy)
    expected = intended(daemonset, nodes)
    assert expected, "kube-proxy selects no node"

    for look in eventually(within=patience.pod_starts):
        with look:
            assert ready_on(api, daemonset, expected) == expected


@pytest.fixture
def network_agents(api: Api) -> list[Fields]:
    """The DaemonSets of the network plugin: those whose Pods write the configuration of networks (CNI) on their node.

    Not observed if there is none; our own clusters must have one.
    """
    daemonsets = everywhere(api, "DaemonSet")
    found = [daemonset for daemonset in daemonsets if is_network_agent(daemonset)]
    if not found and not is_ours(api):
        there = ", ".join(names(daemonsets)) or "none"
        raise NotObserved(
            f"no DaemonSet writes the CNI's configuration, so no agent can be found (there are: {there}); "
            "use a cluster whose network plugin is a DaemonSet"
        )
    return found


@pytest.mark.behavior("objects/components-of-a-cluster")
def test_an_agent_of_the_network_plugin_runs_on_every_node(
    api: Api, nodes: list[Fields], network_agents: list[Fields], record_property: Callable[[str, object], None]
) -> None:
    """Kubernetes leaves the Pods' network to a plugin, such as flannel, Calico or Cilium. Its agent runs on every node."""
    record_property("network plugin", ", ".join(names(network_agents)))
    assert network_agents, "no DaemonSet writes the CNI's configuration"

    for look in eventually(within=patience.pod_starts):
        with look:
            for agent in network_agents:
                expected = intended(agent, nodes)
                assert expected, f"{agent.metadata.name} selects no node"
                there = ready_on(api, agent, expected)
                assert there == expected, f"{agent.metadata.name} is Ready on {there}, and not on all of {expected}"


@pytest.fixture
def dns(api: Api, system: Kube) -> tuple[str, set[str]]:
    """The address of the cluster's DNS, and the images behind it. On a cluster of our own it must be CoreDNS.

    Elsewhere it is not observed if it is another one; then the reason names it.
    """
    services = {service.metadata.name: service.spec for service in system.list("Service")}
    if "kube-dns" not in services:
        if is_ours(api):
            return "", set()
        there = ", ".join(services) or "none"
        raise NotObserved(
            f"kube-system has no Service kube-dns (there are: {there}); use a cluster with CoreDNS behind it"
        )
    pods = system.list("Pod", **services["kube-dns"].selector)
    images = {container.image for pod in pods for container in pod.spec.containers}
    if images and not any("coredns" in image for image in images) and not is_ours(api):
        raise NotObserved(f"the cluster's DNS is {', '.join(sorted(images))}, not CoreDNS; use a cluster with CoreDNS")
    return str(services["kube-dns"].clusterIP), images


@pytest.mark.behavior("objects/components-of-a-cluster")
def test_coredns_answers_on_every_node(dns: tuple[str, set[str]], inside: Inside) -> None:
    """The cluster's DNS is CoreDNS, behind the Service kube-dns, and answers on each node. Today its Pods may run on any node."""
    address, images = dns
    assert address, "kube-system has no Service kube-dns"
    assert not images or any("coredns" in image for image in images), f"the DNS is {images}"
    kubernetes = inside.run("printenv", "KUBERNETES_SERVICE_HOST").told().strip()
    kind = "AAAA" if ":" in address else "A"
    questions = ("kube-dns.kube-system.svc", kind, "kubernetes.default.svc", kind)
    limit = f"+time={round(silence())}"

    for look in eventually(within=patience.names_follow):
        with look:
            for node in inside.nodes:
                answer = inside.run("dig", f"@{address}", "+search", "+short", limit, "+tries=1", *questions, node=node)
                found = answer.stdout.split()
                assert found == [address, kubernetes], f"on {node} {questions[::2]} have the addresses {found}"


# --- the components


@pytest.fixture
def components(api: Api, system: Kube, control_plane: list[Fields]) -> dict[str, tuple[str, Fields]]:
    """For each of the control plane's Pods, by name: its program and its node.

    Not observed if etcd is elsewhere; in our own clusters it must be such a Pod.
    """
    if not system.list("Pod", component="etcd") and not is_ours(api):
        raise NotObserved("etcd does not run in a Pod of this cluster; use one whose etcd kubeadm has made")
    return {f"{name}-{node.metadata.name}": (name, node) for node in control_plane for name in COMPONENTS}


def program(pod: Fields) -> list[str]:
    """The command line of the Pod's only container."""
    (container,) = exactly(1, pod.spec.containers)
    return [*container.command, *container.args]


@pytest.mark.behavior("core-concepts/control-plane-components")
def test_each_control_plane_node_runs_the_four_components(
    system: Kube, components: dict[str, tuple[str, Fields]]
) -> None:
    """The control plane is four programs: etcd, the API server, the controller manager and the scheduler. Each is a Pod.

    These Pods are static: they belong to their node, and not to a controller.
    """
    assert components, "no Ready node has the role control-plane"
    for look in eventually(within=patience.mirror_pod_returns):
        with look:
            pods = {pod.metadata.name: pod for pod in system.pods(tier="control-plane")}
            missing = [name for name in components if name not in pods]
            assert missing == [], f"these Pods do not exist: {missing}"
            unready = [name for name in components if not is_ready(pods[name])]
            assert unready == [], f"these Pods are not Ready: {unready}"

    for name, (component, node) in components.items():
        (owner,) = exactly(1, pods[name].metadata.ownerReferences)
        assert (owner.kind, owner.uid) == ("Node", node.metadata.uid)
        assert MIRROR in pods[name].metadata.annotations
        assert pods[name].spec.nodeName == node.metadata.name
        assert program(pods[name])[0] == component


def static_pods(run_on_node: RunOnNode, node: str) -> dict[str, Fields]:
    """The Pods in the files from which the node's kubelet makes static Pods, by their names there."""
    print_all = f"for file in {STATIC_PODS}/*.yaml; do echo ---; cat $file; done"
    printed = run_on_node(node, "sh", "-c", print_all).told()
    return {pod["metadata"]["name"]: Fields.of(pod) for pod in yaml.safe_load_all(printed) if pod}


def processes(run_on_node: RunOnNode, node: str) -> dict[str, str]:
    """The command line of every process on the node, by the process ID."""
    lines = run_on_node(node, "ps", "-ww", "-eo", "pid=,args=").told().splitlines()
    return {pid: line for pid, _, line in (line.strip().partition(" ") for line in lines)}


@pytest.mark.behavior("core-concepts/static-pod-manifests")
def test_the_files_on_the_node_say_how_its_components_run(
    system: Kube, control_plane: list[Fields], components: dict[str, tuple[str, Fields]], run_on_node: RunOnNode
) -> None:
    """On the node, /etc/kubernetes/manifests has a file for each component, with all its options. Its author is kubeadm.

    The mirror Pod in the API shows the same command line, and so does the process on the node.
    """
    assert components, "no Ready node has the role control-plane"
    for look in eventually(within=patience.mirror_pod_returns):
        with look:
            mirrors = {pod.metadata.name: program(pod) for pod in system.list("Pod", tier="control-plane")}
            assert [name for name in components if name not in mirrors] == []

    for node in control_plane:
        files, running = static_pods(run_on_node, node.metadata.name), processes(run_on_node, node.metadata.name)
        for component in COMPONENTS:
            assert component in files, f"{STATIC_PODS} has no file for {component}"
            in_the_file = program(files[component])
            assert len(in_the_file) > 1
            assert mirrors.get(f"{component}-{node.metadata.name}") == in_the_file
            assert " ".join(in_the_file) in running.values(), f"{component} runs with other options"


#: The kubelet reports a container's status every 10 s if it could not do so at once. This is twice as long.
REPORTED = 20


def seconds_of(run_on_node: RunOnNode, node: str, command_line: str) -> int:
    """For how many seconds the node has run the process with this command line; 0 if there is none."""
    lines = run_on_node(node, "ps", "-ww", "-eo", "etimes=,args=").told().splitlines()
    ages = {line: int(seconds) for seconds, _, line in (line.strip().partition(" ") for line in lines)}
    return ages.get(command_line, 0)


def delete_if_there(kube: Kube, pod: Fields) -> None:
    """Delete the Pod, unless another run on this cluster is doing so at this moment."""
    try:
        kube.delete("Pod", pod.metadata.name)
    except ApiRefusal as refusal:
        if refusal.status != 404:
            raise


@pytest.fixture
def scheduler(system: Kube, control_plane: list[Fields], run_on_node: RunOnNode) -> Fields:
    """The running mirror Pod of a scheduler. Its absence for a moment harms nothing: the scheduler does not know of it.

    Its process runs so long already that the status is about this process, and not about one that has ended.
    """
    assert control_plane, "no Ready node has the role control-plane"
    node = control_plane[0].metadata.name
    wanted = f"kube-scheduler-{node}"
    for look in eventually(within=patience.mirror_pod_returns):
        with look:
            (found,) = exactly(
                1, (pod for pod in system.pods(component="kube-scheduler") if pod.metadata.name == wanted)
            )
            exactly(1, found.status.containerStatuses)  # none if another run has just deleted it
            seconds = seconds_of(run_on_node, node, " ".join(program(found)))
            assert seconds > REPORTED, f"the scheduler has run for {seconds} s"
    return found


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("core-concepts/static-pod-manifests")
def test_a_deleted_mirror_pod_comes_back_and_nothing_stops(
    system: Kube, scheduler: Fields, run_on_node: RunOnNode
) -> None:
    """A static Pod cannot be stopped through the API. Deleting its mirror Pod deletes the picture: the kubelet makes it again."""
    name, node, command_line = scheduler.metadata.name, scheduler.spec.nodeName, " ".join(program(scheduler))
    (process,) = exactly(1, (pid for pid, line in processes(run_on_node, node).items() if line == command_line))

    delete_if_there(system, scheduler)

    for look in eventually(within=patience.mirror_pod_returns):
        with look:
            pods = {pod.metadata.name: pod for pod in system.list("Pod", component="kube-scheduler")}
            assert name in pods, "the mirror Pod is gone"
            assert pods[name].metadata.uid != scheduler.metadata.uid, "the mirror Pod is still the same object"
    # The kubelet may tell of an earlier restart up to a minute late, so its status proves nothing here.
    assert processes(run_on_node, node).get(process) == command_line


# --- etcd's only client


def words_of(pod: Fields) -> list[str]:
    """The words on the command lines of the Pod's containers."""
    containers = (*pod.spec.initContainers, *pod.spec.containers)
    return [word for it in containers for word in (*it.command, *it.args)]


def can_have_files_of_its_node(pod: Fields) -> bool:
    """Whether the Pod is the cluster's own, or has its node's files or network.

    Other Pods can have an etcd of their own, with options and certificates that are of no concern to the cluster's.
    """
    files = [volume for volume in pod.spec.volumes if volume.hostPath]
    return bool(pod.metadata.namespace == "kube-system" or pod.spec.hostNetwork or files)


#: Parts of the paths of etcd's certificates, and of the one that kubeadm makes for etcd's client.
CERTIFICATES = ("/pki/etcd/", "etcd-client")


@pytest.mark.behavior("core-concepts/only-the-apiserver-reaches-etcd")
def test_only_the_api_server_is_told_how_to_reach_etcd(api: Api, components: dict[str, tuple[str, Fields]]) -> None:
    """Only the API server has options for etcd's addresses and certificates. The others get the way to the API server.

    Only the API server and etcd itself name files with etcd's certificates.
    """
    needed = {"--etcd-servers", "--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"}
    programs = {f"kube-system/{name}": component for name, (component, _) in components.items()}
    for look in eventually(within=patience.mirror_pod_returns):
        with look:
            pods = [pod for pod in everywhere(api, "Pod") if can_have_files_of_its_node(pod)]
            words = {f"{pod.metadata.namespace}/{pod.metadata.name}": words_of(pod) for pod in pods}
            missing = [name for name in programs if name not in words]
            assert missing == [], f"these Pods do not exist: {missing}"

    flags = {name: {word.partition("=")[0] for word in line} for name, line in sorted(words.items())}
    servers = sorted(name for name, component in programs.items() if component == "kube-apiserver")
    assert [name for name, given in flags.items() if needed & given] == servers
    assert [name for name in servers if not needed <= flags[name]] == []
    with_files = [name for name in flags if any(part in word for word in words[name] for part in CERTIFICATES)]
    assert [name for name in with_files if programs.get(name) != "etcd"] == servers
    for name, component in programs.items():
        assert ("--kubeconfig" in flags[name]) == (component in ("kube-controller-manager", "kube-scheduler"))


@pytest.fixture
def etcd_addresses(control_plane: list[Fields], run_on_node: RunOnNode) -> set[str]:
    """Where the control plane's etcd listens for clients: addresses and ports, by the options in its files."""
    found = set()
    for node in control_plane:
        pods = static_pods(run_on_node, node.metadata.name)
        if "etcd" not in pods:
            raise NotObserved("etcd does not run in a static Pod of this cluster; use one whose etcd kubeadm has made")
        options = dict(part.partition("=")[::2] for part in program(pods["etcd"]))
        urls = options.get("--listen-client-urls", "http://localhost:2379")
        found |= {urlsplit(url).netloc for url in urls.split(",")}
    return found


@dataclass(frozen=True)
class Socket:
    """One end of a TCP connection on a node's own network: its address, the other end's, and the programs that hold it.

    A program that has just started or ended is "?".
    """

    address: str
    peer: str
    programs: frozenset[str]


def sockets(run_on_node: RunOnNode, node: str) -> list[Socket]:
    """The ends of all TCP connections on the node's own network. Those in Pods with a network of their own are not there."""
    found = []
    for line in run_on_node(node, "ss", "-Htnp", "state", "established").told().splitlines():
        columns = [re.sub(r"^\[::ffff:(.*)\]", r"\1", column) for column in line.split()]
        found.append(Socket(columns[2], columns[3], frozenset(re.findall(r'\("([^"]+)",pid=', line) or ["?"])))
    return found


def connected_to(addresses: set[str], ends: Iterable[Socket]) -> set[str]:
    """The programs that hold a connection to one of these addresses.

    Without etcd, which also talks to itself, and etcdctl, the tool of people; both come with etcd.
    """
    return {program for it in ends if it.peer in addresses for program in it.programs} - {"etcd", "etcdctl"}


@pytest.mark.behavior("core-concepts/only-the-apiserver-reaches-etcd")
def test_only_the_api_server_is_connected_to_etcd(
    nodes: list[Fields], control_plane: list[Fields], etcd_addresses: set[str], run_on_node: RunOnNode
) -> None:
    """On the nodes only the API server holds connections to etcd. All other components read and write through it.

    Every connection that etcd has accepted begins at a program on the network of a node, and at none in an ordinary Pod.
    """
    assert {address.rpartition(":")[2] for address in etcd_addresses} == {"2379"}
    expected = {name: {"kube-apiserver"} if name in names(control_plane) else set() for name in names(nodes)}

    for look in eventually(within=patience.controller_acts):
        with look:
            ends = {name: sockets(run_on_node, name) for name in names(nodes)}
            assert {name: connected_to(etcd_addresses, found) for name, found in ends.items()} == expected
            everything = [it for found in ends.values() for it in found]
            accepted = {it.peer for it in everything if it.address in etcd_addresses}
            own = {it.address for it in everything if it.peer in etcd_addresses}
            assert accepted & own, "no connection is seen at both ends"
            foreign = accepted - own
            assert foreign == set(), f"clients of etcd that are not on the network of a node: {foreign}"


# --- requests


@dataclass(frozen=True)
class Answer:
    """The HTTP status and the body of an answer."""

    status: int
    body: str

    def thing(self, kind: str, version: str = "v1") -> Fields:
        """The object in the body, which must be of this kind."""
        with suppress(ValueError):
            found = json.loads(self.body)
            if isinstance(found, dict) and (found.get("apiVersion"), found.get("kind")) == (version, kind):
                return Fields.of(found)
        raise AssertionError(f"the answer is no {kind}: {self.body}")


def pool_of(configuration: Any) -> PoolManager:
    """The connections that the official client makes with a configuration: its certificates and its proxy."""
    from kubernetes.client.rest import RESTClientObject

    return RESTClientObject(configuration).pool_manager


@dataclass(frozen=True)
class ByHand:
    """HTTPS requests to the API server with nothing between: the kubeconfig's address, its certificates, and these headers."""

    address: str
    pool: PoolManager
    #: They may have a token in them, which must not be in a report.
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, api: Api) -> ByHand:
        """Requests with the credentials of the kubeconfig: a client certificate, or a token in a header."""
        configuration = api.client.configuration
        token = configuration.auth_settings().get("BearerToken")
        headers = {"Authorization": str(token["value"])} if token else {}
        return cls(api.address, pool_of(configuration), headers)

    @classmethod
    def of_a_stranger(cls, api: Api) -> ByHand:
        """The same requests without any credential."""
        configuration = copy.deepcopy(api.client.configuration)
        configuration.cert_file = configuration.key_file = None
        return cls(api.address, pool_of(configuration), {})

    def with_token(self, token: str) -> ByHand:
        """The same requests with this token."""
        return replace(self, headers={"Authorization": f"Bearer {token}"})

    def post(self, path: str, body: str) -> Answer:
        """POST a body as JSON. Raises ConnectionError if the API server is too busy to look at the request."""
        headers = {**self.headers, "Content-Type": "application/json"}
        timeout = Timeout(30 * patience.factor)
        url = f"{self.address}{path}"
        reply = self.pool.request("POST", url, body=body.encode(), headers=headers, timeout=timeout, retries=False)
        answer = Answer(reply.status, reply.data.decode(errors="replace"))
        if answer.status == 429 or answer.status >= 500:
            raise ConnectionError(f"POST {path}: {answer.status} {answer.body}")
        return answer


@pytest.fixture
def us(api: Api) -> ByHand:
    """Requests with the credentials of the kubeconfig."""
    return ByHand.of(api)


@pytest.fixture
def stranger(api: Api) -> ByHand:
    """Requests without any credential."""
    return ByHand.of_a_stranger(api)


@pytest.fixture
def guest(stranger: ByHand, inside: Inside) -> ByHand:
    """Requests with a valid token that has almost no rights: the one in the file system of a client Pod."""
    token = inside.run("cat", "/var/run/secrets/kubernetes.io/serviceaccount/token").told()
    return stranger.with_token(token)


@pytest.fixture
def pods_path(kube: Kube) -> str:
    """Where the API server takes new Pods of the test's namespace."""
    return f"/api/v1/namespaces/{kube.namespace}/pods"


@pytest.mark.behavior("core-concepts/rest-without-kubectl")
def test_a_post_by_hand_makes_a_pod(kube: Kube, us: ByHand, pods_path: str) -> None:
    """All that kubectl does is to send requests. A plain HTTPS POST of the same object makes a Pod, which runs like any other."""
    answer = us.post(pods_path, json.dumps(load(POD)))

    assert answer.status == 201, answer.body
    assert kube.ready_pod("by-hand").metadata.uid == answer.thing("Pod").metadata.uid


@pytest.mark.behavior("core-concepts/request-is-authenticated-then-validated")
def test_without_a_valid_credential_nothing_is_made(kube: Kube, us: ByHand, stranger: ByHand, pods_path: str) -> None:
    """First the API server asks who you are: 401 for a wrong token, and 401 or 403 (anonymous, without rights) for none."""
    pod = json.dumps(load(POD))

    assert stranger.post(pods_path, pod).status in (401, 403)
    assert stranger.with_token("wrong").post(pods_path, pod).status == 401

    assert us.post(f"{pods_path}?dryRun=All", pod).status == 201
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/request-is-authenticated-then-validated")
def test_a_valid_credential_without_the_right_makes_nothing(
    kube: Kube, us: ByHand, guest: ByHand, pods_path: str
) -> None:
    """Then it asks what you may: every Pod's token tells the API server who it is, but does not allow it to make Pods (403)."""
    pod = json.dumps(load(POD))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}

    known = guest.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json.dumps(review))
    assert known.status == 201
    user = known.thing("SelfSubjectReview", "authentication.k8s.io/v1").status.userInfo
    assert str(user.username).startswith("system:serviceaccount:")
    assert guest.post(pods_path, pod).status == 403

    assert us.post(f"{pods_path}?dryRun=All", pod).status == 201
    assert kube.list("Pod") == []


def changed(**spec: Any) -> str:
    """The Pod with these fields in its spec, as JSON."""
    manifest = load(POD)
    manifest["spec"] |= spec
    return json.dumps(manifest)


@pytest.mark.behavior("core-concepts/request-is-authenticated-then-validated")
@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        pytest.param("{not JSON", 400, "invalid character", id="no JSON"),
        pytest.param(changed(containers="none"), 400, "spec.containers", id="wrong type"),
        pytest.param(changed(contianers=[]), 400, "spec.contianers", id="unknown field"),
        pytest.param(changed(containers=[]), 422, "spec.containers", id="missing value"),
        pytest.param(changed(restartPolicy="Sometimes"), 422, "spec.restartPolicy", id="wrong value"),
    ],
)
def test_an_invalid_object_is_not_made(
    kube: Kube, us: ByHand, pods_path: str, body: str, status: int, named: str
) -> None:
    """At last it checks the object. What it cannot read gets 400, what breaks a rule 422, and the answer names the field."""
    answer = us.post(f"{pods_path}?fieldValidation=Strict", body)

    assert answer.status == status
    assert named in str(answer.thing("Status").message)
    assert us.post(f"{pods_path}?fieldValidation=Strict&dryRun=All", json.dumps(load(POD))).status == 201
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/request-is-authenticated-then-validated")
def test_the_object_is_looked_at_last(kube: Kube, us: ByHand, stranger: ByHand, guest: ByHand, pods_path: str) -> None:
    """A stranger and a user without rights do not learn that their object is wrong: identity and rights are checked before it."""
    wrong = changed(restartPolicy="Sometimes")

    assert stranger.post(pods_path, wrong).status in (401, 403)
    assert guest.post(pods_path, wrong).status == 403
    assert us.post(pods_path, wrong).status == 422
    assert kube.list("Pod") == []


def conditions(pod: Fields) -> set[str]:
    """The types of the Pod's conditions that are True."""
    return {condition.type for condition in pod.status.conditions if condition.status == "True"}


#: What becomes true of a new Pod, in this order.
STEPS: Mapping[str, Callable[[Fields], bool]] = {
    "stored without a node": lambda pod: pod.spec.nodeName is None,
    "given a node": lambda pod: pod.spec.nodeName is not None and "PodScheduled" in conditions(pod),
    "its container made": lambda pod: bool([it for it in pod.status.containerStatuses if it.containerID]),
    "Running": lambda pod: pod.status.phase == "Running",
    "Ready": is_ready,
}


def steps_in(changes: Sequence[Change]) -> list[str]:
    """The steps that these changes show, each where it is seen first."""
    return list(dict.fromkeys(step for it in changes for step, taken in STEPS.items() if taken(it.object)))


@pytest.mark.behavior("core-concepts/pod-creation-sequence")
def test_a_new_pod_is_stored_then_scheduled_then_run(kube: Kube) -> None:
    """A new Pod is stored before anyone runs it. Then the scheduler gives it a node, and then the kubelet there starts it."""
    with kube.record("Pod", app="by-hand") as changes:
        kube.create(POD)
        for look in eventually(within=patience.pod_starts):
            with look:
                assert "Ready" in steps_in(changes)

    assert steps_in(changes) == list(STEPS)
    assert [(it.type, steps_in([it])) for it in changes[:1]] == [("ADDED", ["stored without a node"])]
    assert "given a node" in {", ".join(steps_in([it])) for it in changes}, "no change shows just that"


@pytest.mark.behavior("core-concepts/pod-creation-sequence")
def test_scheduler_and_kubelet_report_what_they_did(kube: Kube) -> None:
    """The Events of a Pod name who did what: the scheduler chose the node, and the kubelet of that node started the container."""
    kube.create(POD)
    pod = kube.ready_pod("by-hand")

    for look in eventually(within=patience.controller_acts):
        with look:
            events = {event.reason: event for event in kube.events(pod)}
            assert {"Scheduled", "Created", "Started"} <= events.keys()
    by = {reason: event.reportingComponent or event.source.component for reason, event in events.items()}
    assert by["Scheduled"] == "default-scheduler"
    for reason in ("Created", "Started"):
        assert by[reason] == "kubelet"
        assert (events[reason].reportingInstance or events[reason].source.host) == pod.spec.nodeName


# --- controllers


@pytest.fixture
def leader(api: Api, system: Kube) -> Callable[[], Fields]:
    """The Lease that the leading controller manager holds, as it is now.

    Not observed if there is none; our own clusters must have it.
    """
    if not system.exists("Lease", "kube-controller-manager") and not is_ours(api):
        raise NotObserved(
            "there is no Lease kube-controller-manager: this cluster hides who runs its controllers; "
            "use a cluster made by kubeadm"
        )
    return lambda: system.get("Lease", "kube-controller-manager").spec


@pytest.fixture
def manager_hosts(api: Api, system: Kube) -> set[str] | None:
    """The hosts of the controller manager's Pods. None if the cluster is not kind's: there a node may have another name."""
    if kind_nodes(api) is None:
        return None
    return {pod.spec.nodeName for pod in system.list("Pod", component="kube-controller-manager")}


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_one_controller_manager_is_the_leader(leader: Callable[[], Fields], manager_hosts: set[str] | None) -> None:
    """However many control-plane nodes there are, one controller manager works: the one that holds the Lease and renews it.

    The Lease names the holder by its host, where one of these Pods runs.
    """
    for look in eventually(within=patience.controller_acts):
        with look:
            before = leader()
            assert before.holderIdentity, "nobody holds the Lease"

    for look in eventually(within=patience.controller_acts):
        with look:
            now = leader()
            assert now.renewTime > before.renewTime, "its holder has not renewed the Lease"
            host = str(now.holderIdentity).rpartition("_")[0]
            assert manager_hosts is None or host in manager_hosts, f"{now.holderIdentity} holds the Lease"
    assert (now.holderIdentity == before.holderIdentity) == (now.leaseTransitions == before.leaseTransitions)


def writers(thing: Fields) -> set[str]:
    """The programs that have written fields of the object, apart from its status."""
    return {entry.manager for entry in thing.metadata.managedFields if not entry.subresource}


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_the_objects_of_several_controllers_have_one_writer(kube: Kube) -> None:
    """All controllers are parts of one program. So the objects that three of them make name the same program as their writer."""
    kube.apply("control_plane/without-pods.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            (replicaset,) = exactly(1, kube.list("ReplicaSet", app="without-pods"))
            (endpoints,) = exactly(1, kube.list("EndpointSlice", app="without-pods"))
    ca = made(kube, "ConfigMap", "kube-root-ca.crt")
    exactly(1, writers(replicaset) & writers(endpoints) & writers(ca))


def made(kube: Kube, kind: str, name: str) -> Fields:
    """Wait until a controller has made the object, and return it."""
    for look in eventually(within=patience.controller_acts):
        with look:
            (thing,) = exactly(1, (thing for thing in kube.list(kind) if thing.metadata.name == name))
    return thing


def made_again(kube: Kube, kind: str, name: str) -> tuple[Fields, Fields]:
    """Wait for the object, delete it, and wait until there is one with its name again. Returns the first and the second."""
    before = made(kube, kind, name)
    kube.delete(kind, name)
    return before, made(kube, kind, name)


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_every_namespace_has_a_default_serviceaccount(kube: Kube) -> None:
    """The ServiceAccount controller: each namespace has a ServiceAccount `default`. If it is deleted, it is made again."""
    before, now = made_again(kube, "ServiceAccount", "default")

    assert now.metadata.uid != before.metadata.uid


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_every_namespace_has_the_certificate_of_the_clusters_ca(kube: Kube) -> None:
    """The root CA publisher: each namespace has a ConfigMap with the CA's certificate. If it is deleted, it is made again."""
    before, now = made_again(kube, "ConfigMap", "kube-root-ca.crt")

    assert now.metadata.uid != before.metadata.uid
    assert now.data == before.data
    assert "-----BEGIN CERTIFICATE-----" in now.data["ca.crt"]


@pytest.fixture
def owned(kube: Kube) -> None:
    """Two ConfigMaps, one of which owns the other, and a third one that nobody owns."""
    owner, dependent, independent = load_all("control_plane/owned.yaml")
    uid = kube.create(owner).metadata.uid
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": uid}
    dependent["metadata"]["ownerReferences"] = [reference]
    kube.apply([dependent, independent])


def configmaps(kube: Kube) -> list[str]:
    """The names of the ConfigMaps that the test has made."""
    return [name for name in names(kube.list("ConfigMap")) if name != "kube-root-ca.crt"]


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
@pytest.mark.usefixtures("owned")
def test_what_an_object_owns_is_deleted_after_it(kube: Kube) -> None:
    """The garbage collector: an object whose owner has been deleted is deleted too, whatever kind it is."""
    assert configmaps(kube) == ["independent", "owned", "owner"]

    kube.delete("ConfigMap", "owner")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert configmaps(kube) == ["independent"]


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_a_pvc_in_use_is_not_deleted_before_its_pod(kube: Kube) -> None:
    """PVC protection: a deleted PersistentVolumeClaim (PVC) stays as long as a Pod uses it. An unused one goes at once."""
    kube.apply("control_plane/used-pvc.yaml")

    kube.delete("PersistentVolumeClaim", "used")
    kube.delete("PersistentVolumeClaim", "unused")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert names(kube.list("PersistentVolumeClaim")) == ["used"]
    for look in throughout(patience.stays_so):
        with look:
            assert kube.get("PersistentVolumeClaim", "used").metadata.deletionTimestamp

    kube.delete("Pod", "user")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert kube.list("PersistentVolumeClaim") == []


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_an_ephemeral_volume_gets_a_pvc_that_its_pod_owns(kube: Kube) -> None:
    """The ephemeral volume controller: it makes a PVC from the template in a Pod's volume, and the PVC belongs to the Pod."""
    pod = kube.create("control_plane/ephemeral-volume.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            (pvc,) = exactly(1, kube.list("PersistentVolumeClaim"))
    assert pvc.metadata.name == "calculator-scratch"
    assert [owner.uid for owner in pvc.metadata.ownerReferences] == [pod.metadata.uid]


@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_a_budget_counts_the_pods_that_it_protects(kube: Kube) -> None:
    """The disruption controller: for each PodDisruptionBudget it counts how many Pods are Ready and how many may go."""
    kube.apply("control_plane/budget.yaml")
    kube.ready_pod("protected")

    for look in eventually(within=patience.controller_acts):
        with look:
            status = kube.get("policy/v1/PodDisruptionBudget", "budget").status
            counts = (status.expectedPods, status.desiredHealthy, status.currentHealthy, status.disruptionsAllowed)
            assert counts == (1, 1, 1, 0)


@pytest.fixture
def full_namespace(api: Api, run_id: RunId, request: pytest.FixtureRequest) -> Kube:
    """A second namespace of the test, with three ConfigMaps in it."""
    other = make(api, name_for("full"), run_id, request.node.nodeid)
    other.apply("control_plane/owned.yaml")
    return other


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/controllers-run-in-one-process")
def test_a_deleted_namespace_is_emptied_and_gone(full_namespace: Kube) -> None:
    """The namespace controller: it deletes everything in a namespace that was deleted, and then the namespace itself."""
    with full_namespace.record("ConfigMap") as changes:
        full_namespace.delete("Namespace", full_namespace.namespace)

        for look in eventually(within=patience.namespace_goes):
            with look:
                assert not full_namespace.exists("Namespace", full_namespace.namespace)
                deleted = {change.object.metadata.name for change in changes if change.type == "DELETED"}
                assert deleted >= {"owner", "owned", "independent"}


# --- TLS

#: How curl's error begins if the server's certificate is not one that the client trusts, or is not for the name it asked.
UNTRUSTED = "curl: (60)"

#: The certificate of the cluster's CA, as every container has it.
CLUSTERS_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

#: Prints the certificate of a new CA, a certificate that it signs for the host $1, and the private key of that.
ISSUE = """
cd "$(mktemp -d)"
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $new -subj /CN=authority -days 1 -keyout ca.key -out ca.crt
openssl req $new -subj /CN=server -keyout tls.key -out tls.csr
echo "subjectAltName=DNS:$1" > names
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -days 1 -out tls.crt
cat ca.crt tls.crt tls.key
"""


@dataclass(frozen=True)
class Issued:
    """A CA's certificate, a certificate that it has signed, and the private key of that. All are PEM."""

    authority: str
    certificate: str
    key: str = field(repr=False)


@pytest.fixture
def issue(shared: Kube) -> Callable[[str], Issued]:
    """`issue(host)` makes a new CA, and has it sign a certificate for this host."""
    shared.apply("control_plane/certificates.yaml")
    shared.ready_pod("certificates")

    def of(host: str) -> Issued:
        printed = shared.exec("certificates", "sh", "-ec", ISSUE, "issue", host).told()
        return Issued(*exactly(3, re.findall(r"-----BEGIN .*?-----END [^-]+-----\n", printed, re.DOTALL)))

    return of


@pytest.fixture
def trusting(kube: Kube, inside: Inside) -> Callable[[str, str], tuple[str, ...]]:
    """`trusting(name, certificate)`: curl's options to trust this CA only, which is stored in a file of the client's."""

    def options(name: str, certificate: str) -> tuple[str, ...]:
        file = f"/tmp/{kube.namespace}-{name}.pem"
        inside.run("sh", "-c", f"echo '{certificate}' > {file}").told()
        return ("--cacert", file)

    return options


def ask(inside: Inside, url: str, *options: str) -> Reply:
    """What curl says of one GET. It asks again as long as there is no answer, which says nothing about certificates."""
    for look in eventually(within=patience.server_listens):
        with look:
            reply = inside.get(url, options=options)
            assert not reply.unanswered, f"{url}: {reply.error}"
    return reply


@pytest.fixture
def api_server(inside: Inside) -> str:
    """The API server's address for Pods, in the form of URLs: they know it from their environment."""
    host = inside.run("printenv", "KUBERNETES_SERVICE_HOST").told().strip()
    port = inside.run("printenv", "KUBERNETES_SERVICE_PORT").told().strip()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.behavior("controllers/https-encrypts-and-identifies")
def test_the_api_servers_certificate_names_it(inside: Inside, api_server: str) -> None:
    """A server's certificate says who it is. The API server's lists its names and its IP, and the cluster's CA has signed it."""
    options = ("--cacert", CLUSTERS_CA, "--connect-to", f"::{api_server}")

    for host in ("kubernetes", "kubernetes.default", "kubernetes.default.svc", api_server):
        reply = ask(inside, f"https://{host}/version", *options)
        assert reply.status is not None, f"{host}: {reply.error}"
    reply = ask(inside, "https://somebody.else.example/version", *options)
    assert reply.error.startswith(UNTRUSTED), f"the client takes the server for somebody.else.example: {reply}"


@pytest.mark.behavior("controllers/https-encrypts-and-identifies")
def test_a_client_without_the_clusters_ca_refuses_the_api_server(
    inside: Inside, api_server: str, issue: Callable[[str], Issued], trusting: Callable[[str, str], tuple[str, ...]]
) -> None:
    """Who trusts another CA, or only those of the public Internet, refuses the API server and sends it nothing."""
    another = trusting("another", issue("kubernetes").authority)
    url = f"https://{api_server}/version"

    assert ask(inside, url, "--cacert", CLUSTERS_CA).status is not None
    for options in (another, ()):
        reply = ask(inside, url, *options)
        assert reply.error.startswith(UNTRUSTED), f"a client with the options {options} trusts the server: {reply}"


@pytest.mark.behavior("controllers/https-encrypts-and-identifies")
def test_the_api_server_refuses_plain_http(inside: Inside, api_server: str) -> None:
    """The API server speaks HTTPS only. A request in plain text gets 400 and nothing else."""
    assert ask(inside, f"https://{api_server}/version", "--cacert", CLUSTERS_CA).status in (200, 401, 403)

    assert ask(inside, f"http://{api_server}/version").status == 400


@pytest.fixture
def web(kube: Kube, issue: Callable[[str], Issued]) -> Issued:
    """A server in the cluster that is Ready, and the certificate in its Secret, which is for the name of its Service."""
    issued = issue(f"web.{kube.namespace}.svc")
    data = {"tls.crt": issued.certificate, "tls.key": issued.key}
    meta = {"name": "web-tls"}
    kube.create(
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "stringData": data}
    )
    kube.apply("control_plane/tls-server.yaml")
    kube.ready_pod("web")
    return issued


@pytest.mark.behavior("controllers/https-encrypts-and-identifies")
def test_a_server_is_trusted_by_those_who_have_its_ca(
    kube: Kube,
    inside: Inside,
    web: Issued,
    issue: Callable[[str], Issued],
    trusting: Callable[[str, str], tuple[str, ...]],
) -> None:
    """A tls Secret gives a server its certificate. Clients that have its CA trust it, under the name in the certificate only."""
    host, address = f"web.{kube.namespace}.svc", kube.get("Service", "web").spec.clusterIP
    right, wrong = trusting("right", web.authority), trusting("wrong", issue(host).authority)
    to_it = ("--connect-to", f"::[{address}]:443" if ":" in address else f"::{address}:443")

    for look in eventually(within=patience.service_rules):
        with look:
            reply = inside.get(f"https://{host}/hostname", options=(*to_it, *right))
            assert (reply.status, reply.body) == (200, "web"), reply.error
    for name, options in ((host, wrong), (host, ()), ("another.example", right)):
        reply = ask(inside, f"https://{name}/hostname", *to_it, *options)
        assert reply.error.startswith(UNTRUSTED), f"{name} with {options}: {reply}"
    assert ask(inside, f"http://{host}/hostname", *to_it).status == 400
