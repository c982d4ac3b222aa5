"""Deployments: from one version to the next and back again, without downtime."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any

import pytest

from fixtures.clients import Inside, silence
from fixtures.counting import exactly
from fixtures.fields import Fields, plain
from fixtures.kube import Kube, is_ready
from fixtures.kubectl import Kubectl
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.waiting import eventually, throughout

#: The documents' Deployment, the same as an argument of kubectl, and the label of its Pods.
NAME = "my-nginx-deployment"
DEPLOYMENT = f"deployment/{NAME}"
LABEL = "my-nginx"

OLD, NEW = "nginx:1.22.1", "nginx:1.26.3"

#: What a client writes down of an answer of either version: the status and the Server header.
FROM_OLD, FROM_NEW = "200 nginx/1.22.1", "200 nginx/1.26.3"

NGINX = "deployments/deployment-nginx.yaml"
IDLE = "deployments/deployment-nginx-idle.yaml"

REVISION = "deployment.kubernetes.io/revision"
CAUSE = "kubernetes.io/change-cause"


def with_replicas(manifest: str, replicas: int, **spec: Any) -> Manifest:
    """The manifest's Deployment with as many Pods as a test needs, and with more fields in its spec."""
    document = load(manifest)
    document["spec"] |= {"replicas": replicas} | spec
    return document


def set_image(kube: Kube, image: str, cause: str | None = None) -> None:
    """Change the image in the Deployment's template, as `kubectl set image` does, and say why."""
    change = {"spec": {"template": {"spec": {"containers": [{"name": "nginx", "image": image}]}}}}
    kube.patch("Deployment", NAME, change | {"metadata": {"annotations": {CAUSE: cause}}})


def observed(kube: Kube) -> Fields:
    """Wait until the controller has observed the Deployment's last change; return the Deployment."""
    for look in eventually(within=patience.controller_acts):
        with look:
            now = kube.get("Deployment", NAME)
            assert now.status.observedGeneration == now.metadata.generation
    return now


def revision(thing: Fields) -> str:
    """The revision of a Deployment or of a ReplicaSet, which is an annotation; "None" where there is none."""
    return str(thing.metadata.annotations.get(REVISION))


def image(replicaset: Fields) -> str:
    """The image in the ReplicaSet's template."""
    return str(replicaset.spec.template.spec.containers[0].image)


def images_by_revision(kube: Kube) -> dict[str, str]:
    """The revision of each ReplicaSet, and the image in its template."""
    return {revision(replicaset): image(replicaset) for replicaset in kube.list("ReplicaSet", app=LABEL)}


def wait_for_images(kube: Kube, images: Mapping[str, str]) -> Fields:
    """Wait until the Deployment's ReplicaSets have exactly these revisions and images; return the Deployment.

    The controller takes the next revision from the ReplicaSets that it knows. If it has not yet heard of the latest one,
    it corrects the number when it has.
    """
    deployment = observed(kube)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert images_by_revision(kube) == images
    return deployment


def uids(things: Iterable[Fields]) -> set[str]:
    """The UIDs of objects."""
    return {thing.metadata.uid for thing in things}


def owners(thing: Fields) -> list[str]:
    """The UIDs of an object's owners."""
    return [owner.uid for owner in thing.metadata.ownerReferences]


def over_time(before: Iterable[Fields], changes: Iterable[Change]) -> Iterator[list[Fields]]:
    """The objects that existed before the first change, then those that existed after each change."""
    now = {thing.metadata.uid: thing for thing in before}
    yield list(now.values())
    for change in changes:
        now[change.object.metadata.uid] = change.object
        if change.type == "DELETED":
            del now[change.object.metadata.uid]
        yield list(now.values())


def serves(pod: Fields) -> bool:
    """The Pod is Ready, and nothing has asked it to end."""
    return is_ready(pod) and pod.metadata.deletionTimestamp is None


def has_ended(pod: Fields) -> bool:
    """None of the Pod's containers runs any more."""
    return pod.status.phase in ("Succeeded", "Failed")


# --- what it makes


@pytest.mark.behavior("objects/deployment-makes-a-replicaset")
def test_a_deployment_makes_a_replicaset_that_makes_the_pods(kube: Kube) -> None:
    """Create a Deployment, and no more: it makes and owns one ReplicaSet, which makes and owns the Pods."""
    deployment = kube.create(IDLE)

    pods = kube.ready_pods(3, app=LABEL)

    (replicaset,) = exactly(1, kube.list("ReplicaSet"))
    assert owners(replicaset) == [deployment.metadata.uid]
    assert [owners(pod) for pod in pods] == [[replicaset.metadata.uid]] * 3


@pytest.fixture
def idle(kube: Kube) -> Fields:
    """The Deployment with one Pod, which is Ready."""
    kube.create(with_replicas(IDLE, 1))
    return kube.rolled_out("Deployment", NAME)


@pytest.mark.behavior("objects/template-hash-in-names")
@pytest.mark.usefixtures("idle")
def test_names_carry_the_hash_of_the_template(kube: Kube) -> None:
    """In app-7469bbb6d7-9mhxd the middle is a hash of the Pod template. The ReplicaSet and the Pod have it as a label, too."""
    (replicaset,) = exactly(1, kube.list("ReplicaSet", app=LABEL))
    (pod,) = exactly(1, kube.pods(app=LABEL))

    label = replicaset.metadata.labels.get("pod-template-hash")

    assert replicaset.metadata.name == f"{NAME}-{label}"
    assert replicaset.spec.selector.matchLabels == {"app": LABEL, "pod-template-hash": label}
    assert pod.metadata.name.startswith(f"{NAME}-{label}-")
    assert pod.metadata.labels == {"app": LABEL, "pod-template-hash": label}


@pytest.fixture
def without_history(kube: Kube) -> Fields:
    """A Deployment that keeps no old ReplicaSet, and asks for no Pods."""
    kube.create(with_replicas(NGINX, 0, revisionHistoryLimit=0))
    return observed(kube)


def only_replicaset(kube: Kube) -> Fields:
    """Wait until the Deployment has no ReplicaSet but that of its last change, and return it."""
    observed(kube)
    for look in eventually(within=patience.controller_acts):
        with look:
            (replicaset,) = exactly(1, kube.list("ReplicaSet", app=LABEL))
            assert revision(replicaset) == revision(kube.get("Deployment", NAME))
    return replicaset


@pytest.mark.behavior("objects/template-hash-in-names")
@pytest.mark.usefixtures("without_history")
def test_the_same_template_gives_the_same_hash(kube: Kube) -> None:
    """The hash depends on the template alone: another template has another hash, the same one again the same."""
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
def test_deleting_a_deployment_deletes_what_it_made(kube: Kube) -> None:
    """Delete the Deployment: its ReplicaSet and its Pods are deleted after it."""
    kube.delete("Deployment", NAME)

    for look in eventually(within=patience.pod_goes):
        with look:
            assert kube.list("ReplicaSet") == []
            assert kube.list("Pod") == []
    assert not kube.exists("Deployment", NAME)


@pytest.mark.behavior("objects/deleting-a-deployment-cascades")
@pytest.mark.usefixtures("idle")
def test_orphans_outlive_the_deployment(kube: Kube) -> None:
    """Delete the Deployment alone (`--cascade=orphan`): its ReplicaSet stays, with its Pods and without an owner."""
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


@pytest.mark.behavior("state-and-ingress/deployment-pods-are-interchangeable")
def test_pods_of_a_deployment_are_interchangeable(kube: Kube, inside: Inside) -> None:
    """All are made at once, none waits for another. They differ in name and node only, and all of them serve one Service."""
    with kube.record("Pod", app="app") as changes:
        service = kube.apply("deployments/interchangeable-pods.yaml")
        pods = kube.ready_pods(3, app="app")

    before_any_was_ready = takewhile(lambda change: not is_ready(change.object), changes)
    assert [change.type for change in before_any_was_ready].count("ADDED") == 3

    specs = [plain(pod.spec) | {"nodeName": "any"} for pod in pods]
    assert specs == [specs[0]] * 3

    # A fair Service misses one of three Pods in 60 requests with a probability below 3 * (2/3)**60, 1 in 10 billion.
    limit = ("--max-time", f"{silence():g}")
    ask = ("curl", "--silent", "--fail-early", *limit, "--header", "Connection: close", "--write-out", "\n")
    for look in eventually(within=patience.service_rules):
        with look:
            answers = inside.run(*ask, f"http://{service.spec.clusterIP}/?[1-60]").stdout.split()
            assert set(answers) == {pod.metadata.name for pod in pods}


# --- a new version


@pytest.fixture
def first_version(kube: Kube) -> Fields:
    """The ReplicaSet of the Deployment's first revision, with one Pod of the older nginx, Ready."""
    kube.create(with_replicas(NGINX, 1))
    kube.rolled_out("Deployment", NAME)
    (replicaset,) = exactly(1, kube.list("ReplicaSet", app=LABEL))
    return replicaset


@pytest.mark.behavior("objects/set-image-keeps-the-old-replicaset")
def test_a_new_image_is_a_new_replicaset(kube: Kube, first_version: Fields) -> None:
    """Set another image: a second ReplicaSet gets all the Pods. The first one is kept, with its image and without Pods."""
    set_image(kube, NEW)
    kube.rolled_out("Deployment", NAME)

    replicas = {revision(replicaset): replicaset.spec.replicas for replicaset in kube.list("ReplicaSet")}
    assert replicas == {"1": 0, "2": 1}
    assert images_by_revision(kube) == {"1": OLD, "2": NEW}
    (pod,) = exactly(1, kube.ready_pods(1, app=LABEL))
    assert pod.spec.containers[0].image == NEW
    assert owners(pod) != [first_version.metadata.uid]


@pytest.fixture
def four_revisions(kube: Kube) -> Fields:
    """A Deployment that has had four images, and asks for no Pods."""
    kube.create(with_replicas(NGINX, 0))
    images = {"1": OLD}
    for number, later in (("2", NEW), ("3", "redis:7.0.15"), ("4", "busybox:1.37.0")):
        wait_for_images(kube, images)
        set_image(kube, later)
        images[number] = later
    return wait_for_images(kube, images)


@pytest.mark.behavior("objects/set-image-keeps-the-old-replicaset")
def test_old_replicasets_are_kept_up_to_a_limit(kube: Kube, four_revisions: Fields) -> None:
    """As many old ReplicaSets are kept as `revisionHistoryLimit` says, by default 10. The oldest are deleted first."""
    assert four_revisions.spec.revisionHistoryLimit == 10

    kube.patch("Deployment", NAME, {"spec": {"revisionHistoryLimit": 2}})

    for look in eventually(within=patience.controller_acts):
        with look:
            assert images_by_revision(kube).keys() == {"2", "3", "4"}
    for look in throughout(patience.stays_so):
        with look:
            assert images_by_revision(kube).keys() == {"2", "3", "4"}


@pytest.fixture
def two_causes(kube: Kube) -> None:
    """A Deployment with two revisions, each annotated with its cause, and no Pods."""
    manifest = with_replicas(NGINX, 0)
    manifest["metadata"]["annotations"] = {CAUSE: "the first version"}
    kube.create(manifest)
    wait_for_images(kube, {"1": OLD})
    set_image(kube, NEW, cause="a newer nginx")
    wait_for_images(kube, {"1": OLD, "2": NEW})


@pytest.mark.behavior("objects/rollout-history")
@pytest.mark.usefixtures("two_causes")
def test_rollout_history_shows_the_annotated_causes(kubectl: Kubectl) -> None:
    """`rollout history` shows an annotation as the cause. Write it yourself: --record, which wrote it, is deprecated."""
    history = kubectl("rollout", "history", DEPLOYMENT).stdout

    revisions = [line.split(maxsplit=1) for line in history.splitlines() if line[:1].isdigit()]
    assert revisions == [["1", "the first version"], ["2", "a newer nginx"]]


# --- without downtime


def serving(kube: Kube, inside: Inside, replicas: int, **spec: Any) -> str:
    """Create the Deployment that can be updated without downtime, and its Service; return the URL when it answers."""
    deployment, service = load_all("deployments/without-downtime.yaml")
    deployment["spec"] |= {"replicas": replicas} | spec
    pod, pause = deployment["spec"]["template"]["spec"], round(patience.endpoints_move)
    pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] = pause
    pod["terminationGracePeriodSeconds"] = pause + 5
    url = f"http://{kube.create(service).spec.clusterIP}:8080"
    kube.create(deployment)
    kube.rolled_out("Deployment", NAME)
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(url).status == 200
    return url


@pytest.fixture
def website(kube: Kube, inside: Inside) -> str:
    """The URL of a Service whose three Pods run the older nginx."""
    return serving(kube, inside, 3)


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/rolling-update-without-downtime")
def test_a_rolling_update_loses_no_request(kube: Kube, inside: Inside, website: str) -> None:
    """A new Pod is Ready before an old one is asked to end: three are Ready at any time, and every request is served.

    The strategy alone is not enough: see the manifest.
    """
    old_pods, old_replicasets = kube.pods(app=LABEL), kube.list("ReplicaSet", app=LABEL)

    with (
        kube.record("Pod", app=LABEL) as pods,
        kube.record("ReplicaSet", app=LABEL) as replicasets,
        inside.asking(website) as answers,
    ):
        set_image(kube, NEW)
        kube.rolled_out("Deployment", NAME)
        for look in eventually(within=patience.rollout):
            with look:
                assert uids(kube.list("Pod", app=LABEL)).isdisjoint(uids(old_pods)), "an old Pod has not ended yet"

    assert set(answers()) == {FROM_OLD, FROM_NEW}
    assert len(answers()) >= 200
    ready = [sum(serves(pod) for pod in now) for now in over_time(old_pods, pods)]
    assert min(ready) == 3
    # maxSurge limits what the ReplicaSets ask for. There can be a Pod more for a moment, until its ReplicaSet deletes it.
    wanted = [sum(it.spec.replicas for it in now) for now in over_time(old_replicasets, replicasets)]
    assert max(wanted) == 4


@pytest.fixture
def website_of_one(kube: Kube, inside: Inside) -> str:
    """The URL of the same Service with one Pod, which is updated by the strategy Recreate."""
    return serving(kube, inside, 1, strategy={"type": "Recreate"})


@pytest.mark.starts_first
@pytest.mark.behavior("core-concepts/rolling-update-without-downtime")
def test_recreating_loses_requests(kube: Kube, inside: Inside, website_of_one: str) -> None:
    """With the strategy Recreate, new Pods are made after the old ones have ended. In between, requests are lost."""
    old_pods = kube.pods(app=LABEL)

    with kube.record("Pod", app=LABEL) as pods, inside.asking(website_of_one) as answers:
        set_image(kube, NEW)
        for look in eventually(within=patience.rollout):
            with look:
                assert FROM_NEW in answers()

    assert set(answers()) > {FROM_OLD, FROM_NEW}, f"no request was lost: {set(answers())}"
    not_ended = [sum(not has_ended(pod) for pod in now) for now in over_time(old_pods, pods)]
    assert min(not_ended) == 0
    assert max(not_ended) == 1


# --- and back


@pytest.fixture
def second_version(kube: Kube, first_version: Fields) -> Fields:
    """The ReplicaSet of the first revision, after the rollout of the second."""
    set_image(kube, NEW)
    kube.rolled_out("Deployment", NAME)
    return first_version


@pytest.mark.behavior("objects/rollback-to-a-revision", "core-concepts/rollback")
def test_rolling_back_uses_the_old_replicaset_again(
    kube: Kube, kubectl: Kubectl, inside: Inside, second_version: Fields
) -> None:
    """`rollout undo --to-revision=1`: the first ReplicaSet has all the Pods again. It is revision 3 now, and there is no 1."""
    assert kubectl("rollout", "undo", DEPLOYMENT, "--to-revision=1").code == 0
    kube.rolled_out("Deployment", NAME)

    assert images_by_revision(kube) == {"2": NEW, "3": OLD}
    (pod,) = exactly(1, kube.ready_pods(1, app=LABEL))
    assert owners(pod) == [second_version.metadata.uid]
    for look in eventually(within=patience.server_listens):
        with look:
            head = inside.run("curl", "--silent", "--head", f"http://{pod.status.podIP}")
            assert "Server: nginx/1.22.1" in head.stdout.splitlines()


@pytest.mark.behavior("objects/rollback-to-a-revision", "core-concepts/rollback")
@pytest.mark.usefixtures("four_revisions")
def test_rolling_back_goes_one_revision_back(kube: Kube, kubectl: Kubectl) -> None:
    """`rollout undo` goes to the revision before the newest, which becomes the newest itself: a second undo undoes the first."""
    assert kubectl("rollout", "undo", DEPLOYMENT).code == 0
    wait_for_images(kube, {"1": OLD, "2": NEW, "5": "redis:7.0.15", "4": "busybox:1.37.0"})

    assert kubectl("rollout", "undo", DEPLOYMENT).code == 0
    wait_for_images(kube, {"1": OLD, "2": NEW, "5": "redis:7.0.15", "6": "busybox:1.37.0"})


@pytest.fixture
def two_pods(kube: Kube) -> list[Fields]:
    """The Ready Pods of a Deployment of two that calls a rollout stuck after three seconds without progress."""
    kube.create(with_replicas(NGINX, 2, progressDeadlineSeconds=3))
    kube.rolled_out("Deployment", NAME)
    return kube.ready_pods(2, app=LABEL)


def progress(kube: Kube) -> tuple[str, str]:
    """Status and reason of the Deployment's condition Progressing, after its last change was observed."""
    (condition,) = exactly(1, [it for it in observed(kube).status.conditions if it.type == "Progressing"])
    return condition.status, condition.reason


@pytest.mark.behavior("core-concepts/rollback")
def test_rolling_back_ends_a_stuck_rollout(
    kube: Kube, kubectl: Kubectl, inside: Inside, two_pods: list[Fields]
) -> None:
    """An image that cannot be pulled stops the rollout at its first Pod. The old Pods serve on, and a rollback ends it."""
    set_image(kube, "localhost/no-such-image:1.0")

    for look in eventually(within=patience.progress_deadline):
        with look:
            assert progress(kube) == ("False", "ProgressDeadlineExceeded")
    replicas = {image(replicaset): replicaset.spec.replicas for replicaset in kube.list("ReplicaSet", app=LABEL)}
    assert replicas == {OLD: 2, "localhost/no-such-image:1.0": 1}
    for look in eventually(within=patience.server_listens):
        with look:
            assert {inside.get(f"http://{pod.status.podIP}").status for pod in two_pods} == {200}

    assert kubectl("rollout", "undo", DEPLOYMENT).code == 0

    for look in eventually(within=patience.rollout):
        with look:
            assert progress(kube) == ("True", "NewReplicaSetAvailable")
    assert uids(kube.ready_pods(2, app=LABEL)) == uids(two_pods)


# --- pause and resume


@pytest.mark.behavior("core-concepts/pause-and-resume")
def test_changes_during_a_pause_become_one_rollout(kube: Kube, first_version: Fields) -> None:
    """While a Deployment is paused, changes have no effect. When it is resumed, all of them become one ReplicaSet."""
    kube.patch("Deployment", NAME, {"spec": {"paused": True}})
    set_image(kube, NEW)
    container = {"name": "nginx", "resources": {"requests": {"cpu": "1m"}}}
    kube.patch("Deployment", NAME, {"spec": {"template": {"spec": {"containers": [container]}}}})

    observed(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert uids(kube.list("ReplicaSet")) == {first_version.metadata.uid}

    kube.patch("Deployment", NAME, {"spec": {"paused": False}})
    kube.rolled_out("Deployment", NAME)

    assert images_by_revision(kube) == {"1": OLD, "2": NEW}
    (pod,) = exactly(1, kube.ready_pods(1, app=LABEL))
    assert pod.spec.containers[0].image == NEW
    assert pod.spec.containers[0].resources.requests == {"cpu": "1m"}


# --- with kubectl


@pytest.fixture
def mynginx(kube: Kube, kubectl: Kubectl) -> Fields:
    """The Deployment that `kubectl create deployment` makes, its one Pod Ready."""
    made = kubectl("create", "deployment", "mynginx", f"--image={NEW}")
    assert made.code == 0, made.stderr
    return kube.rolled_out("Deployment", "mynginx")


@pytest.mark.behavior("nginx-walkthrough/create-deployment-makes-all-three")
def test_create_deployment_makes_all_three(kube: Kube, kubectl: Kubectl) -> None:
    """One command makes a Deployment, a ReplicaSet and a Pod: each owns the next, and all have the label `app`."""
    assert kubectl("create", "deployment", "mynginx", f"--image={NEW}").code == 0

    (pod,) = exactly(1, kube.ready_pods(1, app="mynginx"))
    (replicaset,) = exactly(1, kube.list("ReplicaSet", app="mynginx"))
    (deployment,) = exactly(1, kube.list("Deployment", app="mynginx"))
    assert deployment.metadata.name == "mynginx"
    assert owners(replicaset) == [deployment.metadata.uid]
    assert owners(pod) == [replicaset.metadata.uid]


def by_title(titles: list[str], cells: list[Any]) -> dict[str, Any]:
    """A table's row: each cell by its column's title."""
    return dict(zip(titles, exactly(len(titles), cells), strict=False))


@pytest.mark.behavior("nginx-walkthrough/wide-output-names-node-and-ip")
@pytest.mark.usefixtures("mynginx")
def test_wide_output_names_node_and_address(kube: Kube, kubectl: Kubectl) -> None:
    """`-o wide` adds each Pod's address and node. The API server makes this table, with all its columns; kubectl prints it."""
    (pod,) = exactly(1, kube.pods(app="mynginx"))
    columns = {"NAME": pod.metadata.name, "IP": pod.status.podIP, "NODE": pod.spec.nodeName}

    head, row = exactly(2, kubectl("get", "pods", "-o", "wide").stdout.splitlines())
    path = kube.api.resource("Pod").path(namespace=kube.namespace)
    table = kube.api.call("GET", path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    assert columns.items() <= by_title(re.split(" {2,}", head), re.split(" {2,}", row)).items()
    (only,) = exactly(1, table["rows"])
    titles = [column["name"].upper() for column in table["columnDefinitions"]]
    assert columns.items() <= by_title(titles, only["cells"]).items()


#: An editor that changes the `replicas` of the spec; the status has a line like it.
EDITOR = "sed -i.bak '/^spec:/,/^status:/s/^  replicas: 1$/  replicas: 4/' \"$1\""


@pytest.mark.behavior("nginx-walkthrough/scale-to-four")
@pytest.mark.parametrize("way", ["edited", "scaled"])
def test_four_replicas_are_four_pods(kube: Kube, kubectl: Kubectl, mynginx: Fields, way: str) -> None:
    """Change `replicas` to 4 in `kubectl edit`, or let `kubectl scale` do it: three more Pods join the first one."""
    (first,) = exactly(1, kube.pods(app="mynginx"))
    assert mynginx.spec.replicas == 1

    if way == "edited":
        assert kubectl("edit", "deployment", "mynginx", editor=EDITOR).code == 0
    else:
        assert kubectl("scale", "deployment", "mynginx", "--replicas=4").code == 0

    assert uids([first]) < uids(kube.ready_pods(4, app="mynginx"))
    exactly(1, kube.list("ReplicaSet"))


@pytest.mark.behavior("nginx-walkthrough/describe-deployment")
def test_describe_shows_what_the_object_and_its_events_say(kube: Kube, kubectl: Kubectl, mynginx: Fields) -> None:
    """`kubectl describe` shows the replica counts, the strategy, the conditions and the events of a Deployment on one page."""
    conditions = {(it.type, it.status, it.reason) for it in mynginx.status.conditions}
    assert {kind for kind, _, _ in conditions} >= {"Available", "Progressing"}

    for look in eventually(within=patience.controller_acts):
        with look:
            events = kube.events(mynginx)
            assert [event.reason for event in events] == ["ScalingReplicaSet"]
    page = kubectl("describe", "deployment", "mynginx").stdout

    lines = [line.split() for line in page.splitlines()]
    assert ["StrategyType:", mynginx.spec.strategy.type] in lines
    numbers = [" ".join(line[1:]) for line in lines if line[:1] == ["Replicas:"]]
    assert numbers == ["1 desired | 1 updated | 1 total | 1 available | 0 unavailable"]
    assert conditions <= {tuple(line) for line in lines}
    assert [event.message for event in events if event.message not in page] == []
