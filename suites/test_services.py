"""Services: one address that stays, before Pods that come and go; who reaches it from where, and what makes it work."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from fixtures.api import ApiRefusal, refused
from fixtures.clients import Inside, Outside
from fixtures.cloud import PROBE, Cloud, addresses_in, assigns_addresses
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.kube import Kube, is_ready
from fixtures.kube_proxy import PRINT_RULES, destinations
from fixtures.kubectl import Kubectl
from fixtures.manifests import load
from fixtures.nodes import internal_ip
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout
from machine.output import Output

DEPLOYMENT = "services/deployment-nginx.yaml"
CLUSTER_IP = "services/svc-clusterip.yaml"
NODE_PORT = "services/svc-nodeport.yaml"
LOAD_BALANCER = "services/svc-loadbalancer.yaml"
EXTERNAL_NAME = "services/svc-external.yaml"

#: The ports of which NodePort Services get theirs.
NODE_PORTS = range(30000, 32768)

#: A fair choice among three Pods leaves one of them out of so many requests with a probability of 3 * (2/3)**40 = 2.7e-7.
ENOUGH = 40

#: curl's exit code where nobody accepts the connection; silence would be another (28).
COULD_NOT_CONNECT = 7

OwnService = Callable[..., Fields]
RunOnNode = Callable[..., Output]


def by_cluster_ip(service: Fields) -> str:
    """The URL of a Service's ClusterIP and port, at which the Pod that serves answers with its name."""
    return f"http://{service.spec.clusterIP}:{service.spec.ports[0].port}/hostname"


def by_node_port(service: Fields, node: Fields) -> str:
    """The same URL at a node's address and the Service's node port."""
    return f"http://{internal_ip(node)}:{service.spec.ports[0].nodePort}/hostname"


def by_pod_ip(pod: Fields) -> str:
    """The same URL at the Pod's own address and port."""
    return f"http://{pod.status.podIP}:{pod.spec.containers[0].ports[0].containerPort}/hostname"


def names(pods: Iterable[Fields]) -> set[str]:
    """The Pods' names, with which they answer."""
    return {pod.metadata.name for pod in pods}


def unserved(client: Inside | Outside, urls: Collection[str], pods: Iterable[Fields]) -> dict[str, str]:
    """Those of the URLs at which none of the Pods answers, and what came instead: another answer, or curl's error."""
    told = client.run("curl", "--silent", "--max-time", "2", "--write-out", "\t%{url}\t%{errormsg}\n", *urls).stdout
    replies = {url: (answer, error) for answer, url, error in re.findall(r"(?s)(.*?)\t(\S+)\t([^\n]*)\n", told)}
    others = {url: replies[url] for url in urls if replies[url][0] not in names(pods)}
    return {url: answer or error for url, (answer, error) in others.items()}


def ask(client: Inside | Outside, url: str, times: int = 1) -> Counter[str]:
    """How often each answer came to so many requests, each on a connection of its own; no answer ends it, and counts as ""."""
    separately = ("--fail-early", "--header", "Connection: close", "--write-out", "\n")
    separator = "&" if "?" in url else "?"
    output = client.run("curl", "--silent", "--max-time", "2", *separately, f"{url}{separator}request=[1-{times}]")
    return Counter(output.stdout.splitlines())


def endpoints(kube: Kube, service: str) -> set[str]:
    """The names of the Pods behind a Service: the ready endpoints that its EndpointSlices list."""
    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": service})
    return {it.targetRef.name for part in slices for it in part.endpoints if it.conditions.ready}


@pytest.fixture(scope="session")
def backends(home: Kube, inside: Inside) -> list[Fields]:
    """The three Pods of the documents' Deployment; all tests of the run share them, and only look at them.

    They serve. A fourth one with their label serves as well, but is never Ready.
    """
    home.apply(DEPLOYMENT)
    home.apply("services/unready-pod.yaml")
    for look in eventually(within=patience.pod_starts):
        with look:
            pods = home.pods(app="my-nginx")
            assert [pod.status.phase for pod in pods] == ["Running"] * 4
            assert {pod.metadata.name for pod in pods if not is_ready(pod)} == {"my-nginx-unready"}
    for look in eventually(within=patience.server_listens):
        with look:
            assert unserved(inside, [by_pod_ip(pod) for pod in pods], pods) == {}
    return [pod for pod in pods if is_ready(pod)]


@pytest.fixture(scope="session")
def svc_clusterip(home: Kube, backends: list[Fields]) -> Fields:
    """The documents' ClusterIP Service before the shared Pods; it is shared too."""
    return home.apply(CLUSTER_IP)


@pytest.fixture(scope="session")
def svc_nodeport(home: Kube, backends: list[Fields]) -> Fields:
    """The documents' NodePort Service before the shared Pods; it is shared too."""
    return home.apply(NODE_PORT)


@pytest.fixture
def own_service(home: Kube, backends: list[Fields]) -> Iterator[OwnService]:
    """`own_service(NODE_PORT, sessionAffinity="ClientIP")`: a Service before the shared Pods that is the test's own.

    The manifest's, with a name that nobody has, and with these fields of its spec changed. It goes when the test ends.
    """
    made = []

    def make(manifest: str, **changed: Any) -> Fields:
        document = load(manifest)
        document["metadata"] = {"generateName": f"{document['metadata']['name']}-"}
        document["spec"] |= changed
        service = home.create(document)
        made.append(service.metadata.name)
        return service

    yield make
    for name in made:
        if home.exists("Service", name):
            home.delete("Service", name)


@pytest.fixture
def one_pod(kube: Kube, inside: Inside) -> Fields:
    """The one Pod of the documents' Deployment, scaled to one, in the test's own namespace. It serves."""
    manifest = load(DEPLOYMENT)
    manifest["spec"]["replicas"] = 1
    kube.create(manifest)
    (pod,) = kube.ready_pods(1, app="my-nginx")
    for look in eventually(within=patience.server_listens):
        with look:
            assert unserved(inside, [by_pod_ip(pod)], [pod]) == {}
    return pod


# --- what a Service is


@pytest.mark.behavior("objects/no-service-no-way-in")
def test_without_a_service_no_way_leads_to_the_pod(
    kube: Kube, one_pod: Fields, nodes: list[Fields], inside: Inside
) -> None:
    """A Deployment opens nothing, whatever its containerPort says; one more object, a Service, and every node leads in."""
    by_nodes = [by_pod_ip(one_pod).replace(one_pod.status.podIP, internal_ip(node)) for node in nodes]
    assert list(unserved(inside, by_nodes, [one_pod])) == by_nodes
    assert kube.list("EndpointSlice") == []

    service = kube.create(NODE_PORT)

    by_nodes = [by_node_port(service, node) for node in nodes]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, by_nodes, [one_pod]) == {}
            assert endpoints(kube, "svc-nodeport") == {one_pod.metadata.name}


@pytest.mark.behavior("core-concepts/pod-ip-changes-service-ip-stays")
def test_the_pods_address_changes_and_the_services_stays(kube: Kube, one_pod: Fields, inside: Inside) -> None:
    """Another Pod has another IP. Who asks the Service never learns: its name and its ClusterIP are as they were."""
    service = kube.create(CLUSTER_IP)
    urls = [by_cluster_ip(service), f"http://svc-clusterip.{kube.namespace}.svc:8080/hostname"]
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, [one_pod]) == {}

    kube.delete("Pod", one_pod.metadata.name)

    (newcomer,) = kube.ready_pods(1, app="my-nginx")
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, [newcomer]) == {}
    assert newcomer.status.podIP != one_pod.status.podIP


#: Prints every address that an interface has, on a node itself and in the Pods that it runs. (In ipvs mode kube-proxy
#: pins the ClusterIPs to a dummy interface, which carries no traffic.)
ALL_ADDRESSES = "(ip -o addr; for pod in /run/netns/*; do ip -netns ${pod##*/} -o addr; done) | grep -v ' kube-ipvs0 '"


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_no_interface_has_the_services_address(
    svc_clusterip: Fields, backends: list[Fields], nodes: list[Fields], inside: Inside, run_on_node: RunOnNode
) -> None:
    """A Service is no machine: it answers, and yet its address belongs to no node and to no Pod."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(by_cluster_ip(svc_clusterip)).status == 200

    printed = "".join(run_on_node(node.metadata.name, "sh", "-c", ALL_ADDRESSES).stdout for node in nodes)

    owned = set(re.findall(r" inet6? (\S+)/", printed))
    assert {internal_ip(node) for node in nodes} <= owned
    assert {pod.status.podIP for pod in backends} <= owned
    assert svc_clusterip.spec.clusterIP not in owned


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_no_process_listens_for_the_service(
    svc_clusterip: Fields, nodes: list[Fields], inside: Inside, run_on_node: RunOnNode
) -> None:
    """A Service is no program: it answers on port 8080, and on no node does a process listen there, as the kubelet does."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(by_cluster_ip(svc_clusterip)).status == 200

    for node in nodes:
        sockets = [line.split()[3] for line in run_on_node(node.metadata.name, "ss", "-Hltn").stdout.splitlines()]
        addresses, ports = zip(*(socket.rsplit(":", 1) for socket in sockets), strict=True)
        assert str(node.status.daemonEndpoints.kubeletEndpoint.Port) in ports
        assert "8080" not in ports
        assert svc_clusterip.spec.clusterIP not in addresses


@pytest.mark.behavior("core-concepts/service-is-not-a-process")
def test_a_service_answers_on_its_ports_only(own_service: OwnService, backends: list[Fields], inside: Inside) -> None:
    """An address that exists as rules only has the ports that the rules name, and no others."""
    two_ports = [{"name": name, "port": port, "targetPort": 80} for name, port in (("one", 8080), ("other", 8082))]
    service = own_service(CLUSTER_IP, ports=two_ports)

    urls = {port: f"http://{service.spec.clusterIP}:{port}/hostname" for port in (80, 8080, 8081, 8082)}

    for look in eventually(within=patience.service_rules):
        with look:
            assert list(unserved(inside, urls.values(), backends)) == [urls[80], urls[8081]]


# --- the rules on the nodes


@pytest.fixture(scope="session")
def proxy_mode(home: Kube, nodes: list[Fields], run_on_node: RunOnNode) -> str:
    """The mode in which kube-proxy runs: what it says itself on any of the nodes. Skips where it is not there at all."""
    if not Kube(home.api, "kube-system").exists("DaemonSet", "kube-proxy"):
        pytest.skip("this cluster has no DaemonSet kube-proxy; something else plays its part")
    said = [run_on_node(node.metadata.name, "curl", "--silent", "localhost:10249/proxyMode") for node in nodes]
    modes = {output.stdout for output in said if output.code == 0}
    assert modes, "kube-proxy answers on none of the nodes"
    (mode,) = modes
    return mode


@pytest.mark.behavior("core-concepts/kube-proxy-writes-rules-on-every-node")
def test_kube_proxy_writes_the_rules_on_every_node(
    home: Kube,
    own_service: OwnService,
    backends: list[Fields],
    nodes: list[Fields],
    proxy_mode: str,
    run_on_node: RunOnNode,
) -> None:
    """With the Service, rules from its address to just the ready Pods appear on every node; with the Service they go."""

    def led_to() -> dict[str, set[str]]:
        printed = {node.metadata.name: run_on_node(node.metadata.name, *PRINT_RULES[proxy_mode]) for node in nodes}
        cluster_ip = service.spec.clusterIP
        return {node: destinations(proxy_mode, rules.stdout, cluster_ip, 8080) for node, rules in printed.items()}

    service = own_service(CLUSTER_IP)
    ready_pods = {f"{pod.status.podIP}:80" for pod in backends}
    for look in eventually(within=patience.service_rules):
        with look:
            assert led_to() == {node.metadata.name: ready_pods for node in nodes}

    home.delete("Service", service.metadata.name)
    for look in eventually(within=patience.service_rules):
        with look:
            assert led_to() == {node.metadata.name: set() for node in nodes}


# --- which Pods are behind it


@pytest.mark.behavior("nginx-walkthrough/endpoints-are-the-pods")
def test_the_endpoints_are_the_ready_pods(home: Kube, svc_clusterip: Fields, backends: list[Fields]) -> None:
    """The Service's EndpointSlices list its Pods, each with its address and identity, and say which of them are ready."""
    label = {"kubernetes.io/service-name": svc_clusterip.metadata.name}
    for look in eventually(within=patience.controller_acts):
        with look:
            listed = [endpoint for part in home.list("EndpointSlice", **label) for endpoint in part.endpoints]
            assert len(listed) == 4

    ready = {
        (it.targetRef.kind, it.targetRef.name, it.targetRef.uid, *it.addresses) for it in listed if it.conditions.ready
    }
    assert ready == {("Pod", pod.metadata.name, pod.metadata.uid, pod.status.podIP) for pod in backends}
    assert [it.targetRef.name for it in listed if not it.conditions.ready] == ["my-nginx-unready"]


@pytest.fixture
def myapp_pods(kube: Kube) -> None:
    """Three Pods, Ready: one with both labels of the documents' Service, one with one of them, one with none."""
    kube.apply("services/myapp-pods.yaml")
    kube.ready_pods(3)


@pytest.mark.behavior("core-concepts/selector-picks-pods-by-all-labels")
@pytest.mark.usefixtures("myapp_pods")
def test_a_service_takes_the_pods_with_all_labels(kube: Kube) -> None:
    """A selector of two labels takes the Pods that carry both, as long as they do: a label given or taken away decides."""
    kube.create("services/myapp-service.yaml")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"both-labels"}

    kube.patch("Pod", "one-label", {"metadata": {"labels": {"type": "front-end"}}})
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"both-labels", "one-label"}

    kube.patch("Pod", "both-labels", {"metadata": {"labels": {"type": None}}})
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(kube, "myapp-service") == {"one-label"}


@pytest.fixture
def fickle_pods(kube: Kube, inside: Inside) -> list[Fields]:
    """Two Pods behind the documents' ClusterIP Service, in the test's own namespace: Ready, until a file says otherwise."""
    kube.create(CLUSTER_IP)
    kube.create("services/fickle-pods.yaml")
    return kube.ready_pods(2, app="my-nginx")


@pytest.mark.behavior("core-concepts/service-follows-pods")
def test_pods_that_come_or_go_are_taken_in_or_out(kube: Kube, fickle_pods: list[Fields], inside: Inside) -> None:
    """Scale up and the Service sends requests to the newcomer too; scale down and it sends none to those that went."""
    url = by_cluster_ip(kube.get("Service", "svc-clusterip"))

    kube.scale("Deployment", "fickle", 3)
    three = names(kube.ready_pods(3, app="my-nginx"))
    assert names(fickle_pods) < three
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube, "svc-clusterip") == three
            assert set(ask(inside, url, ENOUGH)) == three

    kube.scale("Deployment", "fickle", 1)
    left = names(kube.ready_pods(1, app="my-nginx"))
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube, "svc-clusterip") == left
            assert set(ask(inside, url, ENOUGH)) == left


@pytest.mark.behavior("core-concepts/service-follows-pods")
def test_a_pod_is_out_for_as_long_as_it_is_unready(kube: Kube, fickle_pods: list[Fields], inside: Inside) -> None:
    """A Pod that says it is not ready gets no more requests, though it runs; once it is ready again, it gets its share."""
    url = by_cluster_ip(kube.get("Service", "svc-clusterip"))
    closed, other = sorted(names(fickle_pods))

    def wait_until_behind_it(pods: set[str]) -> None:
        for look in eventually(within=patience.service_rules):
            with look:
                assert endpoints(kube, "svc-clusterip") == pods
                assert set(ask(inside, url, ENOUGH)) == pods

    wait_until_behind_it({closed, other})
    kube.exec(closed, "touch", "/tmp/closed")
    wait_until_behind_it({other})
    kube.exec(closed, "rm", "/tmp/closed")
    wait_until_behind_it({closed, other})
    assert [pod.status.containerStatuses[0].restartCount for pod in kube.pods(app="my-nginx")] == [0, 0]


@pytest.mark.behavior("core-concepts/service-balances-over-pods")
def test_requests_are_spread_evenly(svc_clusterip: Fields, backends: list[Fields], inside: Inside) -> None:
    """Each new connection goes to a Pod of the cluster's choice, by default a random one: in the long run to all alike."""
    url = by_cluster_ip(svc_clusterip)
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, [url], backends) == {}

    answers = ask(inside, url, 300)

    # A fair choice among three gives each Pod 100, and with a probability of 6.6e-7 gives one of them not 58 to 142:
    # 3 * sum(comb(300, k) * (1/3)**k * (2/3)**(300 - k) for k in range(301) if not 58 <= k <= 142)
    assert set(answers) == names(backends)
    assert [count for count in answers.values() if not 58 <= count <= 142] == []


@pytest.mark.behavior("core-concepts/service-balances-over-pods")
def test_session_affinity_keeps_a_client_with_one_pod(
    own_service: OwnService, svc_clusterip: Fields, backends: list[Fields], inside: Inside
) -> None:
    """With sessionAffinity ClientIP all requests of one client go to the same Pod, as 40 random ones never would."""
    service = own_service(CLUSTER_IP, sessionAffinity="ClientIP")
    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, [by_cluster_ip(service)], backends) == {}
            assert set(ask(inside, by_cluster_ip(svc_clusterip), ENOUGH)) == names(backends)

    answers = ask(inside, by_cluster_ip(service), ENOUGH)

    assert list(answers.values()) == [ENOUGH]
    assert set(answers) < names(backends)


# --- ClusterIP: inside the cluster only


@pytest.mark.behavior("objects/clusterip-serves-inside")
def test_a_clusterip_serves_pods_on_every_node(svc_clusterip: Fields, inside: Inside) -> None:
    """Whatever node a Pod runs on, it is served at the Service's ClusterIP and port."""
    url = by_cluster_ip(svc_clusterip)

    for look in eventually(within=patience.service_rules):
        with look:
            replies = {node: inside.get(url, node) for node in inside.nodes}
            assert {node: reply.error for node, reply in replies.items() if reply.status != 200} == {}


@pytest.mark.behavior("objects/clusterip-serves-inside")
def test_the_services_name_serves_pods_on_every_node(svc_clusterip: Fields, inside: Inside) -> None:
    """Nobody needs to know the address: `curl svc-clusterip:8080` does, from any Pod of the Service's own namespace."""
    url = f"http://{svc_clusterip.metadata.name}:8080"

    for look in eventually(within=patience.service_rules):
        with look:
            replies = {node: inside.get(url, node) for node in inside.nodes}
            assert {node: reply.error for node, reply in replies.items() if reply.status != 200} == {}


@pytest.mark.behavior("nginx-walkthrough/clusterip-serves-every-node")
def test_a_clusterip_serves_the_nodes_themselves(
    svc_clusterip: Fields, backends: list[Fields], nodes: list[Fields], run_on_node: RunOnNode
) -> None:
    """The nodes are inside as well, the control plane's among them: each is served at the ClusterIP."""
    request = ("curl", "--silent", "--max-time", "2", by_cluster_ip(svc_clusterip))

    for look in eventually(within=patience.service_rules):
        with look:
            answers = {node.metadata.name: run_on_node(node.metadata.name, *request).stdout for node in nodes}
            assert {node: pod for node, pod in answers.items() if pod not in names(backends)} == {}


@pytest.mark.behavior("objects/clusterip-not-outside")
def test_from_outside_no_way_leads_to_a_clusterip(
    svc_clusterip: Fields, svc_nodeport: Fields, workers: list[Fields], inside: Inside, outside: Outside
) -> None:
    """Outside, a ClusterIP is nobody's address, while a Pod is served there, and a node's port leads to the same Pods."""
    url, way_in = by_cluster_ip(svc_clusterip), by_node_port(svc_nodeport, workers[0])
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(url).status == 200
            assert outside.get(way_in).status == 200

    assert outside.get(url).status is None
    assert inside.get(url).status == 200
    assert outside.get(way_in).status == 200


@pytest.mark.behavior("objects/service-port-maps-to-targetport")
def test_the_services_port_leads_to_the_pods_port(
    svc_clusterip: Fields, backends: list[Fields], inside: Inside
) -> None:
    """`port: 8080, targetPort: 80`: 8080 is the Service's port and not the Pod's, 80 is the Pod's and not the Service's."""
    pod_ip, service_ip = backends[0].status.podIP, svc_clusterip.spec.clusterIP
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(f"http://{service_ip}:8080").status == 200
    assert inside.get(f"http://{pod_ip}:80").status == 200

    assert inside.get(f"http://{service_ip}:80").status is None
    assert inside.get(f"http://{pod_ip}:8080").status is None


@pytest.fixture
def named_ports(kube: Kube) -> Fields:
    """A Service whose targetPort is a name; its two Pods are Ready, and mean port 80 and port 8000 by that name."""
    kube.apply("services/named-port.yaml")
    kube.ready_pods(2, app="named-port")
    return kube.get("Service", "named-port")


@pytest.mark.behavior("objects/service-port-maps-to-targetport")
def test_a_named_target_port_is_each_pods_own(kube: Kube, named_ports: Fields, inside: Inside) -> None:
    """Where targetPort is a name, every Pod says itself which number that is, and one Service leads to both."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert set(ask(inside, by_cluster_ip(named_ports), ENOUGH)) == {"web-is-80", "web-is-8000"}

    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": "named-port"})
    assert {it.endpoints[0].targetRef.name: it.ports[0].port for it in slices} == {"web-is-80": 80, "web-is-8000": 8000}


@pytest.mark.behavior("core-concepts/targetport-defaults-to-port")
def test_without_a_target_port_it_is_the_port(own_service: OwnService, inside: Inside) -> None:
    """Leave targetPort out and it is the same number as port: here 80, on which the Pods do listen."""
    service = own_service(CLUSTER_IP, ports=[{"port": 80}])

    assert [port.targetPort for port in service.spec.ports] == [80]
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(by_cluster_ip(service)).status == 200


# --- NodePort: a port of every node


@pytest.mark.behavior("objects/nodeport-same-on-every-node")
def test_the_node_port_is_open_on_every_node(
    svc_nodeport: Fields, backends: list[Fields], nodes: list[Fields], inside: Inside, outside: Outside
) -> None:
    """One port, the same on all nodes, whether the request comes from outside the cluster or from a Pod in it."""
    urls = [by_node_port(svc_nodeport, node) for node in nodes]

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, urls, backends) == {}
            assert unserved(inside, urls, backends) == {}


@pytest.mark.behavior("objects/nodeport-includes-clusterip")
def test_a_nodeport_service_serves_inside_as_well(svc_nodeport: Fields, backends: list[Fields], inside: Inside) -> None:
    """A NodePort Service is a ClusterIP Service and more: its ClusterIP and its name serve inside the cluster."""
    urls = [by_cluster_ip(svc_nodeport), f"http://{svc_nodeport.metadata.name}:8080/hostname"]

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, backends) == {}


@pytest.mark.behavior("core-concepts/nodeport-spans-all-nodes")
def test_a_node_without_a_pod_leads_to_it_too(
    kube: Kube, one_pod: Fields, nodes: list[Fields], outside: Outside
) -> None:
    """The one Pod runs on one node, and the port of every other node leads to it as well."""
    service = kube.create(NODE_PORT)
    others = [by_node_port(service, node) for node in nodes if node.metadata.name != one_pod.spec.nodeName]
    assert len(others) == len(nodes) - 1

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(outside, others, [one_pod]) == {}


@pytest.mark.behavior("core-concepts/nodeport-is-assigned-when-omitted")
def test_each_service_gets_a_node_port_of_its_own(kube: Kube) -> None:
    """Ask for no particular node port and there is one all the same: a free one, from 30000 to 32767."""
    one, other = load(NODE_PORT), load(NODE_PORT)
    other["metadata"]["name"] = "svc-nodeport-2"

    ports = [kube.create(manifest).spec.ports[0].nodePort for manifest in (one, other)]

    assert [port for port in ports if port not in NODE_PORTS] == []
    assert ports[0] != ports[1]


@pytest.fixture
def fixed_node_port(own_service: OwnService) -> tuple[int, Fields]:
    """The node port that was asked for, and the Service that has it: 30008, or the next one that is free."""
    for port in range(30008, 30028):
        ports = [{"port": 80, "targetPort": 80, "nodePort": port}]
        try:
            return port, own_service("services/myapp-service.yaml", ports=ports, selector={"app": "my-nginx"})
        except ApiRefusal as refusal:
            if refusal.status != 422:
                raise
    raise AssertionError("none of the node ports 30008 to 30027 can be had")


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
def test_a_node_port_can_be_chosen(
    fixed_node_port: tuple[int, Fields], workers: list[Fields], outside: Outside
) -> None:
    """Ask for a node port and the Service has that one; it serves like one that the cluster has chosen."""
    port, service = fixed_node_port

    assert [it.nodePort for it in service.spec.ports] == [port]
    for look in eventually(within=patience.service_rules):
        with look:
            assert outside.get(f"http://{internal_ip(workers[0])}:{port}").status == 200


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
def test_a_node_port_that_is_taken_is_refused(kube: Kube, fixed_node_port: tuple[int, Fields]) -> None:
    """A node port belongs to one Service of the whole cluster; a second one that asks for it is refused."""
    manifest = load("services/myapp-service.yaml")
    kube.create(manifest, dryRun="All")

    manifest["spec"]["ports"][0]["nodePort"], _ = fixed_node_port
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["spec.ports[0].nodePort"]


@pytest.mark.behavior("core-concepts/nodeport-range-and-fixed-port")
@pytest.mark.parametrize("port", [NODE_PORTS.start - 1, NODE_PORTS.stop])
def test_a_node_port_outside_the_range_is_refused(kube: Kube, port: int) -> None:
    """Node ports lie from 30000 to 32767, and the refusal of any other says so."""
    manifest = load("services/myapp-service.yaml")
    kube.create(manifest, dryRun="All")

    manifest["spec"]["ports"][0]["nodePort"] = port
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["spec.ports[0].nodePort"]
    assert "30000-32767" in refusals[0].message


@pytest.mark.behavior("objects/deleting-the-nodeport-closes-it")
def test_a_deleted_services_node_port_is_closed(
    home: Kube, own_service: OwnService, nodes: list[Fields], outside: Outside
) -> None:
    """Without its Service the port is closed on every node, within 15 seconds: a connection is refused at once."""
    service = own_service(NODE_PORT)
    urls = [by_node_port(service, node) for node in nodes]

    def results() -> list[int]:
        told = outside.run("curl", "--silent", "--max-time", "2", "--write-out", "\t%{exitcode}\n", *urls).stdout
        return [int(line.rpartition("\t")[2]) for line in told.splitlines()]

    for look in eventually(within=patience.service_rules):
        with look:
            assert results() == [0] * len(nodes)
    home.delete("Service", service.metadata.name)
    for look in eventually(within=patience.service_rules):
        with look:
            assert results() == [COULD_NOT_CONNECT] * len(nodes)


@pytest.fixture
def mynginx(kube: Kube) -> None:
    """The walk-through's Deployment mynginx, its Pod Ready."""
    kube.create("services/mynginx.yaml")
    kube.ready_pods(1, app="mynginx")


@pytest.mark.behavior("nginx-walkthrough/create-service-nodeport")
@pytest.mark.usefixtures("mynginx")
def test_kubectl_makes_a_nodeport_service(
    kube: Kube, kubectl: Kubectl, workers: list[Fields], outside: Outside
) -> None:
    """`kubectl create service nodeport mynginx --tcp=80:80`: port and targetPort, and the Pods labelled app=mynginx."""
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
def provider(home: Kube) -> bool:
    """Whether this cluster has something that gives Services of type LoadBalancer their addresses."""
    return assigns_addresses(home)


@pytest.mark.behavior("objects/loadbalancer-needs-a-provider")
def test_an_external_address_comes_from_a_provider(
    home: Kube, own_service: OwnService, provider: bool, backends: list[Fields]
) -> None:
    """Kubernetes gives a LoadBalancer Service all but an external address; without a provider it never gets one."""
    name = own_service(LOAD_BALANCER).metadata.name
    for look in eventually(within=patience.controller_acts):
        with look:
            assert endpoints(home, name) == names(backends)

    if provider:
        for look in eventually(within=patience.load_balancer):
            with look:
                exactly(1, addresses_in(home.get("Service", name)))
    else:
        for look in throughout(patience.stays_so):
            with look:
                assert_no_external_address(home, name)


def assert_no_external_address(home: Kube, service: str) -> None:
    """Neither this Service has one nor the run's probe for a provider, for which the run has waited much longer."""
    given = [(name, address) for name in (service, PROBE) for address in addresses_in(home.get("Service", name))]
    assert given == [], f"external addresses, though no provider answered the run's probe: {given}"


@pytest.mark.behavior("core-concepts/loadbalancer-without-a-cloud-is-a-nodeport")
@pytest.mark.usefixtures("provider")
def test_without_a_provider_a_loadbalancer_is_a_nodeport(
    home: Kube, own_service: OwnService, backends: list[Fields], nodes: list[Fields], inside: Inside
) -> None:
    """Without a provider a LoadBalancer Service has no external address, but its ClusterIP and every node's port serve."""
    service = own_service(LOAD_BALANCER)
    urls = [by_cluster_ip(service), *(by_node_port(service, node) for node in nodes)]

    for look in eventually(within=patience.service_rules):
        with look:
            assert unserved(inside, urls, backends) == {}
    for look in throughout(patience.stays_so):
        with look:
            assert_no_external_address(home, service.metadata.name)


@pytest.mark.behavior("core-concepts/loadbalancer-gives-one-address")
def test_a_loadbalancer_gives_all_pods_one_address(
    home: Kube, own_service: OwnService, backends: list[Fields], cloud: Cloud, outside: Outside
) -> None:
    """With a provider all Pods have one address outside, with the Service's own port; a client need not know any node."""
    name = own_service(LOAD_BALANCER).metadata.name

    address = cloud.address_of(home, name)

    for look in eventually(within=patience.service_rules):
        with look:
            given = addresses_in(home.get("Service", name))
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


# --- ExternalName: a name for a name


@pytest.fixture(scope="session")
def cluster_domain(inside: Inside) -> str:
    """What the names of Services end in ("cluster.local"), as a Pod's own resolv.conf has it."""
    (search,) = [
        line.split()[1:] for line in inside.run("cat", "/etc/resolv.conf").stdout.splitlines() if "svc." in line
    ]
    return next(domain.removeprefix("svc.") for domain in search if domain.startswith("svc."))


@pytest.mark.behavior("objects/externalname-is-a-cname")
def test_an_external_name_is_answered_with_a_cname(kube: Kube, inside: Inside, cluster_domain: str) -> None:
    """Asked for the Service, the cluster's DNS says which name to ask for instead; there is no address, and no Pod."""
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
    """Who asks the Service reaches what its name stands for: here a Service of another namespace."""
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
    """ClusterIP is the default: a manifest that names no type is stored as one."""
    manifest = load(CLUSTER_IP)
    del manifest["spec"]["type"]

    assert kube.create(manifest).spec.type == "ClusterIP"


@pytest.mark.behavior("nginx-walkthrough/four-service-types")
@pytest.mark.parametrize(
    ("exhibit", "has"),
    [
        pytest.param(CLUSTER_IP, {"clusterIP"}, id="ClusterIP"),
        pytest.param(NODE_PORT, {"clusterIP", "nodePort"}, id="NodePort"),
        pytest.param(LOAD_BALANCER, {"clusterIP", "nodePort"}, id="LoadBalancer"),
        pytest.param(EXTERNAL_NAME, {"externalName"}, id="ExternalName"),
    ],
)
def test_each_type_adds_to_the_one_before(kube: Kube, exhibit: str, has: set[str]) -> None:
    """NodePort adds a node port to ClusterIP, LoadBalancer adds to both; ExternalName has nothing but its name."""
    spec = kube.create(exhibit, dryRun="All").spec

    node_ports = [port.nodePort for port in spec.ports if port.nodePort]
    there = {"clusterIP": spec.clusterIP, "nodePort": node_ports, "externalName": spec.externalName}
    assert {field for field, value in there.items() if value} == has


@pytest.mark.behavior("nginx-walkthrough/four-service-types")
def test_there_is_no_fifth_type(kube: Kube) -> None:
    """Any other type is refused, and the refusal names the four that there are."""
    manifest = load(CLUSTER_IP)
    kube.create(manifest, dryRun="All")

    manifest["spec"]["type"] = "PodPort"
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["spec.type"]
    four = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    assert [type for type in four if f'"{type}"' not in refusals[0].message] == []


# --- layers


def passed_on(layer: str, request: str) -> str:
    """The request with which a layer's server is asked to put a request to the next layer's Service, by its name."""
    return "dial?" + urlencode({"host": layer, "port": 80, "request": request})


def passed_back(answer: str) -> str:
    """What the server says that was answered so."""
    return json.dumps({"responses": [answer]}, separators=(",", ":"))


@pytest.fixture
def front_end(kube: Kube, inside: Inside) -> Fields:
    """The front end's Service; behind it the back end, and behind that the database, each with one Pod, Ready."""
    kube.apply("services/three-layers.yaml")
    for layer in ("front-end", "back-end", "database"):
        kube.ready_pods(1, app=layer)
    for look in eventually(within=patience.server_listens):
        with look:
            pods = kube.pods()
            assert unserved(inside, [by_pod_ip(pod) for pod in pods], pods) == {}
    return kube.get("Service", "front-end")


@pytest.mark.behavior("core-concepts/clusterip-joins-layers")
def test_a_layer_may_change_behind_its_service(kube: Kube, front_end: Fields, inside: Inside) -> None:
    """Layers reach each other by their Services' names, so the one in the middle may grow and be replaced: all go on."""
    through_all_layers = passed_on("back-end", passed_on("database", "hostname"))
    url = f"http://{front_end.spec.clusterIP}/{through_all_layers}"
    the_databases_answer = passed_back(passed_back("database"))
    for look in eventually(within=patience.service_rules):
        with look:
            assert set(ask(inside, url)) == {the_databases_answer}
    (first,) = kube.pods(app="back-end")
    answers: Counter[str] = Counter()

    kube.scale("Deployment", "back-end", 2)
    for look in eventually(within=patience.pod_starts):
        with look:
            answers += ask(inside, url, 10)
            assert len(endpoints(kube, "back-end")) == 2
    kube.delete("Pod", first.metadata.name)
    for look in eventually(within=patience.pod_starts):
        with look:
            answers += ask(inside, url, 10)
            assert len(endpoints(kube, "back-end") - {first.metadata.name}) == 2
            assert not kube.exists("Pod", first.metadata.name)

    assert set(answers) == {the_databases_answer}
