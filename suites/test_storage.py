"""Storage: volumes and claims, who makes them, who may use them where, and what outlives what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fixtures.api import refused
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.manifests import Manifest, load_all
from fixtures.namespaces import MANAGED_BY, temporarily_patched
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout

VOLUME, CLAIM = "PersistentVolume", "PersistentVolumeClaim"

#: "true" on the StorageClass that claims get which name none.
DEFAULT = "storageclass.kubernetes.io/is-default-class"


def phases(kube: Kube, kind: str) -> dict[str, str | None]:
    """The phase of every object of a kind, by its name."""
    return {thing.metadata.name: thing.status.phase for thing in kube.list(kind)}


def phase(kube: Kube, thing: Fields) -> str | None:
    """The phase that an object is in now."""
    found: str | None = kube.get(thing.kind, thing.metadata.name).status.phase
    return found


def why_not_scheduled(kube: Kube, pod: str) -> str | None:
    """The reason why a Pod has no node; None where it has one, or where nobody has looked for one yet."""
    conditions = kube.get("Pod", pod).status.conditions
    return next((it.reason for it in conditions if it.type == "PodScheduled" and it.status == "False"), None)


# --- what is lost, and what is kept


@pytest.fixture
def writer(kube: Kube) -> Fields:
    """A Pod, Ready, that has stored a file in its container's own file system, one in an emptyDir, and one on a claim."""
    kube.apply("storage/lost-and-kept.yaml")
    pod = kube.ready_pod("writer")
    assert kube.exec("writer", "touch", "/own/file", "/pods/file", "/claims/file").code == 0
    return pod


def files(kube: Kube) -> list[str]:
    """The files that are there, of the three that the Pod had stored."""
    return kube.exec("writer", "sh", "-c", "ls -d /*/file").stdout.split()


@pytest.mark.behavior(
    "state-and-ingress/no-persistence-without-a-volume", "nginx-walkthrough/data-must-live-outside-the-pod"
)
def test_only_what_is_on_a_claim_outlives_the_pod(kube: Kube, writer: Fields) -> None:
    """A restart loses the container's own files, a new Pod loses the emptyDir's too; what is on a claim is kept."""
    assert files(kube) == ["/claims/file", "/own/file", "/pods/file"]

    kube.exec("writer", "kill", "1")
    for look in eventually(within=patience.container_restarts):
        with look:
            (status,) = kube.get("Pod", "writer").status.containerStatuses
            assert (status.restartCount, status.ready) == (1, True)
    assert files(kube) == ["/claims/file", "/pods/file"]

    kube.delete("Pod", "writer")
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.exists("Pod", "writer", writer.metadata.uid)
    kube.apply("storage/lost-and-kept.yaml")
    kube.ready_pod("writer")
    assert files(kube) == ["/claims/file"]


@pytest.fixture
def reader(kube: Kube) -> Callable[[str], str]:
    """`reader(path)`: a file as a Pod sees it that has a ConfigMap, a Secret and a claim mounted."""
    kube.apply("storage/three-kinds.yaml")
    kube.ready_pod("reader")
    return lambda path: kube.exec("reader", "cat", path).stdout.strip()


@pytest.mark.behavior("state-and-ingress/configmap-and-secret-volumes")
def test_one_pod_reads_a_configmap_a_secret_and_a_claim(reader: Callable[[str], str]) -> None:
    """To the program they are all files: settings from a ConfigMap, keys from a Secret, data from a claim."""
    assert reader("/settings/colour") == "blue"
    assert reader("/certificate/tls.key") == "not really a key"
    assert reader("/storage/file") == "stored"


@pytest.fixture
def settings(kube: Kube) -> Callable[[], str]:
    """`settings()`: the mounted file of a ConfigMap, as a Pod that is Ready sees it now."""
    kube.apply("storage/settings.yaml")
    kube.ready_pod("reader")
    return lambda: kube.exec("reader", "cat", "/settings/colour").stdout.strip()


def let_the_kubelet_look(kube: Kube, pod: str, number: int) -> None:
    """Change something of a Pod that nobody reads. The kubelet then looks at its volumes now, not within a minute."""
    kube.patch("Pod", pod, {"metadata": {"annotations": {"example.com/look": str(number)}}})


@pytest.mark.behavior("state-and-ingress/configmap-and-secret-volumes")
def test_a_changed_configmap_reaches_the_mounted_file(kube: Kube, settings: Callable[[], str]) -> None:
    """The file follows the ConfigMap while the Pod runs, within a minute or so, at the kubelet's next look at the Pod."""
    assert settings() == "blue"

    kube.patch("ConfigMap", "settings", {"data": {"colour": "green"}})

    for number, look in enumerate(eventually(within=patience.files_follow)):
        with look:
            let_the_kubelet_look(kube, "reader", number)
            assert settings() == "green"
    (status,) = kube.get("Pod", "reader").status.containerStatuses
    assert status.restartCount == 0


# --- volumes made by hand


@pytest.fixture
def volume(kube: Kube) -> Iterator[Fields]:
    """A volume of 1Gi for ReadWriteOnce, made by hand, in a class that only this test knows."""
    manifest, _ = load_all("storage/by-hand.yaml")
    manifest["metadata"]["name"] = manifest["spec"]["storageClassName"] = kube.namespace
    yield kube.create(manifest)
    kube.delete(VOLUME, kube.namespace)


def make_claim(kube: Kube, name: str, size: str = "1Gi", mode: str = "ReadWriteOnce") -> Fields:
    """Make a claim in the class of the volume that was made by hand. As it is, it fits."""
    _, manifest = load_all("storage/by-hand.yaml")
    manifest["metadata"]["name"] = name
    manifest["spec"] |= {"storageClassName": kube.namespace, "accessModes": [mode]}
    manifest["spec"]["resources"]["requests"]["storage"] = size
    return kube.create(manifest)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/unclaimed-volume-is-unused")
def test_a_volume_is_unused_until_a_claim_fits_it(kube: Kube, volume: Fields) -> None:
    """A claim that asks for more, or for another access mode, stays Pending; the volume is kept for one that fits."""
    make_claim(kube, "too-large", size="2Gi")
    make_claim(kube, "other-mode", mode="ReadWriteMany")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert phase(kube, volume) == "Available"
    for look in throughout(patience.stays_so):
        with look:
            assert phase(kube, volume) == "Available"
            assert phases(kube, CLAIM) == {"too-large": "Pending", "other-mode": "Pending"}

    fits = make_claim(kube, "fits")

    for look in eventually(within=patience.controller_acts):
        with look:
            assert phases(kube, CLAIM) == {"too-large": "Pending", "other-mode": "Pending", "fits": "Bound"}
            assert phase(kube, volume) == "Bound"
    assert kube.get(VOLUME, volume.metadata.name).spec.claimRef.uid == fits.metadata.uid
    assert kube.get(CLAIM, "fits").spec.volumeName == volume.metadata.name


@pytest.fixture
def claim(kube: Kube, volume: Fields) -> Fields:
    """A claim, Bound to the volume that was made by hand."""
    claim = make_claim(kube, "fits")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert phase(kube, claim) == "Bound"
    return kube.get(CLAIM, "fits")


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/unclaimed-volume-is-unused")
@pytest.mark.usefixtures("claim")
def test_a_volume_that_was_claimed_is_released_not_available(kube: Kube, volume: Fields) -> None:
    """Without its claim the volume is Released: what was stored is still on it, so no other claim gets it."""
    kube.delete(CLAIM, "fits")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert phase(kube, volume) == "Released"

    make_claim(kube, "next")

    for look in throughout(patience.stays_so):
        with look:
            assert phase(kube, volume) == "Released"
            assert phases(kube, CLAIM) == {"next": "Pending"}


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/pv-is-not-namespaced")
def test_a_volume_is_the_clusters_a_claim_is_a_namespaces(kube: Kube, volume: Fields, claim: Fields) -> None:
    """A PersistentVolume has no namespace, its claim has one; so the volume names the namespace of its claim."""
    assert kube.api.resource(VOLUME).namespaced is False
    assert kube.api.resource(CLAIM).namespaced is True

    assert volume.metadata.namespace is None
    assert claim.metadata.namespace == kube.namespace
    claimed_by = kube.get(VOLUME, volume.metadata.name).spec.claimRef
    assert (claimed_by.namespace, claimed_by.name) == (kube.namespace, "fits")


# --- volumes of one node


def local(kube: Kube, node: Fields) -> list[Manifest]:
    """A local volume on a node, in a class that only this test knows, a claim for it, and a Pod that uses the claim."""
    volume, claim, pod = load_all("storage/local.yaml")
    volume["metadata"]["name"] = kube.namespace
    volume["spec"]["storageClassName"] = claim["spec"]["storageClassName"] = kube.namespace
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    term["matchExpressions"][0]["values"] = [hostname(node)]
    return [volume, claim, pod]


def hostname(node: Fields) -> str:
    """The node's name as its label tells it, which is what affinities and selectors go by."""
    return str(node.metadata.labels["kubernetes.io/hostname"])


@pytest.fixture
def user(kube: Kube, workers: list[Fields]) -> Iterator[Manifest]:
    """The manifest of a Pod whose claim is bound to a local volume of the first worker."""
    volume, claim, pod = local(kube, workers[0])
    kube.create(volume)
    try:
        kube.create(claim)
        for look in eventually(within=patience.controller_acts):
            with look:
                assert phases(kube, CLAIM) == {"local": "Bound"}
        yield pod
    finally:
        kube.delete(VOLUME, kube.namespace)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_local_volume_must_say_which_node_has_it(kube: Kube, workers: list[Fields]) -> None:
    """A local volume carries its node's affinity; without one it is refused."""
    volume, _, _ = local(kube, workers[0])
    kube.create(volume, dryRun="All")

    del volume["spec"]["nodeAffinity"]
    with refused(422) as refusals:
        kube.create(volume)

    assert refusals[0].fields == ["spec.nodeAffinity"]


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_pod_follows_its_local_volume(kube: Kube, user: Manifest, workers: list[Fields]) -> None:
    """The Pod does not say where it wants to run; the volume does, and each next Pod comes back to the same node."""
    homes = []
    for _ in range(2):
        kube.create(user)
        homes.append(kube.ready_pod("user").spec.nodeName)
        kube.delete("Pod", "user")
        for look in eventually(within=patience.pod_goes):
            with look:
                assert not kube.exists("Pod", "user")

    assert homes == [workers[0].metadata.name] * 2


@pytest.fixture
def guest(kube: Kube, user: Manifest, workers: list[Fields]) -> Manifest:
    """The manifest of a Pod that may run on the second worker only; without the claim it has been Ready there."""
    user["spec"]["nodeSelector"] = {"kubernetes.io/hostname": hostname(workers[1])}
    without_claim = user["spec"] | {"volumes": [{"name": "data", "emptyDir": {}}]}
    kube.create(user | {"metadata": {"name": "without-claim"}, "spec": without_claim})
    assert kube.ready_pod("without-claim").spec.nodeName == workers[1].metadata.name
    return user


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_pod_may_not_leave_its_local_volume(kube: Kube, guest: Manifest) -> None:
    """Sent to a node without its volume, the Pod runs nowhere: it is Unschedulable, however much room there is."""
    kube.create(guest)

    for look in eventually(within=patience.controller_acts):
        with look:
            assert why_not_scheduled(kube, "user") == "Unschedulable"
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {"without-claim": "Running", "user": "Pending"}


# --- volumes made on demand


@pytest.fixture
def default_class(kube: Kube) -> Fields:
    """The cluster's own default StorageClass; the newest where there are several."""
    for look in eventually(within=patience.other_run):
        with look:
            own = [it for it in kube.list("StorageClass") if not MANAGED_BY.items() <= it.metadata.labels.items()]
            defaults = [it for it in own if it.metadata.annotations.get(DEFAULT) == "true"]
            assert defaults
    newest: Fields = max(defaults, key=lambda it: str(it.metadata.creationTimestamp))
    return newest


@pytest.fixture
def on_demand(kube: Kube, default_class: Fields) -> Iterator[list[Manifest]]:
    """A claim and a Pod for a class that provisions as the cluster's default one does, and waits for the first consumer."""
    storage_class, claim, pod = load_all("storage/on-demand.yaml")
    storage_class["metadata"]["name"] = claim["spec"]["storageClassName"] = kube.namespace
    storage_class |= {"provisioner": default_class.provisioner, "parameters": default_class.parameters}
    kube.create(storage_class)
    yield [claim, pod]
    kube.delete("StorageClass", kube.namespace)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/dynamic-provisioning")
def test_a_volume_is_made_once_a_pod_uses_the_claim(
    kube: Kube, on_demand: list[Manifest], default_class: Fields
) -> None:
    """The class's provisioner makes a volume for the claim; under WaitForFirstConsumer, not before a Pod needs it."""
    claim, pod = on_demand
    uid = kube.create(claim).metadata.uid
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, CLAIM) == {"asks": "Pending"}

    kube.create(pod)

    kube.ready_pod("user")
    volume = kube.get(VOLUME, kube.get(CLAIM, "asks").spec.volumeName)
    assert volume.metadata.annotations["pv.kubernetes.io/provisioned-by"] == default_class.provisioner
    assert volume.spec.claimRef.uid == uid
    assert volume.spec.storageClassName == kube.namespace
    assert volume.spec.persistentVolumeReclaimPolicy == "Delete"


@pytest.fixture
def provisioned(kube: Kube) -> Iterator[dict[str, str]]:
    """The volumes of two claims that a Pod uses, by the claims' names: one is to be deleted in the end, one retained.

    At the end the retained one gets its own policy back, by which its provisioner deletes it.
    """
    kube.apply("storage/two-claims.yaml")
    kube.ready_pod("user")
    volumes: dict[str, str] = {claim: kube.get(CLAIM, claim).spec.volumeName for claim in ("delete", "retain")}
    with (
        temporarily_patched(kube, VOLUME, volumes["delete"], {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
        temporarily_patched(kube, VOLUME, volumes["retain"], {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
    ):
        yield volumes


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/dynamic-provisioning")
def test_the_reclaim_policy_decides_what_becomes_of_the_volume(kube: Kube, provisioned: dict[str, str]) -> None:
    """When the claim is deleted the volume is, too, under the policy Delete; under Retain it stays, Released."""
    kube.delete("Pod", "user")
    kube.delete(CLAIM, "delete")
    kube.delete(CLAIM, "retain")

    for look in eventually(within=patience.volume_goes):
        with look:
            assert not kube.exists(VOLUME, provisioned["delete"])
            assert kube.get(VOLUME, provisioned["retain"]).status.phase == "Released"


# --- who may use a claim


@pytest.fixture
def first_writer(kube: Kube) -> Manifest:
    """The first of two Pods that want one ReadWriteOncePod claim has it, and is Ready; here is the second's manifest."""
    claim, first, second = load_all("storage/writers.yaml")
    kube.apply([claim, first])
    kube.ready_pod("first")
    return second


@pytest.mark.behavior("state-and-ingress/single-writer")
def test_a_second_writer_waits_until_the_first_is_gone(kube: Kube, first_writer: Manifest) -> None:
    """A ReadWriteOncePod claim is one Pod's at a time: another Pod is Unschedulable as long as the first is there."""
    kube.create(first_writer)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert why_not_scheduled(kube, "second") == "Unschedulable"
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {"first": "Running", "second": "Pending"}

    kube.delete("Pod", "first")

    kube.ready_pod("second")


@pytest.fixture
def neighbour(kube: Kube) -> Manifest:
    """The first of two Pods that want one ReadWriteOnce claim is Ready; here is the second's manifest, for the same node."""
    claim, first, second = load_all("storage/writers.yaml")
    claim["spec"]["accessModes"] = ["ReadWriteOnce"]
    kube.apply([claim, first])
    node = kube.get("Node", kube.ready_pod("first").spec.nodeName)
    second["spec"]["nodeSelector"] = {"kubernetes.io/hostname": hostname(node)}
    return second


@pytest.mark.behavior("state-and-ingress/single-writer")
def test_read_write_once_is_one_nodes_not_one_pods(kube: Kube, neighbour: Manifest) -> None:
    """ReadWriteOnce does not promise a single writer: it means one node, and two Pods there may both write."""
    kube.create(neighbour)

    kube.ready_pod("second")
    assert phases(kube, "Pod") == {"first": "Running", "second": "Running"}


@pytest.fixture
def far_user(kube: Kube, home: Kube) -> Iterator[Manifest]:
    """The manifest of a Pod that uses a claim; in another namespace, where the claim is, the same Pod is Ready."""
    claim, pod = load_all("storage/elsewhere.yaml")
    name = claim["metadata"]["name"] = pod["metadata"]["name"] = kube.namespace
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = name
    try:
        home.apply([claim, pod])
        home.ready_pod(name)
        yield pod
    finally:
        home.delete("Pod", name)
        home.delete(CLAIM, name)


@pytest.mark.behavior("state-and-ingress/claim-in-the-pods-namespace")
def test_a_claim_of_another_namespace_is_not_found(kube: Kube, far_user: Manifest) -> None:
    """A Pod can use only claims of its own namespace: here it is Unschedulable, there the same Pod runs."""
    kube.create(far_user)

    name = far_user["metadata"]["name"]
    for look in eventually(within=patience.controller_acts):
        with look:
            assert why_not_scheduled(kube, name) == "Unschedulable"
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {name: "Pending"}


# --- the default class


def is_default(answer: str) -> Manifest:
    """The document's patch: `{"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}`."""
    return {"metadata": {"annotations": {DEFAULT: answer}}}


@pytest.fixture
def two_classes(kube: Kube, default_class: Fields) -> Iterator[tuple[str, str]]:
    """The names of the cluster's default class, to be given back as it was, and of another that does the same.

    The other stays to the end of the run: some other test's claim may have got it meanwhile.
    """
    other, _ = load_all("storage/csi-hostpath-sc.yaml")
    other["metadata"]["name"] = kube.namespace
    for field in ("provisioner", "parameters", "volumeBindingMode", "reclaimPolicy", "mountOptions"):
        other[field] = getattr(default_class, field)
    with temporarily_patched(kube, "StorageClass", default_class.metadata.name, is_default("true")):
        kube.create(other)
        yield default_class.metadata.name, kube.namespace
        kube.patch("StorageClass", default_class.metadata.name, is_default("true"))
        kube.patch("StorageClass", kube.namespace, is_default("false"))


def class_of_a_new_claim(kube: Kube) -> str | None:
    """The class that the API server gives a claim which names none (a dry run; nothing is stored)."""
    _, claim = load_all("storage/csi-hostpath-sc.yaml")
    given: str | None = kube.create(claim, dryRun="All").spec.storageClassName
    return given


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/default-storage-class")
def test_a_claim_without_a_class_gets_the_default_one(kube: Kube, two_classes: tuple[str, str]) -> None:
    """An annotation makes a class the default. Set it on one, take it from the other, and new claims get the one."""
    standard, other = two_classes
    for look in eventually(within=patience.controller_acts):
        with look:
            assert class_of_a_new_claim(kube) == standard

    kube.patch("StorageClass", other, is_default("true"))
    kube.patch("StorageClass", standard, is_default("false"))

    for look in eventually(within=patience.controller_acts):
        with look:
            assert class_of_a_new_claim(kube) == other
