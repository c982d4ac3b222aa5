"""StatefulSets: Pods with a stable name, an order, and a PersistentVolumeClaim (PVC) of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from fixtures.clients import Inside
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.kube import Kube, is_ready
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.scheduling import selecting
from fixtures.storage import wait_until_bound
from fixtures.waiting import eventually, throughout

DATABASE = "statefulsets/mongo.yaml"
IDLE = "statefulsets/mongo-idle.yaml"

PVC = "PersistentVolumeClaim"

#: The name of the PVC that mongo-0 gets from the template `data`.
PVC_OF_MONGO_0 = "data-mongo-0"


def statefulset(manifest: str, **spec: object) -> tuple[Manifest, Manifest]:
    """A manifest's Service and StatefulSet, with these fields of the StatefulSet's spec changed."""
    service, workload = load_all(manifest)
    workload["spec"] |= spec
    return service, workload


def names(objects: Iterable[Fields]) -> list[str]:
    """The objects' names, in order."""
    return [thing.metadata.name for thing in objects]


def successor(kube: Kube, earlier: Fields) -> Fields:
    """Wait until the StatefulSet's only Pod is Ready and is not `earlier`, which has to end first, and return it."""
    for look in eventually(within=patience.rollout):
        with look:
            (pod,) = exactly(1, (pod for pod in kube.pods(app="mongo") if is_ready(pod)))
            assert pod.metadata.uid != earlier.metadata.uid
    return pod


def wait_until_gone(kube: Kube) -> None:
    """Wait until the StatefulSet has no Pod, not even a terminating one."""
    for look in eventually(within=patience.pod_goes):
        with look:
            assert names(kube.list("Pod", app="mongo")) == []


def redis(kube: Kube, pod: str, *command: str) -> str:
    """The answer of the database in a Pod to a command, as soon as it listens and has loaded its data."""
    for look in eventually(within=patience.server_listens):
        with look:
            output = kube.exec(pod, "redis-cli", "-e", *command)
            assert output.code == 0, output
    return output.stdout.strip()


# --- names


@pytest.fixture
def pods_side_by_side(kube: Kube) -> tuple[list[Fields], list[Fields]]:
    """Two Pods of a StatefulSet and two of a Deployment, all Ready."""
    kube.apply(IDLE)
    kube.apply("statefulsets/app.yaml")
    kube.rolled_out("StatefulSet", "mongo")
    return kube.ready_pods(2, app="mongo"), kube.ready_pods(2, app="app")


@pytest.mark.behavior("state-and-ingress/stable-names")
def test_statefulset_pods_are_numbered_deployment_pods_are_not(
    kube: Kube, pods_side_by_side: tuple[list[Fields], list[Fields]]
) -> None:
    """A StatefulSet's Pods are mongo-0 and mongo-1, and the next mongo-0 is mongo-0; a Deployment's names are random."""
    of_statefulset, of_deployment = pods_side_by_side
    assert names(of_statefulset) == ["mongo-0", "mongo-1"]
    assert [name for name in names(of_deployment) if not re.fullmatch(r"app-\w+-\w{5}", name)] == []

    kube.delete("Pod", "mongo-0")
    kube.delete("Pod", of_deployment[0].metadata.name)

    kept = of_deployment[1].metadata.name
    (replacement,) = exactly(1, (name for name in names(kube.ready_pods(2, app="app")) if name != kept))
    assert replacement != of_deployment[0].metadata.name
    for look in eventually(within=patience.rollout):
        with look:
            ready = {pod.metadata.name: pod.metadata.uid for pod in kube.pods(app="mongo") if is_ready(pod)}
            assert ready.keys() == {"mongo-0", "mongo-1"}
            assert ready["mongo-0"] != of_statefulset[0].metadata.uid


@pytest.fixture
def two_pods(kube: Kube) -> list[Fields]:
    """The two Pods of a StatefulSet without storage, Ready."""
    kube.apply(IDLE)
    kube.rolled_out("StatefulSet", "mongo")
    return kube.ready_pods(2, app="mongo")


@pytest.mark.behavior("state-and-ingress/own-dns-name")
def test_each_pod_has_a_dns_name_of_its_own(kube: Kube, two_pods: list[Fields], inside: Inside) -> None:
    """<pod>.<service>.<namespace>.svc resolves to the Pod's IP, and the headless Service's SRV records list these names."""
    service = f"mongo.{kube.namespace}.svc"

    for look in eventually(within=patience.names_follow):
        with look:
            assert {name: inside.addresses(f"{name}.{service}") for name in names(two_pods)} == {
                pod.metadata.name: {pod.status.podIP} for pod in two_pods
            }
            listed = inside.run("dig", "+search", "+short", f"_redis._tcp.{service}", "SRV").stdout.splitlines()
            ports_and_hosts = {tuple(line.split()[2:]) for line in listed}
            assert {(port, host.partition(f".{service}.")[0]) for port, host in ports_and_hosts} == {
                ("6379", "mongo-0"),
                ("6379", "mongo-1"),
            }


@pytest.fixture
def idle_pod(kube: Kube) -> Fields:
    """The only Pod of a StatefulSet without storage, Ready."""
    kube.apply(statefulset(IDLE, replicas=1))
    (pod,) = exactly(1, kube.ready_pods(1, app="mongo"))
    return pod


@pytest.fixture
def resolved_pod(kube: Kube, idle_pod: Fields, inside: Inside) -> Fields:
    """The only Pod, whose DNS name resolves to its address."""
    for look in eventually(within=patience.names_follow):
        with look:
            assert inside.addresses(f"mongo-0.mongo.{kube.namespace}.svc") == {idle_pod.status.podIP}
    return idle_pod


@pytest.mark.behavior("state-and-ingress/own-dns-name")
def test_the_dns_name_moves_to_the_next_pod(kube: Kube, resolved_pod: Fields, inside: Inside) -> None:
    """A Pod's address goes with the Pod, the name stays: it resolves to the Pod that has it now, and to no other."""
    kube.delete("Pod", "mongo-0")
    following = successor(kube, resolved_pod)
    if following.status.podIP == resolved_pod.status.podIP:
        raise Inconclusive("the next Pod happened to get the same address; run the test again")

    for look in eventually(within=patience.names_follow):
        with look:
            assert inside.addresses(f"mongo-0.mongo.{kube.namespace}.svc") == {following.status.podIP}


# --- order


def story(changes: Iterable[Change]) -> list[str]:
    """What happened to each Pod, in order: created, ready, terminating, gone."""
    seen: dict[str, None] = {}
    for change in changes:
        pod = change.object
        if change.type == "DELETED":
            word = "gone"
        elif pod.metadata.deletionTimestamp:
            word = "terminating"
        else:
            word = "ready" if is_ready(pod) else "created"
        seen[f"{pod.metadata.name} {word}"] = None
    return list(seen)


@pytest.mark.behavior("state-and-ingress/ordered-one-at-a-time")
def test_pods_are_created_and_removed_one_at_a_time(kube: Kube) -> None:
    """Each Pod is created once the one before is Ready; from the highest down, each is deleted once the next is gone."""
    up = [f"mongo-{number} {word}" for number in (0, 1, 2) for word in ("created", "ready")]
    down = [f"mongo-{number} {word}" for number in (2, 1, 0) for word in ("terminating", "gone")]

    with kube.record("Pod", app="mongo") as changes:
        kube.apply(statefulset(IDLE, replicas=3))
        for look in eventually(within=patience.rollout):
            with look:
                assert story(changes) == up
        kube.scale("StatefulSet", "mongo", 0)
        for look in eventually(within=patience.rollout):
            with look:
                assert story(changes) == up + down


@pytest.mark.behavior("state-and-ingress/ordered-one-at-a-time")
def test_parallel_management_holds_no_pod_back(kube: Kube) -> None:
    """With OrderedReady, the default, there is no second Pod until the first is Ready; Parallel creates all at once."""
    kube.apply("statefulsets/held-back.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert names(kube.pods(app="parallel")) == ["parallel-0", "parallel-1", "parallel-2"]
            assert names(kube.pods(app="in-order")) == ["in-order-0"]
    for look in throughout(patience.stays_so):
        with look:
            assert names(kube.pods(app="in-order")) == ["in-order-0"]


# --- identity and state


@pytest.fixture
def mongo_0(kube: Kube) -> Fields:
    """The only Pod of the database, Ready; it has stored a score."""
    kube.apply(DATABASE)
    wait_until_bound(kube, PVC_OF_MONGO_0, app="mongo")
    (pod,) = exactly(1, kube.ready_pods(1, app="mongo"))
    assert redis(kube, "mongo-0", "SET", "score", "4711") == "OK"
    return pod


def hostname(kube: Kube, pod: Fields) -> str:
    """The Pod's hostname, as its container sees it."""
    return kube.exec(pod.metadata.name, "cat", "/etc/hostname").stdout.strip()


def pvcs_of(pod: Fields) -> list[str]:
    """The names of the PVCs that a Pod uses."""
    return [volume.persistentVolumeClaim.claimName for volume in pod.spec.volumes if volume.persistentVolumeClaim]


@pytest.mark.behavior("state-and-ingress/identity-survives-rescheduling")
def test_the_next_pod_has_the_same_name_hostname_and_pvc(kube: Kube, mongo_0: Fields) -> None:
    """What comes back is another Pod, with another UID, but with the same name, the same hostname and the same PVC."""
    pvc = kube.get(PVC, PVC_OF_MONGO_0).metadata.uid

    kube.delete("Pod", "mongo-0")
    following = successor(kube, mongo_0)

    assert following.metadata.name == hostname(kube, following) == "mongo-0"
    assert pvcs_of(following) == [PVC_OF_MONGO_0]
    assert kube.get(PVC, PVC_OF_MONGO_0).metadata.uid == pvc


@pytest.fixture
def movable_pod(kube: Kube) -> Fields:
    """The only Pod of a database that keeps its data in an emptyDir, which ties it to no node, Ready."""
    service, database = statefulset(DATABASE, volumeClaimTemplates=[])
    database["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    kube.apply([service, database])
    (pod,) = exactly(1, kube.ready_pods(1, app="mongo"))
    return pod


@pytest.fixture
def another_worker(movable_pod: Fields, workers: list[Fields]) -> Fields:
    """A worker on which the Pod is not. Not observed if there is no other."""
    others = [worker for worker in workers if worker.metadata.name != movable_pod.spec.nodeName]
    if not others:
        raise NotObserved("there is only one worker, so no Pod can come back on another; add a worker")
    return others[0]


@pytest.mark.behavior("state-and-ingress/identity-survives-rescheduling")
def test_the_identity_moves_to_another_node(kube: Kube, movable_pod: Fields, another_worker: Fields) -> None:
    """If no storage ties mongo-0 to its node, it may come back on another one: there, too, it is mongo-0."""
    there = {"nodeSelector": selecting(another_worker)}

    kube.patch("StatefulSet", "mongo", {"spec": {"template": {"spec": there}}})
    following = successor(kube, movable_pod)

    assert following.spec.nodeName == another_worker.metadata.name
    assert following.metadata.name == hostname(kube, following) == "mongo-0"


@pytest.fixture
def two_databases(kube: Kube) -> list[str]:
    """The names of two Pods of the database, Ready; they started at the same time, because that is faster."""
    kube.apply(statefulset(DATABASE, replicas=2, podManagementPolicy="Parallel"))
    wait_until_bound(kube, PVC_OF_MONGO_0, "data-mongo-1", app="mongo")
    return names(kube.ready_pods(2, app="mongo"))


@pytest.mark.behavior("state-and-ingress/pods-are-not-interchangeable")
def test_each_pod_has_a_volume_and_content_of_its_own(kube: Kube, two_databases: list[str]) -> None:
    """The Pods of a StatefulSet are not interchangeable: each has its own PVC, and no other Pod sees what it stores."""
    for pod in two_databases:
        assert kube.exec(pod, "sh", "-c", f"echo {pod} > /data/written-by").code == 0

    assert {pod: kube.exec(pod, "cat", "/data/written-by").stdout for pod in two_databases} == {
        "mongo-0": "mongo-0\n",
        "mongo-1": "mongo-1\n",
    }
    volumes = {pvc.metadata.name: pvc.spec.volumeName for pvc in kube.list(PVC)}
    assert list(volumes) == ["data-mongo-0", "data-mongo-1"]
    assert volumes["data-mongo-0"] != volumes["data-mongo-1"]


@pytest.mark.behavior("state-and-ingress/new-pod-takes-over-the-stored-state")
def test_the_next_pod_reads_what_the_last_one_stored(kube: Kube, mongo_0: Fields) -> None:
    """The state is in the volume, not in the Pod: the next mongo-0 has it, even if the last one was deleted by force."""
    kube.delete("Pod", "mongo-0")
    second = successor(kube, mongo_0)
    assert redis(kube, "mongo-0", "GET", "score") == "4711"

    redis(kube, "mongo-0", "SET", "score", "4712")
    kube.delete("Pod", "mongo-0", grace=0)
    successor(kube, second)
    assert redis(kube, "mongo-0", "GET", "score") == "4712"


# --- PVCs


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
@pytest.mark.starts_first
def test_a_pvc_outlives_scaling_and_the_statefulset(kube: Kube, mongo_0: Fields) -> None:
    """Scaling to zero and even deleting the StatefulSet keep the PVC, and the next mongo-0 finds its data again."""
    pvc = kube.get(PVC, PVC_OF_MONGO_0).metadata.uid

    kube.scale("StatefulSet", "mongo", 0)
    wait_until_gone(kube)
    kube.scale("StatefulSet", "mongo", 1)
    second = successor(kube, mongo_0)
    assert redis(kube, "mongo-0", "GET", "score") == "4711"

    kube.delete("StatefulSet", "mongo")
    wait_until_gone(kube)
    kube.apply(DATABASE)
    successor(kube, second)
    assert redis(kube, "mongo-0", "GET", "score") == "4711"
    assert kube.get(PVC, PVC_OF_MONGO_0).metadata.uid == pvc


def create_two_pvcs(kube: Kube, when_scaled: str, when_deleted: str) -> None:
    """Create a StatefulSet of two with this retention policy, and wait until both Pods and both PVCs exist."""
    manifest = load("statefulsets/pvcs-only.yaml")
    manifest["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": when_scaled, "whenDeleted": when_deleted}
    kube.create(manifest)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert names(kube.pods(app="mongo")) == ["mongo-0", "mongo-1"]
            assert pvcs(kube) == ["data-mongo-0", "data-mongo-1"]


def pvcs(kube: Kube) -> list[str]:
    """The names of all PVCs of the namespace."""
    return names(kube.list(PVC))


@pytest.fixture
def pvcs_deleted_when_scaled(kube: Kube) -> None:
    """Two PVCs of a StatefulSet with whenScaled: Delete and whenDeleted: Retain."""
    create_two_pvcs(kube, when_scaled="Delete", when_deleted="Retain")


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
@pytest.mark.usefixtures("pvcs_deleted_when_scaled")
def test_when_scaled_delete_removes_the_pvcs_of_removed_pods(kube: Kube) -> None:
    """Newer than the document: with whenScaled: Delete, scaling down deletes the PVCs of the removed Pods, and no others."""
    kube.scale("StatefulSet", "mongo", 1)

    for look in eventually(within=patience.controller_acts):
        with look:
            assert pvcs(kube) == ["data-mongo-0"]

    kube.delete("StatefulSet", "mongo")
    wait_until_gone(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert pvcs(kube) == ["data-mongo-0"]


@pytest.fixture
def pvcs_deleted_when_deleted(kube: Kube) -> None:
    """Two PVCs of a StatefulSet with whenScaled: Retain and whenDeleted: Delete."""
    create_two_pvcs(kube, when_scaled="Retain", when_deleted="Delete")


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
@pytest.mark.usefixtures("pvcs_deleted_when_deleted")
def test_when_deleted_delete_removes_the_pvcs_with_the_statefulset(kube: Kube) -> None:
    """With whenDeleted: Delete, scaling keeps the PVCs, and all of them are deleted with the StatefulSet."""
    kube.scale("StatefulSet", "mongo", 0)
    wait_until_gone(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert pvcs(kube) == ["data-mongo-0", "data-mongo-1"]

    kube.delete("StatefulSet", "mongo")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert pvcs(kube) == []
