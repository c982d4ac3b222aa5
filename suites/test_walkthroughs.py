"""Walkthroughs: the documents' console sessions, as their readers type them. docs/commands.yaml has every line.

A test takes its lines from there: as printed, or in the form that stands beside it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml

from fixtures.clients import Inside
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.inconclusive import NotObserved
from fixtures.ingress import IngressClient
from fixtures.kube import Kube, is_ready
from fixtures.kubectl import last_applied
from fixtures.namespaces import in_namespace
from fixtures.nodes import internal_ip, is_control_plane
from fixtures.patience import patience
from fixtures.shell import Shell, described, names, table
from fixtures.storage import wait_until_bound
from fixtures.waiting import eventually
from machine.output import Output

APPLICATION = "application/pacman.yaml"
DEPLOYMENT = "deployments/deployment-nginx.yaml"

#: The label of the Pods of the documents' ReplicaSet.
LABEL = "my-nginx-pods-label"

#: What nginx's page says.
WELCOME = "Welcome to nginx!"


def all_gone(kube: Kube, *kinds: str) -> None:
    """Wait until the namespace has no objects of these kinds."""
    for look in eventually(within=patience.pod_goes):
        with look:
            assert [f"{kind} {thing.metadata.name}" for kind in kinds for thing in kube.list(kind)] == []


def welcomed(inside: Inside, *urls: str, clients: Iterable[str | None] = (None,)) -> None:
    """Wait until nginx's page is at each URL, for the clients on these nodes (None: any node)."""
    for url, node in itertools.product(urls, clients):
        for look in eventually(within=patience.names_follow):
            with look:
                reply = inside.get(url, node=node)
                assert WELCOME in reply.body, f"{url}: {reply}"


def node_ports(nodes: Iterable[Fields], printed: str, port: str) -> list[str]:
    """The URL of a Service's node port at each node; `printed` is the column PORT(S), such as 8080:32453/TCP."""
    found = re.fullmatch(rf"{port}:(\d+)/TCP", printed)
    assert found, f"the column PORT(S) is {printed}"
    return [f"http://{internal_ip(node)}:{found[1]}" for node in nodes]


# --- core-concepts: the control plane


@pytest.fixture
def etcd(kube: Kube) -> str:
    """The name of a Pod of the cluster's etcd. Not observed if it runs elsewhere."""
    pods = Kube(kube.api, "kube-system").list("Pod", component="etcd")
    if not pods:
        raise NotObserved("etcd does not run in a Pod of this cluster; use one whose etcd kubeadm has made")
    return str(pods[0].metadata.name)


@pytest.mark.behavior("walkthroughs/core-concepts-etcd")
def test_etcdctl_lists_keys(shell: Shell, etcd: str) -> None:
    """In the Pod of etcd, etcdctl takes the certificates of its node; the keys of the cluster begin with /registry/."""
    for look in eventually(within=patience.etcd_answers):
        with look:
            printed = shell(
                f"kubectl exec {etcd} -n kube-system -- etcdctl get / --prefix --keys-only --limit=10 "
                "--cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/server.crt "
                "--key /etc/kubernetes/pki/etcd/server.key"
            )

    keys = exactly(10, printed.split())
    assert [key for key in keys if not key.startswith("/registry/")] == []


@pytest.mark.behavior("walkthroughs/core-concepts-components")
def test_the_control_plane_is_pods_of_kube_system(shell: Shell, nodes: list[Fields]) -> None:
    """The API server, the controller manager and the scheduler are Pods of kube-system, each named after its node."""
    on = [node.metadata.name for node in nodes if is_control_plane(node)]
    pods = {f"kube-{name}-{node}" for name in ("apiserver", "controller-manager", "scheduler") for node in on}
    assert pods

    for look in eventually(within=patience.mirror_pod_returns):  # another test deletes a scheduler's
        with look:
            status = {row["NAME"]: row["STATUS"] for row in table(shell("kubectl get pods -n kube-system"))}
            assert {pod: status.get(pod) for pod in pods} == dict.fromkeys(pods, "Running")


def programs(output: Output) -> set[str]:
    """The programs of the processes that `ps -aux` printed, without their folders."""
    commands = [line.split(maxsplit=10)[10:] for line in output.stdout.splitlines()]
    return {PurePosixPath(command.partition(" ")[0]).name for parts in commands for command in parts}


@pytest.mark.behavior("walkthroughs/core-concepts-processes")
def test_components_are_processes_of_their_node(run_on_node: Callable[..., Output], nodes: list[Fields]) -> None:
    """What runs in a Pod is a process of the node, too: ps shows the components there, and the kubelet beside them."""
    on = [node for node in nodes if is_control_plane(node)]
    assert on

    def console(line: str, node: Fields) -> set[str]:
        return programs(run_on_node(node.metadata.name, "sh", "-c", line))

    assert "kube-apiserver" in console("ps -aux | grep kube-apiserver", on[0])
    assert "kube-controller-manager" in console("ps -aux | grep kube-controller-manager", on[0])
    without = [node.metadata.name for node in nodes if "kubelet" not in console("ps -aux | grep kubelet", node)]
    assert without == []


# --- core-concepts: objects from files


@pytest.mark.behavior("walkthroughs/core-concepts-pod")
def test_create_makes_a_pod_from_a_file(kube: Kube, shell: Shell) -> None:
    """`kubectl create -f` sends the file's object to the API server, and a moment later its Pod runs."""
    shell.write("pods/nginx-pod.yaml", "fileName.yaml")

    assert shell("kubectl create -f fileName.yaml") == "pod/my-nginx-pod created\n"

    kube.ready_pod("my-nginx-pod")


@pytest.mark.behavior("walkthroughs/core-concepts-scale")
def test_scale_leaves_the_file_as_it_is(kube: Kube, shell: Shell) -> None:
    """`kubectl scale -f` takes only the object's name from the file: the object asks for six Pods, and the file for three."""
    shell.write("kubectl/replicaset-definition.yaml")
    before = shell.read("replicaset-definition.yaml")
    shell("kubectl create -f replicaset-definition.yaml")

    scaled = shell("kubectl scale --replicas=6 -f replicaset-definition.yaml")

    assert scaled == "replicaset.apps/myapp-replicaset scaled\n"
    assert kube.get("ReplicaSet", "myapp-replicaset").spec.replicas == 6
    assert shell.read("replicaset-definition.yaml") == before


@pytest.mark.behavior("walkthroughs/core-concepts-namespace")
def test_a_context_has_a_default_namespace(kube: Kube, shell: Shell) -> None:
    """Without -n, kubectl asks in the namespace of its context, and set-context changes that in the kubeconfig."""
    dev = f"dev-{kube.namespace[-6:]}"
    shell.instead["--namespace=dev"] = f"--namespace={dev}"
    assert f"No resources found in {kube.namespace} namespace." in shell.output("kubectl get pods").stderr

    shell("kubectl config set-context --current --namespace=dev")

    assert f"No resources found in {dev} namespace." in shell.output("kubectl get pods").stderr


def written(kube: Kube, shell: Shell, file: str) -> dict[str, Any]:
    """The object in a file of the folder, as kubectl keeps it in its annotation: with the namespace, and no annotations."""
    document: dict[str, Any] = yaml.safe_load(shell.read(file))
    document["metadata"] |= {"namespace": kube.namespace, "annotations": {}}
    return document


@pytest.mark.behavior("walkthroughs/core-concepts-apply")
def test_apply_follows_the_file(kube: Kube, shell: Shell) -> None:
    """`kubectl apply` makes what is absent and changes what differs. It removes what only its last file had.

    An annotation of the object has that file. Without it, kubectl could not know that the label was the file's.
    """
    file = "pod-definition.yaml"
    shell.write("kubectl/pod-definition.yaml")
    assert shell("kubectl apply -f pod-definition.yaml") == "pod/myapp-pod created\n"
    assert last_applied(kube.get("Pod", "myapp-pod")) == written(kube, shell, file)

    shell.change(file, "nginx:1.22.1", "nginx:1.26.3")
    assert shell("kubectl apply -f pod-definition.yaml") == "pod/myapp-pod configured\n"
    pod = kube.get("Pod", "myapp-pod")
    assert pod.spec.containers[0].image == "nginx:1.26.3"
    assert last_applied(pod) == written(kube, shell, file)

    shell.change(file, "    type: front-end\n", "")
    assert shell("kubectl apply -f pod-definition.yaml") == "pod/myapp-pod configured\n"
    pod = kube.get("Pod", "myapp-pod")
    assert pod.metadata.labels == {"app": "myapp"}
    assert last_applied(pod) == written(kube, shell, file)


# --- objects: Pods


@pytest.mark.behavior("walkthroughs/objects-pod")
def test_a_pod_from_its_file_to_its_end(kube: Kube, shell: Shell, inside: Inside) -> None:
    """Section 2.1: the life of a Pod at the console, from apply -f to delete -f."""
    shell.write("pods/nginx-pod.yaml")
    kinds = {row["KIND"] for row in table(shell("kubectl api-resources"))}
    assert kinds >= {"Pod", "ReplicaSet", "ServiceAccount", "Node"}

    assert shell("kubectl apply -f nginx-pod.yaml") == "pod/my-nginx-pod created\n"
    pod = kube.ready_pod("my-nginx-pod")
    (row,) = exactly(1, table(shell("kubectl get pods")))
    assert (row["NAME"], row["READY"], row["STATUS"]) == ("my-nginx-pod", "1/1", "Running")
    told = shell("kubectl describe pod my-nginx-pod")
    assert described(told, "IP") == pod.status.podIP
    assert described(told, "Node").partition("/")[0] == pod.spec.nodeName
    welcomed(inside, f"http://{pod.status.podIP}")
    assert shell("kubectl exec -i my-nginx-pod -- bash", "hostname") == "my-nginx-pod\n"
    for look in eventually(within=patience.log_arrives):
        with look:
            assert '"GET / HTTP/1.1" 200' in shell("kubectl logs my-nginx-pod")

    shell("kubectl delete -f nginx-pod.yaml")
    assert table(shell("kubectl get pods")) == []


@pytest.mark.behavior("walkthroughs/objects-two-containers")
def test_localhost_is_the_other_container(kube: Kube, shell: Shell) -> None:
    """Section 2.2: the second container runs no server, and still has nginx's page at localhost."""
    shell.write("pods/nginx-ubuntu-pod.yaml")

    shell("kubectl apply -f nginx-ubuntu-pod.yaml")

    kube.ready_pod("my-nginx-ubuntu-pod")
    (row,) = exactly(1, table(shell("kubectl get pods")))
    assert (row["NAME"], row["READY"]) == ("my-nginx-ubuntu-pod", "2/2")
    for look in eventually(within=patience.server_listens):
        with look:
            page = shell("kubectl exec -i my-nginx-ubuntu-pod -c ubuntu-container -- sh", "wget -qO- localhost")
            assert WELCOME in page


# --- objects: ReplicaSets


@pytest.mark.behavior("walkthroughs/objects-replicaset")
def test_three_pods_and_then_four(kube: Kube, shell: Shell) -> None:
    """Section 3.2: a ReplicaSet of three; with 4 in its file, applied again, one Pod more."""
    shell.write("replicasets/replicaset-nginx.yaml")
    shell("kubectl apply -f replicaset-nginx.yaml")
    kube.rolled_out("ReplicaSet", "replicaset-nginx")

    three = exactly(3, table(shell("kubectl get po")))
    assert [(row["READY"], row["STATUS"]) for row in three] == [("1/1", "Running")] * 3
    (row,) = exactly(1, table(shell("kubectl get rs")))
    assert (row["NAME"], row["DESIRED"], row["CURRENT"], row["READY"]) == ("replicaset-nginx", "3", "3", "3")

    shell.change("replicaset-nginx.yaml", "replicas: 3", "replicas: 4")
    assert shell("kubectl apply -f replicaset-nginx.yaml") == "replicaset.apps/replicaset-nginx configured\n"

    kube.ready_pods(4, app=LABEL)
    assert {row["NAME"] for row in three} < names(shell("kubectl get po"))


#: What the reader does in the editor: the Pod's labels are deleted.
DELETE_LABELS = rf'sed "/^  labels:$/d; /^    app: {LABEL}$/d" "$1" >"$1.new" && cat "$1.new" >"$1"'


@pytest.fixture
def one_made_by_hand(kube: Kube, shell: Shell) -> None:
    """A Pod, Ready, with the label of the ReplicaSet; and the file of the ReplicaSet, which has four replicas now."""
    shell.write("walkthroughs/nginx-label-pod.yaml")
    shell("kubectl apply -f nginx-label-pod.yaml")
    kube.ready_pod("my-nginx-pod")
    shell.write("replicasets/replicaset-nginx.yaml")
    shell.change("replicaset-nginx.yaml", "replicas: 3", "replicas: 4")


@pytest.mark.behavior("walkthroughs/objects-labels")
@pytest.mark.usefixtures("one_made_by_hand")
def test_the_label_decides_whose_a_pod_is(kube: Kube, shell: Shell) -> None:
    """Section 3.3: a Pod with the label counts, a Pod without it has no owner: another takes its place, and it stays."""
    shell("kubectl apply -f replicaset-nginx.yaml")
    four = {pod.metadata.name for pod in kube.ready_pods(4, app=LABEL)}
    assert "my-nginx-pod" in four

    shell("kubectl delete po my-nginx-pod")
    kube.ready_pods(4, app=LABEL)
    again = names(shell("kubectl get po"))
    assert again & four == four - {"my-nginx-pod"}

    name = max(again)
    assert shell(f"kubectl edit pods {name}", editor=DELETE_LABELS) == f"pod/{name} edited\n"
    kube.ready_pods(4, app=LABEL)
    labels = {row["NAME"]: row["LABELS"] for row in table(shell("kubectl get po --show-labels"))}
    assert labels.pop(name, None) == "<none>"
    assert list(labels.values()) == [f"app={LABEL}"] * 4

    shell("kubectl delete rs replicaset-nginx")
    for look in eventually(within=patience.pod_goes):
        with look:
            (left,) = exactly(1, kube.list("Pod"))
            assert (left.metadata.name, is_ready(left)) == (name, True)
    assert shell(f"kubectl delete po {name}").startswith(f'pod "{name}" deleted')


@pytest.mark.behavior("walkthroughs/objects-labels")
def test_a_selector_may_be_an_expression(kube: Kube, shell: Shell) -> None:
    """Section 3.3: `matchExpressions` with `In` selects Pods with the one label or the other; here three Pods."""
    shell.write("walkthroughs/nginx-expression-pod.yaml")

    shell("kubectl apply -f nginx-expression-pod.yaml")

    kube.rolled_out("ReplicaSet", "replicaset-nginx")
    (row,) = exactly(1, table(shell("kubectl get rs -o wide")))
    assert (row["DESIRED"], row["READY"]) == ("3", "3")
    assert row["SELECTOR"] == "app in (my-nginx-pods-label,your-nginx-pods-label)"


# --- objects: Deployments


@pytest.mark.behavior("walkthroughs/objects-deployment")
def test_a_deployment_makes_a_replicaset_and_takes_it_along(kube: Kube, shell: Shell) -> None:
    """Section 4.1: the names of ReplicaSet and Pods begin with the Deployment's; all go when it is deleted."""
    shell.write(DEPLOYMENT)
    assert shell("kubectl apply -f deployment-nginx.yaml") == "deployment.apps/my-nginx-deployment created\n"
    kube.rolled_out("Deployment", "my-nginx-deployment")

    (deployment,) = exactly(1, table(shell("kubectl get deploy")))
    assert (deployment["NAME"], deployment["READY"], deployment["AVAILABLE"]) == ("my-nginx-deployment", "3/3", "3")
    (replicaset,) = exactly(1, table(shell("kubectl get rs")))
    assert replicaset["NAME"].startswith("my-nginx-deployment-")
    pods = exactly(3, names(shell("kubectl get po")))
    assert [pod for pod in pods if not pod.startswith(f"{replicaset['NAME']}-")] == []

    shell("kubectl delete deploy my-nginx-deployment")
    all_gone(kube, "Deployment", "ReplicaSet", "Pod")


def replicas(shell: Shell) -> dict[str, tuple[str, str]]:
    """How many Pods each ReplicaSet should have, and how many are Ready, as the console shows it."""
    return {row["NAME"]: (row["DESIRED"], row["READY"]) for row in table(shell("kubectl get rs"))}


@pytest.mark.behavior("walkthroughs/objects-rollout")
@pytest.mark.starts_first
def test_a_new_image_and_the_way_back(kube: Kube, shell: Shell) -> None:
    """Section 4.2: a new image is a new ReplicaSet and a revision; undo gives the Pods back to the first ReplicaSet."""
    shell.write(DEPLOYMENT)
    shell("kubectl apply -f deployment-nginx.yaml")
    shell("kubectl annotate deploy my-nginx-deployment kubernetes.io/change-cause=first")
    kube.rolled_out("Deployment", "my-nginx-deployment")
    (first,) = exactly(1, replicas(shell))

    shell("kubectl set image deployment my-nginx-deployment nginx=nginx:1.26.3")
    shell("kubectl annotate deploy my-nginx-deployment kubernetes.io/change-cause=second --overwrite")
    kube.rolled_out("Deployment", "my-nginx-deployment")

    found = replicas(shell)
    assert found.pop(first, None) == ("0", "0")
    assert list(found.values()) == [("3", "3")]
    history = shell("kubectl rollout history deploy").splitlines()
    assert [line.split() for line in history if line[:1].isdigit()] == [["1", "first"], ["2", "second"]]

    shell("kubectl rollout undo deploy my-nginx-deployment --to-revision 1")
    kube.rolled_out("Deployment", "my-nginx-deployment")
    assert replicas(shell) == {first: ("3", "3")} | dict.fromkeys(found, ("0", "0"))

    shell("kubectl delete deploy,po,rs --all")
    all_gone(kube, "Deployment", "Pod", "ReplicaSet")


# --- objects: Services


@pytest.fixture
def three_nginx(kube: Kube) -> None:
    """The documents' Deployment, its three Pods Ready."""
    kube.apply(DEPLOYMENT)
    kube.ready_pods(3, app="my-nginx")


@pytest.mark.behavior("walkthroughs/objects-cluster-ip")
@pytest.mark.usefixtures("three_nginx")
def test_a_temporary_pod_asks_a_service(kube: Kube, shell: Shell, inside: Inside) -> None:
    """Section 5.1: inside the cluster, a Service answers at its ClusterIP and at its name."""
    shell.write("services/svc-clusterip.yaml")
    shell("kubectl apply -f svc-clusterip.yaml")
    (row,) = exactly(1, table(shell("kubectl get svc")))
    assert (row["NAME"], row["TYPE"], row["PORT(S)"]) == ("svc-clusterip", "ClusterIP", "8080/TCP")
    address = row["CLUSTER-IP"]
    welcomed(inside, f"http://{address}:8080", clients=inside.nodes)
    welcomed(inside, f"http://svc-clusterip.{kube.namespace}:8080")

    printed = shell(
        "kubectl run -i --rm debug --image=registry.k8s.io/e2e-test-images/agnhost:2.63.0 --restart=Never --command -- bash",
        f"curl {address}:8080",
        "curl svc-clusterip:8080",
    )
    assert printed.count(f"<h1>{WELCOME}</h1>") == 2

    assert shell("kubectl delete svc svc-clusterip").startswith('service "svc-clusterip" deleted')
    assert table(shell("kubectl get svc")) == []


@pytest.mark.behavior("walkthroughs/objects-node-port")
@pytest.mark.usefixtures("three_nginx")
def test_a_service_has_a_port_on_every_node(shell: Shell, inside: Inside, nodes: list[Fields]) -> None:
    """Section 5.1: of type NodePort, the Service also answers at every node, on the port that the cluster chose."""
    shell.write("walkthroughs/svc-nodeport.yaml")

    shell("kubectl apply -f svc-nodeport.yaml")

    (row,) = exactly(1, table(shell("kubectl get svc")))
    assert (row["NAME"], row["TYPE"]) == ("svc-clusterip", "NodePort")
    welcomed(inside, *node_ports(nodes, row["PORT(S)"], "8080"))


def policy(shell: Shell) -> str:
    """The line of externalTrafficPolicy in the YAML of the NodePort Service."""
    return described(shell("kubectl get svc svc-clusterip -o yaml"), "externalTrafficPolicy")


@pytest.mark.behavior("walkthroughs/objects-traffic-policy")
def test_the_traffic_policy_is_a_field_of_the_service(kube: Kube, shell: Shell) -> None:
    """Section 5.1: externalTrafficPolicy is Cluster unless the file says Local. kubectl refuses the misspelled field."""
    shell.write("walkthroughs/svc-nodeport.yaml")
    shell("kubectl apply -f svc-nodeport.yaml")
    assert policy(shell) == "Cluster"

    shell.write("pods/svc-local-nodeport.refused.yaml", "svc-local-nodeport.yaml")
    refusal = shell.output("kubectl apply -f svc-local-nodeport.yaml")
    assert refusal.code == 1
    assert 'unknown field "spec.externalTrafficPilicy"' in refusal.stderr
    shell.change("svc-local-nodeport.yaml", "  externalTrafficPilicy", "  externalTrafficPolicy")
    shell("kubectl apply -f svc-local-nodeport.yaml")

    assert kube.get("Service", "svc-local-nodeport").spec.externalTrafficPolicy == "Local"


# --- state-and-ingress: the stateful application


@pytest.fixture
def classes(shell: Shell, two_classes: tuple[str, str]) -> tuple[str, str]:
    """The names of the cluster's default class, in the place of standard, and of another, in that of csi-hostpath-sc."""
    standard, other = two_classes
    shell.instead |= {"csi-hostpath-sc": other, "storageclass standard ": f"storageclass {standard} "}
    return standard, other


def defaults(shell: Shell) -> set[str]:
    """The StorageClasses behind whose names the console shows (default)."""
    mark = " (default)"
    return {name.removesuffix(mark) for name in names(shell("kubectl get storageclass")) if name.endswith(mark)}


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("walkthroughs/state-and-ingress-storage-class")
def test_two_patches_make_another_class_the_default(shell: Shell, classes: tuple[str, str]) -> None:
    """One annotation makes a class the default; the other takes that away from the class that was it."""
    standard, other = classes
    assert defaults(shell) & {standard, other} == {standard}

    shell(
        "kubectl patch storageclass csi-hostpath-sc "
        """-p '{"metadata": {"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}}}'"""
    )
    shell(
        "kubectl patch storageclass standard "
        """-p '{"metadata": {"annotations":{"storageclass.kubernetes.io/is-default-class":"false"}}}'"""
    )

    assert defaults(shell) & {standard, other} == {other}


@pytest.fixture
def pacman_namespace(shell: Shell, made_by_the_test: Kube) -> Kube:
    """A namespace that does not exist yet, in the place of pacman in the document's lines and in its file."""
    kube = made_by_the_test
    shell.instead["-n pacman"] = f"-n {kube.namespace}"
    shell.write(in_namespace(APPLICATION, kube), "pacman-stateful-demo.yaml")
    return kube


@pytest.mark.behavior("walkthroughs/state-and-ingress-pacman")
def test_the_whole_application_comes_from_one_line(shell: Shell, pacman_namespace: Kube) -> None:
    """One file makes a namespace and what is in it; the volume of its PersistentVolumeClaim (PVC) has no namespace."""
    kube, name = pacman_namespace, pacman_namespace.namespace
    assert name not in names(shell("kubectl get namespace"))

    created = shell("kubectl create -f pacman-stateful-demo.yaml").splitlines()

    assert [line.endswith(" created") for line in created] == [True] * 7
    assert name in names(shell("kubectl get namespace"))
    kube.rolled_out("Deployment", "pacman")
    kube.rolled_out("StatefulSet", "mongo")
    ready = {row["NAME"]: row.get("READY") for row in table(shell("kubectl get all -n pacman"))}
    assert {ready.get(of) for of in ("deployment.apps/pacman", "statefulset.apps/mongo", "pod/mongo-0")} == {"1/1"}
    assert ready.keys() >= {"service/pacman", "service/mongo"}
    claims = {row["NAME"]: row["CLAIM"] for row in table(shell("kubectl get pv"))}
    (pvc,) = exactly(1, table(shell("kubectl get pvc -n pacman")))
    assert (pvc["NAME"], pvc["STATUS"]) == ("mongo-storage", "Bound")
    assert claims.get(pvc["VOLUME"]) == f"{name}/mongo-storage"


@pytest.fixture
def game(kube: Kube, shell: Shell, inside: Inside) -> str:
    """The URL of the game. It runs in the test's own namespace, which stands in the place of pacman."""
    shell.instead["-n pacman"] = f"-n {kube.namespace}"
    kube.apply([document for document in in_namespace(APPLICATION, kube) if document["kind"] != "Namespace"])
    wait_until_bound(kube, "mongo-storage", name="mongo")
    for name in ("mongo", "pacman"):
        kube.ready_pods(1, name=name)
    url = f"http://pacman.{kube.namespace}"
    for look in eventually(within=patience.names_follow):
        with look:
            assert inside.get(f"{url}/score").status == 200
    return url


@pytest.mark.behavior("walkthroughs/state-and-ingress-game")
@pytest.mark.starts_first
def test_the_game_keeps_its_score(kube: Kube, shell: Shell, inside: Inside, game: str) -> None:
    """A forwarded port leads to the game; its score outlives mongo-0; ten front ends are one line away."""
    with shell.forward("kubectl port-forward svc/pacman 9090:80 -n pacman") as ask:
        assert ask().stdout.splitlines()[-1:] == ["Pac-Man"]
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"{game}/score", options=["--data", "4711"]).status == 200

    shell("kubectl delete pod mongo-0 -n pacman")

    for look in eventually(within=patience.rollout):
        with look:
            assert inside.get(f"{game}/score").body.strip() == "4711"
    assert shell("kubectl scale deployment pacman --replicas=10 -n pacman") == "deployment.apps/pacman scaled\n"
    kube.ready_pods(10, name="pacman")


# --- state-and-ingress: Ingress


@pytest.fixture
def pacman_host(kube: Kube, shell: Shell, ingress_client: IngressClient) -> str:
    """The host of the Ingress in the document's file, which has the served class; the test's namespace is pacman's."""
    shell.instead["-n pacman"] = f"-n {kube.namespace}"
    documents = in_namespace(APPLICATION, kube)
    kube.apply([it for it in documents if (it["kind"], it["metadata"]["name"]) == ("Service", "pacman")])
    host = f"{kube.namespace}.pacman.example"
    shell.write("ingress/pacman-ingress.yaml")
    shell.change("pacman-ingress.yaml", "host: pacman.example", f"host: {host}")
    shell.change("pacman-ingress.yaml", "\nspec:\n", f"\nspec:\n  ingressClassName: {ingress_client.class_name}\n")
    return host


@pytest.mark.behavior("walkthroughs/state-and-ingress-ingress")
def test_an_ingress_shows_its_address(
    kube: Kube, shell: Shell, ingress_client: IngressClient, controller: tuple[Kube, dict[str, str]], pacman_host: str
) -> None:
    """The controller has a namespace of its own; get ingress shows the host, and the address that the controller gave."""
    assert controller[0].namespace in names(shell("kubectl get ns"))

    assert shell("kubectl create -f pacman-ingress.yaml") == "ingress.networking.k8s.io/pacman created\n"

    address = ingress_client.status_address(kube, "pacman")
    rows = table(shell("kubectl get ingress -n pacman"))
    (row,) = exactly(1, [row for row in rows if row["NAME"] == "pacman"])
    assert (row["CLASS"], row["HOSTS"]) == (ingress_client.class_name, pacman_host)
    assert address in row["ADDRESS"].split(",")


# --- nginx-walkthrough


@pytest.mark.behavior("walkthroughs/nginx-walkthrough-deployment")
def test_create_deployment_and_scale_it(kube: Kube, shell: Shell) -> None:
    """`kubectl create deployment` also makes a Pod; scale makes four of it, and a Pod that is deleted is replaced."""
    created = shell("kubectl create deployment mynginx --image=nginx:1.26.3")

    assert created == "deployment.apps/mynginx created\n"
    kube.rolled_out("Deployment", "mynginx")
    (deployment,) = exactly(1, table(shell("kubectl get deployments.apps")))
    assert (deployment["NAME"], deployment["READY"]) == ("mynginx", "1/1")
    (pod,) = exactly(1, kube.pods(app="mynginx"))
    (row,) = exactly(1, table(shell("kubectl get pod -o wide")))
    assert (row["NAME"], row["IP"], row["NODE"]) == (pod.metadata.name, pod.status.podIP, pod.spec.nodeName)

    assert shell("kubectl scale deployment mynginx --replicas=4") == "deployment.apps/mynginx scaled\n"
    four = {it.metadata.name for it in kube.ready_pods(4, app="mynginx")}
    assert pod.metadata.name in four

    shell(f"kubectl delete pod {pod.metadata.name}")
    again = {it.metadata.name for it in kube.ready_pods(4, app="mynginx")}
    assert again & four == four - {pod.metadata.name}


@pytest.fixture
def mynginx(kube: Kube, shell: Shell) -> Fields:
    """The Pod, Ready, of the Deployment that the reader has created."""
    shell("kubectl create deployment mynginx --image=nginx:1.26.3")
    (pod,) = kube.ready_pods(1, app="mynginx")
    kube.rolled_out("Deployment", "mynginx")
    return pod


@pytest.mark.behavior("walkthroughs/nginx-walkthrough-describe")
def test_describe_shows_a_deployment_and_its_pod(shell: Shell, mynginx: Fields) -> None:
    """`kubectl describe` shows an object and what belongs to it: a Deployment's ReplicaSet, a Pod's node and owner."""
    name = mynginx.metadata.name

    deployment = shell("kubectl describe deployments.apps mynginx")
    pod = shell(f"kubectl describe pod {name}")

    (owner,) = exactly(1, mynginx.metadata.ownerReferences)
    assert described(deployment, "Replicas").split(" | ")[:4] == ["1 desired", "1 updated", "1 total", "1 available"]
    assert described(deployment, "NewReplicaSet").partition(" ")[0] == owner.name
    assert described(pod, "Controlled By") == f"ReplicaSet/{owner.name}"
    assert described(pod, "Node").partition("/")[0] == mynginx.spec.nodeName
    assert described(pod, "IP") == mynginx.status.podIP


@pytest.mark.behavior("walkthroughs/nginx-walkthrough-node-port")
@pytest.mark.usefixtures("mynginx")
def test_create_service_gives_the_deployment_a_node_port(shell: Shell, inside: Inside, nodes: list[Fields]) -> None:
    """`kubectl create service nodeport` names the Service, and thereby selects the Pods whose label app is that name."""
    shell("kubectl create service nodeport mynginx --tcp=80:80")

    (row,) = exactly(1, table(shell("kubectl get service -o wide")))
    assert (row["NAME"], row["TYPE"], row["SELECTOR"]) == ("mynginx", "NodePort", "app=mynginx")
    welcomed(inside, *node_ports(nodes, row["PORT(S)"], "80"))
