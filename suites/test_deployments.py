"""Deployments: from one version to the next and back again, without a moment in which nobody serves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

import pytest

from fixtures.clients import Inside
from fixtures.fields import Fields, plain
from fixtures.kube import JSON, Kube, is_ready
from fixtures.kubectl import Kubectl
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.waiting import eventually, throughout

#: The documents' Deployment, the Deployment as kubectl is told it, and the label of its Pods.
NAME = "my-nginx-deployment"
DEPLOYMENT = f"deployment/{NAME}"
LABEL = "my-nginx"

OLD, NEW = "nginx:1.22.1", "nginx:1.26.3"

#: What a client notes of an answer of either: its status and its Server header.
FROM_OLD, FROM_NEW = "200 nginx/1.22.1", "200 nginx/1.26.3"

NGINX = "deployments/deployment-nginx.yaml"
IDLE = "deployments/deployment-nginx-idle.yaml"

REVISION = "deployment.kubernetes.io/revision"
CAUSE = "kubernetes.io/change-cause"


def sized(exhibit: str, replicas: int, **spec: Any) -> Manifest:
    """An exhibit's Deployment with as many Pods as a test needs, and with more fields in its spec."""
    manifest = load(exhibit)
    manifest["spec"] |= {"replicas": replicas} | spec
    return manifest


def set_image(kube: Kube, image: str, cause: str | None = None) -> None:
    """Change the image in the Deployment's template, as `kubectl set image` does, and say why."""
    change = {"spec": {"template": {"spec": {"containers": [{"name": "nginx", "image": image}]}}}}
    kube.patch("Deployment", NAME, change | {"metadata": {"annotations": {CAUSE: cause}}})


def noticed(kube: Kube) -> Fields:
    """Wait until the controller has seen the Deployment as it is now, its last change included, and return it."""
    for look in eventually(within=patience.controller_acts):
        with look:
            now = kube.get("Deployment", NAME)
            assert now.status.observedGeneration == now.metadata.generation
    return now


def rolled_out(kube: Kube, name: str = NAME) -> Fields:
    """Wait until all Pods of the Deployment, and no others, are those of its last change; return it then."""
    for look in eventually(within=patience.rollout):
        with look:
            now = kube.get("Deployment", name)
            assert now.status.observedGeneration == now.metadata.generation
            assert now.status.updatedReplicas == now.spec.replicas
            assert now.status.availableReplicas == now.spec.replicas
            assert now.status.replicas == now.spec.replicas
    return now


def images_by_revision(kube: Kube) -> dict[str, str]:
    """The revision of each ReplicaSet, and the image in its template."""
    return {
        replicaset.metadata.annotations[REVISION]: replicaset.spec.template.spec.containers[0].image
        for replicaset in kube.list("ReplicaSet", app=LABEL)
    }


def uids(things: Iterable[Fields]) -> set[str]:
    """Who they are, whatever their names."""
    return {thing.metadata.uid for thing in things}


def owners(thing: Fields) -> list[str]:
    """The UIDs of an object's owners."""
    return [owner.uid for owner in thing.metadata.ownerReferences]


# --- what it makes


@pytest.mark.behavior("objects/deployment-makes-a-replicaset")
def test_a_deployment_makes_a_replicaset_that_makes_the_pods(kube: Kube) -> None:
    """Write a Deployment only: it makes one ReplicaSet, which it owns, and the ReplicaSet makes the Pods, which it owns."""
    deployment = kube.create(IDLE)

    pods = kube.ready_pods(3, app=LABEL)

    replicasets = kube.list("ReplicaSet")
    assert [owners(replicaset) for replicaset in replicasets] == [[deployment.metadata.uid]]
    assert [owners(pod) for pod in pods] == [[replicasets[0].metadata.uid]] * 3


@pytest.fixture
def idle(kube: Kube) -> Fields:
    """The Deployment with one Pod, which is Ready."""
    kube.create(sized(IDLE, 1))
    return rolled_out(kube)


@pytest.mark.behavior("objects/template-hash-in-names")
@pytest.mark.usefixtures("idle")
def test_names_carry_the_hash_of_the_template(kube: Kube) -> None:
    """In app-7469bbb6d7-9mhxd the middle is a hash of the Pod template; ReplicaSet and Pod carry it, as a label too."""
    (replicaset,) = kube.list("ReplicaSet", app=LABEL)
    (pod,) = kube.pods(app=LABEL)

    label = replicaset.metadata.labels["pod-template-hash"]

    assert replicaset.metadata.name == f"{NAME}-{label}"
    assert replicaset.spec.selector.matchLabels == {"app": LABEL, "pod-template-hash": label}
    assert pod.metadata.name.startswith(f"{NAME}-{label}-")
    assert pod.metadata.labels == {"app": LABEL, "pod-template-hash": label}


@pytest.fixture
def forgetful(kube: Kube) -> Fields:
    """A Deployment that keeps no old ReplicaSet, and asks for no Pods."""
    kube.create(sized(NGINX, 0, revisionHistoryLimit=0))
    return noticed(kube)


def only_replicaset(kube: Kube) -> Fields:
    """Wait until the Deployment has no other ReplicaSet than that of its last change, and return it."""
    revision = noticed(kube).metadata.annotations[REVISION]
    for look in eventually(within=patience.controller_acts):
        with look:
            replicasets = kube.list("ReplicaSet", app=LABEL)
            assert [it.metadata.annotations[REVISION] for it in replicasets] == [revision]
    return replicasets[0]


@pytest.mark.behavior("objects/template-hash-in-names")
@pytest.mark.usefixtures("forgetful")
def test_the_same_template_gives_the_same_hash(kube: Kube) -> None:
    """The hash is made from the template and nothing else: a changed one has another, the same one again the same again."""
    first = only_replicaset(kube)

    set_image(kube, NEW)
    second = only_replicaset(kube)
    set_image(kube, OLD)
    third = only_replicaset(kube)

    assert len(uids([first, second, third])) == 3
    assert first.metadata.name == third.metadata.name
    assert first.metadata.name != second.metadata.name


@pytest.mark.behavior("objects/deleting-a-deployment-cascades")
@pytest.mark.usefixtures("idle")
def test_what_a_deployment_made_goes_with_it(kube: Kube) -> None:
    """Delete the Deployment, and its ReplicaSet and Pods are deleted after it."""
    kube.delete("Deployment", NAME)

    for look in eventually(within=patience.pod_goes):
        with look:
            assert kube.list("ReplicaSet") == []
            assert kube.list("Pod") == []
    assert not kube.exists("Deployment", NAME)


@pytest.mark.behavior("objects/deleting-a-deployment-cascades")
@pytest.mark.usefixtures("idle")
def test_orphans_outlive_the_deployment(kube: Kube) -> None:
    """Delete the Deployment alone (`--cascade=orphan`), and its ReplicaSet lives on with its Pods, owned by nobody."""
    replicasets, pods = kube.list("ReplicaSet"), kube.pods()

    kube.delete("Deployment", NAME, propagation="Orphan")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert not kube.exists("Deployment", NAME)
    for look in throughout(patience.stays_so):
        with look:
            assert [owners(replicaset) for replicaset in kube.list("ReplicaSet")] == [[]]
            assert uids(kube.list("ReplicaSet")) == uids(replicasets)
            assert uids(kube.pods()) == uids(pods)


@pytest.fixture
def changes(kube: Kube) -> list[Change]:
    """What befell the three Pods of the Deployment "app" from before they were made until all were Ready."""
    with kube.record("Pod", app="app") as changes:
        kube.apply("deployments/interchangeable-pods.yaml")
        kube.ready_pods(3, app="app")
    return changes


@pytest.mark.behavior("state-and-ingress/deployment-pods-are-interchangeable")
def test_pods_of_a_deployment_are_interchangeable(kube: Kube, changes: list[Change], inside: Inside) -> None:
    """All are made at once, none waits for another; all are alike but for name and node; one Service has them all serve."""
    before_any_was_ready = takewhile(lambda change: not is_ready(change.object), changes)
    assert [change.type for change in before_any_was_ready].count("ADDED") == 3

    pods = kube.pods(app="app")
    specs = [plain(pod.spec) for pod in pods]
    different = {field for spec in specs for field in spec if spec[field] != specs[0].get(field)}
    assert different <= {"nodeName"}

    # A Service that is fair misses one of three Pods in 60 requests with a probability below 3 * (2/3)**60, 1 in 10 billion.
    address = kube.get("Service", "app").spec.clusterIP
    ask = ("curl", "--silent", "--fail-early", "--max-time", "2", "--header", "Connection: close", "--write-out", "\n")
    for look in eventually(within=patience.service_rules):
        with look:
            answers = inside.run(*ask, f"http://{address}/?[1-60]").stdout.split()
            assert set(answers) == {pod.metadata.name for pod in pods}


# --- a new version


@pytest.fixture
def first_version(kube: Kube) -> Fields:
    """The ReplicaSet of the Deployment's first revision, with one Pod of the older nginx, Ready."""
    kube.create(sized(NGINX, 1))
    rolled_out(kube)
    (replicaset,) = kube.list("ReplicaSet", app=LABEL)
    return replicaset


@pytest.mark.behavior("objects/set-image-keeps-the-old-replicaset")
def test_a_new_image_is_a_new_replicaset(kube: Kube, first_version: Fields) -> None:
    """Set another image: a second ReplicaSet has all the Pods, and the first is kept, with its image and none."""
    set_image(kube, NEW)
    rolled_out(kube)

    replicas = {it.metadata.annotations[REVISION]: it.spec.replicas for it in kube.list("ReplicaSet")}
    assert replicas == {"1": 0, "2": 1}
    assert images_by_revision(kube) == {"1": OLD, "2": NEW}
    (pod,) = kube.ready_pods(1, app=LABEL)
    assert pod.spec.containers[0].image == NEW
    assert owners(pod) != [first_version.metadata.uid]


@pytest.fixture
def four_revisions(kube: Kube) -> None:
    """A Deployment that has had four images, and asks for no Pods."""
    kube.create(sized(NGINX, 0))
    for image in (NEW, "redis:7.0.15", "busybox:1.37.0"):
        noticed(kube)
        set_image(kube, image)
    noticed(kube)
    assert images_by_revision(kube) == {"1": OLD, "2": NEW, "3": "redis:7.0.15", "4": "busybox:1.37.0"}


@pytest.mark.behavior("objects/set-image-keeps-the-old-replicaset")
@pytest.mark.usefixtures("four_revisions")
def test_a_limit_bounds_the_old_replicasets(kube: Kube) -> None:
    """Old ReplicaSets are kept up to `revisionHistoryLimit`, 10 where nobody says; beyond it the oldest are deleted."""
    kube.patch("Deployment", NAME, {"spec": {"revisionHistoryLimit": 2}})

    for look in eventually(within=patience.controller_acts):
        with look:
            assert images_by_revision(kube).keys() == {"2", "3", "4"}
    for look in throughout(patience.stays_so):
        with look:
            assert images_by_revision(kube).keys() == {"2", "3", "4"}


@pytest.fixture
def explained(kube: Kube) -> None:
    """A Deployment with two revisions, the cause of each annotated, and no Pods."""
    manifest = sized(NGINX, 0)
    manifest["metadata"]["annotations"] = {CAUSE: "the first version"}
    kube.create(manifest)
    noticed(kube)
    set_image(kube, NEW, cause="a newer nginx")
    noticed(kube)


@pytest.mark.behavior("objects/rollout-history")
@pytest.mark.usefixtures("explained")
def test_the_history_shows_annotated_causes(kubectl: Kubectl) -> None:
    """What `rollout history` shows as a cause is an annotation: write it yourself, for --record, which did, is deprecated."""
    history = kubectl("rollout", "history", DEPLOYMENT).stdout

    revisions = [line.split(maxsplit=1) for line in history.splitlines() if line[:1].isdigit()]
    assert revisions == [["1", "the first version"], ["2", "a newer nginx"]]


# --- without downtime


def lost(answers: Iterable[str]) -> Counter[str]:
    """The answers that were none, with their numbers: curl's error 7 is a refused connection, 28 is silence."""
    return Counter(answer for answer in answers if not answer.startswith("200 "))


def serving(kube: Kube, inside: Inside, replicas: int, **spec: Any) -> str:
    """Make the Deployment that can be updated without downtime, and its Service; returns its URL when it serves."""
    deployment, service = load_all("deployments/without-downtime.yaml")
    deployment["spec"] |= {"replicas": replicas} | spec
    pod, pause = deployment["spec"]["template"]["spec"], round(patience.endpoints_move)
    pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] = pause
    pod["terminationGracePeriodSeconds"] = pause + 5
    url = f"http://{kube.create(service).spec.clusterIP}:8080"
    kube.create(deployment)
    rolled_out(kube)
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(url).status == 200
    return url


def over_time(pods: Iterable[Fields], changes: Iterable[Change]) -> Iterator[tuple[int, int]]:
    """How many Pods there were after each change, and how many of them Ready; Pods on their way out are not counted."""
    now = {pod.metadata.uid: pod for pod in pods}
    for change in changes:
        now[change.object.metadata.uid] = change.object
        if change.type == "DELETED" or change.object.metadata.deletionTimestamp:
            del now[change.object.metadata.uid]
        yield len(now), sum(is_ready(pod) for pod in now.values())


def wait_until_gone(kube: Kube, pods: Iterable[Fields]) -> None:
    """Wait until the last of these Pods has ended; until then a request could still reach it."""
    for look in eventually(within=patience.rollout):
        with look:
            assert uids(kube.list("Pod")).isdisjoint(uids(pods))


@pytest.fixture
def website(kube: Kube, inside: Inside) -> str:
    """The URL of the Service before three Pods of the older nginx."""
    return serving(kube, inside, 3)


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/rolling-update-without-downtime")
def test_a_rolling_update_loses_no_request(kube: Kube, inside: Inside, website: str) -> None:
    """One new Pod is made and Ready before one old goes: there are never fewer Ready than three, and every request is served.

    It takes more than the strategy: see the manifest.
    """
    old_pods = kube.pods(app=LABEL)

    with kube.record("Pod", app=LABEL) as changes, inside.asking(website) as answers:
        set_image(kube, NEW)
        rolled_out(kube)
        wait_until_gone(kube, old_pods)

    assert not lost(answers()), f"requests were lost: {lost(answers())}"
    assert set(answers()) == {FROM_OLD, FROM_NEW}
    assert len(answers()) >= 200
    there, ready = zip(*over_time(old_pods, changes), strict=True)
    assert min(ready) == 3
    assert max(there) == 4


@pytest.fixture
def website_of_one(kube: Kube, inside: Inside) -> str:
    """The URL of the same Service before one Pod, which is updated by the strategy Recreate."""
    return serving(kube, inside, 1, strategy={"type": "Recreate"})


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/rolling-update-without-downtime")
def test_recreating_loses_requests(kube: Kube, inside: Inside, website_of_one: str) -> None:
    """With the strategy Recreate the old Pods end before new ones are made. The same client sees that nobody serves."""
    old_pods = kube.pods(app=LABEL)

    with kube.record("Pod", app=LABEL) as changes, inside.asking(website_of_one) as answers:
        set_image(kube, NEW)
        for look in eventually(within=patience.rollout):
            with look:
                assert FROM_NEW in answers()

    assert FROM_OLD in answers()
    assert lost(answers()), "every request was served"
    there, ready = zip(*over_time(old_pods, changes), strict=True)
    assert min(ready) == 0
    assert max(there) == 1


# --- and back


@pytest.fixture
def second_version(kube: Kube, first_version: Fields) -> Fields:
    """The ReplicaSet of the first revision, when the second has taken its place."""
    set_image(kube, NEW)
    rolled_out(kube)
    return first_version


@pytest.mark.behavior("objects/rollback-to-a-revision", "core-concepts/rollback")
def test_rolling_back_uses_the_old_replicaset_again(
    kube: Kube, kubectl: Kubectl, inside: Inside, second_version: Fields
) -> None:
    """`rollout undo --to-revision=1`: the first ReplicaSet gets its Pods again, as revision 3; revision 1 is no more."""
    assert kubectl("rollout", "undo", DEPLOYMENT, "--to-revision=1").code == 0
    rolled_out(kube)

    assert images_by_revision(kube) == {"2": NEW, "3": OLD}
    (pod,) = kube.ready_pods(1, app=LABEL)
    assert owners(pod) == [second_version.metadata.uid]
    for look in eventually(within=patience.server_listens):
        with look:
            head = inside.run("curl", "--silent", "--head", f"http://{pod.status.podIP}")
            assert "Server: nginx/1.22.1" in head.stdout.splitlines()


@pytest.mark.behavior("objects/rollback-to-a-revision", "core-concepts/rollback")
@pytest.mark.usefixtures("four_revisions")
def test_rolling_back_goes_one_revision_back(kube: Kube, kubectl: Kubectl) -> None:
    """`rollout undo` goes to the revision before the last; that becomes the newest, so a second undo goes forth again."""
    assert kubectl("rollout", "undo", DEPLOYMENT).code == 0
    noticed(kube)
    assert images_by_revision(kube) == {"1": OLD, "2": NEW, "5": "redis:7.0.15", "4": "busybox:1.37.0"}

    assert kubectl("rollout", "undo", DEPLOYMENT).code == 0
    noticed(kube)
    assert images_by_revision(kube) == {"1": OLD, "2": NEW, "5": "redis:7.0.15", "6": "busybox:1.37.0"}


@pytest.fixture
def impatient(kube: Kube) -> list[Fields]:
    """The Ready Pods of a Deployment of two that calls a rollout stuck after three seconds without progress."""
    kube.create(sized(NGINX, 2, progressDeadlineSeconds=3))
    rolled_out(kube)
    return kube.ready_pods(2, app=LABEL)


def progress(kube: Kube) -> tuple[str, str]:
    """Status and reason of the Deployment's condition Progressing, when the controller has seen its last change."""
    ((status, reason),) = [(it.status, it.reason) for it in noticed(kube).status.conditions if it.type == "Progressing"]
    return status, reason


def undo(kube: Kube, to: Fields) -> None:
    """Roll back as `kubectl rollout undo` does: an earlier ReplicaSet's template becomes the Deployment's again."""
    template = plain(to.spec.template)
    del template["metadata"]["labels"]["pod-template-hash"]
    kube.patch("Deployment", NAME, [{"op": "replace", "path": "/spec/template", "value": template}], type=JSON)


@pytest.mark.behavior("core-concepts/rollback")
def test_a_stuck_rollout_is_healed_by_going_back(kube: Kube, inside: Inside, impatient: list[Fields]) -> None:
    """An image that cannot be had stops the rollout at its first Pod: the old ones serve on, and going back ends the trouble."""
    (working,) = kube.list("ReplicaSet", app=LABEL)

    set_image(kube, "localhost/no-such-image:1.0")

    for look in eventually(within=patience.progress_deadline):
        with look:
            assert progress(kube) == ("False", "ProgressDeadlineExceeded")
    assert len(kube.pods(app=LABEL)) == 3
    assert {inside.get(f"http://{pod.status.podIP}").status for pod in impatient} == {200}

    undo(kube, to=working)

    for look in eventually(within=patience.rollout):
        with look:
            assert progress(kube) == ("True", "NewReplicaSetAvailable")
    assert uids(kube.ready_pods(2, app=LABEL)) == uids(impatient)


# --- pause and resume


@pytest.mark.behavior("core-concepts/pause-and-resume")
def test_changes_during_a_pause_become_one_rollout(kube: Kube, first_version: Fields) -> None:
    """A paused Deployment takes changes and makes nothing of them; resumed, it makes one ReplicaSet of all of them."""
    kube.patch("Deployment", NAME, {"spec": {"paused": True}})
    set_image(kube, NEW)
    container = {"name": "nginx", "resources": {"requests": {"cpu": "1m"}}}
    kube.patch("Deployment", NAME, {"spec": {"template": {"spec": {"containers": [container]}}}})

    noticed(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert uids(kube.list("ReplicaSet")) == {first_version.metadata.uid}

    kube.patch("Deployment", NAME, {"spec": {"paused": False}})
    rolled_out(kube)

    assert images_by_revision(kube) == {"1": OLD, "2": NEW}
    (pod,) = kube.ready_pods(1, app=LABEL)
    assert pod.spec.containers[0].image == NEW
    assert pod.spec.containers[0].resources.requests == {"cpu": "1m"}


# --- with kubectl


@pytest.fixture
def mynginx(kube: Kube, kubectl: Kubectl) -> Fields:
    """The Deployment that `kubectl create deployment` makes, its one Pod Ready."""
    made = kubectl("create", "deployment", "mynginx", f"--image={NEW}")
    assert made.code == 0, made.stderr
    return rolled_out(kube, "mynginx")


@pytest.mark.behavior("nginx-walkthrough/create-deployment-makes-all-three")
def test_create_deployment_makes_all_three(kube: Kube, kubectl: Kubectl) -> None:
    """One command gives a Deployment, its ReplicaSet and its Pod, each owned by the one before, labelled with its name."""
    assert kubectl("create", "deployment", "mynginx", f"--image={NEW}").code == 0

    (pod,) = kube.ready_pods(1, app="mynginx")
    deployment = kube.get("Deployment", "mynginx")
    replicasets = kube.list("ReplicaSet", app="mynginx")
    assert deployment.metadata.labels == {"app": "mynginx"}
    assert [owners(replicaset) for replicaset in replicasets] == [[deployment.metadata.uid]]
    assert owners(pod) == [replicasets[0].metadata.uid]


@pytest.mark.behavior("nginx-walkthrough/wide-output-names-node-and-ip")
@pytest.mark.usefixtures("mynginx")
def test_wide_output_names_node_and_address(kube: Kube, kubectl: Kubectl) -> None:
    """`-o wide` adds each Pod's address and node. kubectl does not gather them: the server's own table has all columns."""
    (pod,) = kube.pods(app="mynginx")
    columns = {"NAME": pod.metadata.name, "IP": pod.status.podIP, "NODE": pod.spec.nodeName}

    head, row = (re.split(" {2,}", line) for line in kubectl("get", "pods", "-o", "wide").stdout.splitlines())
    path = kube.api.resource("Pod").path(namespace=kube.namespace)
    table = kube.api.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    assert columns.items() <= dict(zip(head, row, strict=True)).items()
    titles = [column["name"].upper() for column in table["columnDefinitions"]]
    (cells,) = [row["cells"] for row in table["rows"]]
    assert columns.items() <= dict(zip(titles, cells, strict=True)).items()


@pytest.mark.behavior("nginx-walkthrough/scale-to-four")
@pytest.mark.parametrize("way", ["edited", "scaled"])
def test_four_replicas_are_four_pods(kube: Kube, kubectl: Kubectl, mynginx: Fields, way: str) -> None:
    """Write 4 into the Deployment's `replicas`, or have `kubectl scale` do it: three more Pods join the one."""
    (first,) = kube.pods(app="mynginx")
    assert mynginx.spec.replicas == 1

    if way == "edited":
        kube.patch("Deployment", "mynginx", {"spec": {"replicas": 4}})
    else:
        assert kubectl("scale", "deployment", "mynginx", "--replicas=4").code == 0

    assert uids([first]) < uids(kube.ready_pods(4, app="mynginx"))
    assert len(kube.list("ReplicaSet")) == 1


@pytest.mark.behavior("nginx-walkthrough/describe-deployment")
def test_describe_shows_what_the_object_and_its_events_say(kube: Kube, kubectl: Kubectl, mynginx: Fields) -> None:
    """`kubectl describe` gathers in one page the numbers, the strategy, the conditions and the events of a Deployment."""
    conditions = {(it.type, it.status, it.reason) for it in mynginx.status.conditions}
    assert {kind for kind, _, _ in conditions} >= {"Available", "Progressing"}

    for look in eventually(within=patience.controller_acts):
        with look:
            events = kube.events(mynginx)
            assert [event.reason for event in events] == ["ScalingReplicaSet"]
    page = kubectl("describe", "deployment", "mynginx").stdout

    lines = [line.split() for line in page.splitlines()]
    assert ["StrategyType:", mynginx.spec.strategy.type] in lines
    (numbers,) = [" ".join(line[1:]) for line in lines if line[:1] == ["Replicas:"]]
    assert numbers == "1 desired | 1 updated | 1 total | 1 available | 0 unavailable"
    assert conditions <= {tuple(line) for line in lines}
    assert [event.message for event in events if event.message not in page] == []
