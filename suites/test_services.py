"""Services: one address that stays in front of Pods that come and go, who can reach it from where, and how it works."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

import pytest

from fixtures.api import Api, refused
from fixtures.clients import NEVER_STARTED, Inside, Outside
from fixtures.cloud import PROBE, Cloud, addresses_in, assigns_addresses
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.hopeless import HopelessWait
from fixtures.kube import Kube, is_ready
from fixtures.kube_proxy import PRINT_RULES, destinations, has_rules
from fixtures.kubectl import Kubectl
from fixtures.manifests import Manifest, load, load_all
from fixtures.nodes import internal_ip, is_ours
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout
from machine.output import Output

DEPLOYMENT = "services/deployment-nginx.yaml"
CLUSTER_IP = "services/svc-clusterip.yaml"
NODE_PORT = "services/svc-nodeport.yaml"
LOAD_BALANCER = "services/svc-loadbalancer.yaml"
EXTERNAL_NAME = "services/svc-external.yaml"

#: The range from which NodePort Services get their ports.
NODE_PORTS = range(30000, 32768)

#: A random choice among three Pods leaves one of them out of 40 requests with a probability of 3 * (2/3)**40 = 2.7e-7.
ENOUGH = 40

#: curl's exit codes after a request that got no answer: unknown name (6), connection refused or no route (7), silence (28),
#: connection closed without an answer (52) or broken (56). With any other code curl has asked nothing.
UNKNOWN_NAME, COULD_NOT_CONNECT, SILENCE, EMPTY_REPLY, BROKEN = "6", "7", "28", "52", "56"
NO_ANSWER = (UNKNOWN_NAME, COULD_NOT_CONNECT, SILENCE, EMPTY_REPLY, BROKEN)

OwnService = Callable[..., Fields]
RunOnNode = Callable[..., Output]


class Client(Protocol):
    """Where requests come from."""

    def run(self, *command: str) -> Output:
        """Run a command there."""
        ...


@dataclass(frozen=True)
class At:
    """One certain place to ask from: `At(partial(inside.run, node="worker"))`."""

    run: Callable[..., Output]


def by_cluster_ip(service: Fields) -> str:
    """The URL of a Service's ClusterIP and port, at which each Pod answers with its name."""
    return f"http://{service.spec.clusterIP}:{service.spec.ports[0].port}/hostname"


def by_node_port(service: Fields, node: Fields) -> str:
    """The same URL at a node's address and the Service's node port."""
    port = service.spec.ports[0].nodePort
    assert port, f"the Service {service.metadata.name} has no node port"
    return f"http://{internal_ip(node)}:{port}/hostname"


def by_pod_ip(pod: Fields) -> str:
    """The same URL at the Pod's own address and port."""
    return f"http://{pod.status.podIP}:{pod.spec.containers[0].ports[0].containerPort}/hostname"


def names(things: Iterable[Fields]) -> set[str]:
    """The names of Pods, with which they answer, or of nodes."""
    return {thing.metadata.name for thing in things}


def curl(client: Client, count: int, *arguments: str, silence: int = 2) -> list[tuple[str, str]]:
    """Each URL that was asked, in order, and the answer; "curl error 7" (see NO_ANSWER) where no answer came.

    Silence of so many seconds is no answer; `--patience` multiplies them. Raises RuntimeError where curl has not asked all
    of the `count` URLs, because then nothing is known about the cluster. With --fail-early the first one without an answer
    is the last one asked.
    """
    limit = ("--max-time", f"{silence * patience.factor:g}")
    write_out = ("--write-out", "\t%{url}\t%{exitcode}\n")
    done = client.run("curl", "--silent", "--show-error", *limit, *write_out, *arguments)
    replies = re.findall(r"(?s)(.*?)\t(\S+)\t(\d+)\n", done.stdout)
    codes = [code for _, _, code in replies]
    stopped_early = "--fail-early" in arguments and codes[-1:] != ["0"]
    if not codes or set(codes) - {"0", *NO_ANSWER} or (len(codes) != count and not stopped_early):
        raise RuntimeError(f"curl has not asked: exit code {done.code}, {done.stderr.strip() or 'no error message'}")
    return [(url, f"curl error {code}" if code != "0" else answer) for answer, url, code in replies]


def unserved(client: Client, urls: Collection[str], pods: Iterable[Fields]) -> dict[str, str]:
    """Those of the URLs at which none of the Pods answers, and what came instead: another answer, or curl's error."""
    expected = names(pods)
    return {url: answer for url, answer in curl(client, len(urls), *urls) if answer not in expected}


def ask(client: Client, url: str, times: int = 1, silence: int = 2) -> list[str]:
    """The answers to so many requests, in order, each on its own connection. The first one without an answer is the last."""
    numbered = f"{url}{'&' if '?' in url else '?'}request=[1-{times}]"
    replies = curl(client, times, "--fail-early", "--header", "Connection: close", numbered, silence=silence)
    return [answer for _, answer in replies]


def endpoints(kube: Kube, service: str) -> set[str]:
    """The names of the Pods behind a Service: the ready endpoints in its EndpointSlices."""
    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": service})
    return {it.targetRef.name for part in slices for it in part.endpoints if it.conditions.ready}


@pytest.fixture(scope="session")
def backends(shared: Kube, inside: Inside) -> list[Fields]:
    """The three Pods of the documents' Deployment, serving. All tests of the run share them and do not change them.

    A fourth Pod with the same label serves too, but never becomes Ready.
    """
    shared.apply(DEPLOYMENT)
    shared.apply("services/unready-pod.yaml")
    labels = {"app": "my-nginx"}
    hopeless = HopelessWait(shared, lambda: shared.aside().list("Pod", **labels), labels)
    for look in eventually(within=patience.pod_starts, hopeless=hopeless.check):
        with look:
            pods = shared.pods(app="my-nginx")
            assert [pod.status.phase for pod in pods] == ["Running"] * 4
            assert {pod.metadata.name for pod in pods if not is_ready(pod)} == {"my-nginx-unready"}
    for look in eventually(within=patience.server_listens):
        with look:
            assert unserved(inside, [by_pod_ip(pod) for pod in pods], pods) == {}
    return [pod for pod in pods if is_ready(pod)]


@pytest.fixture(scope="session")
def svc_clusterip(shared: Kube, backends: list[Fields]) -> Fields:
    """The documents' ClusterIP Service for the shared Pods; it is shared too."""
    return shared.apply(CLUSTER_IP)


@pytest.fixture(scope="session")
def svc_nodeport(shared: Kube, backends: list[Fields]) -> Fields:
    """The documents' NodePort Service for the shared Pods; it is shared too."""
    return shared.apply(NODE_PORT)


@pytest.fixture
def own_service(shared: Kube, backends: list[Fields]) -> Iterator[OwnService]:
    """`own_service(NODE_PORT, sessionAffinity="ClientIP")` creates a Service for the shared Pods that is the test's own.

    It is the manifest's with a generated name and with these fields of its spec changed. It is deleted after the test.
    """
    made = []

    def make(manifest: str, **changed: Any) -> Fields:
        document = load(manifest)
        document["metadata"] = {"generateName": f"{document['metadata']['name']}-"}
        document["spec"] |= changed
        service = shared.create(document)
        made.append(service.metadata.name)
        return service

    yield make
    for name in made:
        if shared.exists("Service", name):
            shared.delete("Service", name)


def serving_pod(kube: Kube, inside: Inside, deployment: Manifest) -> Fields:
    """Create the Deployment with one replica, and return its Pod when it serves."""
    deployment["spec"]["replicas"] = 1
    kube.create(deployment)
    (pod,) = exactly(1, kube.ready_pods(1, app="my-nginx"))
    for look in eventually(within=patience.server_listens):
        with look:
            assert unserved(inside, [by_pod_ip(pod)], [pod]) == {}
    return pod


@pytest.fixture
def one_pod(kube: Kube, inside: Inside) -> Fields:
    """The only Pod of the documents' Deployment, scaled to one, in the test's own namespace. It serves."""
    return serving_pod(kube, inside, load(DEPLOYMENT))


@pytest.fixture
def pod_slow_to_end(kube: Kube, inside: Inside) -> Fields:
    """The same, but its Pods ignore the signal to stop, so they run, and keep their IPs, until their grace period is over."""
    deployment = load(DEPLOYMENT)
    deployment["spec"]["template"]["spec"]["containers"][0]["args"].append("--delay-shutdown=3600")
    return serving_pod(kube, inside, deployment)


# --- what a Service is


@pytest.mark.behavior("objects/no-service-no-way-in")
def test_a_pod_without_a_service_is_unreachable_from_outside(
    kube: Kube, one_pod: Fields, nodes: list[Fields], outside: Outside
) -> None:
    """A containerPort opens no port on any node. A NodePort Service opens one on every node, which leads to the Pod."""
    at_container_port = [f"http://{internal_ip(node)}:80/hostname" for node in nodes]
    assert kube.list("Service") == []
    assert kube.list("EndpointSlice") == []
    assert list(unserved(outside, at_container_port, [one_pod])) == at_container_port

    service = kube.create(NODE_PORT)

    at_node_port = [by_node_port(service, node) for node in nodes]
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube, "svc-nodeport") == {one_pod.metadata.name}
            assert unserved(outside, at_node_port, [one_pod]) == {}
            assert list(unserved(outside, at_container_port, [one_pod])) == at_container_port


@pytest.mark.behavior("core-concepts/pod-ip-changes-service-ip-stays", "controllers/pods-are-disposable")
def test_a_pods_ip_changes_and_its_services_ip_stays(kube: Kube, pod_slow_to_end: Fields, inside: Inside) -> None:
    """A new Pod has a new IP, but its Service keeps its ClusterIP and its name: clients send the same requests as before."""
    service = kube.create(CLUSTER_IP)
    urls = [by_cluster_ip(service), f"http://svc-clusterip.{kube.namespace}.svc:8080/hostname"]
    for look in eventually(within=patience.names_follow):
        with look:
            assert unserved(inside, urls, [pod_slow_to_end]) == {}

    kube.delete("Pod", pod_slow_to_end.metadata.name, grace=2 * round(patience.pod_starts))

    (replacement,) = exactly(1, kube.ready_pods(1, app="my-nginx"))
    # The deleted Pod still runs with its IP. An IP that is free again could by chance be the replacement's.
    assert replacement.status.podIP != pod_slow_to_end.status.podIP
    kube.delete("Pod", pod_slow_to_end.metadata.name, grace=0)
    assert kube.get("Service", "svc-clusterip").spec.clusterIP == service.spec.clusterIP
    for look in eventually(within=patience.names_follow):
        with look:
            assert unserved(inside, urls, [replacement]) == {}


#: Prints every address of every interface, on a node itself and in the Pods that run there. (In ipvs mode kube-proxy
#: gives the ClusterIPs to a dummy interface, which carries no traffic.)
ALL_ADDRESSES = "(ip -o addr; for pod in /run/netns/*; do ip -netns ${pod##*/} -o addr; done) | grep -v ' kube-ipvs0 '"


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_no_interface_has_the_services_address(
    svc_clusterip: Fields, backends: list[Fields], nodes: list[Fields], inside: Inside, run_on_node: RunOnNode
) -> None:
    """A Service is not a machine: its ClusterIP answers, but no interface of a node or a Pod has this address."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, [by_cluster_ip(svc_clusterip)], backends) == {}

    printed = "".join(run_on_node(node.metadata.name, "sh", "-c", ALL_ADDRESSES).told() for node in nodes)

    addresses = set(re.findall(r" inet6? (\S+)/", printed))
    assert {internal_ip(node) for node in nodes} <= addresses
    assert {pod.status.podIP for pod in backends} <= addresses
    assert svc_clusterip.spec.clusterIP not in addresses


#: A program with a socket that listens, the socket's address, and its port.
Listener = tuple[str, str, int]


def listeners(run_on_node: RunOnNode, node: Fields) -> set[Listener]:
    """Every TCP socket that listens on a node, with its program."""
    found = set()
    for line in run_on_node(node.metadata.name, "ss", "-Hltnp").told().splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found |= {(program, address, int(port)) for program in re.findall(r'\("([^"]+)",pid=', line) or [""]}
    return found


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_no_process_listens_for_the_service(
    own_service: OwnService, backends: list[Fields], nodes: list[Fields], inside: Inside, run_on_node: RunOnNode
) -> None:
    """A Service is not a program: it answers, but no process listens at its ClusterIP or begins to listen on its node port."""
    before = {node.metadata.name: listeners(run_on_node, node) for node in nodes}

    service = own_service(NODE_PORT)
    urls = [by_cluster_ip(service), *(by_node_port(service, node) for node in nodes)]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, backends) == {}

    # kube-proxy does listen on the health check ports of Services with the traffic policy Local. They are node ports too.
    node_port = service.spec.ports[0].nodePort
    of_other_services = set(NODE_PORTS) - {node_port}
    for node in nodes:
        now, name = listeners(run_on_node, node), node.metadata.name
        kubelet = node.status.daemonEndpoints.kubeletEndpoint.Port
        assert ("kubelet", kubelet) in {(program, port) for program, _, port in now}
        new = now - before[name]
        new_ports = {port for program, _, port in new if program == "kube-proxy"} - of_other_services
        assert not new_ports, f"kube-proxy on {name} has begun to listen on {new_ports}"
        at_its_port = {it for it in new if it[2] == node_port}
        assert not at_its_port, f"on {name} a program has begun to listen on the node port: {at_its_port}"
        at_its_address = {it for it in now if it[1] == service.spec.clusterIP}
        assert not at_its_address, f"on {name} a program listens at the ClusterIP: {at_its_address}"


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_a_service_answers_on_its_declared_ports_only(
    own_service: OwnService, backends: list[Fields], nodes: list[Fields], inside: Inside
) -> None:
    """A Service declares 8080 and 8082. It answers there, but not on its Pods' port 80 nor on the port of the kubelets."""
    ports = [{"name": f"port-{port}", "port": port, "targetPort": 80} for port in (8080, 8082)]
    service = own_service(CLUSTER_IP, ports=ports)
    kubelets = nodes[0].status.daemonEndpoints.kubeletEndpoint.Port

    url = f"http://{service.spec.clusterIP}:%s/hostname"
    declared, others = [url % port for port in (8080, 8082)], [url % port for port in (80, kubelets)]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, declared, backends) == {}
            answers = dict(curl(inside, len(others), *others))
            assert {url: answer for url, answer in answers.items() if not answer.startswith("curl error")} == {}


# --- the rules on the nodes


@pytest.fixture(scope="session")
def proxy_mode(shared: Kube, nodes: list[Fields], run_on_node: RunOnNode) -> str:
    """The mode in which kube-proxy runs, as it says itself on the nodes. Skips where there is no kube-proxy.

    Without it the mode is "" on a cluster of our own, and the test fails.
    """
    if not Kube(shared.api, "kube-system").exists("DaemonSet", "kube-proxy"):
        if is_ours(shared.api):
            return ""
        pytest.skip("this cluster has no DaemonSet kube-proxy; use one whose Services are kube-proxy's work")
    said = [run_on_node(node.metadata.name, "curl", "--silent", "localhost:10249/proxyMode") for node in nodes]
    modes = {output.stdout for output in said if output.code == 0}
    assert modes, "kube-proxy answers on none of the nodes"
    (mode,) = exactly(1, modes)
    return mode


def printed_rules(nodes: Iterable[Fields], mode: str, run_on_node: RunOnNode) -> dict[str, str]:
    """By node, the rules that it prints. Asserts that each does; one may fail while kube-proxy writes them.

    Raises RuntimeError if a node lacks the program that prints them.
    """
    outputs = {node: run_on_node(node, *PRINT_RULES[mode]) for node in sorted(names(nodes))}
    for node, output in outputs.items():
        if output.code in NEVER_STARTED:
            output.told()
        assert output.code == 0, f"{node} does not print its rules: {output.stderr.strip()}"
    return {node: output.stdout for node, output in outputs.items()}


@pytest.mark.behavior("core-concepts/kube-proxy-writes-rules-on-every-node")
def test_kube_proxy_writes_the_rules_on_every_node(
    shared: Kube,
    own_service: OwnService,
    backends: list[Fields],
    nodes: list[Fields],
    proxy_mode: str,
    run_on_node: RunOnNode,
) -> None:
    """On every node a Service's rules lead from its ClusterIP to its ready Pods. They are deleted with the Service."""
    assert proxy_mode, "kube-system has no DaemonSet kube-proxy"
    service = own_service(CLUSTER_IP)
    ip = service.spec.clusterIP
    ready_pods = {f"{pod.status.podIP}:80" for pod in backends}
    for look in eventually(within=patience.service_rules):
        with look:
            rules = printed_rules(nodes, proxy_mode, run_on_node)
            lead_to = {node: destinations(proxy_mode, printed, ip, 8080) for node, printed in rules.items()}
            assert lead_to == dict.fromkeys(names(nodes), ready_pods)

    shared.delete("Service", service.metadata.name)
    for look in eventually(within=patience.service_rules):
        with look:
            rules = printed_rules(nodes, proxy_mode, run_on_node)
            assert [node for node, printed in rules.items() if has_rules(proxy_mode, printed, ip)] == []


# --- which Pods are behind it


@pytest.mark.behavior("nginx-walkthrough/endpoints-are-the-pods")
def test_the_endpoints_are_the_ready_pods(shared: Kube, svc_clusterip: Fields, backends: list[Fields]) -> None:
    """A Service's EndpointSlices list its Pods, each with its IP and UID, and say which of them are ready."""
    label = {"kubernetes.io/service-name": svc_clusterip.metadata.name}
    ready_pods = {("Pod", pod.metadata.name, pod.metadata.uid, pod.status.podIP) for pod in backends}

    for look in eventually(within=patience.controller_acts):
        with look:
            listed = [endpoint for part in shared.list("EndpointSlice", **label) for endpoint in part.endpoints]
            refs = [(it.targetRef, it.addresses) for it in listed if it.conditions.ready]
            assert {(ref.kind, ref.name, ref.uid, *addresses) for ref, addresses in refs} == ready_pods
            assert [it.targetRef.name for it in listed if not it.conditions.ready] == ["my-nginx-unready"]


@pytest.fixture
def myapp_pods(kube: Kube) -> None:
    """Four Pods, Ready: one has both labels of the document's Service, one only app, one only type, one has none."""
    kube.apply("services/myapp-pods.yaml")
    kube.ready_pods(4)


@pytest.mark.behavior("core-concepts/selector-picks-pods-by-all-labels")
@pytest.mark.usefixtures("myapp_pods")
def test_a_service_selects_pods_with_all_its_labels(kube: Kube) -> None:
    """A selector of two labels selects the Pods that have both. When a Pod gets or loses one, its endpoint comes or goes."""
    kube.create("services/myapp-service.yaml")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"both-labels"}

    kube.patch("Pod", "only-app", {"metadata": {"labels": {"type": "front-end"}}})
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"both-labels", "only-app"}

    kube.patch("Pod", "both-labels", {"metadata": {"labels": {"app": None}}})
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"only-app"}


@pytest.fixture
def switchable_pods(kube: Kube) -> list[Fields]:
    """Two Pods behind the documents' ClusterIP Service, in the test's own namespace: Ready unless /tmp/unready exists."""
    kube.create(CLUSTER_IP)
    kube.create("services/switchable-pods.yaml")
    return kube.ready_pods(2, app="my-nginx")


@pytest.mark.behavior("core-concepts/service-follows-pods")
def test_a_service_follows_scaling(kube: Kube, switchable_pods: list[Fields], inside: Inside) -> None:
    """After scaling up, the Service sends requests to the new Pod too; after scaling down, only to the Pod that is left."""
    url = by_cluster_ip(kube.get("Service", "svc-clusterip"))

    kube.scale("Deployment", "switchable", 3)
    three = names(kube.ready_pods(3, app="my-nginx"))
    assert names(switchable_pods) < three
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube, "svc-clusterip") == three
            assert set(ask(inside, url, ENOUGH)) == three

    kube.scale("Deployment", "switchable", 1)
    left = names(kube.ready_pods(1, app="my-nginx"))
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube, "svc-clusterip") == left
            assert set(ask(inside, url, ENOUGH)) == left


@pytest.mark.behavior("core-concepts/service-follows-pods")
def test_an_unready_pod_gets_no_requests(kube: Kube, switchable_pods: list[Fields], inside: Inside) -> None:
    """A Pod that is not ready keeps running but gets no requests. When it is ready again, it gets requests again."""
    url = by_cluster_ip(kube.get("Service", "svc-clusterip"))
    one, other = exactly(2, sorted(names(switchable_pods)))

    def wait_until_requests_go_to(pods: set[str]) -> None:
        for look in eventually(within=patience.service_rules):
            with look:
                assert endpoints(kube, "svc-clusterip") == pods
                assert set(ask(inside, url, ENOUGH)) == pods

    wait_until_requests_go_to({one, other})
    kube.exec(one, "touch", "/tmp/unready").told()
    wait_until_requests_go_to({other})
    kube.exec(one, "rm", "/tmp/unready").told()
    wait_until_requests_go_to({one, other})
    restarts = {pod.metadata.name: [it.restartCount for it in pod.status.containerStatuses] for pod in kube.pods()}
    assert restarts == {one: [0], other: [0]}


@pytest.mark.behavior("core-concepts/service-balances-over-pods")
def test_requests_are_spread_evenly_and_at_random(
    svc_clusterip: Fields, backends: list[Fields], inside: Inside
) -> None:
    """Each new connection goes to a random Pod, so in the long run all Pods get equally many.

    kube-proxy chooses so in its modes iptables and nftables; in ipvs mode the Pods take turns by default.
    """
    url = by_cluster_ip(svc_clusterip)
    for look in eventually(within=patience.service_rules):
        with look:
            assert set(ask(inside, url, ENOUGH)) == names(backends)

    answers: list[str] = []
    for look in eventually(within=patience.service_rules):
        with look:
            asked = ask(inside, url, min(50, 300 - len(answers)))
            answers += [answer for answer in asked if not answer.startswith("curl error")]
            assert len(answers) == 300, f"{len(answers)} of 300 requests have an answer"

    # A random choice among three gives each Pod 100 requests. The probability that one of them gets fewer than 58 or more
    # than 142 is 6.6e-7: 3 * sum(comb(300, k) * (1/3)**k * (2/3)**(300 - k) for k in range(301) if not 58 <= k <= 142).
    counts = Counter(answers)
    assert set(counts) == names(backends)
    assert {pod: count for pod, count in counts.items() if not 58 <= count <= 142} == {}
    # Each request goes to the same Pod as the one before it in one of three cases; if the Pods take turns, in none.
    repeated = sum(one == next_one for one, next_one in itertools.pairwise(answers))
    assert 58 <= repeated <= 142, f"{repeated} of 299 requests went to the same Pod as the one before"


@pytest.mark.behavior("core-concepts/service-balances-over-pods")
def test_session_affinity_keeps_a_client_with_one_pod(
    own_service: OwnService, svc_clusterip: Fields, backends: list[Fields], inside: Inside
) -> None:
    """With sessionAffinity ClientIP all requests of one client go to one Pod; without it they go to all Pods."""
    service = own_service(CLUSTER_IP, sessionAffinity="ClientIP")

    for look in eventually(within=patience.service_rules):
        with look:
            with_affinity = set(ask(inside, by_cluster_ip(service), ENOUGH))
            without = set(ask(inside, by_cluster_ip(svc_clusterip), ENOUGH))
            assert without == names(backends)
            assert with_affinity < names(backends)
            exactly(1, with_affinity)


# --- ClusterIP: inside the cluster only


@pytest.fixture
def clients_on_nodes(inside: Inside, workers: list[Fields]) -> dict[str, At]:
    """The clients inside the cluster, by the names of their nodes; each worker has one."""
    assert names(workers) <= set(inside.nodes)
    return {node: At(partial(inside.run, node=node)) for node in inside.nodes}


def not_served_at(url: str, clients: Mapping[str, Client], pods: Iterable[Fields]) -> dict[str, str]:
    """The places whose client none of the Pods answers at the URL, and what came instead."""
    return {place: instead for place, client in clients.items() for instead in unserved(client, [url], pods).values()}


@pytest.mark.behavior("objects/clusterip-serves-inside")
def test_a_clusterip_serves_pods_on_every_node(
    svc_clusterip: Fields, backends: list[Fields], clients_on_nodes: dict[str, At]
) -> None:
    """A Pod reaches the Service at its ClusterIP and port, whichever node the Pod runs on."""
    url = by_cluster_ip(svc_clusterip)

    for look in eventually(within=patience.service_rules):
        with look:
            assert not_served_at(url, clients_on_nodes, backends) == {}


@pytest.mark.behavior("objects/clusterip-serves-inside")
def test_a_services_name_serves_pods_on_every_node(
    svc_clusterip: Fields, backends: list[Fields], clients_on_nodes: dict[str, At]
) -> None:
    """Nobody needs to know the ClusterIP: any Pod in the Service's namespace can say `curl svc-clusterip:8080`."""
    url = f"http://{svc_clusterip.metadata.name}:8080/hostname"

    for look in eventually(within=patience.names_follow):
        with look:
            assert not_served_at(url, clients_on_nodes, backends) == {}


@pytest.mark.behavior("nginx-walkthrough/clusterip-serves-every-node")
def test_a_clusterip_serves_the_nodes_themselves(
    svc_clusterip: Fields, backends: list[Fields], nodes: list[Fields], run_on_node: RunOnNode
) -> None:
    """The nodes are inside the cluster too, the control plane's included: each of them is served at the ClusterIP."""
    url = by_cluster_ip(svc_clusterip)
    themselves = {node: At(partial(run_on_node, node)) for node in names(nodes)}

    for look in eventually(within=patience.service_rules):
        with look:
            assert not_served_at(url, themselves, backends) == {}


@pytest.mark.behavior("objects/clusterip-not-outside")
def test_a_clusterip_is_unreachable_from_outside(
    svc_clusterip: Fields,
    svc_nodeport: Fields,
    backends: list[Fields],
    workers: list[Fields],
    inside: Inside,
    outside: Outside,
) -> None:
    """Outside the cluster nobody answers at a ClusterIP. Pods are served there, and a node port leads to the same Pods."""
    cluster_ip, node_port = by_cluster_ip(svc_clusterip), by_node_port(svc_nodeport, workers[0])
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, [cluster_ip], backends) == {}
            assert unserved(outside, [node_port], backends) == {}

    with outside.on_link(svc_clusterip.spec.clusterIP):
        for look in eventually(within=patience.service_rules):
            with look:
                (url, answer), (_, control) = exactly(2, curl(outside, 2, cluster_ip, node_port))
                assert control in names(backends)
                assert unserved(inside, [cluster_ip], backends) == {}

    assert answer in (f"curl error {COULD_NOT_CONNECT}", f"curl error {SILENCE}"), (
        f"{url} was answered outside (in ipvs mode without strictARP the nodes do so): {answer}"
    )


@pytest.mark.behavior("objects/service-port-maps-to-targetport")
def test_the_services_port_leads_to_the_target_port(
    svc_clusterip: Fields, backends: list[Fields], inside: Inside
) -> None:
    """`port: 8080, targetPort: 80`: the Service answers on 8080 and not on 80, its Pods answer on 80 and not on 8080."""
    service, pod = f"http://{svc_clusterip.spec.clusterIP}", f"http://{backends[0].status.podIP}"
    open_ports = [f"{service}:8080/hostname", f"{pod}:80/hostname"]
    others = [f"{service}:80/hostname", f"{pod}:8080/hostname"]

    for look in eventually(within=patience.service_rules):
        with look:
            assert list(unserved(inside, [*open_ports, *others], backends)) == others


@pytest.fixture
def named_ports(kube: Kube) -> Fields:
    """A Service whose targetPort is a name. Its two Pods are Ready and have a port of this name: one 80, the other 8000."""
    kube.apply("services/named-port.yaml")
    kube.ready_pods(2, app="named-port")
    return kube.get("Service", "named-port")


@pytest.mark.behavior("objects/service-port-maps-to-targetport")
def test_a_named_target_port_is_each_pods_own(kube: Kube, named_ports: Fields, inside: Inside) -> None:
    """If targetPort is a name, it is looked up in each Pod. So one Service leads to different port numbers."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert set(ask(inside, by_cluster_ip(named_ports), ENOUGH)) == {"web-is-80", "web-is-8000"}

    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": "named-port"})
    ports = {it.targetRef.name: [port.port for port in part.ports] for part in slices for it in part.endpoints}
    assert ports == {"web-is-80": [80], "web-is-8000": [8000]}


@pytest.mark.behavior("core-concepts/targetport-defaults-to-port")
def test_target_port_defaults_to_port(own_service: OwnService, backends: list[Fields], inside: Inside) -> None:
    """Without a targetPort the Service uses the number of its port. Here the Pods answer on 80 and not on 8081."""
    service = own_service(CLUSTER_IP, ports=[{"name": "web", "port": 80}, {"name": "other", "port": 8081}])

    assert {port.port: port.targetPort for port in service.spec.ports} == {80: 80, 8081: 8081}
    web, other = f"http://{service.spec.clusterIP}:80/hostname", f"http://{service.spec.clusterIP}:8081/hostname"
    for look in eventually(within=patience.service_rules):
        with look:
            assert list(unserved(inside, [web, other], backends)) == [other]


# --- NodePort: a port of every node


@pytest.mark.behavior("objects/nodeport-same-on-every-node")
def test_the_node_port_is_open_on_every_node(
    svc_nodeport: Fields, backends: list[Fields], nodes: list[Fields], inside: Inside, outside: Outside
) -> None:
    """The Service has the same port on all nodes, for clients outside the cluster and for Pods inside."""
    urls = [by_node_port(svc_nodeport, node) for node in nodes]

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, urls, backends) == {}
            assert unserved(inside, urls, backends) == {}


@pytest.mark.behavior("objects/nodeport-includes-clusterip")
def test_a_nodeport_service_serves_inside_too(svc_nodeport: Fields, backends: list[Fields], inside: Inside) -> None:
    """A NodePort Service also works as a ClusterIP Service: its ClusterIP and its name serve inside the cluster."""
    urls = [by_cluster_ip(svc_nodeport), f"http://{svc_nodeport.metadata.name}:8080/hostname"]

    for look in eventually(within=patience.names_follow):
        with look:
            assert unserved(inside, urls, backends) == {}


@pytest.mark.behavior("core-concepts/nodeport-spans-all-nodes")
def test_every_node_leads_to_the_only_pod(kube: Kube, one_pod: Fields, nodes: list[Fields], outside: Outside) -> None:
    """The only Pod runs on one node, and the node port leads to it from every node, also from those without a Pod."""
    assert {one_pod.spec.nodeName} < names(nodes)

    service = kube.create(NODE_PORT)

    urls = [by_node_port(service, node) for node in nodes]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, urls, [one_pod]) == {}


@pytest.mark.behavior("core-concepts/nodeport-is-assigned-when-omitted")
def test_each_service_gets_a_node_port_of_its_own(kube: Kube) -> None:
    """A Service that asks for no particular node port gets a free one between 30000 and 32767."""
    one, other = load(NODE_PORT), load(NODE_PORT)
    other["metadata"]["name"] = "svc-nodeport-2"

    ports = [kube.create(manifest).spec.ports[0].nodePort for manifest in (one, other)]

    assert [port for port in ports if port not in NODE_PORTS] == []
    assert ports[0] != ports[1]


@pytest.fixture
def free_node_port(api: Api) -> int:
    """30008, the document's node port, or the next one that no Service of the cluster has."""
    specs = [service["spec"] for service in api.call("GET", "/api/v1/services")["items"]]
    taken = {port.get("nodePort") for spec in specs for port in spec.get("ports", ())}
    taken |= {spec.get("healthCheckNodePort") for spec in specs}
    return min(set(NODE_PORTS[8:]) - taken)


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
def test_a_node_port_can_be_chosen(
    own_service: OwnService, free_node_port: int, backends: list[Fields], workers: list[Fields], outside: Outside
) -> None:
    """A Service that asks for a free node port gets it, and serves there."""
    ports = [{"port": 80, "targetPort": 80, "nodePort": free_node_port}]
    service = own_service("services/myapp-service.yaml", ports=ports, selector={"app": "my-nginx"})

    assert [port.nodePort for port in service.spec.ports] == [free_node_port]
    url = f"http://{internal_ip(workers[0])}:{free_node_port}/hostname"
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, [url], backends) == {}


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
def test_a_node_port_that_is_taken_is_refused(shared: Kube, kube: Kube, own_service: OwnService) -> None:
    """A node port belongs to one Service in the whole cluster. Others are refused it until that Service is deleted."""
    first = own_service(NODE_PORT)
    second = load("services/myapp-service.yaml")
    second["spec"]["ports"][0]["nodePort"] = first.spec.ports[0].nodePort

    with refused(422) as refusals:
        kube.create(second)
    assert [refusal.fields for refusal in refusals] == [["spec.ports[0].nodePort"]]

    shared.delete("Service", first.metadata.name)
    assert kube.create(second).spec.ports[0].nodePort == first.spec.ports[0].nodePort


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
@pytest.mark.parametrize("port", [NODE_PORTS.start - 1, NODE_PORTS.stop])
def test_a_node_port_outside_the_range_is_refused(kube: Kube, port: int) -> None:
    """Node ports are between 30000 and 32767. Any other is refused, and the refusal names this range."""
    manifest = load("services/myapp-service.yaml")
    kube.create(manifest, dryRun="All")

    manifest["spec"]["ports"][0]["nodePort"] = port
    with refused(422) as refusals:
        kube.create(manifest)

    assert [refusal.fields for refusal in refusals] == [["spec.ports[0].nodePort"]]
    assert "30000-32767" in refusals[0].message


@pytest.mark.behavior("objects/deleting-the-nodeport-closes-it")
def test_a_deleted_services_node_port_is_closed(
    shared: Kube,
    own_service: OwnService,
    svc_nodeport: Fields,
    backends: list[Fields],
    nodes: list[Fields],
    outside: Outside,
) -> None:
    """Within 40 seconds after the Service's deletion every node refuses connections to its port, and only to that one."""
    service = own_service(NODE_PORT)
    its_port = [by_node_port(service, node) for node in nodes]
    anothers_port = [by_node_port(svc_nodeport, node) for node in nodes]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, [*its_port, *anothers_port], backends) == {}

    shared.delete("Service", service.metadata.name)

    for look in eventually(within=patience.service_rules):
        with look:
            closed = unserved(outside, [*its_port, *anothers_port], backends)
            assert closed == dict.fromkeys(its_port, f"curl error {COULD_NOT_CONNECT}")


@pytest.fixture
def mynginx(kube: Kube) -> None:
    """The walk-through's Deployment mynginx, its Pod Ready."""
    kube.create("services/mynginx.yaml")
    kube.ready_pods(1, app="mynginx")


@pytest.mark.behavior("nginx-walkthrough/create-service-nodeport")
@pytest.mark.usefixtures("mynginx")
def test_kubectl_creates_a_nodeport_service(
    kube: Kube, kubectl: Kubectl, workers: list[Fields], outside: Outside
) -> None:
    """`kubectl create service nodeport mynginx --tcp=80:80` sets port and targetPort, and selects Pods labeled app=mynginx."""
    done = kubectl("create", "service", "nodeport", "mynginx", "--tcp=80:80")
    assert done.code == 0, done.stderr

    service = kube.get("Service", "mynginx")
    assert service.spec.type == "NodePort"
    assert service.spec.selector == {"app": "mynginx"}
    assert [(port.port, port.targetPort) for port in service.spec.ports] == [(80, 80)]
    assert service.spec.clusterIP
    for look in eventually(within=patience.service_rules):
        with look:
            assert outside.get(f"http://{internal_ip(workers[0])}:{service.spec.ports[0].nodePort}").status == 200


# --- LoadBalancer: an address from a provider


@pytest.fixture(scope="session")
def provider(shared: Kube) -> bool:
    """Whether this cluster has something that gives Services of type LoadBalancer their addresses."""
    return assigns_addresses(shared)


@pytest.mark.behavior("objects/loadbalancer-needs-a-provider")
def test_an_external_address_comes_from_a_provider(
    shared: Kube, own_service: OwnService, provider: bool, backends: list[Fields]
) -> None:
    """Kubernetes gives a LoadBalancer Service all but an external address; without a provider it never gets one."""
    name = own_service(LOAD_BALANCER).metadata.name
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(shared, name) == names(backends)

    if provider:
        for look in eventually(within=patience.load_balancer):
            with look:
                exactly(1, addresses_in(shared.get("Service", name)))
    else:
        for look in throughout(patience.stays_so):
            with look:
                assert_no_external_address(shared, name)


def assert_no_external_address(shared: Kube, service: str) -> None:
    """Neither this Service has one nor the run's probe for a provider, for which the run has waited much longer."""
    given = [(name, address) for name in (service, PROBE) for address in addresses_in(shared.get("Service", name))]
    assert given == [], f"external addresses, though no provider answered the run's probe: {given}"


@pytest.mark.behavior("core-concepts/loadbalancer-without-a-cloud-is-a-nodeport")
@pytest.mark.usefixtures("provider")
def test_without_a_provider_a_loadbalancer_is_a_nodeport(
    shared: Kube, own_service: OwnService, backends: list[Fields], nodes: list[Fields], inside: Inside
) -> None:
    """Without a provider a LoadBalancer Service has no external address, but its ClusterIP and every node's port serve."""
    service = own_service(LOAD_BALANCER)
    urls = [by_cluster_ip(service), *(by_node_port(service, node) for node in nodes)]

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, backends) == {}
    for look in throughout(patience.stays_so):
        with look:
            assert_no_external_address(shared, service.metadata.name)


@pytest.mark.behavior("core-concepts/loadbalancer-gives-one-address")
def test_a_loadbalancer_gives_all_pods_one_address(
    shared: Kube, own_service: OwnService, backends: list[Fields], cloud: Cloud, outside: Outside
) -> None:
    """With a provider all Pods have one address outside, with the Service's own port; a client need not know any node."""
    name = own_service(LOAD_BALANCER).metadata.name

    address = cloud.address_of(shared, name)

    for look in eventually(within=patience.service_rules):
        with look:
            given = addresses_in(shared.get("Service", name))
            assert given == [address], f"{cloud.name} gave {address}; the Service has {given}"
            assert set(ask(outside, f"http://{address}:8080/hostname", ENOUGH)) == names(backends)


@pytest.mark.behavior("nginx-walkthrough/loadbalancer-includes-nodeport-and-clusterip")
def test_a_loadbalancer_service_need_not_have_node_ports(kube: Kube) -> None:
    """A LoadBalancer Service has a node port and a ClusterIP too; allocateLoadBalancerNodePorts: false spares the port."""
    manifest = load(LOAD_BALANCER)
    usual = kube.create(manifest, dryRun="All").spec
    manifest["spec"]["allocateLoadBalancerNodePorts"] = False
    spared = kube.create(manifest, dryRun="All").spec

    assert usual.type == "LoadBalancer"
    assert usual.clusterIP
    assert usual.ports[0].nodePort
    assert spared.clusterIP
    assert spared.ports[0].nodePort is None


# --- ExternalName: a name for another name


@pytest.mark.behavior("objects/externalname-is-a-cname")
def test_an_external_name_is_answered_with_a_cname(kube: Kube, inside: Inside, cluster_domain: str) -> None:
    """For an ExternalName Service the cluster's DNS answers with the other name. There is no ClusterIP and no endpoint."""
    service = kube.create(EXTERNAL_NAME)
    name = f"svc-externalname.{kube.namespace}.svc.{cluster_domain}."

    for look in eventually(within=patience.names_follow):
        with look:
            answer = inside.run("dig", "+noall", "+answer", name, "CNAME").stdout.split()
            assert answer[-2:] == ["CNAME", "my.database.com."]
    assert service.spec.clusterIP is None
    assert kube.list("EndpointSlice") == []


@pytest.mark.behavior("objects/externalname-is-a-cname")
def test_a_request_to_an_external_name_arrives_there(
    kube: Kube, svc_clusterip: Fields, backends: list[Fields], inside: Inside, cluster_domain: str
) -> None:
    """A request to an ExternalName Service goes where its name points, here to a Service in another namespace."""
    manifest = load(EXTERNAL_NAME)
    there = f"{svc_clusterip.metadata.name}.{svc_clusterip.metadata.namespace}.svc.{cluster_domain}"
    manifest["spec"]["externalName"] = there

    kube.create(manifest)

    url = f"http://svc-externalname.{kube.namespace}.svc.{cluster_domain}:8080/hostname"
    for look in eventually(within=patience.names_follow):
        with look:
            assert set(ask(inside, url, ENOUGH)) == names(backends)


# --- all four types


@pytest.mark.behavior("nginx-walkthrough/four-service-types")
def test_a_service_without_a_type_is_a_clusterip(kube: Kube) -> None:
    """ClusterIP is the default: a Service without a type is stored with this one."""
    manifest = load(CLUSTER_IP)
    del manifest["spec"]["type"]

    assert kube.create(manifest).spec.type == "ClusterIP"


@pytest.mark.behavior("nginx-walkthrough/four-service-types")
@pytest.mark.parametrize(
    ("manifest", "has"),
    [
        pytest.param(CLUSTER_IP, {"clusterIP"}, id="ClusterIP"),
        pytest.param(NODE_PORT, {"clusterIP", "nodePort"}, id="NodePort"),
        pytest.param(LOAD_BALANCER, {"clusterIP", "nodePort"}, id="LoadBalancer"),
        pytest.param(EXTERNAL_NAME, {"externalName"}, id="ExternalName"),
    ],
)
def test_each_type_adds_to_the_one_before(kube: Kube, manifest: str, has: set[str]) -> None:
    """NodePort adds a node port to ClusterIP, and LoadBalancer includes both. ExternalName has only its name."""
    spec = kube.create(manifest, dryRun="All").spec

    node_ports = [port.nodePort for port in spec.ports if port.nodePort]
    fields = {"clusterIP": spec.clusterIP, "nodePort": node_ports, "externalName": spec.externalName}
    assert {field for field, value in fields.items() if value} == has


@pytest.mark.behavior("nginx-walkthrough/four-service-types")
def test_there_is_no_fifth_type(kube: Kube) -> None:
    """Any other type is refused, and the refusal names the four types."""
    manifest = load(CLUSTER_IP)
    kube.create(manifest, dryRun="All")

    manifest["spec"]["type"] = "PodPort"
    with refused(422) as refusals:
        kube.create(manifest)

    assert [refusal.fields for refusal in refusals] == [["spec.type"]]
    four = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    assert [type for type in four if f'"{type}"' not in refusals[0].message] == []


# --- layers


def path_through(*layers: str) -> str:
    """The path for the first server: it asks the Service of the next layer, and so on. The last Pod answers with its name.

    `path_through("back-end", "database")` is "dial?host=back-end&port=80&request=" and, quoted,
    "dial?host=database&port=80&request=hostname".
    """
    path = "hostname"
    for layer in reversed(layers):
        path = "dial?" + urlencode({"host": layer, "port": 80, "request": path})
    return path


def last_pod(answer: str) -> str:
    """The name with which the last Pod answered: every layer wraps what it got as `{"responses": ["..."]}`.

    An answer of any other form, an error for example, is returned as it is.
    """
    while answer.startswith('{"responses":["'):
        (answer,) = exactly(1, json.loads(answer)["responses"])
    return answer


@pytest.fixture
def front_end(kube: Kube, inside: Inside) -> Fields:
    """The front end's Service. Behind it are the back end and the database, each with a Service and a Pod that serves.

    A deleted Pod of the back end goes on serving until every node knows that it was deleted.
    """
    manifests = load_all("services/three-layers.yaml")
    (back_end,) = exactly(1, [manifest for manifest in manifests if manifest["kind"] == "Deployment"])
    pod, pause = back_end["spec"]["template"]["spec"], round(patience.endpoints_move)
    pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] = pause
    pod["terminationGracePeriodSeconds"] = pause + 5
    kube.apply(manifests)
    pods = [pod for layer in ("front-end", "back-end", "database") for pod in kube.ready_pods(1, app=layer)]
    for look in eventually(within=patience.server_listens):
        with look:
            assert unserved(inside, [by_pod_ip(pod) for pod in pods], pods) == {}
    return kube.get("Service", "front-end")


@pytest.mark.behavior("core-concepts/clusterip-joins-layers")
@pytest.mark.starts_first
def test_a_layer_is_scaled_and_replaced_behind_its_service(kube: Kube, front_end: Fields, inside: Inside) -> None:
    """Each layer knows the next one only by its Service's name. So no request fails when the back end's Pods change."""
    url = f"http://{front_end.spec.clusterIP}/{path_through('back-end', 'database')}"
    for look in eventually(within=patience.names_follow):
        with look:
            assert [last_pod(answer) for answer in ask(inside, url)] == ["database"]
    (old,) = exactly(1, kube.pods(app="back-end"))
    answers: list[str] = []

    kube.scale("Deployment", "back-end", 2)
    for look in eventually(within=patience.rollout):
        with look:
            answers += ask(inside, url, 10, silence=10)
            assert len(endpoints(kube, "back-end")) == 2
    kube.delete("Pod", old.metadata.name)
    for look in eventually(within=patience.rollout, every=1):
        with look:
            answers += ask(inside, url, 10, silence=10)
            assert not kube.exists("Pod", old.metadata.name)
            assert len(endpoints(kube, "back-end")) == 2

    assert {last_pod(answer) for answer in answers} == {"database"}
