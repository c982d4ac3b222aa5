"""Scheduling: the scheduler filters the nodes, ranks those that are left, and decides. The kubelet does the rest."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import combinations

import pytest

from fixtures.fields import Fields, quantity
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.kube import Kube
from fixtures.manifests import Manifest, load
from fixtures.patience import patience
from fixtures.scheduling import HOSTNAME, hostname, why_not_scheduled
from fixtures.waiting import eventually, throughout


def nodes_of(kube: Kube) -> dict[str, str | None]:
    """The node of each of the test's Pods, by the Pod's name; None for a Pod that has none."""
    return {pod.metadata.name: pod.spec.nodeName for pod in kube.list("Pod")}


# --- filter


def asking_for(cpus: str) -> Manifest:
    """The manifest of a Pod that asks for so many CPUs."""
    manifest = load("scheduling/too-much-cpu.yaml")
    manifest["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpus
    return manifest


@pytest.mark.behavior("core-concepts/scheduler-filters")
def test_a_pod_that_asks_for_too_much_cpu_waits(kube: Kube, nodes: list[Fields]) -> None:
    """No node has the CPU that the Pod asks for, so the Pod gets no node and is Pending. If it asks for less, it runs."""
    largest = max(quantity(node.status.allocatable["cpu"]) for node in nodes)
    kube.create(asking_for(str(largest + 1)))

    for look in eventually(within=patience.controller_acts):
        with look:
            reason, message = why_not_scheduled(kube.get("Pod", "hungry"))
            assert reason == "Unschedulable"
            assert "cpu" in message
    for look in throughout(patience.stays_so):
        with look:
            pod = kube.get("Pod", "hungry")
            assert (pod.status.phase, pod.spec.nodeName) == ("Pending", None)

    kube.delete("Pod", "hungry")
    kube.create(asking_for("10m"))
    kube.ready_pod("hungry")


def choosing(manifest: str, name: str, *hosts: str) -> Manifest:
    """The manifest's Pod under another name, for the nodes with these hostnames; a nodeSelector can name one only."""
    document = load(manifest)
    document["metadata"]["name"] = name
    spec = document["spec"]
    if "nodeSelector" in spec:
        (spec["nodeSelector"][HOSTNAME],) = hosts
    else:
        required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        required["nodeSelectorTerms"][0]["matchExpressions"][0]["values"] = list(hosts)
    return document


@pytest.mark.parametrize(
    "manifest",
    ["scheduling/node-selector.yaml", "scheduling/node-affinity.yaml"],
    ids=["nodeSelector", "required affinity"],
)
@pytest.mark.behavior("core-concepts/scheduler-filters")
def test_a_pod_goes_only_to_a_node_that_it_chooses(kube: Kube, workers: list[Fields], manifest: str) -> None:
    """A nodeSelector or a required affinity drops all other nodes. If no node is left, the Pod is Unschedulable."""
    chosen: dict[str, str | None] = {}
    for number, worker in enumerate(workers[:2]):
        kube.create(choosing(manifest, f"chosen-{number}", hostname(worker)))
        chosen[f"chosen-{number}"] = worker.metadata.name

    kube.create(manifest)
    chosen["chosen"] = None

    for look in eventually(within=patience.controller_acts):
        with look:
            reason, _ = why_not_scheduled(kube.get("Pod", "chosen"))
            assert nodes_of(kube) == chosen
            assert reason == "Unschedulable"


# --- rank

#: What counts for the rank of a node.
RESOURCES = ("cpu", "memory")
#: The Pod `load` requests this much of a node's CPU and memory, in percent.
LOAD = 60
#: Two workers are equal if their sizes differ by at most so many percent, and so does what is left over on them.
ALIKE = 20
#: So many Pods choose between two workers, and as many again with the load on the other one. If each choice were chance,
#: all 16 would be right once in 2 ** 16 = 65,536 runs.
TRIES = 8


def left_over(kube: Kube, node: Fields) -> dict[str, Decimal]:
    """What the Pods of a node have not requested of its CPU and memory, in percent, as `kubectl describe node` counts."""
    living = f"spec.nodeName={node.metadata.name},status.phase!=Succeeded,status.phase!=Failed"
    pods = kube.api.call("GET", "/api/v1/pods", query={"fieldSelector": living})["items"]
    requests = [it.get("resources", {}).get("requests", {}) for pod in pods for it in pod["spec"]["containers"]]
    left = {}
    for resource in RESOURCES:
        requested = sum(quantity(request.get(resource, 0)) for request in requests)
        left[resource] = 100 - 100 * requested / quantity(node.status.allocatable[resource])
    return left


def are_equal(one: Fields, other: Fields, left: dict[str, dict[str, Decimal]]) -> bool:
    """Whether two nodes have about the same size and as much left over, and room for the load."""
    for resource in RESOURCES:
        sizes = [quantity(node.status.allocatable[resource]) for node in (one, other)]
        over = [left[node.metadata.name][resource] for node in (one, other)]
        if min(over) <= LOAD or max(over) - min(over) > ALIKE or min(sizes) < max(sizes) * (100 - ALIKE) / 100:
            return False
    return True


@pytest.fixture
def equal_workers(kube: Kube, workers: list[Fields]) -> tuple[Fields, Fields]:
    """Two workers of one size, with about as much left over. Not observed if there are none among the first ten."""
    try:
        for look in eventually(within=patience.controller_acts, every=1):
            with look:
                left = {worker.metadata.name: left_over(kube, worker) for worker in workers[:10]}
                pair = next((pair for pair in combinations(workers[:10], 2) if are_equal(*pair, left)), None)
                assert pair is not None
    except AssertionError:
        percents = "; ".join(f"{name} {it['cpu']:.0f}, {it['memory']:.0f}" for name, it in left.items())
        raise NotObserved(
            f"no two workers have about the same size, more than {LOAD} % of their CPU and memory left over, and about "
            f"as much of it ({percents}); add a worker"
        ) from None
    assert pair is not None
    return pair


def put_load_on(kube: Kube, node: Fields) -> None:
    """Create the Pod that takes much of a node, and wait until it has the node. Raises Inconclusive if it does not get it."""
    manifest = choosing("scheduling/load.yaml", "load", hostname(node))
    size = {resource: quantity(node.status.allocatable[resource]) for resource in RESOURCES}
    requests = {"cpu": f"{int(size['cpu'] * LOAD * 10)}m", "memory": str(int(size["memory"] * LOAD / 100))}
    manifest["spec"]["containers"][0]["resources"] = {"requests": requests}
    kube.create(manifest)
    try:
        for look in eventually(within=patience.pod_starts, every=0.05):
            with look:
                assert nodes_of(kube)["load"] == node.metadata.name
    except AssertionError:
        _, why = why_not_scheduled(kube.get("Pod", "load"))
        raise Inconclusive(f"the Pod that should take much of {node.metadata.name} did not get it: {why}") from None


def clear(kube: Kube) -> None:
    """Delete the test's Pods, and wait until they are gone."""
    for name in nodes_of(kube):
        kube.delete("Pod", name)
    for look in eventually(within=patience.pod_goes, every=0.05):
        with look:
            assert nodes_of(kube) == {}


@pytest.mark.behavior("core-concepts/scheduler-ranks")
def test_pods_go_to_the_node_with_more_left_over(kube: Kube, equal_workers: tuple[Fields, Fields]) -> None:
    """Of two equal workers one has less left over, because a large Pod is there: all the next Pods go to the other one."""
    both = [hostname(worker) for worker in equal_workers]
    small = [f"small-{number}" for number in range(TRIES)]

    for loaded, other in (equal_workers, equal_workers[::-1]):
        put_load_on(kube, loaded)

        for name in small:
            kube.create(choosing("scheduling/small.yaml", name, *both))

        for look in eventually(within=patience.pod_starts):
            with look:
                where = nodes_of(kube)
                assert None not in where.values()
        assert Counter(where.get(name) for name in small) == {other.metadata.name: TRIES}
        clear(kube)


# --- decide


def reported(kube: Kube, pod: Fields) -> set[tuple[str, str]]:
    """Who has done what to a Pod, by the Events about it: ("kubelet", "Started")."""
    return {(event.reportingComponent or event.source.component, event.reason) for event in kube.events(pod)}


def binding(pod: str, node: Fields) -> Manifest:
    """What a scheduler posts when it has decided that the Pod goes to the node."""
    target = {"apiVersion": "v1", "kind": "Node", "name": node.metadata.name}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}


@pytest.mark.behavior("core-concepts/scheduler-only-decides")
def test_whoever_binds_a_pod_decides_and_the_kubelet_starts_it(kube: Kube, workers: list[Fields]) -> None:
    """A Pod whose scheduler is absent gets no node. A Binding is the whole decision: then the node's kubelet starts the Pod."""
    kube.apply("scheduling/absent-scheduler.yaml")
    decided = kube.ready_pod("decided")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert ("default-scheduler", "Scheduled") in reported(kube, decided)
    for look in throughout(patience.stays_so):
        with look:
            undecided = kube.get("Pod", "undecided")
            assert (undecided.status.phase, undecided.spec.nodeName) == ("Pending", None)

    kube.create(binding("undecided", workers[0]))

    assert kube.ready_pod("undecided").spec.nodeName == workers[0].metadata.name
    for look in eventually(within=patience.controller_acts):
        with look:
            acts = reported(kube, undecided)
            assert ("kubelet", "Started") in acts
    assert "default-scheduler" not in {who for who, _ in acts}
