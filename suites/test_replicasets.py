"""ReplicaSets and ReplicationControllers: they keep the number of Pods that is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

import pytest

from fixtures.api import refused
from fixtures.counting import exactly
from fixtures.fields import Fields, quantity
from fixtures.kube import Kube, is_ready
from fixtures.manifests import Manifest, load
from fixtures.nodes import is_control_plane
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.scheduling import selecting, why_not_scheduled
from fixtures.waiting import eventually, throughout

#: The value of the label `app` that the documents' ReplicaSet selects.
LABEL = "my-nginx-pods-label"

REPLICASET = "replicasets/replicaset-nginx-idle.yaml"
CONTROLLER = "replicasets/replicationcontroller.yaml"
POD = "replicasets/nginx-label-pod.yaml"
DEPLOYMENT = "replicasets/mynginx.yaml"

of_both_kinds = pytest.mark.parametrize(
    "manifest", [REPLICASET, CONTROLLER], ids=["ReplicaSet", "ReplicationController"]
)


def with_replicas(manifest: str, replicas: int) -> Manifest:
    """The manifest's object with as many replicas as a test needs."""
    document = load(manifest)
    document["spec"]["replicas"] = replicas
    return document


def who(*pods: Fields) -> set[str]:
    """The Pods' identities: name and UID, because a Pod made later can have the same name."""
    return {f"{pod.metadata.name} {pod.metadata.uid}" for pod in pods}


def controllers(pods: Iterable[Fields]) -> dict[str, str | None]:
    """The name of each Pod's controller, by the Pod's name; None for a Pod that has none."""
    return {
        pod.metadata.name: next((owner.name for owner in pod.metadata.ownerReferences if owner.controller), None)
        for pod in pods
    }


def observed(kube: Kube, kind: str, name: str) -> Fields:
    """Wait until the controller has observed the object's last change; return the object."""
    for look in eventually(within=patience.controller_acts):
        with look:
            now = kube.get(kind, name)
            assert (now.status.observedGeneration or 0) >= now.metadata.generation
    return now


# --- from the template


@pytest.mark.behavior("objects/replicaset-of-three")
def test_three_replicas_are_three_pods_from_the_template(kube: Kube) -> None:
    """`replicas: 3` gives three running Pods: named after the ReplicaSet, owned by it, made from its template."""
    replicaset = kube.create("replicasets/replicaset-nginx.yaml")

    pods = kube.ready_pods(3, app=LABEL)

    template = replicaset.spec.template
    for pod in pods:
        assert pod.metadata.name.startswith("replicaset-nginx-")
        assert [owner.uid for owner in pod.metadata.ownerReferences] == [replicaset.metadata.uid]
        assert pod.metadata.labels == template.metadata.labels
        assert [container.image for container in pod.spec.containers] == ["nginx:1.26.3"]


@pytest.fixture
def three_pods(kube: Kube) -> list[Fields]:
    """The Pods of the documents' ReplicaSet of three, all Ready."""
    kube.apply(REPLICASET)
    return kube.ready_pods(3, app=LABEL)


@pytest.mark.behavior("objects/replicaset-scales-by-apply")
def test_applying_four_adds_one_pod(kube: Kube, three_pods: list[Fields]) -> None:
    """Change 3 to 4 in the file and apply it again: the three Pods stay, and one joins them."""
    manifest = load(REPLICASET)
    manifest["spec"]["replicas"] = 4

    kube.apply(manifest)

    four = kube.ready_pods(4, app=LABEL)
    assert who(*three_pods) < who(*four)


@pytest.mark.behavior("controllers/rc-template-makes-equal-pods")
def test_a_changed_template_applies_to_later_pods_only(kube: Kube) -> None:
    """A new image in the template changes no Pod that runs; the Pods made afterwards have it. There is no rollout."""
    name = kube.create(with_replicas(CONTROLLER, 1)).metadata.name
    (earlier,) = exactly(1, kube.ready_pods(1, app=LABEL))

    container = {"name": "nginx", "image": "nginx:1.26.3"}
    kube.patch("ReplicationController", name, {"spec": {"template": {"spec": {"containers": [container]}}}})
    observed(kube, "ReplicationController", name)
    kube.scale("ReplicationController", name, 2)

    pods = kube.ready_pods(2, app=LABEL)
    images = {pod.metadata.uid: pod.spec.containers[0].image for pod in pods}
    assert images.pop(earlier.metadata.uid, None) == "registry.k8s.io/pause:3.10.2"
    assert list(images.values()) == ["nginx:1.26.3"]


# --- number and selector


@pytest.mark.behavior("controllers/rc-defaults-to-one")
def test_replicas_default_to_one(kube: Kube) -> None:
    """Leave `replicas` out of a ReplicationController, and it is 1: there is one Pod."""
    manifest = load(CONTROLLER)
    del manifest["spec"]["replicas"]

    controller = kube.create(manifest)

    assert controller.spec.replicas == 1
    for look in eventually(within=patience.pod_starts):
        with look:
            status = observed(kube, "ReplicationController", controller.metadata.name).status
            assert (status.replicas, status.readyReplicas) == (1, 1)
    exactly(1, kube.pods())


@pytest.mark.behavior("core-concepts/replicaset-selector-is-required")
def test_a_replicaset_without_a_selector_is_refused(kube: Kube) -> None:
    """A ReplicaSet must say which Pods are its own."""
    manifest = load(REPLICASET)
    kube.create(manifest, dryRun="All")

    del manifest["spec"]["selector"]
    with refused(422) as refusals:
        kube.create(manifest)

    assert "spec.selector" in refusals[0].fields


@pytest.mark.behavior("core-concepts/replicaset-selector-is-required")
def test_a_replicationcontroller_selects_by_its_templates_labels(kube: Kube) -> None:
    """A ReplicationController without a selector gets the labels of its template as one."""
    manifest = load(CONTROLLER)
    del manifest["spec"]["selector"]

    controller = kube.create(manifest, dryRun="All")

    assert controller.spec.selector == {"app": LABEL}


@pytest.mark.behavior("core-concepts/replicaset-selector-is-required")
@of_both_kinds
def test_a_selector_must_select_its_own_template(kube: Kube, manifest: str) -> None:
    """A controller whose selector does not select the Pods of its own template is refused."""
    document = load(manifest)
    kube.create(document, dryRun="All")

    document["spec"]["template"]["metadata"]["labels"]["app"] = "your-nginx-pods-label"
    with refused(422) as refusals:
        kube.create(document)

    assert refusals[0].fields == ["spec.template.metadata.labels"]


# --- keeping the number


def fail(kube: Kube, pod: Fields) -> None:
    """Let a Pod fail: its time is over after one second."""
    kube.patch("Pod", pod.metadata.name, {"spec": {"activeDeadlineSeconds": 1}})
    for look in eventually(within=patience.pod_fails):
        with look:
            assert kube.get("Pod", pod.metadata.name).status.phase == "Failed"


def ready_pods_without(kube: Kube, lost: Fields, count: int) -> list[Fields]:
    """Wait until just `count` Pods are Ready, the lost one not among them; return them."""
    for look in eventually(within=patience.pod_starts):
        with look:
            ready = exactly(count, [pod for pod in kube.pods(app=LABEL) if is_ready(pod)])
            assert not who(lost) & who(*ready)
    return ready


@pytest.mark.behavior("core-concepts/controller-keeps-the-desired-number", "controllers/rc-keeps-the-number-both-ways")
@of_both_kinds
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_lost_pod_is_replaced(kube: Kube, manifest: str, replicas: int) -> None:
    """Delete a Pod, or let one fail: another takes its place, even where there is to be just one."""
    controller = kube.create(with_replicas(manifest, replicas))
    before = kube.ready_pods(replicas, app=LABEL)

    deleted = before[0]
    kube.delete("Pod", deleted.metadata.name)
    failed = ready_pods_without(kube, deleted, replicas)[0]
    fail(kube, failed)
    pods = ready_pods_without(kube, failed, replicas)

    assert set(controllers(pods).values()) == {controller.metadata.name}


@pytest.mark.behavior("core-concepts/controller-keeps-the-desired-number", "controllers/rc-keeps-the-number-both-ways")
@of_both_kinds
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_surplus_pod_is_deleted(kube: Kube, manifest: str, replicas: int) -> None:
    """Make one more Pod that matches, and there is one too many: the controller deletes one."""
    kube.create(with_replicas(manifest, replicas))
    enough = kube.ready_pods(replicas, app=LABEL)

    surplus = kube.create(POD)

    for look in eventually(within=patience.controller_acts):
        with look:
            left = exactly(replicas, kube.pods())
    assert who(*left) < who(*enough, surplus)


@pytest.fixture
def mynginx(kube: Kube) -> list[Fields]:
    """The Pods of the Deployment mynginx, scaled to four, all Ready."""
    kube.create(DEPLOYMENT)
    return kube.ready_pods(4, app="mynginx")


@pytest.mark.behavior("nginx-walkthrough/deleted-pod-is-replaced")
def test_the_replacement_is_another_pod(kube: Kube, mynginx: list[Fields]) -> None:
    """The number is restored, not the Pod: the replacement has a name and a UID of its own."""
    kube.delete("Pod", mynginx[0].metadata.name)

    four = kube.ready_pods(4, app="mynginx")

    (replacement,) = exactly(1, [pod for pod in four if not who(pod) & who(*mynginx)])
    assert replacement.metadata.name not in [pod.metadata.name for pod in mynginx]


@pytest.fixture
def one_pod(kube: Kube) -> Fields:
    """The one Pod of the Deployment mynginx before it is scaled, Ready."""
    kube.create(with_replicas(DEPLOYMENT, 1))
    (pod,) = exactly(1, kube.ready_pods(1, app="mynginx"))
    return pod


@pytest.mark.behavior("core-concepts/scaling-adds-pods")
def test_scaling_adds_pods_not_containers(kube: Kube, one_pod: Fields) -> None:
    """Scale to two and there is a second Pod; each has the one container that the first had."""
    assert len(one_pod.spec.containers) == 1

    kube.scale("Deployment", "mynginx", 2)

    pods = kube.ready_pods(2, app="mynginx")
    assert who(one_pod) < who(*pods)
    assert [len(pod.spec.containers) for pod in pods] == [1, 1]


# --- which Pods are its own


@pytest.fixture
def early_pod(kube: Kube) -> Fields:
    """A Pod made by hand that carries the label, Ready. It has no owner yet."""
    kube.create(POD)
    return kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("objects/existing-pod-counts", "core-concepts/replicaset-adopts-earlier-pods")
def test_a_pod_that_was_there_before_counts(kube: Kube, early_pod: Fields) -> None:
    """The ReplicaSet adopts a Pod that already carries the label, and makes only the three that are missing of four."""
    with kube.record("Pod", app=LABEL) as changes:
        kube.create(with_replicas(REPLICASET, 4))
        four = kube.ready_pods(4, app=LABEL)
        for look in eventually(within=patience.controller_acts):
            with look:
                assert observed(kube, "ReplicaSet", "replicaset-nginx").status.replicas == 4
                made = exactly(3, [change.object for change in changes if change.type == "ADDED"])
                assert who(*made) == who(*four) - who(early_pod)

    assert controllers(four).get("my-nginx-pod") == "replicaset-nginx"


@pytest.fixture
def adopted_pod(kube: Kube, early_pod: Fields) -> Fields:
    """The Pod made by hand, now the one Pod of a ReplicaSet of one."""
    kube.create(with_replicas(REPLICASET, 1))
    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {"my-nginx-pod": "replicaset-nginx"}
    return early_pod


@pytest.mark.behavior("objects/deleting-the-adopted-pod-makes-a-new-one")
def test_the_adopted_pod_is_replaced_from_the_template(kube: Kube, adopted_pod: Fields) -> None:
    """Delete the Pod that was made by hand: its replacement is made from the ReplicaSet's template."""
    assert [container.name for container in adopted_pod.spec.containers] == ["my-nginx-container"]

    kube.delete("Pod", adopted_pod.metadata.name)

    (pod,) = exactly(1, kube.ready_pods(1, app=LABEL))
    assert not who(adopted_pod) & who(pod)
    assert [container.name for container in pod.spec.containers] == ["nginx"]


@pytest.mark.behavior("objects/removing-a-label-releases-the-pod")
def test_a_pod_without_the_label_is_released_not_deleted(kube: Kube, three_pods: list[Fields]) -> None:
    """Take the label off a Pod: the ReplicaSet releases it and makes another. The released Pod runs on, without an owner."""
    name = three_pods[0].metadata.name
    assert controllers(three_pods)[name] == "replicaset-nginx"

    kube.patch("Pod", name, {"metadata": {"labels": {"app": None}}})

    three = kube.ready_pods(3, app=LABEL)
    released = kube.get("Pod", name)
    assert released.metadata.ownerReferences == []
    assert released.metadata.uid == three_pods[0].metadata.uid
    assert released.metadata.deletionTimestamp is None
    assert released.status.phase == "Running"
    assert not who(released) & who(*three)


@pytest.fixture
def released_pod(kube: Kube) -> Fields:
    """The Pod that a ReplicaSet of one released when its label was taken off; its replacement is Ready."""
    kube.create(with_replicas(REPLICASET, 1))
    (pod,) = exactly(1, kube.ready_pods(1, app=LABEL))
    kube.patch("Pod", pod.metadata.name, {"metadata": {"labels": {"app": None}}})
    kube.ready_pods(1, app=LABEL)
    return pod


def is_ending(change: Change) -> bool:
    """The Pod is deleted, or will be after its grace period."""
    return change.type == "DELETED" or change.object.metadata.deletionTimestamp is not None


@pytest.mark.behavior("objects/removing-a-label-releases-the-pod")
def test_a_pod_that_gets_its_label_back_is_one_too_many(kube: Kube, released_pod: Fields) -> None:
    """Give the label back: first the ReplicaSet adopts the Pod again, then it has two Pods and deletes one of them."""
    (replacement,) = exactly(1, kube.pods(app=LABEL))
    name = released_pod.metadata.name

    with kube.record("Pod") as changes:
        kube.patch("Pod", name, {"metadata": {"labels": {"app": LABEL}}})
        for look in eventually(within=patience.controller_acts):
            with look:
                assert any(is_ending(change) for change in changes), "there are two Pods, and none is deleted"

    before_one_ends = [change.object for change in takewhile(lambda change: not is_ending(change), changes)]
    assert controllers(before_one_ends).get(name) == "replicaset-nginx"
    (left,) = exactly(1, kube.pods())
    assert who(left) < who(released_pod, replacement)
    assert controllers([left]) == {left.metadata.name: "replicaset-nginx"}


@pytest.mark.behavior("objects/released-pod-survives-the-replicaset")
def test_a_released_pod_outlives_the_replicaset(kube: Kube, released_pod: Fields) -> None:
    """Delete the ReplicaSet: its Pods are deleted with it, but not the Pod that it released before."""
    kube.delete("ReplicaSet", "replicaset-nginx")

    for look in eventually(within=patience.pod_goes):
        with look:
            assert not who(*kube.list("Pod", app=LABEL))
    for look in throughout(patience.stays_so):
        with look:
            left = kube.pods()
            assert who(*left) == who(released_pod)
            assert [pod.status.phase for pod in left] == ["Running"]


# --- set-based selectors


@pytest.fixture
def four_pods(kube: Kube) -> list[Fields]:
    """Four Pods made by hand, Ready: three with a value of the label `app` each, one without that label."""
    kube.apply("replicasets/four-pods.yaml")
    return kube.ready_pods(4)


@pytest.mark.behavior("objects/match-expressions-in")
@pytest.mark.usefixtures("four_pods")
def test_in_and_not_in_partition_the_pods(kube: Kube) -> None:
    """In selects the Pods whose label has a value of the list; NotIn selects all others, those without the label too."""
    kube.apply("replicasets/in-and-not-in.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {
                "my-nginx-pod": "app-in",
                "your-nginx-pod": "app-in",
                "their-nginx-pod": "app-not-in",
                "unlabeled-nginx-pod": "app-not-in",
            }


@pytest.mark.behavior("objects/match-expressions-in")
@pytest.mark.usefixtures("four_pods")
def test_exists_and_does_not_exist_partition_the_pods(kube: Kube) -> None:
    """Exists selects the Pods that carry the label, whatever its value; DoesNotExist selects those without it."""
    kube.apply("replicasets/exists-and-does-not-exist.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {
                "my-nginx-pod": "app-exists",
                "your-nginx-pod": "app-exists",
                "their-nginx-pod": "app-exists",
                "unlabeled-nginx-pod": "app-does-not-exist",
            }


@pytest.mark.behavior("core-concepts/only-replicaset-has-set-based-selectors")
@pytest.mark.usefixtures("early_pod")
def test_only_a_replicaset_selects_by_expressions(kube: Kube) -> None:
    """A ReplicaSet's selector may have matchExpressions; a ReplicationController's has labels and their values only."""
    replicaset, controller = with_replicas(REPLICASET, 1), with_replicas(CONTROLLER, 1)
    kube.create(controller, dryRun="All")

    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": [LABEL, "your-nginx-pods-label"]}]}
    controller["spec"]["selector"] = replicaset["spec"]["selector"] = selector
    with refused(400):
        kube.create(controller)
    kube.create(replicaset)

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {"my-nginx-pod": "replicaset-nginx"}


# --- where they run


@pytest.mark.behavior("nginx-walkthrough/replicas-spread-over-nodes")
def test_replicas_run_on_more_than_one_worker(kube: Kube, nodes: list[Fields]) -> None:
    """Nothing says where the four Pods are to run, and they do not all run on one worker."""
    workers = {node.metadata.name for node in nodes if not is_control_plane(node)}

    kube.create(DEPLOYMENT)

    used = {pod.spec.nodeName for pod in kube.ready_pods(4, app="mynginx")}
    assert len(used & workers) > 1


@pytest.fixture
def large_pod(kube: Kube, workers: list[Fields]) -> Fields:
    """The one Pod of a ReplicaSet, Ready. It is bound to the smallest worker and requests 60 % of the disk space there.

    Hardly any other Pod requests disk space. Where the nodes do not count it, this one requests memory.
    """
    resource = "ephemeral-storage"
    if not all(resource in node.status.allocatable for node in workers):
        resource = "memory"
    smallest = min(workers, key=lambda node: quantity(node.status.allocatable[resource]))
    amount = int(quantity(smallest.status.allocatable[resource]) * 6 / 10)
    manifest = load("replicasets/large-pods.yaml")
    pod = manifest["spec"]["template"]["spec"]
    pod["nodeSelector"] = selecting(smallest)
    pod["containers"][0]["resources"] = {"requests": {resource: str(amount)}}
    kube.create(manifest)
    (ready,) = exactly(1, kube.ready_pods(1))
    return ready


def is_unschedulable(pod: Fields) -> bool:
    """The scheduler has found no node for the Pod."""
    reason, _ = why_not_scheduled(pod)
    return reason == "Unschedulable"


@pytest.mark.behavior("core-concepts/replicas-spill-to-other-nodes")
def test_a_replica_that_does_not_fit_one_worker_runs_on_another(kube: Kube, large_pod: Fields) -> None:
    """One worker has no room for a second large Pod: bound to that worker, it waits; not bound, it runs on another one."""
    kube.scale("ReplicaSet", "large-pods", 2)
    for look in eventually(within=patience.pod_starts):
        with look:
            (waiting,) = exactly(1, [pod for pod in kube.pods() if is_unschedulable(pod)])

    # A changed template applies to later Pods only, so the Pod that waits is deleted.
    kube.patch("ReplicaSet", "large-pods", {"spec": {"template": {"spec": {"nodeSelector": None}}}})
    observed(kube, "ReplicaSet", "large-pods")
    kube.delete("Pod", waiting.metadata.name)

    pods = kube.ready_pods(2)
    assert who(large_pod) < who(*pods)
    assert len({pod.spec.nodeName for pod in pods}) == 2
