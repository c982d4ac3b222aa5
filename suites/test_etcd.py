"""etcd: the store of the control plane. It has every object, and nobody reads it without a certificate."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures.api import Api, refused
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.inconclusive import NotObserved
from fixtures.kube import Kube, is_ready
from fixtures.manifests import Manifest, load, load_all
from fixtures.nodes import all_nodes, internal_ip, is_control_plane, is_ours
from fixtures.patience import patience
from fixtures.waiting import eventually
from machine.output import Output

#: Where the control plane's etcd has its certificates.
FOLDER = "/etc/kubernetes/pki/etcd"

#: The three files that etcdctl must present, by its options.
FILES = {"--cacert": f"{FOLDER}/ca.crt", "--cert": f"{FOLDER}/server.crt", "--key": f"{FOLDER}/server.key"}

Ask = Callable[..., str]


def options(pod: Fields) -> dict[str, str]:
    """The options of a control plane's program, as its static Pod has them."""
    (container,) = exactly(1, pod.spec.containers)
    split = (word.partition("=") for word in [*container.command, *container.args])
    return {option: value for option, _, value in split}


def last_line(text: str) -> str:
    """The last line: the error, after what else a program has logged."""
    return text.strip().rpartition("\n")[2]


def static_pods(api: Api, component: str) -> list[Fields]:
    """The control plane's Pods of one program, one on each of its nodes."""
    return Kube(api, "kube-system").list("Pod", tier="control-plane", component=component)


@pytest.fixture
def etcd(api: Api) -> list[Fields]:
    """The Pods of the control plane's etcd. Not observed if it has none, or has its certificates elsewhere.

    In our own clusters it must have both.
    """
    pods = static_pods(api, "etcd")
    if not pods and not is_ours(api):
        raise NotObserved("the control plane has no etcd Pod: its etcd is external; use a cluster made by kubeadm")
    assert pods, "the control plane of our own cluster has no etcd Pod"
    for pod in pods:
        used = options(pod).get("--cert-file")
        if used != FILES["--cert"] and not is_ours(api):
            raise NotObserved(f"this etcd has its certificate in {used}; use a cluster made by kubeadm")
    return pods


@pytest.fixture
def bare_etcdctl(api: Api, etcd: list[Fields]) -> Callable[..., Output]:
    """`bare_etcdctl("get", key)`: run etcdctl in the control plane's etcd Pod. Tests only read."""
    # with both cores busy it was once seen not Ready for a moment
    for look in eventually(within=patience.etcd_answers):
        with look:
            ready = next((pod.metadata.name for pod in static_pods(api, "etcd") if is_ready(pod)), "")
            assert ready, "no etcd Pod of the control plane is Ready"
    return lambda *command: Kube(api, "kube-system").exec(ready, "etcdctl", *command)


@pytest.fixture
def etcdctl(bare_etcdctl: Callable[..., Output]) -> Ask:
    """`etcdctl("get", key)`: what etcdctl prints in the control plane's etcd Pod, with the three files. Tests only read."""
    files = [f"{option}={file}" for option, file in FILES.items()]

    def ask(*command: str) -> str:
        done = bare_etcdctl(*files, f"--command-timeout={20 * patience.factor:g}s", *command)
        assert done.code == 0, f"etcdctl {' '.join(command)}: {last_line(done.stderr)}"
        return done.stdout

    return ask


def members(etcdctl: Ask) -> list[Any]:
    """The members of the control plane's etcd, as `etcdctl member list` names them."""
    found: list[Any] = json.loads(etcdctl("member", "list", "--write-out=json"))["members"]
    return found


def url(node: Fields, port: int) -> str:
    """The HTTPS URL of a port at a node's InternalIP."""
    ip = internal_ip(node)
    return f"https://[{ip}]:{port}" if ":" in ip else f"https://{ip}:{port}"


# --- the port


@pytest.mark.behavior("core-concepts/etcd-client-port")
def test_etcd_serves_clients_on_port_2379(api: Api, etcd: list[Fields], etcdctl: Ask) -> None:
    """Clients reach etcd on port 2379. Its members advertise it under their nodes' addresses; the API server asks there."""
    nodes = {node.metadata.name: node for node in all_nodes(api)}
    urls = {options(pod).get("--name"): [url(nodes[pod.spec.nodeName], 2379)] for pod in etcd}

    assert {member["name"]: member["clientURLs"] for member in members(etcdctl)} == urls
    for (advertised,) in urls.values():
        etcdctl("endpoint", "health", f"--endpoints={advertised}")
    servers = [options(pod).get("--etcd-servers", "").split(",") for pod in static_pods(api, "kube-apiserver")]
    assert {urlsplit(server).port for asked in servers for server in asked} == {2379}


# --- what it stores

#: The kinds in the manifest.
KINDS = ("Pod", "ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding")


def keys(etcdctl: Ask, prefix: str) -> set[str]:
    """The keys that begin with a prefix."""
    return set(etcdctl("get", prefix, "--prefix", "--keys-only").split())


@pytest.mark.behavior("core-concepts/etcd-holds-every-object")
def test_every_object_is_a_key_until_it_is_deleted(kube: Kube, etcdctl: Ask) -> None:
    """Each object is one key in etcd: /registry/<resource>/<namespace>/<name>. A deleted object has no key."""
    names = [f"/registry/{kube.api.resource(kind).name}/{kube.namespace}/stored" for kind in KINDS]

    kube.apply("etcd/one-of-each.yaml")
    assert [name for name in names if not keys(etcdctl, name)] == []

    for kind in KINDS:
        kube.delete(kind, "stored")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert [name for name in names if keys(etcdctl, name)] == []


@pytest.mark.behavior("core-concepts/etcd-holds-every-object")
def test_nodes_are_stored_as_minions(api: Api, etcdctl: Ask) -> None:
    """Nodes were once called minions. etcd still stores them as /registry/minions/<name>, and nothing as /registry/nodes."""
    for look in eventually(within=patience.controller_acts):
        with look:
            nodes = {f"/registry/minions/{node.metadata.name}" for node in all_nodes(api)}
            assert keys(etcdctl, "/registry/minions/") == nodes

    assert keys(etcdctl, "/registry/nodes/") == set()


def revision(etcdctl: Ask, key: str) -> str:
    """The revision of etcd in which a key was last written."""
    (found,) = exactly(1, json.loads(etcdctl("get", key, "--keys-only", "--write-out=json")).get("kvs", []))
    return str(found["mod_revision"])


@pytest.mark.behavior("core-concepts/etcd-write-completes-the-change")
def test_an_object_has_the_version_that_etcd_gave_it(kube: Kube, etcdctl: Ask) -> None:
    """The API server answers when etcd has stored a change: the resourceVersion in its answer is the revision of that write."""
    key = f"/registry/configmaps/{kube.namespace}/settings"

    created = kube.create("etcd/settings.yaml").metadata.resourceVersion
    assert revision(etcdctl, key) == created

    changed = kube.patch("ConfigMap", "settings", {"data": {"color": "green"}}).metadata.resourceVersion
    assert int(changed) > int(created)
    assert revision(etcdctl, key) == changed

    with refused(422):
        kube.patch("ConfigMap", "settings", {"data": {"not a key": "red"}})
    assert revision(etcdctl, key) == kube.get("ConfigMap", "settings").metadata.resourceVersion == changed


# --- how to ask it


@pytest.mark.parametrize(
    "left_out", [("--cacert",), ("--cert", "--key"), tuple(FILES)], ids=["CA", "certificate and key", "all three files"]
)
@pytest.mark.behavior("core-concepts/etcd-needs-certificates")
def test_etcd_answers_only_with_the_three_files(
    etcdctl: Ask, bare_etcdctl: Callable[..., Output], left_out: tuple[str, ...]
) -> None:
    """By the CA etcdctl knows etcd, by the certificate and the key etcd knows etcdctl. Without them there is no answer."""
    query = ("get", "/", "--prefix", "--keys-only", "--limit=10")
    files = [f"{option}={file}" for option, file in FILES.items() if option not in left_out]

    exactly(10, etcdctl(*query).split())
    without = bare_etcdctl(*files, *query)
    exactly(10, etcdctl(*query).split())

    assert without.code != 0
    assert without.stdout == ""


@pytest.fixture
def image(etcd: list[Fields]) -> str:
    """The image of the control plane's etcd."""
    return str(etcd[0].spec.containers[0].image)


def one_member(image: str) -> Manifest:
    """The manifest of an etcd with one member, from this image."""
    pod = load("etcd/one-member.yaml")
    pod["spec"]["containers"][0]["image"] = image
    return pod


def three_members_from(image: str) -> tuple[Manifest, Manifest]:
    """The manifest of an etcd with three members, from this image: a Service and a StatefulSet."""
    service, workload = load_all("etcd/three-members.yaml")
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return service, workload


def ask(kube: Kube, pod: str, *command: str) -> str:
    """What a command prints in a member of the test's own etcd, as soon as the member has a leader."""
    for look in eventually(within=patience.etcd_answers):
        with look:
            done = kube.exec(pod, *command)
            assert done.code == 0, f"{' '.join(command)} in {pod}: {last_line(done.stderr)}"
    return done.stdout.strip()


@pytest.fixture
def own_etcd(kube: Kube, image: str) -> str:
    """The Pod of an etcd of the test's own, which answers."""
    name = str(kube.create(one_member(image)).metadata.name)
    kube.ready_pod(name)
    ask(kube, name, "etcdctl", "get", "color")
    return name


@pytest.mark.behavior("core-concepts/etcdctl-v3-verbs")
def test_etcdctl_has_the_verbs_of_version_3_only(kube: Kube, own_etcd: str) -> None:
    """Today etcdctl speaks version 3 without ETCDCTL_API: put, get, endpoint health. It has no verbs of version 2 any more."""
    assert ask(kube, own_etcd, "etcdctl", "put", "color", "blue") == "OK"
    assert ask(kube, own_etcd, "etcdctl", "get", "color") == "color\nblue"
    ask(kube, own_etcd, "etcdctl", "endpoint", "health")

    backup = ["backup", "--data-dir=/data", "--backup-dir=/data/backup"]
    version_2 = [backup, ["cluster-health"], ["mk", "size", "5"], ["mkdir", "sizes"], ["set", "color", "red"]]
    codes = {verb: kube.exec(own_etcd, "etcdctl", verb, *rest).code for verb, *rest in version_2}
    assert [verb for verb, code in codes.items() if code == 0] == []
    assert ask(kube, own_etcd, "etcdctl", "get", "", "--prefix") == "color\nblue"


@pytest.mark.behavior("core-concepts/etcdctl-v3-verbs")
def test_a_snapshot_goes_up_to_the_last_write(kube: Kube, own_etcd: str) -> None:
    """`etcdctl snapshot save` writes what etcd has to one file. A newer program reads such files: `etcdutl snapshot status`."""
    stored = json.loads(ask(kube, own_etcd, "etcdctl", "put", "color", "blue", "--write-out=json"))

    ask(kube, own_etcd, "etcdctl", "snapshot", "save", "/data/snapshot.db")

    snapshot = json.loads(ask(kube, own_etcd, "etcdutl", "snapshot", "status", "/data/snapshot.db", "--write-out=json"))
    assert snapshot["revision"] == stored["header"]["revision"]


# --- members


@pytest.mark.behavior("core-concepts/etcd-initial-cluster")
def test_each_control_plane_node_has_a_member(api: Api, etcd: list[Fields], etcdctl: Ask) -> None:
    """Each control-plane node has one member of etcd, and --initial-cluster names the members with their addresses."""
    # A node that joins later names itself and those before it, so only all the options together name every member.
    named = {name for pod in etcd for name in options(pod).get("--initial-cluster", "").split(",")}
    nodes = {node.metadata.name for node in all_nodes(api) if is_control_plane(node)}

    listed = members(etcdctl)

    assert {f"{member['name']}={peer}" for member in listed for peer in member["peerURLs"]} == named
    assert {member["name"] for member in listed} == nodes


#: The members of the second cluster.
MEMBERS = ("etcd-0", "etcd-1", "etcd-2")


@pytest.mark.behavior("core-concepts/etcd-initial-cluster")
def test_three_members_find_each_other_by_initial_cluster(kube: Kube, image: str) -> None:
    """Three etcds that start with the same --initial-cluster are one cluster: each of them lists all three as its members."""
    kube.apply(three_members_from(image))

    kube.rolled_out("StatefulSet", "etcd")
    lists = {name: json.loads(ask(kube, name, "etcdctl", "member", "list", "--write-out=json")) for name in MEMBERS}

    peers = {name: [f"http://{name}.etcd:2380"] for name in MEMBERS}
    for listed in lists.values():
        assert {member["name"]: member["peerURLs"] for member in listed["members"]} == peers
    assert len({listed["header"]["cluster_id"] for listed in lists.values()}) == 1


@pytest.fixture
def three_members(kube: Kube, image: str) -> None:
    """Three members of an etcd of the test's own, all Ready: they have a leader."""
    kube.apply(three_members_from(image))
    kube.rolled_out("StatefulSet", "etcd")


#: There is no etcd in this image. A Pod keeps its volumes when its image changes, and its container cannot start.
WITHOUT_ETCD = "registry.k8s.io/pause:3.10.2"


def put_image(kube: Kube, pod: str, image: str) -> None:
    """Change the image of a Pod: its kubelet kills the container, and starts another one from the new image if it can."""
    kube.patch("Pod", pod, {"spec": {"containers": [{"name": "etcd", "image": image}]}})


def is_running(kube: Kube, pod: str) -> bool:
    """Whether the container of a Pod runs."""
    (status,) = exactly(1, kube.get("Pod", pod).status.containerStatuses)
    return bool(status.state.running)


@pytest.mark.behavior("core-concepts/etcd-initial-cluster")
@pytest.mark.usefixtures("three_members")
def test_two_of_three_members_answer_and_the_third_catches_up(kube: Kube, image: str) -> None:
    """Two of three members are enough to read and to write. The third has its data when it is back, and gets what it missed."""
    ask(kube, "etcd-0", "etcdctl", "put", "color", "blue")

    put_image(kube, "etcd-2", WITHOUT_ETCD)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not is_running(kube, "etcd-2")
    assert ask(kube, "etcd-0", "etcdctl", "get", "color") == "color\nblue"
    ask(kube, "etcd-1", "etcdctl", "put", "size", "large")
    assert not is_running(kube, "etcd-2")

    put_image(kube, "etcd-2", image)
    kube.ready_pod("etcd-2")
    # A serializable read is answered by the member alone, from its own data.
    own = ask(kube, "etcd-2", "etcdctl", "get", "", "--prefix", "--consistency=s")
    assert own.splitlines() == ["color", "blue", "size", "large"]
