"""Lost nodes: how the control plane notices that a node is silent, and what becomes of the Pods there.

One outage serves all tests: they read what was recorded from just before it on, so each of them may be the first one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from fixtures.api import Api
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.kube import Changes, Kube, is_ready
from fixtures.namespaces import FAILED, TEST_KUBE, RunId, own_namespace
from fixtures.nodes import cut_off, reconnect
from fixtures.outages import reserved_spare_worker
from fixtures.patience import patience
from fixtures.scheduling import selecting
from fixtures.waiting import eventually, throughout

pytestmark = [pytest.mark.starts_first, pytest.mark.xdist_group("outage")]

#: The taint of a node that the control plane does not hear from.
UNREACHABLE = "node.kubernetes.io/unreachable"

#: The controller manager's flag, and its default since Kubernetes 1.32.
GRACE_PERIOD, DEFAULT_GRACE_PERIOD = "--node-monitor-grace-period=", "50s"

#: Go's units of time, in seconds.
UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}


@dataclass(frozen=True)
class Outage:
    """A worker that was cut off, with its Lease and the Pods that ran there, all as they were just before that."""

    kube: Kube
    node: Fields
    lease: Fields
    replicated: Fields
    bare: Fields
    patient: Fields
    #: What has changed since then.
    nodes: Changes
    leases: Changes
    pods: Changes
    #: Waits for the control plane to miss the node that were in vain.
    in_vain: list[AssertionError] = field(default_factory=list)

    def missed(self) -> Iterator[AbstractContextManager[object, bool | None]]:
        """Retry until the control plane has missed the node, as `eventually` does. After a wait in vain, look only once."""
        try:
            yield from eventually(within=0 if self.in_vain else patience.node_is_missed)
        except AssertionError as error:
            self.in_vain.append(error)
            raise

    def states(self, thing: Fields) -> list[Fields]:
        """The states of one of these objects, in their order; the first one is from before the outage."""
        records = (self.nodes, self.leases, self.pods)
        for record in records:
            record.check()
        later = [change.object for record in records for change in record]
        return [state for state in (thing, *later) if state.metadata.uid == thing.metadata.uid]

    @property
    def added(self) -> list[str]:
        """The names of the Pods that were made since then."""
        self.pods.check()
        return [change.object.metadata.name for change in self.pods if change.type == "ADDED"]


@pytest.fixture(scope="module")
def shared_outage(request: pytest.FixtureRequest, api: Api, run_id: RunId) -> Iterator[Outage]:
    """The spare worker, cut off while three Pods run there. It is connected again at the end, if no test has done that."""
    with own_namespace(request, api, run_id, "lost-nodes") as kube, reserved_spare_worker(kube) as spare:
        name = spare.metadata.name
        kube.apply("lost_nodes/short-toleration.yaml")
        kube.apply("lost_nodes/default-toleration.yaml")
        bare, patient, replicated = kube.ready_pods(3)
        assert {pod.spec.nodeName for pod in (bare, patient, replicated)} == {name}
        in_lease_namespace = Kube(api, "kube-node-lease")
        for look in eventually(within=patience.lease_renewed):  # a new node can run Pods before it has a Lease
            with look:
                assert in_lease_namespace.exists("Lease", name), f"the node {name} has no Lease"
        with (
            kube.record("Node", **selecting(spare)) as nodes,
            in_lease_namespace.record("Lease") as leases,
            kube.record("Pod") as pods,
        ):
            node, lease = kube.get("Node", name), in_lease_namespace.get("Lease", name)
            cut_off(api, name)
            yield Outage(kube, node, lease, replicated, bare, patient, nodes, leases, pods)


@pytest.fixture
def outage(request: pytest.FixtureRequest, shared_outage: Outage) -> Iterator[Outage]:
    """The outage of the spare worker, and what has been recorded of it (capability node-fault)."""
    request.node.stash[TEST_KUBE] = shared_outage.kube
    yield shared_outage
    if FAILED in request.node.stash:
        request.node.parent.stash[FAILED] = True


def ready(node: Fields) -> Fields:
    """The Ready condition of a Node."""
    found: list[Fields] = [condition for condition in node.status.conditions if condition.type == "Ready"]
    (condition,) = exactly(1, found)
    return condition


def effects(node: Fields) -> set[str]:
    """The effects that the taint "unreachable" of a Node has."""
    return {taint.effect for taint in node.spec.taints if taint.key == UNREACHABLE}


def moment(time: str) -> datetime:
    """A time of the API, in whole seconds, because some of its times have no more."""
    return datetime.fromisoformat(time).replace(microsecond=0)


def stored(lease: Fields) -> datetime:
    """When the API server stored the Lease.

    A renewal that a kubelet sends while its node is cut off may arrive when the node is back. Nobody has heard it before.
    """
    return max(moment(entry.time) for entry in lease.metadata.managedFields)


# --- the node


@pytest.fixture
def grace_period(api: Api) -> timedelta:
    """How long a node may be silent: what the controller manager's static Pod says, or else the default."""
    (pod,) = exactly(1, Kube(api, "kube-system").list("Pod", component="kube-controller-manager"))
    container = pod.spec.containers[0]
    words = [*(container.command or ()), *(container.args or ())]
    told = [word.removeprefix(GRACE_PERIOD) for word in words if word.startswith(GRACE_PERIOD)]
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", (told or [DEFAULT_GRACE_PERIOD])[-1])
    return timedelta(seconds=sum(float(number) * UNITS[unit] for number, unit in parts))


@pytest.mark.behavior("core-concepts/node-controller-detects-a-lost-node")
def test_a_node_is_unknown_when_it_was_silent_for_the_grace_period(outage: Outage, grace_period: timedelta) -> None:
    """A node renews its Lease every 10 s. If no renewal comes for the grace period, its Ready condition turns Unknown.

    The default is 50 s since Kubernetes 1.32. The document's 40 s were the default before.
    """
    for look in outage.missed():
        with look:
            conditions = [ready(node) for node in outage.states(outage.node)]
            unknown = [condition for condition in conditions if condition.status == "Unknown"]
            assert unknown, f"still Ready, {grace_period.seconds} s of silence are allowed"

    missed = moment(unknown[0].lastTransitionTime)
    renewals = [moment(lease.spec.renewTime) for lease in outage.states(outage.lease) if stored(lease) <= missed]
    silence = missed - max(renewals)
    assert conditions[0].status == "True"
    assert silence >= grace_period, (
        f"Unknown after {silence.seconds} s of silence, {grace_period.seconds} s are allowed"
    )


@pytest.mark.behavior("core-concepts/node-controller-detects-a-lost-node")
def test_an_unknown_node_is_tainted_as_unreachable(outage: Outage) -> None:
    """The node is marked by a taint: from now on it gets no new Pods, and loses those that do not tolerate the taint."""
    for look in outage.missed():
        with look:
            nodes = outage.states(outage.node)
            assert {"NoSchedule", "NoExecute"} in map(effects, nodes), f"so far its taint had {[*map(effects, nodes)]}"

    assert effects(nodes[0]) == set()
    tainted = [ready(node).status for node in nodes if effects(node)]
    assert tainted[0] == "Unknown"


@pytest.mark.behavior("controllers/pod-phases", "core-concepts/node-controller-detects-a-lost-node")
def test_a_pod_of_a_lost_node_is_not_ready_and_keeps_its_phase(outage: Outage) -> None:
    """Nobody knows whether the Pods of a lost node still run. They are reported as not Ready, and their phase stays Running.

    The phase Unknown still exists in the API, but nothing sets it any more.
    """
    for look in outage.missed():
        with look:
            states = outage.states(outage.patient)
            assert not all(map(is_ready, states)), "the Pod is still Ready"

    assert is_ready(states[0])
    assert {pod.status.phase for pod in states} == {"Running"}


# --- its Pods


@pytest.fixture
def unreachable(outage: Outage) -> datetime:
    """The time at which the node got the taint that evicts Pods."""
    for look in outage.missed():
        with look:
            taints = [taint for node in outage.states(outage.node) for taint in node.spec.taints]
            since = [taint.timeAdded for taint in taints if (taint.key, taint.effect) == (UNREACHABLE, "NoExecute")]
            assert since, f"node {outage.node.metadata.name} has no taint that evicts Pods"
    return moment(since[0])


def tolerated(pod: Fields) -> list[int]:
    """The seconds for which the Pod stays on an unreachable node: one number for each of its tolerations of that."""
    return [toleration.tolerationSeconds for toleration in pod.spec.tolerations if toleration.key == UNREACHABLE]


def evicted(outage: Outage, pod: Fields) -> datetime:
    """Wait until the Pod is terminating, and return the time at which it was asked to end; its node cannot know that yet."""
    for look in eventually(within=patience.controller_acts):
        with look:
            ends = [state.metadata for state in outage.states(pod) if state.metadata.deletionTimestamp]
            assert ends, f"the Pod {pod.metadata.name} is not evicted, though its node has the taint {UNREACHABLE}"
    return moment(ends[0].deletionTimestamp) - timedelta(seconds=ends[0].deletionGracePeriodSeconds)


def replacement(outage: Outage) -> Fields:
    """Wait until another Pod of the ReplicaSet is Ready, and return it."""
    for look in eventually(within=patience.pod_starts):
        with look:
            (pod,) = exactly(1, [pod for pod in outage.kube.pods(app="replicated") if is_ready(pod)])
            assert pod.metadata.uid != outage.replicated.metadata.uid, "the Pod on the lost node is still Ready"
    return pod


@pytest.mark.behavior("core-concepts/pods-of-a-lost-node-are-replaced")
def test_a_replicaset_replaces_its_pod_on_another_worker(
    outage: Outage, unreachable: datetime, workers: list[Fields]
) -> None:
    """When a Pod's time on an unreachable node is over, the Pod is evicted, and its ReplicaSet makes another one elsewhere.

    The document says "another master node", but it is another worker.
    """
    end = evicted(outage, outage.replicated)
    made = replacement(outage)

    (seconds,) = exactly(1, tolerated(outage.replicated))
    assert end - unreachable >= timedelta(seconds=seconds)
    assert moment(made.metadata.creationTimestamp) >= end
    assert made.spec.nodeName != outage.node.metadata.name
    assert made.spec.nodeName in {worker.metadata.name for worker in workers}


@pytest.mark.behavior("core-concepts/pods-of-a-lost-node-are-replaced")
@pytest.mark.usefixtures("unreachable")
def test_a_bare_pod_is_evicted_and_not_replaced(outage: Outage) -> None:
    """A Pod without a controller is evicted as well, but nothing makes another one. The ReplicaSet's Pod has a successor."""
    evicted(outage, outage.bare)

    made = replacement(outage)
    for look in throughout(patience.stays_so):
        with look:
            assert outage.added == [made.metadata.name]


@pytest.fixture
def evictions(outage: Outage, unreachable: datetime) -> None:
    """The two Pods whose time on the unreachable node is short are evicted, and the ReplicaSet's other Pod is Ready."""
    evicted(outage, outage.bare)
    evicted(outage, outage.replicated)
    replacement(outage)


@pytest.mark.behavior("core-concepts/pods-of-a-lost-node-are-replaced")
@pytest.mark.usefixtures("evictions")
def test_a_pod_stays_on_an_unreachable_node_for_five_minutes_by_default(outage: Outage) -> None:
    """A Pod that does not say how long it stays gets a toleration of 300 s, so a short outage of its node does not end it."""
    assert tolerated(outage.bare) == [3]
    assert tolerated(outage.patient) == [300]

    there = (outage.bare, outage.patient, outage.replicated)
    ended = [pod for pod in there if any(state.metadata.deletionTimestamp for state in outage.states(pod))]
    assert ended == [outage.bare, outage.replicated]


# --- its return


@pytest.mark.behavior("core-concepts/node-controller-detects-a-lost-node")
@pytest.mark.usefixtures("evictions")
def test_a_node_that_is_back_is_ready_again(outage: Outage) -> None:
    """As soon as the node reports again, its Ready condition is True, and the taint is taken away."""
    name = outage.node.metadata.name
    assert ready(outage.kube.get("Node", name)).status == "Unknown"

    reconnect(outage.kube.api, name)

    for look in eventually(within=patience.node_returns):
        with look:
            node = outage.kube.get("Node", name)
            assert ready(node).status == "True"
            assert effects(node) == set()
