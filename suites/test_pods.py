"""Pods: their manifests, what their containers share, where they run, and how they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import pytest

from fixtures.api import API_VERSIONS, Api, ApiRefusal, Resource, refused
from fixtures.clients import Inside, Outside
from fixtures.counting import exactly
from fixtures.fields import Fields, quantity
from fixtures.kube import APPLY, Changes, Kube
from fixtures.kubectl import Kubectl
from fixtures.kubelets import silent_kubelets
from fixtures.manifests import Manifest, load, load_all, names
from fixtures.nodes import internal_ip, is_control_plane
from fixtures.patience import patience
from fixtures.pod_ranges import ips_of, is_in
from fixtures.scheduling import why_not_scheduled
from fixtures.waiting import eventually, throughout

TWO_CONTAINERS = "my-nginx-ubuntu-pod"

Kinds = dict[str, tuple[str, str | None, bool]]

#: What `kubectl api-resources` shows of each kind that the suites use: apiVersion, short names, and whether it is namespaced.
KINDS: Kinds = {
    "Binding": ("v1", None, True),
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
    "CustomResourceDefinition": ("apiextensions.k8s.io/v1", "crd,crds", False),
    "ControllerRevision": ("apps/v1", None, True),
    "DaemonSet": ("apps/v1", "ds", True),
    "Deployment": ("apps/v1", "deploy", True),
    "ReplicaSet": ("apps/v1", "rs", True),
    "StatefulSet": ("apps/v1", "sts", True),
    "SelfSubjectReview": ("authentication.k8s.io/v1", None, False),
    "SelfSubjectAccessReview": ("authorization.k8s.io/v1", None, False),
    "CronJob": ("batch/v1", "cj", True),
    "Job": ("batch/v1", None, True),
    "Lease": ("coordination.k8s.io/v1", None, True),
    "EndpointSlice": ("discovery.k8s.io/v1", None, True),
    "Ingress": ("networking.k8s.io/v1", "ing", True),
    "IngressClass": ("networking.k8s.io/v1", None, False),
    "PodDisruptionBudget": ("policy/v1", "pdb", True),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", None, False),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", None, False),
    "Role": ("rbac.authorization.k8s.io/v1", None, True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", None, True),
    "StorageClass": ("storage.k8s.io/v1", "sc", False),
}

# --- what the API server accepts


@pytest.fixture
def kinds() -> Kinds:
    """The table above. It must have every kind that the suites use."""
    assert API_VERSIONS.keys() <= KINDS.keys(), "the suites use kinds that are not in the table"
    return KINDS


def resource_of(kube: Kube, kind: str) -> Resource:
    """What the API server says of a kind. Those that suites name with their apiVersion are looked up there."""
    return kube.api.resource(kind if kind in API_VERSIONS else f"{KINDS[kind][0]}/{kind}")


@pytest.mark.behavior("objects/everything-is-an-object")
def test_the_api_lists_every_kind_of_object(kube: Kube, kinds: Kinds) -> None:
    """Pods, Services, accounts and nodes are all objects, and the API itself lists their kinds."""
    listed = {}
    for kind in kinds:
        resource = resource_of(kube, kind)
        listed[kind] = (resource.group_version, ",".join(resource.short_names) or None, resource.namespaced)

    assert listed == kinds


@pytest.mark.behavior("objects/everything-is-an-object")
def test_all_stored_objects_have_the_same_verbs(kube: Kube, kinds: Kinds) -> None:
    """Every object that the cluster stores is read, watched and changed in the same way.

    Reviews and Bindings are not stored: they can only be created.
    """
    same_for_all = {"create", "delete", "get", "list", "patch", "update", "watch"}
    not_stored = {"Binding", "SelfSubjectAccessReview", "SelfSubjectReview"}

    verbs = {kind: set(resource_of(kube, kind).verbs) for kind in kinds}

    assert {kind for kind in kinds if not same_for_all <= verbs[kind]} == not_stored
    assert [kind for kind in not_stored if verbs[kind] != {"create"}] == []


@pytest.fixture
def right_manifests(kube: Kube) -> list[str]:
    """Every file under manifests/ that is not wrong on purpose.

    One has a RoleBinding. If the user may not bind every Role, the API server accepts it only if its Role is there.
    """
    (role,) = exactly(1, [one for one in load_all("etcd/one-of-each.yaml") if one["kind"] == "Role"])
    kube.create(role)
    found = [name for name in names() if not name.endswith(".refused.yaml")]
    assert found
    return found


@pytest.fixture
def wrong_manifests() -> list[str]:
    """The files under manifests/ that are wrong on purpose: their names end in .refused.yaml."""
    found = [name for name in names() if name.endswith(".refused.yaml")]
    assert found
    return found


def refusals_of(kube: Kube, files: Iterable[str]) -> dict[str, str]:
    """What a strict dry run says against each file, by its name. An object that exists already (409) is a valid one."""
    refusals = {}
    for name in files:
        for document in load_all(name):
            document["metadata"].pop("namespace", None)  # one file names its own, which is not there
            try:
                kube.create(document, dryRun="All")
            except ApiRefusal as refusal:
                if refusal.status != 409:
                    refusals[name] = f"{refusal.status} {refusal.message}"
    return refusals


@pytest.mark.behavior("objects/yaml-for-every-kind")
def test_every_manifest_here_passes_a_strict_dry_run(kube: Kube, right_manifests: list[str]) -> None:
    """Almost every kind of object can be written as YAML. With a dry run the API server checks a file and stores nothing."""
    assert refusals_of(kube, right_manifests) == {}


@pytest.mark.behavior("objects/yaml-for-every-kind")
def test_every_manifest_wrong_on_purpose_is_refused(kube: Kube, wrong_manifests: list[str]) -> None:
    """A strict dry run tells right from wrong: it refuses every file whose name ends in .refused.yaml."""
    assert sorted(refusals_of(kube, wrong_manifests)) == wrong_manifests


@pytest.mark.behavior("objects/yaml-for-every-kind")
def test_kubectl_makes_several_objects_from_one_file(kube: Kube, kubectl: Kubectl) -> None:
    """One file can describe several objects of different kinds, and one `kubectl create -f` makes them all."""
    made = kubectl("create", "-f", "-", "-o", "name", input="pods/several-kinds.yaml")

    assert made.stdout.split() == ["configmap/several", "service/several", "replicaset.apps/several"]
    assert [kube.exists(kind, "several") for kind in ("ConfigMap", "Service", "ReplicaSet")] == [True, True, True]


@pytest.fixture
def nginx_manifest(kubectl: Kubectl) -> Manifest:
    """The manifest of the document's nginx Pod; kubectl and the API server accept it as it is."""
    manifest = load("pods/nginx-pod.yaml")
    accepted = kubectl("create", "--dry-run=server", "-f", "-", input=manifest)
    assert accepted.code == 0, accepted.stderr
    return manifest


@pytest.mark.behavior("core-concepts/four-required-fields")
@pytest.mark.parametrize(
    ("field", "named"),
    [("apiVersion", "apiversion"), ("kind", "kind"), ("metadata", "metadata.name"), ("spec", "spec.containers")],
)
def test_kubectl_create_names_the_field_that_is_missing(
    kube: Kube, kubectl: Kubectl, nginx_manifest: Manifest, field: str, named: str
) -> None:
    """A manifest has apiVersion, kind, metadata and spec. Without one of them nothing is made, and the error names it.

    Without metadata the name is missing, and without the spec of a Pod its containers are.
    """
    del nginx_manifest[field]

    refusal = kubectl("create", "-f", "-", input=nginx_manifest)

    assert refusal.code == 1
    assert named in refusal.stderr.lower()
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/four-required-fields")
@pytest.mark.parametrize("field", ["apiVersion", "kind"])
def test_the_api_server_refuses_a_manifest_without_its_type(kube: Kube, field: str) -> None:
    """An object's type is its apiVersion and its kind. kubectl asks for both, and so does the API server itself."""
    manifest = load("pods/nginx-pod.yaml")
    path = kube.api.resource("Pod").path(namespace=kube.namespace, name="my-nginx-pod")
    kube.api.call("PATCH", path, manifest, {"fieldManager": "kubehave", "dryRun": "All"}, APPLY)

    del manifest[field]
    with refused(400):
        kube.api.call("PATCH", path, manifest, {"fieldManager": "kubehave"}, APPLY)

    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
def test_metadata_takes_only_the_fields_of_the_api(kube: Kube) -> None:
    """An object's metadata has only the fields that the API defines. Strict validation refuses any other and names it."""
    manifest = load("pods/labeled-pod.yaml")
    kube.create(manifest, dryRun="All")

    manifest["metadata"]["owner"] = "me"
    with refused(400) as refusals:
        kube.create(manifest)

    assert '"metadata.owner"' in refusals[0].message
    assert kube.list("Pod") == []


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
def test_labels_are_stored_as_they_are_given(kube: Kube) -> None:
    """The user chooses the keys and values of labels. The API stores them unchanged and finds the object by them."""
    given = load("pods/labeled-pod.yaml")["metadata"]["labels"]

    kube.create("pods/labeled-pod.yaml")

    (found,) = exactly(1, kube.list("Pod", **given))
    assert found.metadata.labels == given


@pytest.mark.behavior("core-concepts/metadata-is-typed-labels-are-free")
@pytest.mark.parametrize(
    ("invalid", "valid"),
    [
        pytest.param({"a key": ""}, {"a-key": ""}, id="a space in the key"),
        pytest.param({"k" * 64: ""}, {"k" * 63: ""}, id="64 characters in the key"),
        pytest.param({"key": "v" * 64}, {"key": "v" * 63}, id="64 characters in the value"),
        pytest.param({"key": "-value"}, {"key": "v-alue"}, id="a dash at the start of the value"),
    ],
)
def test_labels_have_a_syntax(kube: Kube, invalid: dict[str, str], valid: dict[str, str]) -> None:
    """A label's key and value: at most 63 letters, digits, dashes, dots or underscores, with a letter or digit at each end."""
    manifest = load("pods/labeled-pod.yaml")
    manifest["metadata"]["labels"] = valid
    kube.create(manifest, dryRun="All")

    manifest["metadata"]["labels"] = invalid
    with refused(422) as refusals:
        kube.create(manifest)

    assert refusals[0].fields == ["metadata.labels"]
    assert kube.list("Pod") == []


@pytest.fixture
def misspelled() -> Manifest:
    """The document's Service, with externalTrafficPilicy in place of externalTrafficPolicy."""
    manifest = load("pods/svc-local-nodeport.refused.yaml")
    assert "externalTrafficPilicy" in manifest["spec"]
    return manifest


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_strict_validation_names_the_misspelled_field(kube: Kube, misspelled: Manifest) -> None:
    """With strict validation the API server refuses the document's manifest, names the misspelled field, and makes nothing."""
    with refused(400) as refusals:
        kube.create(misspelled, fieldValidation="Strict")

    assert '"spec.externalTrafficPilicy"' in refusals[0].message
    assert kube.list("Service") == []


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_a_warning_names_the_misspelled_field_and_refuses_nothing(kube: Kube, misspelled: Manifest) -> None:
    """With validation that only warns, the object is made without the field, and a `Warning` header names the field."""
    service = kube.create(misspelled, fieldValidation="Warn")

    assert ['"spec.externalTrafficPilicy"' in warning for warning in kube.api.warnings] == [True]
    assert service.spec.externalTrafficPolicy == "Cluster"


@pytest.mark.behavior("objects/misspelt-field-is-caught")
def test_without_validation_the_misspelled_field_is_dropped(kube: Kube, misspelled: Manifest) -> None:
    """Without validation the field is dropped silently, and the policy is the default, Cluster. Spelled right, it is Local."""
    corrected = load("pods/svc-local-nodeport.refused.yaml")
    corrected["spec"]["externalTrafficPolicy"] = corrected["spec"].pop("externalTrafficPilicy")
    policy = kube.create(corrected, dryRun="All").spec.externalTrafficPolicy
    assert policy == "Local", f"spelled right, the policy is {policy}"

    kube.create(misspelled, fieldValidation="Ignore")

    assert kube.api.warnings == []
    assert kube.get("Service", "svc-local-nodeport").spec.externalTrafficPolicy == "Cluster"


# --- a Pod that runs, and who can reach it


@pytest.mark.behavior("objects/pod-from-yaml", "controllers/pod-phases")
def test_the_nginx_manifest_makes_a_running_pod(kube: Kube) -> None:
    """A dozen lines of YAML make a Pod whose container runs: its phase is Running, and it is Ready."""
    kube.create("pods/nginx-pod.yaml")

    assert kube.ready_pod("my-nginx-pod").status.phase == "Running"


@pytest.fixture
def nginx_pod(kube: Kube) -> Fields:
    """The document's nginx Pod, Ready."""
    kube.create("pods/nginx-pod.yaml")
    return kube.ready_pod("my-nginx-pod")


@pytest.fixture
def nodes_by_role(nodes: list[Fields]) -> dict[str, str]:
    """The role of each node. Skips where every node is a control-plane node."""
    roles = {node.metadata.name: "control-plane" if is_control_plane(node) else "worker" for node in nodes}
    if "worker" not in roles.values():
        pytest.skip("every node of this cluster has the role control-plane; add a worker node")
    return roles


@pytest.mark.behavior("objects/pod-from-yaml")
def test_a_pod_runs_on_a_worker(nodes_by_role: dict[str, str], nginx_pod: Fields) -> None:
    """A Pod that asks for no special node runs on a worker: nodes with the role control-plane do not take it."""
    node = nginx_pod.spec.nodeName

    assert nodes_by_role[node] == "worker", f"the Pod runs on {node}, which has the role {nodes_by_role[node]}"


@pytest.mark.behavior("objects/pod-from-yaml")
def test_a_pods_ip_is_in_the_range_of_its_node(pod_ranges: dict[str, list[str]], nginx_pod: Fields) -> None:
    """Each node has its own part of the cluster network, and a Pod's IP comes from the part of the Pod's node."""
    nodes = [node for node, blocks in pod_ranges.items() if is_in(blocks, ips_of(nginx_pod))]

    assert nodes == [nginx_pod.spec.nodeName]


@pytest.mark.behavior("objects/pod-ip-serves-inside-only")
def test_a_pod_serves_on_its_own_ip_and_on_no_nodes(
    api: Api, nginx_pod: Fields, nodes: list[Fields], inside: Inside
) -> None:
    """A Pod's IP is reachable from every node of the cluster. containerPort opens no port on the nodes themselves."""
    by_pod_ip = f"http://{nginx_pod.status.podIP}"
    for look in eventually(within=patience.server_listens):
        with look:
            assert [node for node in inside.nodes if inside.get(by_pod_ip, node).status != 200] == []

    for look in eventually(within=patience.server_listens):
        with look:
            by_node = {node.metadata.name: inside.get(f"http://{internal_ip(node)}").status for node in nodes}
            assert silent_kubelets(api, inside, nodes) == [], "the client does not reach these nodes"

    assert [node for node, status in by_node.items() if status == 200] == []


@pytest.fixture
def node_port(kube: Kube, nginx_pod: Fields, workers: list[Fields]) -> str:
    """The URL of a node port that leads to the nginx Pod."""
    service = kube.create("pods/nginx-nodeport.yaml")
    assert service.spec.selector.items() <= nginx_pod.metadata.labels.items()
    (port,) = exactly(1, service.spec.ports)
    return f"http://{internal_ip(workers[0])}:{port.nodePort}"


@pytest.mark.behavior("objects/pod-ip-serves-inside-only")
def test_a_pods_ip_is_unreachable_from_outside(nginx_pod: Fields, node_port: str, outside: Outside) -> None:
    """Outside the cluster nobody answers at a Pod's IP. The same Pod is reachable through a Service's node port."""
    for look in eventually(within=patience.service_rules):
        with look:
            assert outside.get(node_port).status == 200

    with outside.on_link(nginx_pod.status.podIP):
        by_pod_ip = outside.get(f"http://{nginx_pod.status.podIP}")

    assert by_pod_ip.unanswered, (
        f"a node answers for the Pod's IP on the nodes' network: {by_pod_ip.status or by_pod_ip.error} "
        "(because it proxies ARP; for ClusterIPs, kube-proxy in ipvs mode does so without strictARP)"
    )
    for look in eventually(within=patience.server_listens):
        with look:
            assert outside.get(node_port).status == 200


@pytest.fixture
def pod_without_container_port(kube: Kube) -> Fields:
    """The nginx Pod without containerPort, Ready."""
    manifest = load("pods/nginx-pod.yaml")
    del manifest["spec"]["containers"][0]["ports"]
    kube.create(manifest)
    return kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("objects/pod-without-containerport-still-serves")
def test_a_pod_without_containerport_serves_all_the_same(pod_without_container_port: Fields, inside: Inside) -> None:
    """The field containerPort only informs the reader. The program in the container decides which ports answer."""
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{pod_without_container_port.status.podIP}").status == 200
    assert [container.ports for container in pod_without_container_port.spec.containers] == [[]]


@pytest.mark.behavior("objects/exec-into-a-pod")
def test_exec_returns_output_errors_and_exit_code(kube: Kube, nginx_pod: Fields) -> None:
    """A command that exec runs is inside the Pod: the hostname is the Pod's. A failing command's exit code comes back too."""
    hostname = kube.exec(nginx_pod.metadata.name, "hostname")
    failing = kube.exec(nginx_pod.metadata.name, "sh", "-c", "echo it failed >&2; exit 3")

    assert (hostname.code, hostname.stdout, hostname.stderr) == (0, "my-nginx-pod\n", "")
    assert (failing.code, failing.stdout, failing.stderr) == (3, "", "it failed\n")


@pytest.mark.behavior("objects/logs-of-a-pod")
def test_logs_show_what_the_pod_wrote(kube: Kube, nginx_pod: Fields, inside: Inside) -> None:
    """A Pod's log is what its container writes to standard output. nginx writes one line for each request."""
    path = f"/{kube.namespace}"
    assert path not in kube.logs(nginx_pod.metadata.name)

    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{nginx_pod.status.podIP}{path}").status == 404

    for look in eventually(within=patience.log_arrives):
        with look:
            assert f"GET {path} " in kube.logs(nginx_pod.metadata.name)


# --- what the containers of a Pod share


@pytest.mark.behavior("objects/two-container-pod")
def test_both_containers_of_a_pod_run(kube: Kube) -> None:
    """READY 2/2: one Pod has two containers, and each runs its own program. exec reaches each one by its name."""
    kube.create("pods/nginx-ubuntu-pod.yaml")

    for look in eventually(within=patience.pod_starts):
        with look:
            ready = {status.name: status.ready for status in kube.get("Pod", TWO_CONTAINERS).status.containerStatuses}
            assert ready == {"nginx-container": True, "ubuntu-container": True}
    for look in eventually(within=patience.server_listens):
        with look:
            programs = {name: kube.exec(TWO_CONTAINERS, *PROGRAM, container=name).stdout for name in ready}
            assert programs == {"nginx-container": "nginx\n", "ubuntu-container": "tail\n"}


#: Prints the name of a container's first process. In nginx's container it is a shell script until nginx takes its place.
PROGRAM = ("cat", "/proc/1/comm")


@pytest.fixture
def nginx_ubuntu_pod(kube: Kube) -> Fields:
    """The document's Pod of two containers, Ready; nginx's start scripts have ended."""
    kube.create("pods/nginx-ubuntu-pod.yaml")
    pod = kube.ready_pod(TWO_CONTAINERS)
    for look in eventually(within=patience.server_listens):
        with look:
            assert "nginx" in programs_in(kube, "nginx-container")
    return pod


@pytest.mark.behavior("objects/two-container-pod")
@pytest.mark.usefixtures("nginx_ubuntu_pod")
def test_kubectl_exec_has_a_default_container(kube: Kube, kubectl: Kubectl) -> None:
    """`kubectl exec -c` names the container. Without -c it is the first one, or the one that an annotation names."""

    def program(*container: str) -> str:
        return kubectl("exec", TWO_CONTAINERS, *container, "--", *PROGRAM).stdout

    with refused(400):  # the API has no default
        kube.exec(TWO_CONTAINERS, *PROGRAM)
    assert program("-c", "ubuntu-container") == "tail\n"
    assert program() == "nginx\n"

    default = {"kubectl.kubernetes.io/default-container": "ubuntu-container"}
    kube.patch("Pod", TWO_CONTAINERS, {"metadata": {"annotations": default}})

    assert program("-c", "nginx-container") == "nginx\n"
    assert program() == "tail\n"


@pytest.mark.behavior("objects/localhost-is-shared")
def test_containers_of_a_pod_share_localhost(kube: Kube, nginx_ubuntu_pod: Fields, inside: Inside) -> None:
    """The ubuntu container runs no server and still gets nginx's page from localhost, because localhost is the Pod's."""
    for look in eventually(within=patience.server_listens):
        with look:
            page = inside.get(f"http://{nginx_ubuntu_pod.status.podIP}")
            assert page.status == 200

    from_localhost = kube.exec(TWO_CONTAINERS, "wget", "-qO-", "http://localhost", container="ubuntu-container")

    assert from_localhost.stdout.strip() == page.body.strip()
    assert programs_in(kube, "nginx-container") == {"nginx"}
    assert programs_in(kube, "ubuntu-container") == {"tail"}


def programs_in(kube: Kube, container: str) -> set[str]:
    """The names of all processes that a container sees, without the two that list them."""
    listed = kube.exec(TWO_CONTAINERS, "sh", "-c", "cat /proc/[0-9]*/comm", container=container)
    return set(listed.stdout.split()) - {"sh", "cat"}


#: Prints the Linux namespaces that a process is in, one on each line ("net:[4026532281]").
LINUX_NAMESPACES = ("sh", "-c", "for kind in net ipc uts mnt pid; do readlink /proc/self/ns/$kind; done")


def shared_namespaces(kube: Kube) -> set[str]:
    """The kinds of Linux namespaces that the two containers have in common."""
    of_nginx = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="nginx-container").stdout.split()
    of_ubuntu = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="ubuntu-container").stdout.split()
    return {namespace.partition(":")[0] for namespace in of_nginx if namespace in of_ubuntu}


@pytest.mark.behavior("objects/linux-namespaces-are-shared", "nginx-walkthrough/pods-share-storage-and-network")
def test_containers_share_network_ipc_and_hostname(kube: Kube, nginx_ubuntu_pod: Fields, inside: Inside) -> None:
    """All containers of a Pod share its network, IPC and hostname. Each container has its own file system and processes."""
    assert shared_namespaces(kube) == {"net", "ipc", "uts"}

    of_nginx = kube.exec(TWO_CONTAINERS, *LINUX_NAMESPACES, container="nginx-container").stdout.split()
    of_another_pod = inside.run(*LINUX_NAMESPACES, node=nginx_ubuntu_pod.spec.nodeName).stdout.split()
    assert len(of_another_pod) == len(of_nginx)
    assert set(of_another_pod).isdisjoint(of_nginx)


@pytest.fixture
def pod_with_shared_processes(kube: Kube) -> Fields:
    """The same Pod with shareProcessNamespace, Ready."""
    manifest = load("pods/nginx-ubuntu-pod.yaml")
    manifest["spec"]["shareProcessNamespace"] = True
    kube.create(manifest)
    return kube.ready_pod(TWO_CONTAINERS)


@pytest.mark.behavior("objects/linux-namespaces-are-shared")
@pytest.mark.usefixtures("pod_with_shared_processes")
def test_containers_share_processes_with_shareprocessnamespace(kube: Kube) -> None:
    """With shareProcessNamespace the containers of a Pod see each other's processes. Their file systems stay separate."""
    assert shared_namespaces(kube) == {"net", "ipc", "uts", "pid"}
    for look in eventually(within=patience.server_listens):
        with look:
            assert "nginx" in programs_in(kube, "ubuntu-container")


@pytest.fixture
def storage_pod(kube: Kube) -> Fields:
    """A Pod of an application and its helper, which share a volume, Ready."""
    kube.create("pods/shared-storage-pod.yaml")
    return kube.ready_pod("shared-storage")


@pytest.mark.behavior(
    "core-concepts/containers-of-a-pod-share-localhost-and-storage", "nginx-walkthrough/pods-share-storage-and-network"
)
def test_the_helper_reads_the_applications_file_and_port(kube: Kube, storage_pod: Fields) -> None:
    """Containers that mount a volume share its files, and all containers share the ports. Other files are not shared."""

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
def over_half_of_a_node(kube: Kube, nodes: list[Fields]) -> dict[str, str]:
    """Just over half of the memory of the largest node; some node has room for one container that requests it."""
    largest = max(quantity(node.status.allocatable["memory"]) for node in nodes)
    requests = {"memory": str(int(largest / 2) + 1)}
    kube.create(sidecar_pod("main-alone", requests, containers=1))
    pods_with_a_node(kube)
    kube.delete("Pod", "main-alone")
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.exists("Pod", "main-alone")
    return requests


def sidecar_pod(name: str, requests: dict[str, str], containers: int) -> Manifest:
    """The manifest of the Pod with the sidecar under another name; each of its first containers requests this, others go."""
    manifest = load("pods/sidecar-pod.yaml")
    manifest["metadata"]["name"] = name
    del manifest["spec"]["containers"][containers:]
    for container in manifest["spec"]["containers"]:
        container["resources"] = {"requests": requests}
    return manifest


@pytest.mark.behavior("objects/sidecar-on-the-same-node")
def test_a_pod_is_scheduled_as_a_whole(kube: Kube, over_half_of_a_node: dict[str, str]) -> None:
    """A Pod's containers go to one node together. A node that has room for only one of them does not get the Pod."""
    kube.create(sidecar_pod("main-and-sidecar", over_half_of_a_node, containers=2))

    for look in eventually(within=patience.controller_acts):
        with look:
            pod = kube.get("Pod", "main-and-sidecar")
            assert pod.spec.nodeName is None, (
                f"{pod.spec.nodeName} has room for one of the two containers, and got both"
            )
            reason, _ = why_not_scheduled(pod)
            assert reason == "Unschedulable"


@pytest.fixture
def nginx_with_sidecar(kube: Kube) -> Fields:
    """The Pod of nginx and the sidecar that ships its log, Ready."""
    kube.create("pods/sidecar-pod.yaml")
    return kube.ready_pod("nginx-with-sidecar")


@pytest.mark.behavior("objects/sidecar-on-the-same-node")
def test_a_sidecar_ships_the_log_of_its_main_container(kube: Kube, nginx_with_sidecar: Fields, inside: Inside) -> None:
    """A sidecar runs on the node of its main container. It reads the log from a volume that only this node has."""
    name, path = nginx_with_sidecar.metadata.name, f"/{kube.namespace}"
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{nginx_with_sidecar.status.podIP}{path}").status == 404

    for look in eventually(within=patience.log_arrives):
        with look:
            assert f"GET {path} " in kube.logs(name, container="sidecar")
    assert path not in kube.logs(name, container="nginx")


@pytest.fixture
def finished_pod(kube: Kube) -> str:
    """The name of a Pod with a native sidecar, whose main container has ended."""
    kube.create("pods/native-sidecar-pod.yaml")
    for look in eventually(within=patience.pod_starts):
        with look:
            statuses = kube.get("Pod", "native-sidecar").status.containerStatuses
            assert [status.name for status in statuses if status.state.terminated] == ["main"]
    return "native-sidecar"


@pytest.mark.behavior("objects/sidecar-on-the-same-node")
def test_a_native_sidecar_starts_before_and_stops_after(kube: Kube, finished_pod: str) -> None:
    """A native sidecar is an init container with restartPolicy Always. When the main container has ended, the Pod ends too."""
    for look in eventually(within=patience.pod_goes):
        with look:
            assert kube.get("Pod", finished_pod).status.phase == "Succeeded"
    for look in eventually(within=patience.log_arrives):
        with look:
            assert kube.logs(finished_pod, container="sidecar").splitlines() == [
                "sidecar starts",
                "main starts",
                "main stops",
                "sidecar stops",
            ]


# --- how a Pod lives and ends


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_that_fits_no_node_is_pending(kube: Kube) -> None:
    """Pending, first case: the scheduler has found no node for the Pod, and the condition PodScheduled says so."""
    kube.create("pods/unschedulable-pod.yaml")

    for look in eventually(within=patience.controller_acts):
        with look:
            pod = kube.get("Pod", "unschedulable")
            reason, _ = why_not_scheduled(pod)
            assert reason == "Unschedulable"
    assert pod.status.phase == "Pending"
    assert pod.spec.nodeName is None


def pods_with_a_node(kube: Kube) -> list[Fields]:
    """Wait until every Pod of the test has been given a node, and return the Pods, in whatever state they are."""
    for look in eventually(within=patience.pod_starts):
        with look:
            pods = kube.list("Pod")
            assert [pod.metadata.name for pod in pods if pod.spec.nodeName is None] == []
    return pods


@pytest.fixture
def pod_without_image(kube: Kube) -> Fields:
    """A Pod whose image does not exist; it has a node."""
    kube.create("pods/no-such-image-pod.yaml")
    (pod,) = exactly(1, pods_with_a_node(kube))
    return pod


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_without_its_image_is_pending(kube: Kube, pod_without_image: Fields) -> None:
    """Pending, second case: the Pod has a node, but its container waits for an image that cannot be pulled."""
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
    """Two Pods that are not restarted. One succeeds and one fails; both have a node."""
    kube.apply("pods/ending-pods.yaml")
    pods = pods_with_a_node(kube)
    assert [pod.metadata.name for pod in pods] == ["fails", "succeeds"]
    return pods


@pytest.mark.behavior("controllers/pod-phases")
def test_a_pod_ends_as_its_container_did(kube: Kube, ending_pods: list[Fields]) -> None:
    """Where nothing is restarted, exit code 0 makes the Pod Succeeded, and any other exit code makes it Failed."""
    for look in eventually(within=patience.pod_starts):
        with look:
            ended = {pod.metadata.name: kube.get("Pod", pod.metadata.name).status for pod in ending_pods}
            assert {name: status.phase for name, status in ended.items()} == {
                "succeeds": "Succeeded",
                "fails": "Failed",
            }
    codes = {name: [it.state.terminated.exitCode for it in status.containerStatuses] for name, status in ended.items()}
    assert codes == {"succeeds": [0], "fails": [1]}


def restarted_containers(kube: Kube) -> dict[str, set[str]]:
    """The restart policy of each Pod, and the names of its containers that were restarted."""
    return {
        pod.spec.restartPolicy: {status.name for status in pod.status.containerStatuses if status.restartCount}
        for pod in kube.list("Pod")
    }


@pytest.fixture
def pods_of_all_policies(kube: Kube) -> None:
    """One Pod for each policy; both containers of each Pod have ended at least once."""
    kube.apply("pods/restart-policies.yaml")
    for look in eventually(within=patience.pod_starts):
        with look:
            statuses = [status for pod in kube.list("Pod") for status in pod.status.containerStatuses]
            assert len(statuses) == 6
            assert [it.name for it in statuses if not (it.state.terminated or it.lastState.terminated)] == []


@pytest.mark.behavior("controllers/restart-policy")
@pytest.mark.usefixtures("pods_of_all_policies")
def test_the_pods_policy_decides_what_is_restarted(kube: Kube) -> None:
    """A Pod has one policy. Always restarts every container that ends, OnFailure those that fail, and Never none."""
    restarted = {"Always": {"succeeds", "fails"}, "OnFailure": {"fails"}, "Never": set()}

    for look in eventually(within=patience.container_restarts):
        with look:
            assert restarted_containers(kube) == restarted
    for look in throughout(patience.stays_so):
        with look:
            assert restarted_containers(kube) == restarted


@pytest.fixture
def crashing_pod(kube: Kube) -> Iterator[Changes]:
    """Every change to a Pod whose container fails one second after each start; it has been started once."""
    with kube.record("Pod") as changes:
        kube.create("pods/crash-loop-pod.yaml")
        for look in eventually(within=patience.pod_starts):
            with look:
                assert any(status.containerID for status in container_statuses(changes))
        yield changes


def container_statuses(changes: Changes) -> list[Fields]:
    """Every status that the Pod's container has had, in their order."""
    return [status for change in changes for status in change.object.status.containerStatuses]


def waits_before_restarts(changes: Changes) -> dict[int, float]:
    """How many seconds the container was down before each restart. Its status has whole seconds, so one may be missing."""
    waits = {}
    for status in container_statuses(changes):
        stopped = status.lastState.terminated.finishedAt
        started = status.state.running.startedAt or status.state.terminated.startedAt
        if stopped and started:
            down = datetime.fromisoformat(started) - datetime.fromisoformat(stopped)
            waits[status.restartCount] = down.total_seconds()
    return waits


def restarts_before_waiting(changes: Changes) -> set[int]:
    """How often the container had been restarted whenever its state was CrashLoopBackOff."""
    statuses = container_statuses(changes)
    return {status.restartCount for status in statuses if status.state.waiting.reason == "CrashLoopBackOff"}


@pytest.mark.starts_first
@pytest.mark.behavior("controllers/restart-policy")
def test_a_container_that_keeps_failing_waits_longer(kube: Kube, crashing_pod: Changes) -> None:
    """The first restart comes at once, the next after 10 s, the next after 20 s. Meanwhile the state is CrashLoopBackOff."""
    for number, look in enumerate(eventually(within=patience.container_backs_off, every=1)):
        with look:
            # The kubelet reports the state when it next handles the Pod, and any change of the Pod makes it do so.
            kube.patch("Pod", "crash-loop", {"metadata": {"labels": {"look": str(number)}}})
            crashing_pod.check()
            waits = waits_before_restarts(crashing_pod)
            assert waits.keys() >= {2, 3}, f"seconds before each restart so far: {waits}"

    assert waits[2] >= 10 - 1, f"seconds before each restart: {waits}"
    assert waits[3] >= 20 - 1, f"seconds before each restart: {waits}"
    restarts = restarts_before_waiting(crashing_pod)
    assert 0 not in restarts, "the container was in CrashLoopBackOff before its first restart"
    assert restarts >= {1, 2}, f"the container was in CrashLoopBackOff after these restarts: {restarts}"


@pytest.fixture
def bare_pod(kube: Kube) -> Fields:
    """A Pod without a controller, Ready."""
    kube.create("pods/bare-pod.yaml")
    return kube.ready_pod("bare")


@pytest.fixture
def kept_pod(kube: Kube) -> Fields:
    """The one Pod of a ReplicaSet, Ready. It ignores the signal to stop, so it runs until its grace period is over."""
    kube.create("pods/replicaset-of-one.yaml")
    (pod,) = exactly(1, kube.ready_pods(1, app="kept"))
    return pod


@pytest.mark.behavior("controllers/pods-are-disposable", "controllers/pod-has-a-uid-and-one-node")
def test_a_deleted_pod_is_replaced_by_another(kube: Kube, kept_pod: Fields, bare_pod: Fields) -> None:
    """A deleted Pod never comes back. Its controller makes another Pod with its own UID and IP; without one, nothing comes."""
    # The deleted Pod terminates for longer than the other one may take to start. Meanwhile no other Pod can have its IP.
    kube.delete("Pod", kept_pod.metadata.name, grace=2 * round(patience.pod_starts))
    kube.delete("Pod", bare_pod.metadata.name)

    (replacement,) = exactly(1, kube.ready_pods(1, app="kept"))
    assert replacement.metadata.uid != kept_pod.metadata.uid
    assert replacement.status.podIP != kept_pod.status.podIP
    kube.delete("Pod", kept_pod.metadata.name, grace=0)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert [pod.metadata.uid for pod in kube.list("Pod")] == [replacement.metadata.uid]
    for look in throughout(patience.stays_so):
        with look:
            assert [pod.metadata.uid for pod in kube.list("Pod")] == [replacement.metadata.uid]


@pytest.mark.behavior("controllers/pods-are-disposable")
def test_a_failed_pod_is_replaced_by_another(kube: Kube, kept_pod: Fields) -> None:
    """A failed Pod is not repaired. It stays Failed, and its controller makes another Pod with its own UID in its place."""
    kube.patch("Pod", kept_pod.metadata.name, {"spec": {"activeDeadlineSeconds": 1}})

    for look in eventually(within=patience.pod_fails):
        with look:
            assert kube.get("Pod", kept_pod.metadata.name).status.phase == "Failed"
    for look in eventually(within=patience.pod_starts):
        with look:
            phases = {pod.metadata.uid: pod.status.phase for pod in kube.pods(app="kept")}
            assert phases.pop(kept_pod.metadata.uid, None) == "Failed"
            assert list(phases.values()) == ["Running"]


@pytest.mark.behavior("controllers/pod-has-a-uid-and-one-node")
def test_a_pod_is_never_moved_to_another_node(kube: Kube, bare_pod: Fields) -> None:
    """A Pod is scheduled once. Its node can be neither changed nor assigned again; its labels can still be changed."""
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
