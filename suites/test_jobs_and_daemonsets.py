"""Jobs, whose Pods work until they have succeeded, and DaemonSets, which run one Pod on each node."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from fixtures.api import Api, refused
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.hopeless import HopelessWait
from fixtures.kube import Kube, is_ready
from fixtures.manifests import load, load_all
from fixtures.namespaces import temporarily_patched
from fixtures.nodes import is_control_plane, is_ours
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.waiting import eventually, throughout

JOB = "jobs_and_daemonsets/myapp-job.yaml"
FAILING = "jobs_and_daemonsets/fails-at-first.yaml"
DAEMONSET = "jobs_and_daemonsets/daemonset.yaml"

#: The label that names a Pod's Job, and the one that has its UID.
JOB_NAME, JOB_UID = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"

#: The taint of control-plane nodes.
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def pods_of(kube: Kube, job: str) -> Callable[[BaseException, bool], None]:
    """What ends a wait for the Job's Pods early if they can never start: `eventually(..., hopeless=pods_of(kube, "job"))`."""
    aside, labels = kube.aside(), {JOB_NAME: job}
    return HopelessWait(kube, lambda: aside.list("Pod", **labels), labels, lambda: aside.get("Job", job)).check


def ended(kube: Kube, name: str) -> tuple[str, Fields]:
    """Wait until the Job has ended. Returns how, "Complete" or "Failed: BackoffLimitExceeded", and the Job."""
    for look in eventually(within=patience.job_ends, hopeless=pods_of(kube, name)):
        with look:
            job = kube.get("Job", name)
            ends = [it for it in job.status.conditions if it.type in ("Complete", "Failed") and it.status == "True"]
            assert ends, f"Job {name} has not ended"
    return " ".join(it.type if it.type == "Complete" else f"{it.type}: {it.reason}" for it in ends), job


def in_phase(phase: str, pods: Iterable[Fields]) -> set[str]:
    """The UIDs of the Pods in this phase."""
    return {pod.metadata.uid for pod in pods if pod.status.phase == phase}


def restarts(pod: Fields) -> list[int]:
    """How often each container of the Pod was restarted."""
    return [status.restartCount for status in pod.status.containerStatuses]


# --- Jobs: until it has succeeded


@pytest.mark.behavior("controllers/job-runs-to-completion")
def test_a_job_is_complete_when_its_pod_has_succeeded(kube: Kube) -> None:
    """A Job runs a Pod. When the Pod has succeeded, the Job is Complete; nothing restarts the Pod, and no other one comes."""
    created = kube.create(JOB)

    how, job = ended(kube, created.metadata.name)

    assert how == "Complete"
    assert (job.status.succeeded, job.status.failed, job.status.active) == (1, None, None)
    for look in throughout(patience.stays_so):
        with look:
            (pod,) = exactly(1, kube.list("Pod"))
            assert [owner.uid for owner in pod.metadata.ownerReferences] == [created.metadata.uid]
            assert (pod.status.phase, restarts(pod)) == ("Succeeded", [0])


@pytest.mark.behavior("controllers/job-runs-to-completion")
def test_a_finished_job_stays_unless_it_has_a_time_to_live(kube: Kube) -> None:
    """A finished Job and its Pod stay, and the log can be read. Only with `ttlSecondsAfterFinished` are both deleted."""
    kept, short_lived = load(JOB), load(JOB)
    short_lived["metadata"]["name"] = "short-lived"
    short_lived["spec"]["ttlSecondsAfterFinished"] = 0

    with kube.record("Job") as changes:
        kube.apply([kept, short_lived])
        for look in eventually(within=patience.job_ends, hopeless=pods_of(kube, "myapp-job")):
            with look:
                (pod,) = exactly(1, kube.list("Pod"))
                deleted = [change.object for change in changes if change.type == "DELETED"]
                assert {job.metadata.name: job.status.succeeded for job in deleted} == {"short-lived": 1}
                assert (pod.metadata.labels.get(JOB_NAME), pod.status.phase) == ("myapp-job", "Succeeded")

    assert kube.exists("Job", "myapp-job")
    for look in eventually(within=patience.log_arrives):
        with look:
            assert kube.logs(pod.metadata.name) == "the work is done\n"


@pytest.mark.starts_first
@pytest.mark.behavior("controllers/job-retries-failures")
def test_a_job_makes_another_pod_until_one_succeeds(kube: Kube) -> None:
    """A failed Pod is not repaired. After a while its Job makes another one, until one has succeeded; then it is Complete."""
    kube.apply(FAILING)
    for look in eventually(within=patience.pod_starts, hopeless=pods_of(kube, "fails-at-first")):
        with look:
            failed = in_phase("Failed", kube.list("Pod"))
            assert failed, "no Pod has failed"

    kube.patch("ConfigMap", "fails-at-first", {"data": {"exit-code": "0"}})

    how, job = ended(kube, "fails-at-first")
    assert how == "Complete"
    assert job.status.succeeded == 1
    pods = kube.list("Pod")
    assert failed <= in_phase("Failed", pods)
    assert len(in_phase("Succeeded", pods)) == 1
    assert [pod.metadata.name for pod in pods if restarts(pod) != [0]] == []


@pytest.mark.starts_first
@pytest.mark.behavior("controllers/job-retries-failures")
def test_a_job_gives_up_at_its_backoff_limit(kube: Kube) -> None:
    """`backoffLimit: 1` allows one retry. When the second Pod fails, too, the Job is Failed, and no third one comes."""
    exit_code, job_of_failures = load_all(FAILING)
    job_of_failures["spec"]["backoffLimit"] = 1
    kube.apply([exit_code, job_of_failures])

    how, job = ended(kube, "fails-at-first")

    assert how == "Failed: BackoffLimitExceeded"
    assert (job.status.succeeded, job.status.failed, job.status.active) == (None, 2, None)
    for look in throughout(patience.stays_so):
        with look:
            assert [pod.status.phase for pod in kube.list("Pod")] == ["Failed", "Failed"]


@pytest.mark.behavior("controllers/job-retries-failures", "controllers/job-runs-to-completion")
def test_under_on_failure_the_same_pod_tries_again(kube: Kube) -> None:
    """With `restartPolicy: OnFailure` the Job needs no other Pod: the container that fails is restarted until it succeeds."""
    name = kube.create("jobs_and_daemonsets/fails-once.yaml").metadata.name

    how, job = ended(kube, name)

    assert how == "Complete"
    assert (job.status.succeeded, job.status.failed) == (1, None)
    for look in throughout(patience.stays_so):
        with look:
            (pod,) = exactly(1, kube.list("Pod"))
            assert (pod.status.phase, restarts(pod)) == ("Succeeded", [1])


# --- Jobs: in parallel


def at_once(changes: Iterable[Change]) -> list[int]:
    """How many Pods existed and had not ended, after each change."""
    counts: list[int] = []
    unended: set[str] = set()
    for change in changes:
        pod = change.object
        over = change.type == "DELETED" or pod.status.phase in ("Succeeded", "Failed")
        (unended.discard if over else unended.add)(pod.metadata.uid)
        counts.append(len(unended))
    return counts


def let_end(kube: Kube, pod: str) -> None:
    """Give a Pod of two-at-a-time.yaml its file. Its container ends at once, and may kill the command that made the file."""
    made = kube.exec(pod, "touch", "/tmp/done")
    if made.code != 128 + signal.SIGKILL:
        made.told()


@pytest.mark.behavior("controllers/job-in-parallel")
def test_two_pods_work_at_a_time_and_never_more(kube: Kube) -> None:
    """`completions: 4`, `parallelism: 2`: two Pods work at a time, never more, until four have succeeded."""
    done: set[str] = set()
    with kube.record("Pod") as changes:
        name = kube.create("jobs_and_daemonsets/two-at-a-time.yaml").metadata.name
        for _ in range(2):
            for look in eventually(within=patience.rollout, hopeless=pods_of(kube, name)):
                with look:
                    running = {pod.metadata.name for pod in kube.list("Pod") if pod.status.phase == "Running"}
                    at_work = exactly(2, running - done)
            for pod in at_work:
                let_end(kube, pod)
            done |= running
        how, job = ended(kube, name)
        for look in eventually(within=patience.controller_acts):
            with look:
                recorded = in_phase("Succeeded", (change.object for change in changes))
                assert len(recorded) == 4

    assert how == "Complete"
    assert job.status.succeeded == 4
    counts = at_once(changes)
    assert max(counts) == 2, f"Pods at once, after each change: {counts}"


@pytest.mark.behavior("controllers/job-in-parallel")
def test_an_indexed_job_numbers_its_pods(kube: Kube) -> None:
    """In an Indexed Job each Pod gets a number of its own, from 0 on, by which it knows its part of the work."""
    name = kube.create("jobs_and_daemonsets/indexed.yaml").metadata.name

    how, job = ended(kube, name)

    assert how == "Complete"
    assert job.status.completedIndexes == "0-2"
    labels = {pod.metadata.name: pod.metadata.labels.get(COMPLETION_INDEX) for pod in kube.pods()}
    assert sorted(labels.values(), key=str) == ["0", "1", "2"]
    for look in eventually(within=patience.log_arrives):
        with look:
            assert {pod: kube.logs(pod).strip() for pod in labels} == labels


# --- Jobs: which Pods are its own


@pytest.mark.behavior("controllers/job-selector-is-generated")
def test_a_job_selects_its_pods_by_its_uid(kube: Kube) -> None:
    """Nobody gives a Job a selector. It selects by its own UID, and its Pods get that as a label."""
    job = kube.create(JOB)

    assert job.spec.selector.matchLabels == {JOB_UID: job.metadata.uid}
    for look in eventually(within=patience.pod_starts, hopeless=pods_of(kube, "myapp-job")):
        with look:
            (pod,) = exactly(1, kube.list("Pod"))
    assert pod.metadata.labels.get(JOB_UID) == job.metadata.uid


@pytest.mark.behavior("controllers/job-selector-is-generated")
def test_a_selector_given_by_hand_is_refused(kube: Kube) -> None:
    """A Job with a selector of the user's is refused, unless `manualSelector: true` says that it is meant so."""
    manifest = load(JOB)
    labels = {"app": "myapp"}
    manifest["spec"]["template"]["metadata"] = {"labels": labels}
    manifest["spec"]["selector"] = {"matchLabels": labels}

    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["spec.selector"]
    assert kube.list("Job") == []
    manifest["spec"]["manualSelector"] = True
    assert kube.create(manifest, dryRun="All").spec.selector.matchLabels == labels


# --- DaemonSets: where they run

#: The taints of a node in trouble, or cordoned, that every Pod of a DaemonSet tolerates by itself.
TOLERATED = {f"node.kubernetes.io/{it}" for it in ("unschedulable", "disk-pressure", "memory-pressure", "pid-pressure")}


def closed_by(node: Fields) -> set[str]:
    """The keys of the node's taints that keep a DaemonSet's Pods away."""
    return {it.key for it in node.spec.taints if it.effect in ("NoSchedule", "NoExecute")} - TOLERATED


def on_nodes(pods: Iterable[Fields], nodes: Iterable[Fields]) -> dict[str, int]:
    """How many of the Pods are on each of these nodes."""
    found = Counter(pod.spec.nodeName for pod in pods)
    return {node.metadata.name: found[node.metadata.name] for node in nodes}


@pytest.mark.behavior("controllers/daemonset-one-pod-a-node")
def test_a_daemonset_runs_one_pod_on_each_node_without_taints(kube: Kube, nodes: list[Fields]) -> None:
    """A DaemonSet runs exactly one Pod on each node that takes Pods, and none on a node with a taint.

    Control-plane nodes usually have a taint, so they get none. On a cluster of one node that node has no taint.
    """
    kube.create(DAEMONSET)
    kube.rolled_out("DaemonSet", "myapp-daemonset")

    expected = {node.metadata.name: 0 if closed_by(node) else 1 for node in nodes}
    assert on_nodes(kube.list("Pod"), nodes) == expected


@pytest.fixture
def tainted_control_plane(api: Api, nodes: list[Fields]) -> list[str]:
    """The names of the control-plane nodes that only their own taint closes. Skips where there are none, unless it is ours."""
    found = [node.metadata.name for node in nodes if is_control_plane(node) and closed_by(node) == {CONTROL_PLANE}]
    if not found and not is_ours(api):
        pytest.skip(
            f"no control-plane node is closed by the taint {CONTROL_PLANE}; if there is one node only, add a worker"
        )
    return found


@pytest.mark.behavior("controllers/daemonset-one-pod-a-node")
def test_a_toleration_brings_a_daemonset_to_the_control_plane(
    kube: Kube, nodes: list[Fields], tainted_control_plane: list[str]
) -> None:
    """A DaemonSet that tolerates the control plane's taint runs one Pod there, too, beside those on the other nodes."""
    assert tainted_control_plane, "no control-plane node is closed by its own taint alone"
    manifest = load(DAEMONSET)
    manifest["spec"]["template"]["spec"]["tolerations"] = [{"key": CONTROL_PLANE, "operator": "Exists"}]

    kube.create(manifest)
    kube.rolled_out("DaemonSet", "myapp-daemonset")

    expected = {node.metadata.name: 0 if closed_by(node) - {CONTROL_PLANE} else 1 for node in nodes}
    there = on_nodes(kube.list("Pod"), nodes)
    assert [node for node in tainted_control_plane if there[node] != 1] == []
    assert there == expected


@pytest.mark.behavior("controllers/daemonset-one-pod-a-node")
def test_nothing_scales_a_daemonset(kube: Kube) -> None:
    """The nodes decide how many Pods a DaemonSet has. It has no field `replicas` and, unlike others, nothing to scale."""
    listed = {it["name"] for it in kube.api.call("GET", "/apis/apps/v1")["resources"]}
    manifest = load(DAEMONSET)
    kube.create(manifest, dryRun="All")

    manifest["spec"]["replicas"] = 2
    with refused(400):
        kube.create(manifest, dryRun="All")

    scalable = {
        kind for kind in ("daemonsets", "deployments", "replicasets", "statefulsets") if f"{kind}/scale" in listed
    }
    assert "daemonsets" in listed
    assert scalable == {"deployments", "replicasets", "statefulsets"}


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("controllers/daemonset-follows-node-labels")
def test_a_daemonset_follows_the_labels_of_nodes(kube: Kube, workers: list[Fields]) -> None:
    """With a nodeSelector a DaemonSet runs where the label is: label a node, and a Pod comes; remove it, and the Pod goes."""
    node, label = workers[0].metadata.name, {"example.com/runs": kube.namespace}
    manifest = load("jobs_and_daemonsets/on-labeled-nodes.yaml")
    manifest["spec"]["template"]["spec"]["nodeSelector"] = label
    kube.create(manifest)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert pods_wanted(kube, "on-labeled-nodes") == 0
    assert kube.list("Pod") == []

    with temporarily_patched(kube, "Node", node, {"metadata": {"labels": label}}):
        kube.rolled_out("DaemonSet", "on-labeled-nodes")
        (pod,) = exactly(1, kube.list("Pod"))
        assert pod.spec.nodeName == node

    for look in eventually(within=patience.pod_goes):
        with look:
            assert kube.list("Pod") == []
            assert pods_wanted(kube, "on-labeled-nodes") == 0


def pods_wanted(kube: Kube, daemonset: str) -> int | None:
    """How many Pods a DaemonSet should have by its status; None as long as its controller has not seen its last change."""
    now = kube.get("DaemonSet", daemonset)
    seen = (now.status.observedGeneration or 0) >= now.metadata.generation
    return now.status.desiredNumberScheduled if seen else None


@pytest.fixture
def daemons(kube: Kube) -> list[Fields]:
    """The Pods of a DaemonSet, one on each node where it runs, all Ready."""
    kube.create(DAEMONSET)
    kube.rolled_out("DaemonSet", "myapp-daemonset")
    return kube.pods(app="myapp")


def by_node(pods: Iterable[Fields]) -> dict[str, str]:
    """The UID of the Ready Pod on each node."""
    return {pod.spec.nodeName: pod.metadata.uid for pod in pods if is_ready(pod)}


@pytest.mark.behavior("controllers/daemonset-replaces-a-deleted-pod")
def test_a_deleted_pod_is_replaced_on_its_node(kube: Kube, daemons: list[Fields]) -> None:
    """A DaemonSet replaces a deleted Pod as other controllers do, but always on the same node. Its other Pods stay.

    The document's text breaks off before it says so. On a cluster of one node, only the new UID counts.
    """
    deleted, others = daemons[0], by_node(daemons[1:])
    node = deleted.spec.nodeName

    kube.delete("Pod", deleted.metadata.name)

    for look in eventually(within=patience.pod_starts):
        with look:
            now = by_node(kube.pods(app="myapp"))
            assert now == others | {node: now.get(node)}
            assert now[node] != deleted.metadata.uid, f"{deleted.metadata.name} is still there"
