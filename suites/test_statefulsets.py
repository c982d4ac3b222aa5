"""StatefulSets: Pods with a name, a place in an order, and storage of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from fixtures.clients import Inside
from fixtures.fields import Fields
from fixtures.kube import Kube, is_ready
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.record import Change
from fixtures.waiting import eventually, throughout

DATABASE = "statefulsets/mongo.yaml"
IDLE = "statefulsets/mongo-idle.yaml"

#: What the template's claim `data` is called for the Pod mongo-0.
CLAIM = "data-mongo-0"


def statefulset(exhibit: str, **spec: object) -> list[Manifest]:
    """The documents of an exhibit, the fields of its StatefulSet's spec changed to these."""
    service, workload = load_all(exhibit)
    workload["spec"] |= spec
    return [service, workload]


def names(objects: Iterable[Fields]) -> list[str]:
    """The objects' names, in order."""
    return [thing.metadata.name for thing in objects]


def successor(kube: Kube, earlier: Fields) -> Fields:
    """Wait until the one Pod of the StatefulSet is Ready and another one than `earlier`, and return it."""
    for look in eventually(within=patience.pod_starts):
        with look:
            ready = [pod for pod in kube.pods(app="mongo") if is_ready(pod)]
            uids = [pod.metadata.uid for pod in ready]
            assert len(uids) == 1
            assert uids != [earlier.metadata.uid]
    return ready[0]


def wait_until_gone(kube: Kube) -> None:
    """Wait until the StatefulSet has no Pod, not even one on its way out."""
    for look in eventually(within=patience.pod_goes):
        with look:
            assert names(kube.list("Pod", app="mongo")) == []


def redis(kube: Kube, pod: str, *command: str) -> str:
    """What the database in a Pod answers to a command, as soon as it listens and has loaded what it stored."""
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
    return kube.ready_pods(2, app="mongo"), kube.ready_pods(2, app="app")


@pytest.mark.behavior("state-and-ingress/stable-names")
def test_a_statefulset_counts_where_a_deployment_draws_lots(
    kube: Kube, pods_side_by_side: tuple[list[Fields], list[Fields]]
) -> None:
    """Its Pods are mongo-0 and mongo-1, and what replaces mongo-0 is mongo-0; a Deployment's Pods get new random names."""
    of_statefulset, of_deployment = pods_side_by_side
    assert names(of_statefulset) == ["mongo-0", "mongo-1"]
    assert [name for name in names(of_deployment) if not re.fullmatch(r"app-\w+-\w{5}", name)] == []

    kube.delete("Pod", "mongo-0")
    kube.delete("Pod", of_deployment[0].metadata.name)

    (newcomer,) = [name for name in names(kube.ready_pods(2, app="app")) if name != of_deployment[1].metadata.name]
    assert newcomer != of_deployment[0].metadata.name
    for look in eventually(within=patience.pod_starts):
        with look:
            ready = {pod.metadata.name: pod.metadata.uid for pod in kube.pods(app="mongo") if is_ready(pod)}
            assert ready.keys() == {"mongo-0", "mongo-1"}
            assert ready["mongo-0"] != of_statefulset[0].metadata.uid


def lookup(inside: Inside, name: str) -> set[str]:
    """The addresses that the cluster's DNS gives for a name."""
    return set(inside.run("dig", "+search", "+short", name, "A", name, "AAAA").stdout.split())


@pytest.fixture
def two_pods(kube: Kube) -> list[Fields]:
    """The two Pods of a StatefulSet without storage, Ready."""
    kube.apply(IDLE)
    return kube.ready_pods(2, app="mongo")


@pytest.mark.behavior("state-and-ingress/own-dns-name")
def test_each_pod_has_a_dns_name_of_its_own(kube: Kube, two_pods: list[Fields], inside: Inside) -> None:
    """<pod>.<service>.<namespace>.svc is that Pod's IP, and the headless Service's SRV records list all such names."""
    service = f"mongo.{kube.namespace}.svc"

    for look in eventually(within=patience.names_follow):
        with look:
            assert {name: lookup(inside, f"{name}.{service}") for name in names(two_pods)} == {
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
    """The one Pod of a StatefulSet without storage, Ready."""
    kube.apply(statefulset(IDLE, replicas=1))
    return kube.ready_pods(1, app="mongo")[0]


@pytest.fixture
def named_pod(kube: Kube, idle_pod: Fields, inside: Inside) -> Fields:
    """The one Pod, whose DNS name leads to it."""
    for look in eventually(within=patience.names_follow):
        with look:
            assert lookup(inside, f"mongo-0.mongo.{kube.namespace}.svc") == {idle_pod.status.podIP}
    return idle_pod


@pytest.mark.behavior("state-and-ingress/own-dns-name")
def test_the_dns_name_follows_to_the_next_pod(kube: Kube, named_pod: Fields, inside: Inside) -> None:
    """Addresses come and go with Pods, the name stays: it leads to the Pod that has it now."""
    kube.delete("Pod", named_pod.metadata.name)
    newcomer = successor(kube, named_pod)

    for look in eventually(within=patience.names_follow):
        with look:
            assert lookup(inside, f"mongo-0.mongo.{kube.namespace}.svc") == {newcomer.status.podIP}


# --- order


def story(changes: Iterable[Change]) -> list[str]:
    """What the watch told of each Pod, in its order: made, ready, told to end, gone."""
    told: dict[str, None] = {}
    for change in changes:
        pod = change.object
        if change.type == "DELETED":
            word = "gone"
        elif pod.metadata.deletionTimestamp:
            word = "told to end"
        else:
            word = "ready" if is_ready(pod) else "made"
        told[f"{pod.metadata.name} {word}"] = None
    return list(told)


@pytest.mark.behavior("state-and-ingress/ordered-one-at-a-time")
def test_pods_are_made_and_removed_one_at_a_time(kube: Kube) -> None:
    """Each is made once the one before is Ready; from the highest down, each is told to end once the one above is gone."""
    up = [f"mongo-{number} {word}" for number in (0, 1, 2) for word in ("made", "ready")]
    down = [f"mongo-{number} {word}" for number in (2, 1, 0) for word in ("told to end", "gone")]

    with kube.record("Pod", app="mongo") as changes:
        kube.apply(statefulset(IDLE, replicas=3))
        for look in eventually(within=patience.pod_starts):
            with look:
                assert story(changes) == up
        kube.scale("StatefulSet", "mongo", 0)
        for look in eventually(within=patience.pod_goes):
            with look:
                assert story(changes) == up + down


@pytest.mark.behavior("state-and-ingress/ordered-one-at-a-time")
def test_parallel_management_holds_no_pod_back(kube: Kube) -> None:
    """In order, the default, there is no second Pod as long as the first is not Ready; Parallel makes all at once."""
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
    """The one Pod of the database, Ready; it has stored a score."""
    kube.apply(DATABASE)
    (pod,) = kube.ready_pods(1, app="mongo")
    assert redis(kube, "mongo-0", "SET", "score", "4711") == "OK"
    return pod


def identity(kube: Kube, pod: Fields) -> tuple[str, str, list[str | None]]:
    """Name, host name as its container sees it, and the claims of a Pod."""
    claims = [volume.persistentVolumeClaim.claimName for volume in pod.spec.volumes if volume.persistentVolumeClaim]
    return pod.metadata.name, kube.exec(pod.metadata.name, "cat", "/etc/hostname").stdout.strip(), claims


@pytest.mark.behavior("state-and-ingress/identity-survives-rescheduling")
def test_another_pod_takes_over_name_host_name_and_claim(kube: Kube, mongo_0: Fields) -> None:
    """What comes back is another Pod, with another UID, but with the same name, host name and volume claim."""
    claim = kube.get("PersistentVolumeClaim", CLAIM).metadata.uid

    kube.delete("Pod", "mongo-0")
    newcomer = successor(kube, mongo_0)

    assert identity(kube, newcomer) == ("mongo-0", "mongo-0", [CLAIM])
    assert kube.get("PersistentVolumeClaim", CLAIM).metadata.uid == claim


@pytest.fixture
def another_worker(idle_pod: Fields, workers: list[Fields]) -> Fields:
    """A worker on which the Pod is not. Skips where there is no other."""
    others = [worker for worker in workers if worker.metadata.name != idle_pod.spec.nodeName]
    if not others:
        pytest.skip("there is only one worker, so no Pod can come back on another; add a worker")
    return others[0]


@pytest.mark.behavior("state-and-ingress/identity-survives-rescheduling")
def test_the_name_moves_to_another_node(kube: Kube, idle_pod: Fields, another_worker: Fields) -> None:
    """Where no storage ties it to its node, mongo-0 may come back on another one: it is mongo-0 there too."""
    there = {"kubernetes.io/hostname": another_worker.metadata.labels["kubernetes.io/hostname"]}

    kube.patch("StatefulSet", "mongo", {"spec": {"template": {"spec": {"nodeSelector": there}}}})
    newcomer = successor(kube, idle_pod)

    assert newcomer.spec.nodeName == another_worker.metadata.name
    assert (newcomer.metadata.name, newcomer.spec.hostname) == ("mongo-0", "mongo-0")


@pytest.fixture
def two_databases(kube: Kube) -> list[str]:
    """The names of two Pods of the database, Ready; they were started at the same time, for that is quicker."""
    kube.apply(statefulset(DATABASE, replicas=2, podManagementPolicy="Parallel"))
    return names(kube.ready_pods(2, app="mongo"))


@pytest.mark.behavior("state-and-ingress/pods-are-not-interchangeable")
def test_each_pod_has_a_volume_and_content_of_its_own(kube: Kube, two_databases: list[str]) -> None:
    """The Pods of a StatefulSet are alike in their spec only: each has its own claim, and what one stores no other sees."""
    for pod in two_databases:
        assert kube.exec(pod, "sh", "-c", f"echo {pod} > /data/written-by").code == 0

    assert {pod: kube.exec(pod, "cat", "/data/written-by").stdout for pod in two_databases} == {
        "mongo-0": "mongo-0\n",
        "mongo-1": "mongo-1\n",
    }
    volumes = {claim.metadata.name: claim.spec.volumeName for claim in kube.list("PersistentVolumeClaim")}
    assert list(volumes) == ["data-mongo-0", "data-mongo-1"]
    assert volumes["data-mongo-0"] != volumes["data-mongo-1"]


@pytest.mark.behavior("state-and-ingress/new-pod-takes-over-the-stored-state")
def test_the_next_pod_reads_what_the_last_one_stored(kube: Kube, mongo_0: Fields) -> None:
    """The state is in the volume, not in the Pod: the next mongo-0 goes on with it, whether the last one ended well or not."""
    kube.delete("Pod", "mongo-0")
    second = successor(kube, mongo_0)
    assert redis(kube, "mongo-0", "GET", "score") == "4711"

    redis(kube, "mongo-0", "SET", "score", "4712")
    kube.delete("Pod", "mongo-0", grace=0)
    successor(kube, second)
    assert redis(kube, "mongo-0", "GET", "score") == "4712"


# --- claims


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
def test_a_claim_outlives_scaling_and_the_statefulset(kube: Kube, mongo_0: Fields) -> None:
    """Scaled to none, even deleted: the claim stays, and the mongo-0 that comes after finds its data again."""
    claim = kube.get("PersistentVolumeClaim", CLAIM).metadata.uid

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
    assert kube.get("PersistentVolumeClaim", CLAIM).metadata.uid == claim


def two_claims(kube: Kube, when_scaled: str, when_deleted: str) -> None:
    """Make a StatefulSet of two with this retention policy, and wait until both Pods and claims are there."""
    manifest = load("statefulsets/claims-only.yaml")
    manifest["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": when_scaled, "whenDeleted": when_deleted}
    kube.create(manifest)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert names(kube.pods(app="mongo")) == ["mongo-0", "mongo-1"]
            assert claims(kube) == ["data-mongo-0", "data-mongo-1"]


def claims(kube: Kube) -> list[str]:
    """The names of the claims that there are."""
    return names(kube.list("PersistentVolumeClaim"))


@pytest.fixture
def claims_go_when_scaled(kube: Kube) -> None:
    """Two claims of a StatefulSet with whenScaled: Delete and whenDeleted: Retain."""
    two_claims(kube, when_scaled="Delete", when_deleted="Retain")


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
@pytest.mark.usefixtures("claims_go_when_scaled")
def test_when_scaled_delete_removes_the_claims_of_removed_pods(kube: Kube) -> None:
    """Younger than the document: a claim goes with its Pod when the StatefulSet says so. It need not outlive scaling."""
    kube.scale("StatefulSet", "mongo", 1)

    for look in eventually(within=patience.controller_acts):
        with look:
            assert claims(kube) == ["data-mongo-0"]

    kube.delete("StatefulSet", "mongo")
    wait_until_gone(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert claims(kube) == ["data-mongo-0"]


@pytest.fixture
def claims_go_when_deleted(kube: Kube) -> None:
    """Two claims of a StatefulSet with whenScaled: Retain and whenDeleted: Delete."""
    two_claims(kube, when_scaled="Retain", when_deleted="Delete")


@pytest.mark.behavior("state-and-ingress/claims-outlive-scaling")
@pytest.mark.usefixtures("claims_go_when_deleted")
def test_when_deleted_delete_removes_the_claims_with_the_statefulset(kube: Kube) -> None:
    """The other half of the policy: scaling leaves the claims, and the StatefulSet takes all of them with it."""
    kube.scale("StatefulSet", "mongo", 0)
    wait_until_gone(kube)
    for look in throughout(patience.stays_so):
        with look:
            assert claims(kube) == ["data-mongo-0", "data-mongo-1"]

    kube.delete("StatefulSet", "mongo")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert claims(kube) == []
