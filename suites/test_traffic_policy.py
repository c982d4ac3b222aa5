"""externalTrafficPolicy: which nodes answer requests from outside for a Service, and which address its Pod then sees."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from fixtures.clients import Outside, Reply
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.interfaces import INTERFACES, Interface, addresses
from fixtures.kube import Kube
from fixtures.manifests import load
from fixtures.nodes import internal_ip
from fixtures.patience import patience
from fixtures.scheduling import selecting
from fixtures.waiting import eventually
from machine.output import Output

SERVICE = "traffic_policy/svc-local-nodeport.yaml"
DEPLOYMENT = "traffic_policy/my-nginx.yaml"
NAME, LABEL = "svc-local-nodeport", "my-nginx"

#: A URL on each node, by the node's name.
Urls = dict[str, str]


@pytest.mark.behavior("objects/traffic-policy-defaults-to-cluster")
@pytest.mark.parametrize(
    ("type", "policy"), [("NodePort", "Cluster"), ("LoadBalancer", "Cluster"), ("ClusterIP", None)]
)
def test_external_traffic_policy_defaults_to_cluster(kube: Kube, type: str, policy: str | None) -> None:
    """A Service that is open to the outside has the policy Cluster by default; a ClusterIP Service has no policy."""
    manifest = load(SERVICE)
    manifest["spec"]["type"] = type
    del manifest["spec"]["externalTrafficPolicy"]

    kube.create(manifest)

    assert kube.get("Service", NAME).spec.externalTrafficPolicy == policy


@pytest.fixture
def backend(kube: Kube, workers: list[Fields]) -> str:
    """The name of the node, the first worker, that runs the one Pod behind the Service. The Pod is Ready."""
    manifest = load(DEPLOYMENT)
    manifest["spec"]["template"]["spec"]["nodeSelector"] = selecting(workers[0])
    kube.create(manifest)
    (pod,) = kube.ready_pods(1, app=LABEL)
    return str(pod.spec.nodeName)


@pytest.fixture
def local(kube: Kube, nodes: list[Fields]) -> Urls:
    """The node port of the Service with the policy Local, on every node."""
    port = kube.create(SERVICE).spec.ports[0].nodePort
    return {node.metadata.name: f"http://{internal_ip(node)}:{port}/clientip" for node in nodes}


@pytest.fixture
def cluster(kube: Kube, local: Urls) -> Urls:
    """The same, with the policy Cluster."""
    kube.patch("Service", NAME, {"spec": {"externalTrafficPolicy": "Cluster"}})
    return local


def replies(outside: Outside, urls: Urls, client: int = 0) -> dict[str, Reply]:
    """By node, what a client outside gets there. It asks all nodes at the same time, because silence takes seconds."""
    with ThreadPoolExecutor() as threads:
        asked = {node: threads.submit(outside.get, url, client) for node, url in urls.items()}
    return {node: reply.result() for node, reply in asked.items()}


def seen_by_the_pod(outside: Outside, urls: Urls, client: int = 0) -> dict[str, str | None]:
    """By node, which client address the Pod says that it sees in a request through the node; None without an answer."""
    return {
        node: reply.body.rpartition(":")[0] if reply.status == 200 else None
        for node, reply in replies(outside, urls, client).items()
    }


def is_a_nodes(address: str, interfaces: list[Interface], outside: Outside) -> bool:
    """Whether it is one of the node's addresses, or another one of the nodes' network that is no client's.

    Between the nodes of kind, an engine may masquerade with the address of its bridge what one node sends on to another.
    """
    clients = [ip_address(client) for client in outside.addresses]
    seen, nodes_network = ip_address(address), [one.network for one in interfaces if clients[0] in one.network]
    return seen in [one.ip for one in interfaces] or (seen not in clients and any(seen in net for net in nodes_network))


@pytest.mark.behavior("objects/traffic-policy-cluster-hides-the-client")
@pytest.mark.usefixtures("backend")
def test_under_cluster_every_node_answers_and_hides_the_client(
    outside: Outside, cluster: Urls, run_on_node: Callable[..., Output]
) -> None:
    """Under Cluster any node passes a request on to the Pod, and the Pod sees an address of the nodes, not the client's."""
    interfaces = {node: addresses(run_on_node(node, *INTERFACES)) for node in cluster}

    for look in eventually(within=patience.service_rules):
        with look:
            for client in (0, 1):
                seen = seen_by_the_pod(outside, cluster, client)
                silent = [node for node, address in seen.items() if address is None]
                assert silent == [], f"nodes that do not answer: {', '.join(silent)}"
                strange = {
                    node: it for node, it in seen.items() if it and not is_a_nodes(it, interfaces[node], outside)
                }
                assert strange == {}, f"by asked node, the Pod sees an address that is no node's: {strange}"


@pytest.mark.behavior("objects/traffic-policy-local-keeps-the-client")
def test_under_local_the_pod_sees_the_client(outside: Outside, backend: str, local: Urls) -> None:
    """Under Local the request makes no second hop, so the Pod sees each client's own address."""
    url = {backend: local[backend]}

    for look in eventually(within=patience.service_rules):
        with look:
            seen = [seen_by_the_pod(outside, url, client)[backend] for client in (0, 1)]
            assert seen == outside.addresses, f"the Pod sees {seen}"


@pytest.fixture
def another_worker(workers: list[Fields], backend: str) -> Fields:
    """A worker that does not run the Pod."""
    others = [worker for worker in workers if worker.metadata.name != backend]
    assert others, "there is one worker only"
    return others[0]


def nodes_that_answer(outside: Outside, urls: Urls) -> list[str]:
    """The names of the nodes at which a client outside gets an answer."""
    return [node for node, seen in seen_by_the_pod(outside, urls).items() if seen]


@pytest.mark.behavior("objects/traffic-policy-local-serves-only-where-pods-run")
def test_under_local_the_answer_moves_with_the_pod(
    kube: Kube, outside: Outside, backend: str, another_worker: Fields, local: Urls
) -> None:
    """Under Local only the node that runs a Pod answers; when the Pod moves to another node, that one answers instead."""
    for look in eventually(within=patience.service_rules):
        with look:
            answering = nodes_that_answer(outside, local)
            assert answering == [backend], f"the Pod is on {backend}, and these nodes answer: {answering}"

    another = another_worker.metadata.name
    move = {"spec": {"template": {"spec": {"nodeSelector": selecting(another_worker)}}}}
    kube.patch("Deployment", LABEL, move)

    for look in eventually(within=patience.rollout):
        with look:
            answering = nodes_that_answer(outside, local)
            assert answering == [another], f"the Pod is on {another}, and these nodes answer: {answering}"


@pytest.mark.behavior("objects/traffic-policy-local-serves-only-where-pods-run")
def test_the_health_check_tells_where_a_ready_pod_runs(
    kube: Kube, outside: Outside, backend: str, nodes: list[Fields]
) -> None:
    """A load balancer learns from each node's health check whether to send requests there: 200 for a ready Pod, else 503."""
    manifest = load(SERVICE)
    manifest["spec"]["type"] = "LoadBalancer"
    port = kube.create(manifest).spec.healthCheckNodePort
    assert port, "the Service has no node port for health checks"
    health = {node.metadata.name: f"http://{internal_ip(node)}:{port}" for node in nodes}

    for look in eventually(within=patience.service_rules):
        with look:
            found = statuses(outside, health)
            assert found == dict.fromkeys(health, 503) | {backend: 200}, f"the Pod is on {backend}, statuses: {found}"

    (pod,) = exactly(1, kube.pods(app=LABEL))
    kube.exec(pod.metadata.name, "touch", "/tmp/unready")

    for look in eventually(within=patience.service_rules):
        with look:
            found = statuses(outside, health)
            assert found == dict.fromkeys(health, 503), f"no Pod is ready, statuses: {found}"


def statuses(outside: Outside, urls: Urls) -> dict[str, int | None]:
    """By node, the HTTP status that a client outside gets there."""
    return {node: reply.status for node, reply in replies(outside, urls).items()}
