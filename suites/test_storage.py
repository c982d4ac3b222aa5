"""Storage: PersistentVolumes and PersistentVolumeClaims (PVCs), who provisions and uses them, and what outlives what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from fixtures.api import Api, refused
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.inconclusive import NotObserved
from fixtures.kube import Kube
from fixtures.manifests import Manifest, load_all
from fixtures.namespaces import temporarily_patched
from fixtures.patience import patience
from fixtures.scheduling import hostname, selecting, why_not_scheduled
from fixtures.storage import move_default, wait_until_bound
from fixtures.waiting import eventually, throughout

VOLUME, PVC = "PersistentVolume", "PersistentVolumeClaim"


def phases(kube: Kube, kind: str) -> dict[str, str | None]:
    """The phase of every object of a kind, by its name."""
    return {thing.metadata.name: thing.status.phase for thing in kube.list(kind)}


def phase(kube: Kube, thing: Fields) -> str | None:
    """The phase that an object is in now."""
    found: str | None = kube.get(thing.kind, thing.metadata.name).status.phase
    return found


def event_reasons(kube: Kube, pvc: Fields) -> set[str]:
    """The reasons of all Events about a PVC."""
    return {event.reason for event in kube.events(pvc)}


def touch(kube: Kube, kind: str, name: str, number: int) -> None:
    """Change an annotation that means nothing, so that whoever watches the object looks at it now, not at its next resync."""
    kube.patch(kind, name, {"metadata": {"annotations": {"example.com/touched": str(number)}}})


# --- what is lost, and what is kept


@pytest.fixture
def writer(kube: Kube) -> Fields:
    """A Pod, Ready, that has stored a file in its container's own file system, one in an emptyDir, and one on a PVC."""
    kube.apply("storage/lost-and-kept.yaml")
    wait_until_bound(kube, "kept")
    pod = kube.ready_pod("writer")
    assert kube.exec("writer", "touch", "/container/file", "/emptydir/file", "/pvc/file").code == 0
    return pod


def files(kube: Kube) -> list[str]:
    """Which of the Pod's three files are there."""
    return kube.exec("writer", "sh", "-c", "ls -d /*/file").stdout.split()


@pytest.mark.behavior(
    "state-and-ingress/no-persistence-without-a-volume", "nginx-walkthrough/data-must-live-outside-the-pod"
)
def test_only_what_is_on_a_pvc_outlives_the_pod(kube: Kube, writer: Fields) -> None:
    """A restart loses the container's own files; a new Pod loses the files in the emptyDir, too; files on a PVC are kept."""
    assert files(kube) == ["/container/file", "/emptydir/file", "/pvc/file"]

    kube.exec("writer", "kill", "1")
    for look in eventually(within=patience.container_restarts):
        with look:
            (status,) = exactly(1, kube.get("Pod", "writer").status.containerStatuses)
            assert (status.restartCount, status.ready) == (1, True)
    assert files(kube) == ["/emptydir/file", "/pvc/file"]

    kube.delete("Pod", "writer")
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.exists("Pod", "writer", writer.metadata.uid)
    kube.apply("storage/lost-and-kept.yaml")
    kube.ready_pod("writer")
    assert files(kube) == ["/pvc/file"]


@pytest.fixture
def reader(kube: Kube) -> Callable[[str], str]:
    """`reader(path)`: a file in a Pod with a ConfigMap, a Secret and a PVC, on which an earlier Pod has stored something."""
    *earlier, pod = load_all("storage/three-kinds.yaml")
    kube.apply(earlier)
    wait_until_bound(kube, "data")
    for look in eventually(within=patience.pod_starts):
        with look:
            assert phases(kube, "Pod") == {"writer": "Succeeded"}
    kube.create(pod)
    kube.ready_pod("reader")
    return lambda path: kube.exec("reader", "cat", path).stdout.strip()


@pytest.mark.behavior("state-and-ingress/configmap-and-secret-volumes")
def test_a_pod_reads_a_configmap_a_secret_and_a_pvc(reader: Callable[[str], str]) -> None:
    """A program sees all of them as files: settings from a ConfigMap, keys from a Secret, stored data from a PVC."""
    assert reader("/settings/color") == "blue"
    assert reader("/certificate/tls.key") == "not really a key"
    assert reader("/data/file") == "stored"


@pytest.fixture
def settings(kube: Kube) -> Callable[[], str]:
    """`settings()`: the mounted file of a ConfigMap, as a Pod that is Ready sees it now."""
    kube.apply("storage/settings.yaml")
    kube.ready_pod("reader")
    return lambda: kube.exec("reader", "cat", "/settings/color").stdout.strip()


@pytest.mark.behavior("state-and-ingress/configmap-and-secret-volumes")
def test_a_changed_configmap_reaches_the_mounted_file(kube: Kube, settings: Callable[[], str]) -> None:
    """The file follows the ConfigMap while the Pod runs: when the kubelet looks at the Pod again, about once a minute."""
    assert settings() == "blue"

    kube.patch("ConfigMap", "settings", {"data": {"color": "green"}})

    for number, look in enumerate(eventually(within=patience.files_follow)):
        with look:
            touch(kube, "Pod", "reader", number)
            assert settings() == "green"
    (status,) = exactly(1, kube.get("Pod", "reader").status.containerStatuses)
    assert status.restartCount == 0


# --- statically provisioned volumes


def available(kube: Kube, volume: Fields) -> None:
    """Wait until a volume is Available, which shows that the volume controller knows it.

    A PVC comes after that: the controller looks for a volume when a PVC is created, and then only every 15 s.
    """
    for look in eventually(within=patience.volume_binds):
        with look:
            assert phase(kube, volume) == "Available"


@pytest.fixture
def volume(kube: Kube) -> Iterator[Fields]:
    """A new, statically provisioned volume of 1Gi for ReadWriteOnce, in a class that only this test uses."""
    manifest, _ = load_all("storage/static.yaml")
    manifest["metadata"]["name"] = manifest["spec"]["storageClassName"] = kube.namespace
    volume = kube.create(manifest)
    try:
        yield volume
    finally:
        kube.delete(VOLUME, kube.namespace)


def create_pvc(kube: Kube, name: str, size: str = "1Gi", mode: str = "ReadWriteOnce") -> Fields:
    """Create a PVC in the class of the statically provisioned volume. By default it fits the volume."""
    _, manifest = load_all("storage/static.yaml")
    manifest["metadata"]["name"] = name
    manifest["spec"] |= {"storageClassName": kube.namespace, "accessModes": [mode]}
    manifest["spec"]["resources"]["requests"]["storage"] = size
    return kube.create(manifest)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/unclaimed-volume-is-unused")
def test_a_volume_is_unused_until_a_pvc_fits_it(kube: Kube, volume: Fields) -> None:
    """A PVC that asks for more, or for another access mode, stays Pending; the volume is Available until one fits it."""
    available(kube, volume)
    unfit = [create_pvc(kube, "too-large", size="2Gi"), create_pvc(kube, "other-mode", mode="ReadWriteMany")]
    for look in eventually(within=patience.volume_binds):
        with look:
            assert ["ProvisioningFailed" in event_reasons(kube, pvc) for pvc in unfit] == [True, True]
    for look in throughout(patience.stays_so):
        with look:
            assert phase(kube, volume) == "Available"
            assert phases(kube, PVC) == {"too-large": "Pending", "other-mode": "Pending"}

    fits = create_pvc(kube, "fits")

    for look in eventually(within=patience.volume_binds):
        with look:
            assert phases(kube, PVC) == {"too-large": "Pending", "other-mode": "Pending", "fits": "Bound"}
            assert phase(kube, volume) == "Bound"
    assert kube.get(VOLUME, volume.metadata.name).spec.claimRef.uid == fits.metadata.uid
    assert kube.get(PVC, "fits").spec.volumeName == volume.metadata.name


@pytest.fixture
def pvc(kube: Kube, volume: Fields) -> Fields:
    """A PVC, Bound to the statically provisioned volume."""
    available(kube, volume)
    pvc = create_pvc(kube, "fits")
    for look in eventually(within=patience.volume_binds):
        with look:
            assert phase(kube, pvc) == "Bound"
    return kube.get(PVC, "fits")


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/unclaimed-volume-is-unused")
@pytest.mark.usefixtures("pvc")
def test_a_volume_whose_pvc_is_deleted_is_released_not_available(kube: Kube, volume: Fields) -> None:
    """Without its PVC the volume is Released: it still has the data of the old PVC, so no other PVC gets it."""
    kube.delete(PVC, "fits")
    for look in eventually(within=patience.volume_binds):
        with look:
            assert phase(kube, volume) == "Released"

    following = create_pvc(kube, "next")

    for look in eventually(within=patience.volume_binds):
        with look:
            assert "ProvisioningFailed" in event_reasons(kube, following)
    for look in throughout(patience.stays_so):
        with look:
            assert phase(kube, volume) == "Released"
            assert phases(kube, PVC) == {"next": "Pending"}


@pytest.mark.behavior("state-and-ingress/pv-is-not-namespaced")
def test_the_api_says_which_kinds_have_a_namespace(api: Api) -> None:
    """Discovery tells clients that PersistentVolumes have no namespace, and that PVCs have one."""
    assert api.resource(VOLUME).namespaced is False
    assert api.resource(PVC).namespaced is True


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/pv-is-not-namespaced")
def test_a_volume_belongs_to_the_cluster_a_pvc_to_a_namespace(kube: Kube, volume: Fields, pvc: Fields) -> None:
    """A PersistentVolume has no namespace and a PVC has one, so the volume names the namespace of its PVC."""
    assert volume.metadata.namespace is None
    assert pvc.metadata.namespace == kube.namespace
    claimed_by = kube.get(VOLUME, volume.metadata.name).spec.claimRef
    assert (claimed_by.namespace, claimed_by.name) == (kube.namespace, "fits")


# --- local volumes


def local(kube: Kube, workers: list[Fields]) -> tuple[Manifest, Manifest, Manifest]:
    """A local volume on the first worker, in a class that only this test uses; its PVC; a Pod that prefers the second."""
    volume, pvc, pod = load_all("storage/local-volume.yaml")
    volume["metadata"]["name"] = kube.namespace
    volume["spec"]["storageClassName"] = pvc["spec"]["storageClassName"] = kube.namespace
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    terms[0]["matchExpressions"][0]["values"] = [hostname(workers[0])]
    preferred = pod["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    preferred[0]["preference"]["matchExpressions"][0]["values"] = [hostname(workers[1])]
    return volume, pvc, pod


@pytest.fixture
def user(kube: Kube, workers: list[Fields]) -> Iterator[Manifest]:
    """The manifest of a Pod whose PVC is Bound to a local volume of the first worker.

    It prefers the second worker: with an emptyDir in place of the PVC, the same Pod is Ready there.
    """
    manifest, pvc, pod = local(kube, workers)
    volume = kube.create(manifest)
    try:
        available(kube, volume)
        kube.create(pvc)
        for look in eventually(within=patience.volume_binds):
            with look:
                assert phases(kube, PVC) == {"local": "Bound"}
        spec = pod["spec"] | {"volumes": [{"name": "data", "emptyDir": {}}]}
        kube.create(pod | {"metadata": {"name": "without-pvc"}, "spec": spec})
        assert kube.ready_pod("without-pvc").spec.nodeName == workers[1].metadata.name
        yield pod
    finally:
        kube.delete(VOLUME, kube.namespace)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_local_volume_must_name_its_node(kube: Kube, workers: list[Fields]) -> None:
    """A local volume has the affinity of its node; without one it is refused."""
    volume, _, _ = local(kube, workers)
    kube.create(volume, dryRun="All")

    del volume["spec"]["nodeAffinity"]
    with refused(422) as refusals:
        kube.create(volume, dryRun="All")

    assert refusals[0].fields == ["spec.nodeAffinity"]


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_pod_follows_its_local_volume(kube: Kube, user: Manifest, workers: list[Fields]) -> None:
    """A Pod runs where its local volume is, every time, even if it prefers another node and would run there without it."""
    nodes = []
    for _ in range(2):
        kube.create(user)
        nodes.append(kube.ready_pod("user").spec.nodeName)
        kube.delete("Pod", "user")
        for look in eventually(within=patience.pod_goes):
            with look:
                assert not kube.exists("Pod", "user")

    assert nodes == [workers[0].metadata.name] * 2


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/local-storage-is-bound-to-a-node")
def test_a_pod_cannot_leave_its_local_volume(kube: Kube, user: Manifest, workers: list[Fields]) -> None:
    """If a Pod must run on a node without its local volume, it is Unschedulable because of the volume's node affinity."""
    user["spec"]["nodeSelector"] = selecting(workers[1])
    kube.create(user)

    for look in eventually(within=patience.controller_acts):
        with look:
            reason, message = why_not_scheduled(kube.get("Pod", "user"))
            assert reason == "Unschedulable"
            assert re.search("volume('s)? node affinity", message, re.IGNORECASE)
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {"without-pvc": "Running", "user": "Pending"}


# --- dynamically provisioned volumes


@pytest.fixture
def dynamic(kube: Kube, default_class: Fields) -> Iterator[tuple[Manifest, Manifest]]:
    """A PVC and a Pod for a class like the default one that waits for the first consumer, and names the volume's folder.

    Not observed if the default class has another provisioner, of which this suite knows no parameter.
    """
    storage_class, pvc, pod = load_all("storage/dynamic.yaml")
    if default_class.provisioner != storage_class["provisioner"]:
        raise NotObserved(f"no parameter of {default_class.provisioner} is known; use {storage_class['provisioner']}")
    storage_class["metadata"]["name"] = pvc["spec"]["storageClassName"] = kube.namespace
    storage_class["parameters"] |= {
        key: value for key, value in default_class.parameters.items() if key != "pathPattern"
    }
    kube.create(storage_class)
    yield pvc, pod
    kube.delete("StorageClass", kube.namespace)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/dynamic-provisioning")
def test_a_volume_is_provisioned_once_a_pod_uses_the_pvc(
    kube: Kube, dynamic: tuple[Manifest, Manifest], default_class: Fields
) -> None:
    """The class's provisioner makes a volume as its parameters say; with WaitForFirstConsumer it waits for a Pod."""
    pvc = kube.create(dynamic[0])
    for number, look in enumerate(eventually(within=patience.volume_binds)):
        with look:
            touch(kube, PVC, "dynamic", number)
            assert "WaitForFirstConsumer" in event_reasons(kube, pvc)
    for look in throughout(patience.stays_so):
        with look:
            assert phase(kube, pvc) == "Pending"

    kube.create(dynamic[1])

    wait_until_bound(kube, "dynamic")
    kube.ready_pod("user")
    volume = kube.get(VOLUME, kube.get(PVC, "dynamic").spec.volumeName)
    assert volume.metadata.annotations.get("pv.kubernetes.io/provisioned-by") == default_class.provisioner
    assert (volume.spec.storageClassName, volume.spec.claimRef.uid) == (kube.namespace, pvc.metadata.uid)
    assert volume.spec.persistentVolumeReclaimPolicy == "Delete"
    path = PurePosixPath(volume.spec.hostPath.path or volume.spec.local.path or "")
    assert path.parts[-2:] == (kube.namespace, "dynamic")


@pytest.fixture
def provisioned(kube: Kube) -> Iterator[dict[str, str]]:
    """The volumes of two PVCs that a Pod uses, by the PVCs' names: one with the reclaim policy Delete, one with Retain.

    At the end the retained one gets its own policy back, by which its provisioner deletes it.
    """
    kube.apply("storage/two-pvcs.yaml")
    wait_until_bound(kube, "delete", "retain")
    kube.ready_pod("user")
    volumes: dict[str, str] = {pvc: kube.get(PVC, pvc).spec.volumeName for pvc in ("delete", "retain")}
    with (
        temporarily_patched(kube, VOLUME, volumes["delete"], {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
        temporarily_patched(kube, VOLUME, volumes["retain"], {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}),
    ):
        yield volumes


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/dynamic-provisioning")
def test_the_reclaim_policy_decides_what_becomes_of_the_volume(kube: Kube, provisioned: dict[str, str]) -> None:
    """When a PVC is deleted, its volume is deleted too if its reclaim policy is Delete; with Retain it stays, Released."""
    kube.delete("Pod", "user")
    kube.delete(PVC, "delete")
    kube.delete(PVC, "retain")

    for look in eventually(within=patience.volume_goes):
        with look:
            volumes = phases(kube, VOLUME)
            assert provisioned["delete"] not in volumes
            assert volumes.get(provisioned["retain"]) == "Released"


# --- who may use a PVC


@pytest.fixture
def second_writer(kube: Kube) -> Manifest:
    """The manifest of the second of two Pods that use one ReadWriteOncePod PVC; the first is Ready."""
    pvc, first, second = load_all("storage/writers.yaml")
    kube.apply([pvc, first])
    wait_until_bound(kube, "shared")
    kube.ready_pod("first")
    return second


@pytest.mark.behavior("state-and-ingress/single-writer")
def test_a_second_writer_waits_until_the_first_is_gone(kube: Kube, second_writer: Manifest) -> None:
    """Only one Pod at a time may use a ReadWriteOncePod PVC: another Pod is Unschedulable until the first is gone."""
    kube.create(second_writer)
    for look in eventually(within=patience.controller_acts):
        with look:
            reason, _ = why_not_scheduled(kube.get("Pod", "second"))
            assert reason == "Unschedulable"
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {"first": "Running", "second": "Pending"}

    # With a grace period the first Pod is gone from the API only when its node has released the volume.
    kube.delete("Pod", "first", grace=1)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.exists("Pod", "first")

    kube.ready_pod("second")


@pytest.fixture
def second_on_the_same_node(kube: Kube) -> Manifest:
    """The manifest of the second of two Pods that use one ReadWriteOnce PVC, on the node where the first is Ready."""
    pvc, first, second = load_all("storage/writers.yaml")
    pvc["spec"]["accessModes"] = ["ReadWriteOnce"]
    kube.apply([pvc, first])
    wait_until_bound(kube, "shared")
    node = kube.get("Node", kube.ready_pod("first").spec.nodeName)
    second["spec"]["nodeSelector"] = selecting(node)
    return second


@pytest.mark.behavior("state-and-ingress/single-writer")
def test_read_write_once_means_one_node_not_one_pod(kube: Kube, second_on_the_same_node: Manifest) -> None:
    """ReadWriteOnce does not promise a single writer: it allows one node, and two Pods on that node may both write."""
    kube.create(second_on_the_same_node)

    kube.ready_pod("second")
    assert phases(kube, "Pod") == {"first": "Running", "second": "Running"}


@pytest.fixture
def elsewhere(kube: Kube, shared: Kube) -> Iterator[tuple[Manifest, Manifest]]:
    """The manifests of a PVC and of a Pod that uses it; the PVC exists in another namespace."""
    pvc, pod = load_all("storage/elsewhere.yaml")
    name = pvc["metadata"]["name"] = pod["metadata"]["name"] = kube.namespace
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = name
    shared.create(pvc)
    yield pvc, pod
    shared.delete(PVC, name)


@pytest.mark.behavior("state-and-ingress/claim-in-the-pods-namespace")
def test_a_pvc_of_another_namespace_is_not_found(kube: Kube, elsewhere: tuple[Manifest, Manifest]) -> None:
    """A Pod can use only PVCs of its own namespace: it waits until there is one of that name, and then it runs."""
    pvc, pod = elsewhere
    name = pod["metadata"]["name"]
    kube.create(pod)
    for look in eventually(within=patience.controller_acts):
        with look:
            reason, message = why_not_scheduled(kube.get("Pod", name))
            assert reason == "Unschedulable"
            assert f'persistentvolumeclaim "{name}" not found' in message
    for look in throughout(patience.stays_so):
        with look:
            assert phases(kube, "Pod") == {name: "Pending"}

    kube.create(pvc)

    wait_until_bound(kube, name)
    kube.ready_pod(name)
    assert phases(kube, PVC) == {name: "Bound"}


# --- the default class


def class_of_a_new_pvc(kube: Kube) -> str | None:
    """The class that the API server gives a PVC that names none (a dry run; nothing is stored)."""
    _, pvc = load_all("storage/csi-hostpath-sc.yaml")
    given: str | None = kube.create(pvc, dryRun="All").spec.storageClassName
    return given


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/default-storage-class")
def test_a_pvc_without_a_class_gets_the_default_one(kube: Kube, two_classes: tuple[str, str]) -> None:
    """An annotation makes a class the default. If two classes have it, the newest counts, so take it from the old one.

    Moved to the newer class and back to the older one, the default follows: only the way back shows that taking the
    annotation away matters.
    """
    standard, newer = two_classes
    for look in eventually(within=patience.controller_acts):
        with look:
            assert class_of_a_new_pvc(kube) == standard

    move_default(kube, standard, newer)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert class_of_a_new_pvc(kube) == newer

    move_default(kube, newer, standard)
    for look in eventually(within=patience.controller_acts):
        with look:
            assert class_of_a_new_pvc(kube) == standard
