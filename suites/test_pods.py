"""Pods: what they are written as, what their containers share, where they run, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from ipaddress import ip_address, ip_network

import pytest

from fixtures.api import API_VERSIONS, ApiRefusal, refused
from fixtures.clients import Inside, Outside
from fixtures.fields import Fields
from fixtures.kube import APPLY, Kube
from fixtures.kubectl import Kubectl
from fixtures.manifests import Manifest, load, load_all, names
from fixtures.nodes import internal_ip
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout

TWO_CONTAINERS = "my-nginx-ubuntu-pod"

Kinds = dict[str, tuple[str, str | None, bool]]

#: What `kubectl api-resources` lists of each kind that the suites use: apiVersion, short name, and whether it is namespaced.
KINDS: Kinds = {
    "ConfigMap": ("v1", "cm", True),
    "Endpoints": ("v1", "ep", True),
    "Event": ("v1", "ev", True),
    "Namespace": ("v1", "ns", False),
    "Node": ("v1", "no", False),
    "PersistentVolume": ("v1", "pv", False),
    "PersistentVolumeClaim": ("v1", "pvc", True),
    "Pod": ("v1", "po", True),
    "ReplicationController": ("v1", "rc", True),
    "ResourceQuota": ("v1", "quota", True),
    "Secret": ("v1", None, True),
    "Service": ("v1", "svc", True),
    "ServiceAccount": ("v1", "sa", True),
    "ControllerRevision": ("apps/v1", None, True),
    "DaemonSet": ("apps/v1", "ds", True),
    "Deployment": ("apps/v1", "deploy", True),
    "ReplicaSet": ("apps/v1", "rs", True),
    "StatefulSet": ("apps/v1", "sts", True),
    "SelfSubjectAccessReview": ("authorization.k8s.io/v1", None, False),
    "CronJob": ("batch/v1", "cj", True),
    "Job": ("batch/v1", None, True),
    "Lease": ("coordination.k8s.io/v1", None, True),
    "EndpointSlice": ("discovery.k8s.io/v1", None, True),
    "Ingress": ("networking.k8s.io/v1", "ing", True),
    "IngressClass": ("networking.k8s.io/v1", None, False),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", None, False),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", None, False),
    "Role": ("rbac.authorization.k8s.io/v1", None, True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", None, True),
    "StorageClass": ("storage.k8s.io/v1", "sc", False),
}

# --- what a Pod is written as


@pytest.fixture
def kinds() -> Kinds:
    """The table above; it must hold every kind that the suites use."""
    assert API_VERSIONS.keys() <= KINDS.keys(), "the suites use kinds that are not in the table"
    return KINDS


@pytest.mark.behavior("objects/everything-is-an-object")
def test_the_api_lists_every_kind_of_object(kube: Kube, kinds: Kinds) -> None:
    """Pods, Services, accounts and nodes alike are kinds of objects, and the API itself lists them all."""
    listed = {}
    for kind in kinds:
        resource = kube.api.resource(kind)
        short_name = resource.short_names[0] if resource.short_names else None
        listed[kind] = (resource.group_version, short_name, resource.namespaced)

    assert listed == kinds


@pytest.mark.behavior("objects/everything-is-an-object")
def test_all_kept_objects_know_the_same_verbs(kube: Kube, kinds: Kinds) -> None:
    """Whatever the cluster keeps is read, watched and changed alike; a review is only answered, and so only created."""
    kept = {"create", "delete", "get", "list", "patch", "update", "watch"}
    only_answered = {"SelfSubjectAccessReview"}

    verbs = {kind: set(kube.api.resource(kind).verbs) for kind in kinds}

    assert {kind for kind in kinds if not kept <= verbs[kind]} == only_answered
    assert [verbs[kind] for kind in only_answered] == [{"create"}]


@pytest.fixture
def exhibits() -> list[str]:
    """Every file under manifests/, but for those that are wrong on purpose."""
    found = [name for name in names() if not name.endswith(".refused.yaml")]
    assert found
    return found


@pytest.fixture
def wrong_exhibits() -> list[str]:
    """The files under manifests/ that are wrong on purpose: they are named *.refused.yaml."""
    found = [name for name in names() if name.endswith(".refused.yaml")]
    assert found
    return found


def refusals_of(kube: Kube, files: Iterable[str]) -> dict[str, str]:
    """What a strict dry run says against each file, by its name. An object that is there already (409) is a valid one."""
    refusals = {}
    for name in files:
        for document in load_all(name):
            try:
                kube.create(document, dryRun="All")
            except ApiRefusal as refusal:
                if refusal.status != 409:
                    refusals[name] = str(refusal)
    return refusals


@pytest.mark.behavior("objects/yaml-for-every-kind")
def test_every_manifest_here_passes_a_strict_dry_run(kube: Kube, exhibits: list[str]) -> None:
    """Nearly every kind of object can be written as YAML, and the API server can judge a file without storing anything."""
    assert refusals_of(kube, exhibits) == {}


@pytest.mark.behavior("objects/yaml-for-every-kind")
def test_every_manifest_wrong_on_purpose_is_refused(kube: Kube, wrong_exhibits: list[str]) -> None:
    """A strict dry run tells right from wrong: none of the files named *.refused.yaml passes it."""
    assert sorted(refusals_of(kube, wrong_exhibits)) == wrong_exhibits


@pytest.mark.behavior("core-concepts/four-required-fields")
@pytest.mark.parametrize("field", ["apiVersion", "kind"])
def test_a_manifest_must_say_of_what_type_it_is(kube: Kube, field: str) -> None:
    """An object's type is its apiVersion and kind together: a manifest that lacks one of them cannot be applied."""
    whole = load("pods/nginx-pod.yaml")
    path = kube.api.resource("Pod").path(namespace=kube.namespace, name="my-nginx-pod")
    kube.api.call("PATCH", path, whole, {"fieldManager": "kubehave", "dryRun": "All"}, APPLY)

    del whole[field]
    with refused(400):
        kube.api.call("PATCH", path, whole, {"fieldManager": "kubehave"}, APPLY)

    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/four-required-fields")
@pytest.mark.parametrize(("field", "lacking"), [("metadata", "metadata.name"), ("spec", "spec.containers")])
def test_a_manifest_must_have_metadata_and_spec(kube: Kube, field: str, lacking: str) -> None:
    """The name is in metadata, what the object is to be in spec: the refusal names the field that is missed in them."""
    whole = load("pods/nginx-pod.yaml")
    kube.create(whole, dryRun="All")

    del whole[field]
    with refused(422) as refusals:
        kube.create(whole)

    assert refusals[0].fields == [lacking]
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
def test_metadata_takes_only_the_fields_of_the_api(kube: Kube) -> None:
    """A field of one's own has no place in metadata: strict validation refuses it and names it."""
    manifest = load("pods/labelled-pod.yaml")
    kube.create(manifest, dryRun="All")

    manifest["metadata"]["owner"] = "me"
    with refused(400) as refusals:
        kube.create(manifest)

    assert '"metadata.owner"' in refusals[0].message
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
def test_labels_are_kept_as_they_are_given(kube: Kube) -> None:
    """Keys and values of labels are the user's own: the API stores what it is given, and finds the object by it."""
    given = load("pods/labelled-pod.yaml")["metadata"]["labels"]

    kube.create("pods/labelled-pod.yaml")

    (found,) = kube.list("Pod", **given)
    assert found.metadata.labels == given


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
@pytest.mark.parametrize(
    ("too_much", "just_right"),
    [
        pytest.param({"a key": ""}, {"a-key": ""}, id="a space in the key"),
        pytest.param({"k" * 64: ""}, {"k" * 63: ""}, id="64 characters in the key"),
        pytest.param({"key": "v" * 64}, {"key": "v" * 63}, id="64 characters in the value"),
        pytest.param({"key": "-value"}, {"key": "v-alue"}, id="a dash begins the value"),
    ],
)
def test_labels_have_a_syntax(kube: Kube, too_much: dict[str, str], just_right: dict[str, str]) -> None:
    """Free does not mean formless: at most 63 letters, digits, dashes, dots or underscores, a letter or digit at each end."""
    manifest = load("pods/labelled-pod.yaml")
    manifest["metadata"]["labels"] = just_right
    kube.create(manifest, dryRun="All")

    manifest["metadata"]["labels"] = too_much
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["metadata.labels"]
    assert kube.list("Pod") == []


@pytest.fixture
def misspelt() -> Manifest:
    """The document's Service, with externalTrafficPilicy where it means externalTrafficPolicy."""
    manifest = load("pods/svc-local-nodeport.refused.yaml")
    assert "externalTrafficPilicy" in manifest["spec"]
    return manifest


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_strict_validation_names_the_misspelt_field(kube: Kube, misspelt: Manifest) -> None:
    """The document's manifest does not do what the document says; strict validation says so before anything is made."""
    with refused(400) as refusals:
        kube.create(misspelt, fieldValidation="Strict")

    assert '"spec.externalTrafficPilicy"' in refusals[0].message
    assert kube.list("Service") == []


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_a_warning_names_the_misspelt_field_and_refuses_nothing(kube: Kube, misspelt: Manifest) -> None:
    """Where validation only warns, the field is dropped too; a `Warning` header beside the answer says which one."""
    service = kube.create(misspelt, fieldValidation="Warn")

    assert ['"spec.externalTrafficPilicy"' in warning for warning in kube.api.warnings] == [True]
    assert service.spec.externalTrafficPolicy == "Cluster"


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_without_validation_the_misspelt_field_is_dropped(kube: Kube, misspelt: Manifest) -> None:
    """Unchecked, the field is lost in silence and the policy is the default, Cluster; spelt right, it is Local."""
    corrected = load("pods/svc-local-nodeport.refused.yaml")
    corrected["spec"]["externalTrafficPolicy"] = corrected["spec"].pop("externalTrafficPilicy")
    policy = kube.create(corrected, dryRun="All").spec.externalTrafficPolicy
    assert policy == "Local", f"spelt right, the policy is {policy}"

    kube.create(misspelt, fieldValidation="Ignore")

    assert kube.api.warnings == []
    assert kube.get("Service", "svc-local-nodeport").spec.externalTrafficPolicy == "Cluster"


# --- a Pod that runs, and who reaches it


@pytest.mark.behavior("objects/pod-from-yaml", "controllers/pod-phases")
def test_the_nginx_manifest_makes_a_running_pod_on_a_worker(kube: Kube, workers: list[Fields]) -> None:
    """From a dozen lines of YAML comes a container that runs, on one of the nodes that take work."""
    kube.create("pods/nginx-pod.yaml")

    pod = kube.ready_pod("my-nginx-pod")
    assert pod.status.phase == "Running"
    assert pod.spec.nodeName in [worker.metadata.name for worker in workers]


@pytest.fixture
def nginx_pod(kube: Kube) -> Fields:
    """The document's nginx Pod, Ready."""
    kube.create("pods/nginx-pod.yaml")
    return kube.ready_pod("my-nginx-pod")


@pytest.fixture
def ranges(nodes: list[Fields], inside: Inside) -> dict[str, list[str]]:
    """The Pod addresses that each node was given to hand out. Skips where the network plugin keeps books of its own."""
    given = {node.metadata.name: node.spec.podCIDRs for node in nodes}
    if not any(is_in(given[node], inside.pod_ip(node)) for node in inside.nodes):
        pytest.skip("this cluster's network plugin does not hand out Pod addresses from Node.spec.podCIDRs")
    return given


def is_in(blocks: Iterable[str], address: str) -> bool:
    """The address lies in one of the blocks ("10.244.1.0/24")."""
    return any(ip_address(address) in ip_network(block) for block in blocks)


@pytest.mark.behavior("objects/pod-from-yaml")
def test_the_pods_ip_is_of_its_nodes_range(nginx_pod: Fields, ranges: dict[str, list[str]]) -> None:
    """A Pod's IP is one of the cluster network, from the part of it that belongs to the Pod's node."""
    nodes = [node for node, blocks in ranges.items() if is_in(blocks, nginx_pod.status.podIP)]

    assert nodes == [nginx_pod.spec.nodeName]


@pytest.mark.behavior("objects/pod-ip-serves-inside-only")
def test_the_pods_ip_serves_and_no_node_opens_its_port(nginx_pod: Fields, nodes: list[Fields], inside: Inside) -> None:
    """The Pod's IP serves on every node of the cluster, but containerPort opens nothing on the nodes themselves."""
    by_pod_ip = f"http://{nginx_pod.status.podIP}"
    for look in eventually(within=patience.server_listens):
        with look:
            assert [node for node in inside.nodes if inside.get(by_pod_ip, node).status != 200] == []

    by_node = {node.metadata.name: inside.get(f"http://{internal_ip(node)}").status for node in nodes}

    assert [node for node, status in by_node.items() if status == 200] == []


@pytest.fixture
def node_port(kube: Kube, nginx_pod: Fields, workers: list[Fields]) -> str:
    """The URL of a node's port that leads to the nginx Pod."""
    service = kube.create("pods/nginx-nodeport.yaml")
    assert service.spec.selector.items() <= nginx_pod.metadata.labels.items()
    return f"http://{internal_ip(workers[0])}:{service.spec.ports[0].nodePort}"


@pytest.mark.behavior("objects/pod-ip-serves-inside-only")
def test_from_outside_no_way_leads_to_the_pods_ip(nginx_pod: Fields, node_port: str, outside: Outside) -> None:
    """Outside the cluster the Pod's IP is nobody's address; the same Pod is reached through a Service's node port."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert outside.get(node_port).status == 200

    assert outside.get(f"http://{nginx_pod.status.podIP}").status is None
    assert outside.get(node_port).status == 200


@pytest.fixture
def pod_without_container_port(kube: Kube) -> Fields:
    """The nginx Pod, Ready, that does not say what port it serves on."""
    manifest = load("pods/nginx-pod.yaml")
    del manifest["spec"]["containers"][0]["ports"]
    kube.create(manifest)
    return kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("objects/pod-without-containerport-still-serves")
def test_a_pod_without_containerport_serves_all_the_same(pod_without_container_port: Fields, inside: Inside) -> None:
    """What containerPort says is for readers only; whether a port answers is up to the program in the container."""
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{pod_without_container_port.status.podIP}").status == 200
    assert pod_without_container_port.spec.containers[0].ports == []


@pytest.mark.behavior("objects/exec-into-a-pod")
def test_exec_brings_back_output_errors_and_exit_status(kube: Kube, nginx_pod: Fields) -> None:
    """A command that exec runs is in the Pod (the host name is the Pod's), and its failure comes back with its number."""
    hostname = kube.exec(nginx_pod.metadata.name, "hostname")
    failing = kube.exec(nginx_pod.metadata.name, "sh", "-c", "echo in vain >&2; exit 3")

    assert (hostname.code, hostname.stdout, hostname.stderr) == (0, "my-nginx-pod\n", "")
    assert (failing.code, failing.stdout, failing.stderr) == (3, "", "in vain\n")


@pytest.mark.behavior("objects/logs-of-a-pod")
def test_logs_show_what_the_pod_wrote(kube: Kube, nginx_pod: Fields, inside: Inside) -> None:
    """A Pod's log is what its container writes to standard output: here nginx, a line for each request."""
    path = f"/{kube.namespace}"
    assert path not in kube.logs(nginx_pod.metadata.name)

    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{nginx_pod.status.podIP}{path}").status == 404

    for look in eventually(within=patience.log_arrives):
        with look:
            assert f"GET {path} " in kube.logs(nginx_pod.metadata.name)


# --- what the containers of a Pod share


@pytest.fixture
def nginx_ubuntu_pod(kube: Kube) -> Fields:
    """The document's Pod of two containers, Ready."""
    kube.create("pods/nginx-ubuntu-pod.yaml")
    return kube.ready_pod(TWO_CONTAINERS)


@pytest.mark.behavior("objects/two-container-pod")
def test_both_containers_of_a_pod_run(kube: Kube) -> None:
    """READY 2/2: one Pod, two containers, each with a program of its own that exec -c reaches by the container's name."""
    kube.create("pods/nginx-ubuntu-pod.yaml")

    for look in eventually(within=patience.pod_starts):
        with look:
            ready = {status.name: status.ready for status in kube.get("Pod", TWO_CONTAINERS).status.containerStatuses}
            assert ready == {"nginx-container": True, "ubuntu-container": True}
    programs = {name: kube.exec(TWO_CONTAINERS, "cat", "/proc/1/comm", container=name).stdout for name in ready}
    assert programs == {"nginx-container": "nginx\n", "ubuntu-container": "tail\n"}


@pytest.mark.behavior("objects/two-container-pod")
def test_without_a_name_kubectl_chooses_the_container(kube: Kube, kubectl: Kubectl, nginx_ubuntu_pod: Fields) -> None:
    """To the API a container must be named; without -c kubectl names the first one, or the one annotated as default."""
    name, program = nginx_ubuntu_pod.metadata.name, ("cat", "/proc/1/comm")
    with refused(400):
        kube.exec(name, *program)
    assert kubectl("exec", name, "--", *program).stdout == "nginx\n"

    default = {"kubectl.kubernetes.io/default-container": "ubuntu-container"}
    kube.patch("Pod", name, {"metadata": {"annotations": default}})

    assert kubectl("exec", name, "--", *program).stdout == "tail\n"


@pytest.mark.behavior("objects/localhost-is-shared")
def test_localhost_is_the_whole_pods(kube: Kube, nginx_ubuntu_pod: Fields, inside: Inside) -> None:
    """The container without a server gets nginx's page from localhost: a Pod's containers have one localhost."""
    for look in eventually(within=patience.server_listens):
        with look:
            page = inside.get(f"http://{nginx_ubuntu_pod.status.podIP}")
            assert page.status == 200

    from_localhost = kube.exec(TWO_CONTAINERS, "wget", "-qO-", "http://localhost", container="ubuntu-container")

    assert from_localhost.stdout.strip() == page.body.strip()
    assert "nginx" in programs_in(kube, "nginx-container")
    assert "nginx" not in programs_in(kube, "ubuntu-container")


def programs_in(kube: Kube, container: str) -> list[str]:
    """The names of the processes that a container sees."""
    return kube.exec(TWO_CONTAINERS, "sh", "-c", "cat /proc/[0-9]*/comm", container=container).stdout.split()


#: Prints the Linux namespaces that a process is in, a line each ("net:[4026532281]").
LINUX_NAMESPACES = ("sh", "-c", "for kind in net ipc uts mnt pid; do readlink /proc/self/ns/$kind; done")


def shared_namespaces(kube: Kube) -> set[str]:
    """The kinds of Linux namespaces that the two containers have in common."""
    of_nginx = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="nginx-container").stdout.split()
    of_ubuntu = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="ubuntu-container").stdout.split()
    return {namespace.partition(":")[0] for namespace in of_nginx if namespace in of_ubuntu}


@pytest.mark.behavior("objects/linux-namespaces-are-shared", "nginx-walkthrough/pods-share-storage-and-network")
def test_containers_share_network_ipc_and_host_name(kube: Kube, nginx_ubuntu_pod: Fields, inside: Inside) -> None:
    """Network, IPC and host name are one for all of a Pod's containers, file systems and processes are each one's own."""
    assert shared_namespaces(kube) == {"net", "ipc", "uts"}

    of_nginx = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="nginx-container").stdout.split()
    of_another_pod = inside.run(*LINUX_NAMESPACES, node=nginx_ubuntu_pod.spec.nodeName).stdout.split()
    assert len(of_another_pod) == len(of_nginx)
    assert set(of_another_pod).isdisjoint(of_nginx)


@pytest.fixture
def pod_of_one_process_list(kube: Kube) -> Fields:
    """The same Pod, Ready, with shareProcessNamespace."""
    manifest = load("pods/nginx-ubuntu-pod.yaml")
    manifest["spec"]["shareProcessNamespace"] = True
    kube.create(manifest)
    return kube.ready_pod(TWO_CONTAINERS)


@pytest.mark.behavior("objects/linux-namespaces-are-shared")
@pytest.mark.usefixtures("pod_of_one_process_list")
def test_containers_share_their_processes_if_the_pod_says_so(kube: Kube) -> None:
    """With shareProcessNamespace a Pod's containers see each other's processes too; the file systems stay apart even so."""
    assert shared_namespaces(kube) == {"net", "ipc", "uts", "pid"}
    assert "nginx" in programs_in(kube, "ubuntu-container")


@pytest.fixture
def storage_pod(kube: Kube) -> Fields:
    """An application and its helper over one volume, Ready."""
    kube.create("pods/shared-storage-pod.yaml")
    return kube.ready_pod("shared-storage")


@pytest.mark.behavior(
    "core-concepts/containers-of-a-pod-share-localhost-and-storage", "nginx-walkthrough/pods-share-storage-and-network"
)
def test_the_helper_reads_the_applications_file_and_port(kube: Kube, storage_pod: Fields) -> None:
    """A volume is shared by the containers that mount it, a port by all of the Pod; any other file is the container's own."""

    def helper(*command: str) -> tuple[int, str]:
        output = kube.exec(storage_pod.metadata.name, *command, container="helper")
        return output.code, output.stdout

    for look in eventually(within=patience.server_listens):
        with look:
            assert helper("wget", "-qO-", "http://localhost:8080/note") == (0, "shared\n")
    assert helper("cat", "/shared/note") == (0, "shared\n")
    assert helper("cat", "/tmp/note") == (1, "")


# --- sidecars


@pytest.fixture
def nginx_with_sidecar(kube: Kube) -> Fields:
    """The Pod of nginx and the sidecar that ships its log, Ready."""
    kube.create("pods/sidecar-pod.yaml")
    return kube.ready_pod("nginx-with-sidecar")


@pytest.mark.behavior("objects/sidecar-on-the-same-node")
def test_a_sidecar_ships_the_log_of_its_main_container(kube: Kube, nginx_with_sidecar: Fields, inside: Inside) -> None:
    """The sidecar runs where its main container runs, always: it reads the log from a volume that only that node has."""
    name, path = nginx_with_sidecar.metadata.name, f"/{kube.namespace}"
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{nginx_with_sidecar.status.podIP}{path}").status == 404

    for look in eventually(within=patience.log_arrives):
        with look:
            assert f"GET {path} " in kube.logs(name, container="sidecar")
    assert path not in kube.logs(name, container="nginx")


@pytest.fixture
def pod_whose_work_is_done(kube: Kube) -> str:
    """The name of a Pod with a native sidecar, whose main container has ended."""
    kube.create("pods/native-sidecar-pod.yaml")
    for look in eventually(within=patience.pod_starts):
        with look:
            statuses = kube.get("Pod", "native-sidecar").status.containerStatuses
            assert [status.name for status in statuses if status.state.terminated] == ["main"]
    return "native-sidecar"


@pytest.mark.behavior("objects/sidecar-on-the-same-node")
def test_a_native_sidecar_starts_before_and_stops_after(kube: Kube, pod_whose_work_is_done: str) -> None:
    """An init container that restarts always frames the main one, and does not keep the Pod from ending with it."""
    for look in eventually(within=patience.pod_goes):
        with look:
            assert kube.get("Pod", pod_whose_work_is_done).status.phase == "Succeeded"
    assert kube.logs(pod_whose_work_is_done, container="sidecar").splitlines() == [
        "sidecar starts",
        "main starts",
        "main stops",
        "sidecar stops",
    ]


# --- how a Pod lives and ends


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_that_fits_no_node_is_pending(kube: Kube) -> None:
    """Pending, first case: the scheduler has found no node, and the condition PodScheduled says so."""
    kube.create("pods/unschedulable-pod.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            pod = kube.get("Pod", "unschedulable")
            scheduled = [(it.status, it.reason) for it in pod.status.conditions if it.type == "PodScheduled"]
            assert scheduled == [("False", "Unschedulable")]
    assert pod.status.phase == "Pending"
    assert pod.spec.nodeName is None


def pods_with_a_node(kube: Kube) -> list[Fields]:
    """Wait until every Pod of the test has been given a node; returns them, whatever becomes of them there."""
    for look in eventually(within=patience.pod_starts):
        with look:
            pods = kube.list("Pod")
            assert [pod.metadata.name for pod in pods if pod.spec.nodeName is None] == []
    return pods


@pytest.fixture
def pod_without_image(kube: Kube) -> Fields:
    """A Pod whose image exists nowhere; it has a node."""
    kube.create("pods/no-such-image-pod.yaml")
    (pod,) = pods_with_a_node(kube)
    return pod


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_without_its_image_is_pending(kube: Kube, pod_without_image: Fields) -> None:
    """Pending, second case: the Pod has its node, but its container waits for an image that cannot be pulled."""
    for look in eventually(within=patience.image_fails):
        with look:
            status = kube.get("Pod", pod_without_image.metadata.name).status
            assert [it.state.waiting.reason for it in status.containerStatuses] in (
                ["ErrImagePull"],
                ["ImagePullBackOff"],
            )
    assert status.phase == "Pending"


@pytest.fixture
def ending_pods(kube: Kube) -> list[Fields]:
    """Two Pods that are not restarted, one that succeeds and one that fails; both have a node."""
    kube.apply("pods/ending-pods.yaml")
    pods = pods_with_a_node(kube)
    assert [pod.metadata.name for pod in pods] == ["fails", "succeeds"]
    return pods


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_ends_as_its_container_did(kube: Kube, ending_pods: list[Fields]) -> None:
    """Where nothing is restarted, exit code 0 makes the Pod Succeeded, and any other one Failed."""
    for look in eventually(within=patience.pod_starts):
        with look:
            ended = {pod.metadata.name: kube.get("Pod", pod.metadata.name).status for pod in ending_pods}
            assert {name: status.phase for name, status in ended.items()} == {
                "succeeds": "Succeeded",
                "fails": "Failed",
            }
    codes = {name: status.containerStatuses[0].state.terminated.exitCode for name, status in ended.items()}
    assert codes == {"succeeds": 0, "fails": 1}


def restarted_containers(kube: Kube) -> dict[str, set[str]]:
    """The restart policy of each Pod, and the names of its containers that were restarted."""
    return {
        pod.spec.restartPolicy: {status.name for status in pod.status.containerStatuses if status.restartCount}
        for pod in kube.list("Pod")
    }


@pytest.fixture
def pods_of_all_policies(kube: Kube) -> None:
    """A Pod for each policy; both containers of each have ended at least once."""
    kube.apply("pods/restart-policies.yaml")
    for look in eventually(within=patience.pod_starts):
        with look:
            statuses = [status for pod in kube.list("Pod") for status in pod.status.containerStatuses]
            assert len(statuses) == 6
            assert [it.name for it in statuses if not (it.state.terminated or it.lastState.terminated)] == []


@pytest.mark.behavior("controllers/restart-policy")
@pytest.mark.usefixtures("pods_of_all_policies")
def test_the_pods_policy_decides_what_is_restarted(kube: Kube) -> None:
    """Always starts again whatever ended, OnFailure what failed, and Never nothing; the policy is set for the Pod."""
    restarted = {"Always": {"succeeds", "fails"}, "OnFailure": {"fails"}, "Never": set()}

    for look in eventually(within=patience.container_restarts):
        with look:
            assert restarted_containers(kube) == restarted
    for look in throughout(patience.stays_so):
        with look:
            assert restarted_containers(kube) == restarted


@pytest.fixture
def crashing(kube: Kube) -> Callable[[], Fields]:
    """Looks at the status of a container that fails a second after every start, and has been started."""
    kube.create("pods/crash-loop-pod.yaml")

    def status() -> Fields:
        statuses: list[Fields] = kube.get("Pod", "crash-loop").status.containerStatuses
        assert statuses, "no container has been started yet"
        return statuses[0]

    for look in eventually(within=patience.pod_starts):
        with look:
            assert status().containerID
    return status


def wait_before(restart: int, container: Callable[[], Fields]) -> float:
    """Seconds from a container's end to its restart of this number, as its status tells once it has been restarted."""
    for look in eventually(within=patience.container_restarts):
        with look:
            status = container()
            started = status.state.running.startedAt or status.state.terminated.startedAt
            assert (status.restartCount, started is not None) == (restart, True)
    ended = status.lastState.terminated.finishedAt
    return (datetime.fromisoformat(started) - datetime.fromisoformat(ended)).total_seconds()


@pytest.mark.starts_first
@pytest.mark.behavior("controllers/restart-policy")
def test_a_container_that_keeps_failing_waits_longer(kube: Kube, crashing: Callable[[], Fields]) -> None:
    """The first restart comes at once; before the next the Pod is in CrashLoopBackOff, for 10 s, then 20, then 40."""
    first = wait_before(1, crashing)
    second = wait_before(2, crashing)
    assert second > first

    for number, look in enumerate(eventually(within=patience.container_restarts, every=1)):
        with look:
            # Any change of the Pod makes the kubelet tell at once what it does; else it tells when the wait is over.
            kube.patch("Pod", "crash-loop", {"metadata": {"labels": {"look": str(number)}}})
            assert crashing().state.waiting.reason == "CrashLoopBackOff"


@pytest.fixture
def bare_pod(kube: Kube) -> Fields:
    """A Pod that no controller owns, Ready."""
    kube.create("pods/bare-pod.yaml")
    return kube.ready_pod("bare")


@pytest.fixture
def kept_pod(kube: Kube) -> Fields:
    """The one Pod of a ReplicaSet, Ready."""
    kube.create("pods/replicaset-of-one.yaml")
    (pod,) = kube.ready_pods(1, app="kept")
    return pod


@pytest.mark.behavior("controllers/pods-are-disposable", "controllers/pod-has-a-uid-and-one-node")
def test_a_deleted_pod_is_replaced_by_another(kube: Kube, kept_pod: Fields, bare_pod: Fields) -> None:
    """What comes back is not the Pod but another one, with a UID and an IP of its own; and only where a controller asks."""
    kube.delete("Pod", kept_pod.metadata.name)
    kube.delete("Pod", bare_pod.metadata.name)

    (newcomer,) = kube.ready_pods(1, app="kept")
    assert newcomer.metadata.uid != kept_pod.metadata.uid
    assert newcomer.status.podIP != kept_pod.status.podIP
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.exists("Pod", "bare")
    for look in throughout(patience.stays_so):
        with look:
            assert not kube.exists("Pod", "bare")


@pytest.mark.behavior("controllers/pods-are-disposable")
def test_a_failed_pod_is_replaced_by_another(kube: Kube, kept_pod: Fields) -> None:
    """A failed Pod is not repaired either: it stays behind as Failed, and another one with another IP takes its place."""
    kube.patch("Pod", kept_pod.metadata.name, {"spec": {"activeDeadlineSeconds": 1}})

    for look in eventually(within=patience.pod_starts):
        with look:
            phases = {pod.metadata.uid: pod.status.phase for pod in kube.pods(app="kept")}
            assert phases.pop(kept_pod.metadata.uid, None) == "Failed"
            assert list(phases.values()) == ["Running"]
    (newcomer,) = [pod for pod in kube.pods(app="kept") if pod.metadata.uid != kept_pod.metadata.uid]
    assert newcomer.status.podIP != kept_pod.status.podIP


@pytest.mark.behavior("controllers/pod-has-a-uid-and-one-node")
def test_a_pod_is_never_moved_to_another_node(kube: Kube, bare_pod: Fields) -> None:
    """A Pod is scheduled once: its node can neither be changed nor assigned anew, while its labels may still change."""
    kube.patch("Pod", "bare", {"metadata": {"labels": {"changed": "yes"}}})

    with refused(422) as refusals:
        kube.patch("Pod", "bare", {"spec": {"nodeName": "another-node"}})
    assert refusals[0].fields == ["spec"]
    with refused(409):
        kube.create(
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": "bare"},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "another-node"},
            }
        )

    unmoved = kube.get("Pod", "bare")
    assert unmoved.metadata.labels == {"changed": "yes"}
    assert (unmoved.metadata.uid, unmoved.spec.nodeName) == (bare_pod.metadata.uid, bare_pod.spec.nodeName)
