"""ReplicaSets and ReplicationControllers: a number of Pods that keeps itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from kubernetes.utils.quantity import parse_quantity

from fixtures.api import refused
from fixtures.fields import Fields
from fixtures.kube import Kube, is_ready
from fixtures.manifests import load
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout

#: The value of the label `app` that the documents' ReplicaSet selects.
LABEL = "my-nginx-pods-label"

REPLICASET = "replicasets/replicaset-nginx-idle.yaml"
CONTROLLER = "replicasets/replicationcontroller.yaml"
POD = "replicasets/nginx-label-pod.yaml"
DEPLOYMENT = "replicasets/mynginx.yaml"


def who(*pods: Fields) -> set[str]:
    """The Pods' identities: name and UID, for a namesake is another Pod."""
    return {f"{pod.metadata.name} {pod.metadata.uid}" for pod in pods}


def controllers(pods: Iterable[Fields]) -> dict[str, str | None]:
    """The name of each Pod's controller, by the Pod's name; None for a Pod that has none."""
    return {
        pod.metadata.name: next((owner.name for owner in pod.metadata.ownerReferences if owner.controller), None)
        for pod in pods
    }


def wait_until_noticed(kube: Kube, kind: str, name: str) -> None:
    """Wait until the controller has seen the object as it is now, its last change included."""
    for look in eventually(within=patience.controller_acts):
        with look:
            now = kube.get(kind, name)
            assert (now.status.observedGeneration or 0) >= now.metadata.generation


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


@pytest.fixture
def controller_of_one(kube: Kube) -> Fields:
    """A ReplicationController of one, its Pod Ready."""
    manifest = load(CONTROLLER)
    manifest["spec"]["replicas"] = 1
    controller = kube.create(manifest)
    kube.ready_pods(1, app=LABEL)
    return controller


@pytest.mark.behavior("controllers/rc-template-makes-equal-pods")
def test_a_changed_template_is_for_later_pods_only(kube: Kube, controller_of_one: Fields) -> None:
    """A new image in the template changes no Pod that runs; the Pods made afterwards have it. There is no rollout."""
    name = controller_of_one.metadata.name
    (earlier,) = kube.pods(app=LABEL)
    container = {"name": "nginx", "image": "nginx:1.26.3"}

    kube.patch("ReplicationController", name, {"spec": {"template": {"spec": {"containers": [container]}}}})
    wait_until_noticed(kube, "ReplicationController", name)
    kube.scale("ReplicationController", name, 2)

    pods = kube.ready_pods(2, app=LABEL)
    assert who(earlier) < who(*pods)
    assert {pod.spec.containers[0].image for pod in pods} == {"registry.k8s.io/pause:3.10.2", "nginx:1.26.3"}


# --- what makes one whole


@pytest.fixture
def controller_without_a_number(kube: Kube) -> Fields:
    """A ReplicationController whose manifest has no replicas, with as many Pods Ready as it asks for."""
    manifest = load(CONTROLLER)
    del manifest["spec"]["replicas"]
    controller = kube.create(manifest)
    kube.ready_pods(controller.spec.replicas, app=LABEL)
    return controller


@pytest.mark.behavior("controllers/rc-defaults-to-one")
def test_without_a_number_there_is_one_pod(kube: Kube, controller_without_a_number: Fields) -> None:
    """Leave `replicas` out of a ReplicationController and it is 1."""
    assert controller_without_a_number.spec.replicas == 1

    for look in eventually(within=patience.controller_acts):
        with look:
            controller = kube.get("ReplicationController", controller_without_a_number.metadata.name)
            assert controller.status.replicas == 1
    assert len(kube.pods()) == 1


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
@pytest.mark.parametrize("exhibit", [REPLICASET, CONTROLLER], ids=["ReplicaSet", "ReplicationController"])
def test_a_selector_must_select_its_own_template(kube: Kube, exhibit: str) -> None:
    """Pods that their own maker would not recognize are refused before the first one is made."""
    manifest = load(exhibit)
    kube.create(manifest, dryRun="All")

    manifest["spec"]["template"]["metadata"]["labels"]["app"] = "your-nginx-pods-label"
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["spec.template.metadata.labels"]


# --- the number keeps itself


@pytest.fixture
def keeper(request: pytest.FixtureRequest, kube: Kube) -> Fields:
    """The controller of a kind and number, its parameters, with all its Pods Ready."""
    exhibit, replicas = request.param
    manifest = load(exhibit)
    manifest["spec"]["replicas"] = replicas
    keeper = kube.create(manifest)
    kube.ready_pods(replicas, app=LABEL)
    return keeper


def delete(kube: Kube, pod: str) -> None:
    """Lose a Pod by deleting it."""
    kube.delete("Pod", pod)


def fail(kube: Kube, pod: str) -> None:
    """Lose a Pod by failing it: its time is up after one second."""
    kube.patch("Pod", pod, {"spec": {"activeDeadlineSeconds": 1}})
    for look in eventually(within=patience.pod_fails):
        with look:
            assert kube.get("Pod", pod).status.phase == "Failed"


@pytest.mark.behavior("core-concepts/controller-keeps-the-desired-number", "controllers/rc-keeps-the-number-both-ways")
@pytest.mark.parametrize(
    ("keeper", "lose"),
    [
        pytest.param((CONTROLLER, 1), delete, id="ReplicationController-1-deleted"),
        pytest.param((CONTROLLER, 3), fail, id="ReplicationController-3-failed"),
        pytest.param((REPLICASET, 1), fail, id="ReplicaSet-1-failed"),
        pytest.param((REPLICASET, 3), delete, id="ReplicaSet-3-deleted"),
    ],
    indirect=["keeper"],
)
def test_a_lost_pod_is_replaced(kube: Kube, keeper: Fields, lose: Callable[[Kube, str], None]) -> None:
    """Delete a Pod or let it fail: another takes its place, even where there is to be just one."""
    lost = kube.pods(app=LABEL)[0]

    lose(kube, lost.metadata.name)

    for look in eventually(within=patience.pod_starts):
        with look:
            ready = [pod for pod in kube.pods(app=LABEL) if is_ready(pod)]
            assert not who(lost) & who(*ready)
            assert len(who(*ready)) == keeper.spec.replicas
    assert set(controllers(ready).values()) == {keeper.metadata.name}


@pytest.mark.behavior("core-concepts/controller-keeps-the-desired-number", "controllers/rc-keeps-the-number-both-ways")
@pytest.mark.parametrize(
    "keeper",
    [
        pytest.param((CONTROLLER, 3), id="ReplicationController-3"),
        pytest.param((REPLICASET, 1), id="ReplicaSet-1"),
    ],
    indirect=True,
)
def test_a_surplus_pod_is_removed(kube: Kube, keeper: Fields) -> None:
    """A matching Pod beyond the number is one too many, and the controller deletes one."""
    enough = kube.pods(app=LABEL)

    surplus = kube.create(POD)

    for look in eventually(within=patience.controller_acts):
        with look:
            left = who(*kube.pods())
            assert len(left) == keeper.spec.replicas
    assert left < who(*enough, surplus)


@pytest.fixture
def mynginx(kube: Kube) -> list[Fields]:
    """The Pods of the Deployment mynginx, scaled to four, all Ready."""
    kube.create(DEPLOYMENT)
    return kube.ready_pods(4, app="mynginx")


@pytest.mark.behavior("nginx-walkthrough/deleted-pod-is-replaced")
def test_the_newcomer_is_another_pod(kube: Kube, mynginx: list[Fields]) -> None:
    """What is restored is the number, not the Pod: the newcomer has a name and an identity of its own."""
    kube.delete("Pod", mynginx[0].metadata.name)

    four = kube.ready_pods(4, app="mynginx")

    newcomers = [pod for pod in four if not who(pod) & who(*mynginx)]
    assert len(newcomers) == 1
    assert newcomers[0].metadata.name not in [pod.metadata.name for pod in mynginx]


@pytest.fixture
def single(kube: Kube) -> Fields:
    """The one Pod of the Deployment mynginx before it is scaled, Ready."""
    manifest = load(DEPLOYMENT)
    manifest["spec"]["replicas"] = 1
    kube.create(manifest)
    (pod,) = kube.ready_pods(1, app="mynginx")
    return pod


@pytest.mark.behavior("core-concepts/scaling-adds-pods")
def test_scaling_adds_pods_not_containers(kube: Kube, single: Fields) -> None:
    """Scale to two and there is a second Pod; each has the one container that the first had."""
    assert len(single.spec.containers) == 1

    kube.scale("Deployment", "mynginx", 2)

    pods = kube.ready_pods(2, app="mynginx")
    assert who(single) < who(*pods)
    assert [len(pod.spec.containers) for pod in pods] == [1, 1]


# --- which Pods are its own


@pytest.fixture
def early_pod(kube: Kube) -> Fields:
    """A Pod made by hand that carries the label, Ready, and nobody's yet."""
    kube.create(POD)
    return kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("objects/existing-pod-counts", "core-concepts/replicaset-adopts-earlier-pods")
def test_a_pod_that_was_there_before_counts(kube: Kube, early_pod: Fields) -> None:
    """The ReplicaSet takes in a Pod that already carries the label, and makes only the three that are missing of four."""
    manifest = load(REPLICASET)
    manifest["spec"]["replicas"] = 4

    kube.create(manifest)

    four = kube.ready_pods(4, app=LABEL)
    assert who(early_pod) < who(*four)
    assert controllers(four)["my-nginx-pod"] == "replicaset-nginx"
    for look in eventually(within=patience.controller_acts):
        with look:
            assert kube.get("ReplicaSet", "replicaset-nginx").status.replicas == 4


@pytest.fixture
def adopted_pod(kube: Kube, early_pod: Fields) -> Fields:
    """The Pod made by hand, now the one Pod of a ReplicaSet of one."""
    manifest = load(REPLICASET)
    manifest["spec"]["replicas"] = 1
    kube.create(manifest)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {"my-nginx-pod": "replicaset-nginx"}
    return early_pod


@pytest.mark.behavior("objects/deleting-the-adopted-pod-makes-a-new-one")
def test_the_adopted_pod_is_replaced_from_the_template(kube: Kube, adopted_pod: Fields) -> None:
    """Delete the Pod that was made by hand: what takes its place is made from the ReplicaSet's template."""
    assert [container.name for container in adopted_pod.spec.containers] == ["my-nginx-container"]

    kube.delete("Pod", adopted_pod.metadata.name)

    (pod,) = kube.ready_pods(1, app=LABEL)
    assert not who(adopted_pod) & who(pod)
    assert [container.name for container in pod.spec.containers] == ["nginx"]


@pytest.mark.behavior("objects/removing-a-label-releases-the-pod")
def test_a_pod_without_the_label_is_let_go_not_killed(kube: Kube, three_pods: list[Fields]) -> None:
    """Take the label off a Pod and the ReplicaSet makes a substitute; the freed Pod lives on, ownerless."""
    freed = three_pods[0].metadata
    assert [owner.kind for owner in freed.ownerReferences] == ["ReplicaSet"]

    kube.patch("Pod", freed.name, {"metadata": {"labels": {"app": None}}})

    kube.ready_pods(3, app=LABEL)
    pod = kube.get("Pod", freed.name)
    assert [owner.name for owner in pod.metadata.ownerReferences] == []
    assert pod.metadata.uid == freed.uid
    assert pod.status.phase == "Running"


@pytest.fixture
def freed_pod(kube: Kube) -> Fields:
    """The Pod that a ReplicaSet of one let go when its label was taken off; its substitute is Ready."""
    manifest = load(REPLICASET)
    manifest["spec"]["replicas"] = 1
    kube.create(manifest)
    (pod,) = kube.ready_pods(1, app=LABEL)
    kube.patch("Pod", pod.metadata.name, {"metadata": {"labels": {"app": None}}})
    kube.ready_pods(1, app=LABEL)
    return pod


@pytest.mark.behavior("objects/removing-a-label-releases-the-pod")
def test_a_pod_that_gets_its_label_back_is_one_too_many(kube: Kube, freed_pod: Fields) -> None:
    """Give the label back and the Pod is the ReplicaSet's again. Now there are two, and one of them is removed."""
    (substitute,) = kube.pods(app=LABEL)

    kube.patch("Pod", freed_pod.metadata.name, {"metadata": {"labels": {"app": LABEL}}})

    for look in eventually(within=patience.controller_acts):
        with look:
            left = kube.pods()
            assert len(who(*left)) == 1
    assert who(*left) < who(freed_pod, substitute)
    assert list(controllers(left).values()) == ["replicaset-nginx"]


@pytest.mark.behavior("objects/released-pod-survives-the-replicaset")
def test_a_freed_pod_outlives_the_replicaset(kube: Kube, freed_pod: Fields) -> None:
    """Delete the ReplicaSet and its Pods go with it, but not the Pod that it had let go."""
    kube.delete("ReplicaSet", "replicaset-nginx")

    for look in eventually(within=patience.pod_goes):
        with look:
            assert not who(*kube.list("Pod", app=LABEL))
    for look in throughout(patience.stays_so):
        with look:
            left = kube.pods()
            assert who(*left) == who(freed_pod)
            assert [pod.status.phase for pod in left] == ["Running"]


# --- selectors of sets


@pytest.fixture
def four_pods(kube: Kube) -> list[Fields]:
    """Four Pods made by hand, Ready: three with a value of the label `app` each, one without that label."""
    kube.apply("replicasets/four-pods.yaml")
    return kube.ready_pods(4)


@pytest.mark.behavior("objects/match-expressions-in")
@pytest.mark.usefixtures("four_pods")
def test_in_and_not_in_share_the_pods_out(kube: Kube) -> None:
    """In takes the Pods whose label has a value of the list; NotIn takes all others, those without the label too."""
    kube.apply("replicasets/in-and-not-in.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {
                "my-nginx-pod": "app-in",
                "your-nginx-pod": "app-in",
                "their-nginx-pod": "app-not-in",
                "nobodys-nginx-pod": "app-not-in",
            }


@pytest.mark.behavior("objects/match-expressions-in")
@pytest.mark.usefixtures("four_pods")
def test_exists_and_does_not_exist_share_the_pods_out(kube: Kube) -> None:
    """Exists takes the Pods that carry the label, whatever its value; DoesNotExist takes those without it."""
    kube.apply("replicasets/exists-and-does-not-exist.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {
                "my-nginx-pod": "app-exists",
                "your-nginx-pod": "app-exists",
                "their-nginx-pod": "app-exists",
                "nobodys-nginx-pod": "app-does-not-exist",
            }


@pytest.mark.behavior("core-concepts/only-replicaset-has-set-based-selectors")
@pytest.mark.usefixtures("early_pod")
def test_only_a_replicaset_knows_match_expressions(kube: Kube) -> None:
    """A ReplicaSet may select by expressions; a ReplicationController knows nothing but labels and values."""
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": [LABEL, "your-nginx-pods-label"]}]}
    replicaset, controller = load(REPLICASET), load(CONTROLLER)
    replicaset["spec"] |= {"selector": selector, "replicas": 1}
    controller["spec"] |= {"selector": selector, "replicas": 1}

    with refused(400):
        kube.create(controller)
    kube.create(replicaset)

    for look in eventually(within=patience.controller_acts):
        with look:
            assert controllers(kube.pods()) == {"my-nginx-pod": "replicaset-nginx"}


# --- where they run


@pytest.mark.behavior("nginx-walkthrough/replicas-spread-over-nodes")
def test_replicas_run_on_more_than_one_node(mynginx: list[Fields]) -> None:
    """Nobody says where the four Pods are to run, and they do not all run on one node."""
    nodes = {pod.spec.nodeName for pod in mynginx}

    assert len(nodes) > 1


@pytest.fixture
def full_worker(kube: Kube, workers: list[Fields]) -> str:
    """The name of the smallest worker: two Pods that may run nowhere else find room for only one of them there.

    They ask for disk space, as hardly any other Pod does; for memory where the workers do not account for disk space.
    """
    asked = "ephemeral-storage" if all("ephemeral-storage" in node.status.allocatable for node in workers) else "memory"
    smallest = min(workers, key=lambda node: parse_quantity(node.status.allocatable[asked]))
    manifest = load("replicasets/two-large-pods.yaml")
    spec = manifest["spec"]["template"]["spec"]
    spec["nodeSelector"] = {"kubernetes.io/hostname": smallest.metadata.labels["kubernetes.io/hostname"]}
    amount = int(parse_quantity(smallest.status.allocatable[asked]) * 6 / 10)
    spec["containers"][0]["resources"] = {"requests": {asked: str(amount)}}
    kube.create(manifest)
    for look in eventually(within=patience.pod_starts):
        with look:
            pods = kube.pods(app="two-large-pods")
            reasons = [condition.reason for pod in pods for condition in pod.status.conditions]
            assert sorted(is_ready(pod) for pod in pods) == [False, True]
            assert "Unschedulable" in reasons
    return str(smallest.metadata.name)


@pytest.mark.behavior("core-concepts/replicas-spill-to-other-nodes")
def test_what_one_worker_cannot_hold_runs_on_another(kube: Kube, full_worker: str) -> None:
    """Where one worker has no room for another replica, and no replica is bound to it, another worker runs it."""
    (waiting,) = [pod for pod in kube.pods(app="two-large-pods") if not is_ready(pod)]

    kube.patch("ReplicaSet", "two-large-pods", {"spec": {"template": {"spec": {"nodeSelector": None}}}})
    wait_until_noticed(kube, "ReplicaSet", "two-large-pods")
    kube.delete("Pod", waiting.metadata.name)

    nodes = [pod.spec.nodeName for pod in kube.ready_pods(2, app="two-large-pods")]
    assert nodes.count(full_worker) == 1
