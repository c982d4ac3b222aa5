"""kubectl's verbs with files: what each of them does to the object in the cluster, and what to the file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.api import refused
from fixtures.counting import exactly
from fixtures.fields import Fields, plain
from fixtures.kube import Kube
from fixtures.kubectl import LAST_APPLIED, Kubectl, last_applied
from fixtures.manifests import FOLDER, load, load_all
from fixtures.patience import patience
from fixtures.waiting import eventually

pytestmark = pytest.mark.starts_last

POD, NAME = "kubectl/pod-definition.yaml", "myapp-pod"
FILE = "pod-definition.yaml"
SEVERAL = "pods/several-kinds.yaml"

#: The two versions of the image, in the places of the document's nginx 1.18 and 1.19.
OLD, NEW = "nginx:1.22.1", "nginx:1.26.3"


def change(file: Path, old: str, new: str) -> None:
    """Change a file as its user does in an editor."""
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} has no {old!r}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def in_file(file: Path) -> dict[str, Any]:
    """The object that a file describes now."""
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


def images(pod: Fields) -> list[str]:
    """The images of a Pod's containers, or of a template's."""
    return [container.image for container in pod.spec.containers]


@pytest.fixture
def file(folder: Path) -> Path:
    """The Pod's file in the test's folder."""
    return Path(shutil.copy(FOLDER / POD, folder))


def apply(kubectl: Kubectl, file: Path, *options: str) -> Path:
    """Apply a file that the test then goes on with; returns the file."""
    done = kubectl("apply", *options, "-f", file.name)
    assert done.code == 0, done.stderr
    return file


@pytest.fixture
def applied(kubectl: Kubectl, file: Path) -> Path:
    """The Pod's file, which kubectl has applied."""
    return apply(kubectl, file)


# --- imperative: create and replace


@pytest.mark.behavior("core-concepts/create-fails-if-present")
def test_create_is_an_error_if_the_object_exists(kube: Kube, kubectl: Kubectl, file: Path) -> None:
    """`kubectl create -f` makes an object. If it exists, the command fails, and the object stays as it is."""
    assert kubectl("create", "-f", FILE).code == 0
    made = kube.get("Pod", NAME)
    change(file, OLD, NEW)

    again = kubectl("create", "-f", FILE)

    assert again.code == 1
    assert "(AlreadyExists)" in again.stderr
    assert plain(kube.get("Pod", NAME)) == plain(made)


@pytest.mark.behavior("core-concepts/create-fails-if-present")
def test_the_api_server_refuses_a_second_object_of_a_name(kube: Kube) -> None:
    """The refusal is the API server's: to make an object with a name that is taken is answered with 409 AlreadyExists."""
    made = kube.create(POD)

    with refused(409) as refusals:
        kube.create(POD)

    assert [refusal.reason for refusal in refusals] == ["AlreadyExists"]
    assert plain(kube.get("Pod", NAME)) == plain(made)


@pytest.mark.behavior("core-concepts/replace-fails-if-absent")
@pytest.mark.usefixtures("file")
def test_replace_is_an_error_if_the_object_is_absent(kube: Kube, kubectl: Kubectl) -> None:
    """`kubectl replace -f` needs an object that exists. If it is absent, the command fails and makes nothing."""
    refusal = kubectl("replace", "-f", FILE)

    assert refusal.code == 1
    assert "(NotFound)" in refusal.stderr
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/replace-fails-if-absent")
def test_the_api_server_replaces_only_what_exists(kube: Kube) -> None:
    """The API server answers a PUT of a Pod that is absent with 404 NotFound, and takes the same PUT once it is there."""
    pod = load(POD)

    with refused(404) as refusals:
        kube.replace(pod)

    assert [refusal.reason for refusal in refusals] == ["NotFound"]
    assert kube.list("Pod") == []
    made = plain(kube.create(pod))
    made["spec"]["containers"][0]["image"] = NEW
    assert images(kube.replace(made)) == [NEW]


def save(kubectl: Kubectl, file: Path) -> None:
    """Save the Pod as it is now, with its resourceVersion, in a file."""
    file.write_text(kubectl("get", "pod", NAME, "-o", "yaml").stdout, encoding="utf-8")


@pytest.fixture
def saved(kube: Kube, kubectl: Kubectl, folder: Path) -> Path:
    """A file with the whole Pod in it, and since then the Pod has got another label."""
    kube.create(POD)
    file = folder / "saved.yaml"
    save(kubectl, file)
    kube.patch("Pod", NAME, {"metadata": {"labels": {"team": "blue"}}})
    return file


@pytest.mark.behavior("core-concepts/replace-fails-if-absent")
def test_replace_of_a_stale_object_is_a_conflict(kube: Kube, kubectl: Kubectl, saved: Path) -> None:
    """If the object has changed since it was saved, `kubectl replace` is a Conflict, and no change of others is lost."""
    change(saved, f"image: {OLD}", f"image: {NEW}")
    stale = kubectl("replace", "-f", saved.name)

    assert stale.code == 1
    assert "(Conflict)" in stale.stderr
    assert images(kube.get("Pod", NAME)) == [OLD]

    save(kubectl, saved)
    change(saved, f"image: {OLD}", f"image: {NEW}")
    assert kubectl("replace", "-f", saved.name).code == 0

    pod = kube.get("Pod", NAME)
    assert (images(pod), pod.metadata.labels.get("team")) == ([NEW], "blue")


@pytest.mark.behavior("core-concepts/replace-fails-if-absent")
def test_the_api_server_refuses_a_stale_resource_version(kube: Kube) -> None:
    """The API server answers a PUT with a resourceVersion that is no longer the object's with 409 Conflict."""
    pod = plain(kube.create(POD))
    pod["metadata"]["labels"]["team"] = "blue"
    kube.replace(pod)

    pod["metadata"]["labels"]["team"] = "green"
    with refused(409) as refusals:
        kube.replace(pod)

    assert [refusal.reason for refusal in refusals] == ["Conflict"]
    assert kube.get("Pod", NAME).metadata.labels.get("team") == "blue"


# --- declarative: apply


@pytest.mark.behavior("core-concepts/apply-creates-or-updates")
@pytest.mark.usefixtures("file")
def test_apply_makes_an_absent_object(kube: Kube, kubectl: Kubectl) -> None:
    """`kubectl apply -f` makes the object if there is none."""
    assert kube.list("Pod") == []

    assert kubectl("apply", "-f", FILE).code == 0

    assert images(kube.get("Pod", NAME)) == [OLD]


@pytest.mark.behavior("core-concepts/apply-creates-or-updates")
@pytest.mark.usefixtures("applied")
def test_applying_the_same_file_again_changes_nothing(kube: Kube, kubectl: Kubectl) -> None:
    """`kubectl apply` of a file that has been applied is no error, and nothing is written: the resourceVersion stays."""
    made = kube.get("Pod", NAME)

    assert kubectl("apply", "-f", FILE).code == 0

    assert kube.get("Pod", NAME).metadata.resourceVersion == made.metadata.resourceVersion


@pytest.mark.behavior("core-concepts/apply-creates-or-updates")
def test_applying_a_changed_file_changes_the_object(kube: Kube, kubectl: Kubectl, applied: Path) -> None:
    """`kubectl apply` of a changed file changes the object that is there. It does not make another one."""
    made = kube.get("Pod", NAME)
    change(applied, OLD, NEW)

    assert kubectl("apply", "-f", FILE).code == 0

    pod = kube.get("Pod", NAME)
    assert (pod.metadata.uid, images(pod)) == (made.metadata.uid, [NEW])


@pytest.mark.behavior("core-concepts/last-applied-annotation")
def test_apply_keeps_the_file_as_json_in_an_annotation(kube: Kube, kubectl: Kubectl, file: Path) -> None:
    """After each apply an annotation of the object holds what was applied, as JSON: the file, and the namespace."""
    for image in (OLD, NEW):
        change(file, OLD, image)
        written = in_file(file)
        written["metadata"] |= {"namespace": kube.namespace, "annotations": {}}

        assert kubectl("apply", "-f", FILE).code == 0

        assert last_applied(kube.get("Pod", NAME)) == written


@pytest.mark.behavior("core-concepts/last-applied-annotation")
@pytest.mark.usefixtures("file")
def test_create_leaves_no_such_annotation(kube: Kube, kubectl: Kubectl) -> None:
    """`kubectl create` keeps no copy of the file: a Pod that it has made has no such annotation until an apply adds it."""
    assert kubectl("create", "-f", FILE).code == 0
    assert LAST_APPLIED not in kube.get("Pod", NAME).metadata.annotations

    assert kubectl("apply", "-f", FILE).code == 0
    assert LAST_APPLIED in kube.get("Pod", NAME).metadata.annotations


@pytest.fixture
def deployment_file(kubectl: Kubectl, folder: Path) -> Path:
    """The file of the Deployment, which kubectl has applied."""
    return apply(kubectl, Path(shutil.copy(FOLDER / "kubectl/deployment-definition.yaml", folder)))


@pytest.mark.behavior("core-concepts/apply-updates-the-image")
def test_a_new_image_in_the_file_reaches_object_and_annotation(
    kube: Kube, kubectl: Kubectl, deployment_file: Path
) -> None:
    """Apply a file with another image: object and annotation have it. What the file does not name stays, as `replicas` here."""
    name = "myapp-deployment"
    kube.scale("Deployment", name, 2)
    change(deployment_file, OLD, NEW)

    assert kubectl("apply", "-f", deployment_file.name).code == 0

    deployment = kube.get("Deployment", name)
    assert images(deployment.spec.template) == [NEW]
    assert last_applied(deployment).get("spec") == in_file(deployment_file)["spec"]
    assert deployment.spec.replicas == 2


@pytest.mark.behavior("core-concepts/apply-removes-a-dropped-label")
def test_a_label_dropped_from_the_file_is_removed(kube: Kube, kubectl: Kubectl, applied: Path) -> None:
    """A label that was in the last applied file and is not in this one is removed. A label from elsewhere stays."""
    kube.patch("Pod", NAME, {"metadata": {"labels": {"team": "blue"}}})
    change(applied, "    type: front-end\n", "")

    assert kubectl("apply", "-f", FILE).code == 0

    assert kube.get("Pod", NAME).metadata.labels == {"app": "myapp", "team": "blue"}


@pytest.mark.behavior("core-concepts/apply-removes-a-dropped-label")
def test_without_the_annotation_a_dropped_label_stays(kube: Kube, kubectl: Kubectl, file: Path) -> None:
    """Apply knows what was dropped from the annotation alone: on a Pod that `kubectl create` has made, the label stays."""
    assert kubectl("create", "-f", FILE).code == 0
    change(file, "    type: front-end\n", "")

    assert kubectl("apply", "-f", FILE).code == 0

    assert kube.get("Pod", NAME).metadata.labels == {"app": "myapp", "type": "front-end"}


# --- object and file


@pytest.fixture
def replicaset_file(kubectl: Kubectl, folder: Path) -> Path:
    """The file of the ReplicaSet of three, which kubectl has applied."""
    return apply(kubectl, Path(shutil.copy(FOLDER / "kubectl/replicaset-definition.yaml", folder)))


@pytest.mark.behavior("core-concepts/scale-leaves-the-file-alone")
def test_scaling_by_file_changes_the_object_only(kube: Kube, kubectl: Kubectl, replicaset_file: Path) -> None:
    """`kubectl scale -f FILE` sets the object's number and leaves the file alone: the next apply brings the file's back."""
    file, written = replicaset_file.name, replicaset_file.read_bytes()

    assert kubectl("scale", "--replicas=6", "-f", file).code == 0

    replicaset = kube.get("ReplicaSet", "myapp-replicaset")
    assert replicaset.spec.replicas == 6
    assert "scale" in [entry.subresource for entry in replicaset.metadata.managedFields]
    assert replicaset_file.read_bytes() == written
    assert kubectl("apply", "-f", file).code == 0
    assert kube.get("ReplicaSet", "myapp-replicaset").spec.replicas == 3


#: An editor that changes the image, which stands alone on its line; the annotation's line stays as it is.
EDITOR = f"sed -i.bak 's/image: {OLD}/image: {NEW}/' \"$1\""


@pytest.mark.behavior("core-concepts/edit-leaves-the-file-alone")
def test_edit_changes_the_object_only(kube: Kube, kubectl: Kubectl, applied: Path) -> None:
    """`kubectl edit` changes the object in the cluster. The file that it was made from stays as it was."""
    written = applied.read_bytes()

    assert kubectl("edit", "pod", NAME, editor=EDITOR).code == 0

    assert images(kube.get("Pod", NAME)) == [NEW]
    assert applied.read_bytes() == written


@pytest.mark.behavior("core-concepts/edit-leaves-the-file-alone")
@pytest.mark.usefixtures("applied")
def test_diff_names_what_edit_changed_and_apply_takes_it_back(kube: Kube, kubectl: Kubectl) -> None:
    """After an edit, `kubectl diff -f` shows what the next apply would do, and ends with 1. That apply undoes the edit."""
    assert kubectl("diff", "-f", FILE).code == 0
    assert kubectl("edit", "pod", NAME, editor=EDITOR).code == 0

    diff = kubectl("diff", "-f", FILE)

    assert diff.code == 1
    changed = [line.split() for line in diff.stdout.splitlines() if "image:" in line]
    assert changed == [["-", "-", "image:", NEW], ["+", "-", "image:", OLD]]
    assert images(kube.get("Pod", NAME)) == [NEW]
    assert kubectl("apply", "-f", FILE).code == 0
    assert images(kube.get("Pod", NAME)) == [OLD]
    assert kubectl("diff", "-f", FILE).code == 0


# --- server-side apply


def as_owner(name: str) -> tuple[str, str]:
    """The options of a server-side apply that is done by this field manager."""
    return "--server-side", f"--field-manager={name}"


def owned(pod: Fields, owner: str) -> dict[str, Any]:
    """The fields that a manager has applied, as managedFields writes them; empty if there are none."""
    entries = [plain(entry) for entry in pod.metadata.managedFields if entry.manager == owner]
    return {
        key: value for entry in entries if entry["operation"] == "Apply" for key, value in entry["fieldsV1"].items()
    }


def owns_image(pod: Fields, owner: str) -> bool:
    """Whether a manager owns the image of the Pod's container."""
    containers = owned(pod, owner).get("f:spec", {}).get("f:containers", {})
    return "f:image" in containers.get('k:{"name":"nginx-container"}', {})


@pytest.fixture
def first_owner(kubectl: Kubectl, file: Path) -> Path:
    """The Pod's file, which "first" has applied with server-side apply."""
    return apply(kubectl, file, *as_owner("first"))


@pytest.mark.behavior("core-concepts/server-side-apply")
@pytest.mark.usefixtures("file")
def test_server_side_apply_records_who_owns_each_field(kube: Kube, kubectl: Kubectl) -> None:
    """With `--server-side` the API server compares: managedFields lists each owner's fields, and no annotation is needed."""
    assert kubectl("apply", *as_owner("first"), "-f", FILE).code == 0

    pod = kube.get("Pod", NAME)
    fields = owned(pod, "first")
    assert fields.get("f:metadata") == {"f:labels": {"f:app": {}, "f:type": {}}}
    assert fields.get("f:spec", {}).keys() == {"f:containers", "f:schedulingGates", "f:terminationGracePeriodSeconds"}
    assert owns_image(pod, "first")
    assert LAST_APPLIED not in pod.metadata.annotations


@pytest.mark.behavior("core-concepts/server-side-apply")
def test_a_second_owner_gets_a_conflict(kube: Kube, kubectl: Kubectl, first_owner: Path) -> None:
    """Who applies another value for a field of somebody else's is refused with 409 Conflict, which names the owner."""
    assert kubectl("apply", *as_owner("second"), "-f", FILE).code == 0  # the same values are no conflict
    change(first_owner, OLD, NEW)

    refusal = kubectl("apply", *as_owner("second"), "-f", FILE)

    assert refusal.code == 1
    assert 'conflict with "first"' in refusal.stderr
    assert images(kube.get("Pod", NAME)) == [OLD]
    with refused(409) as refusals:
        kube.apply(in_file(first_owner), force="false")
    assert [refusal.reason for refusal in refusals] == ["Conflict"]


@pytest.mark.behavior("core-concepts/server-side-apply")
def test_a_second_owner_takes_the_field_over_by_force(kube: Kube, kubectl: Kubectl, first_owner: Path) -> None:
    """With `--force-conflicts` the second owner's value is set, and the field is the second owner's alone."""
    change(first_owner, OLD, NEW)

    assert kubectl("apply", *as_owner("second"), "--force-conflicts", "-f", FILE).code == 0

    pod = kube.get("Pod", NAME)
    assert images(pod) == [NEW]
    assert [owner for owner in ("first", "second") if owns_image(pod, owner)] == ["second"]


# --- describe and delete


@pytest.fixture
def running(kube: Kube) -> Fields:
    """The document's nginx Pod, Ready."""
    kube.create("pods/nginx-pod.yaml")
    return kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("objects/describe-shows-ip-node-and-events")
def test_describe_shows_address_node_and_events(kube: Kube, kubectl: Kubectl, running: Fields) -> None:
    """`kubectl describe pod` shows on one page what the Pod and its Events say: its IP, its node, and what happened."""
    for look in eventually(within=patience.controller_acts):
        with look:
            events = kube.events(running)
            assert {event.reason for event in events} >= {"Scheduled", "Started"}

    page = kubectl("describe", "pod", running.metadata.name).stdout

    facts, _, happened = page.partition("\nEvents:")
    lines = [line.split() for line in facts.splitlines()]
    assert ["IP:", running.status.podIP] in lines
    assert ["Node:", f"{running.spec.nodeName}/{running.status.hostIP}"] in lines
    rows = [line.split()[:2] for line in happened.splitlines()]
    assert [event.reason for event in events if [event.type, event.reason] not in rows] == []


def bystander() -> list[dict[str, Any]]:
    """The same objects as in the file, with another name."""
    documents = load_all(SEVERAL)
    for document in documents:
        document["metadata"]["name"] = "bystander"
    return documents


def there(kube: Kube, name: str) -> list[str]:
    """The kinds of the file of which there is an object with this name."""
    kinds = [document["kind"] for document in load_all(SEVERAL)]
    return [kind for kind in kinds if kube.exists(kind, name)]


@pytest.mark.behavior("objects/delete-by-file")
def test_delete_by_file_removes_what_the_file_made(kube: Kube, kubectl: Kubectl, folder: Path) -> None:
    """`kubectl delete -f` removes every object that the file names, and nothing else."""
    shutil.copy(FOLDER / SEVERAL, folder)
    assert kubectl("create", "-f", "several-kinds.yaml").code == 0
    kube.apply(bystander())
    kinds = exactly(3, there(kube, "several"))

    assert kubectl("delete", "-f", "several-kinds.yaml").code == 0

    assert there(kube, "several") == []
    assert there(kube, "bystander") == kinds
