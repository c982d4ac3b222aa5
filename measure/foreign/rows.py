"""The rows: the clusters, and the expected result of a run on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import yaml

from fixtures.api import Api
from fixtures.kube import Kube
from fixtures.patience import patience
from fixtures.waiting import eventually
from measure.foreign import audit, edge
from measure.foreign.cluster import AUDIT_LOGS, FILES, ApiServer, username
from measure.foreign.expected import Expected
from measure.foreign.play import Play
from measure.foreign.unchanged import Snapshot, reduced
from runner import rbac

#: The option by which a user agrees to cluster-scoped changes.
AGREED = "--allow-cluster-scoped-changes"

#: The arguments of a short run: a single test, on a single Pod.
SHORT = ("suites/test_pods.py", "-k", "localhost")

#: Seconds until the control plane marks the node of a stopped kubelet, with Kubernetes' defaults.
SILENCE_NOTICED = 120

#: What tests do on the suite's own clusters only: they cut off a node. One clause about Pods' phases needs that, too.
OURS_ONLY = ("need node-fault", "controllers/pod-phases")

#: What kind's clusters lack: they have no Ingress controller and no provider of load balancers.
BARE = ("need ingress", "need load-balancer", *OURS_ONLY)

#: What a cluster with a provider lacks.
NOT_BARE = ("need no-load-balancer", *OURS_ONLY)

#: What tests do not do on a cluster that is not the suite's own, unless its user agrees.
NOT_AGREED = ("need cluster-admin",)

#: The behaviors whose tests send a request to a Service, or look for a Pod, by its name.
BY_NAME = (
    "controllers/pods-are-disposable",
    "core-concepts/pod-ip-changes-service-ip-stays",
    "core-concepts/clusterip-joins-layers",
    "objects/clusterip-serves-inside",
    "objects/nodeport-includes-clusterip",
    "objects/externalname-is-a-cname",
    "state-and-ingress/own-dns-name",
    "state-and-ingress/application-from-one-file",
    "core-concepts/short-name-in-the-same-namespace",
    "core-concepts/full-dns-name-across-namespaces",
    "core-concepts/etcd-initial-cluster",
    "objects/components-of-a-cluster",
    "walkthroughs/objects-cluster-ip",
)

#: The behaviors whose fixtures store a score in the application: its front end finds the database by its name.
SET_UP_BY_NAME = (
    "state-and-ingress/score-survives-the-database-pod",
    "state-and-ingress/front-end-scales-to-ten",
    "walkthroughs/state-and-ingress-game",
)

PLAIN = Expected(not_observed=(*BARE, *NOT_AGREED))


@dataclass(frozen=True)
class Row:
    """One cluster: how it is made, what is changed in it, and the expected result."""

    name: str
    about: str
    expected: Expected = PLAIN
    workers: int = 2
    server: ApiServer = field(default_factory=ApiServer)
    #: Changes the cluster before its runs. Contexts that it enters on the stack last as long as the row.
    prepare: Callable[[Play, ExitStack], None] = lambda play, stack: None
    #: Runs `./verify` on the cluster; by default once.
    act: Callable[[Play, Expected], None] = lambda play, expected: play.verify(expected)


# --- changes to a cluster before its runs


def _no_storageclass(play: Play, _: ExitStack) -> None:
    kube = Kube(play.api, "default")
    for found in kube.list("StorageClass"):
        kube.delete("StorageClass", found.metadata.name)


def _no_coredns(play: Play, _: ExitStack) -> None:
    kube = Kube(play.api, "kube-system")
    kube.scale("Deployment", "coredns", 0)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert not kube.list("Pod", **{"k8s-app": "kube-dns"}), "CoreDNS still has a Pod"


def _foreign_ingress(play: Play, stack: ExitStack) -> None:
    stack.enter_context(edge.provider(play.cluster.api()))
    edge.install(play.api)


def _notready(play: Play, _: ExitStack) -> None:
    """Stop a kubelet, after the Pods that the cluster needs have left its node."""
    node, kube = f"{play.cluster.name}-worker3", Kube(play.api, "kube-system")
    kube.patch("Node", node, {"spec": {"unschedulable": True}})
    for namespace in ("kube-system", "local-path-storage"):
        there = Kube(play.api, namespace)
        for pod in there.list("Pod"):
            if pod.spec.nodeName == node and pod.metadata.ownerReferences[0].kind == "ReplicaSet":
                there.delete("Pod", pod.metadata.name, grace=0)
        for look in eventually(within=patience.rollout):
            with look:
                for deployment in there.list("Deployment"):
                    assert deployment.status.availableReplicas == deployment.spec.replicas, deployment.metadata.name
    play.cluster.on_node("worker3", "systemctl", "stop", "kubelet")
    for look in eventually(within=SILENCE_NOTICED, every=1):
        with look:
            conditions = {entry.type: entry.status for entry in kube.get("Node", node).status.conditions}
            assert conditions["Ready"] != "True", f"{node} is still Ready"
    kube.patch("Node", node, {"spec": {"unschedulable": None}})


def _tainted(play: Play, _: ExitStack) -> None:
    taint = {"key": "example.com/dedicated", "value": "database", "effect": "NoSchedule"}
    Kube(play.api, "default").patch("Node", f"{play.cluster.name}-worker3", {"spec": {"taints": [taint]}})


# --- runs on a cluster


def _admin(play: Play, expected: Expected) -> None:
    with play.unchanged():
        play.verify(expected)


def _agreed(play: Play, expected: Expected) -> None:
    with play.unchanged():
        play.verify(expected, AGREED)
    with play.unchanged() as before:
        play.kill(lambda: _class_is_changed(play.api, before), AGREED, "suites/test_storage.py")
        play.verify(Expected(), *SHORT, name="swept")


def _class_is_changed(api: Api, before: Snapshot) -> bool:
    """Whether a run has changed an earlier StorageClass: tests change the default one for a moment."""
    kind = "storageclasses.storage.k8s.io"
    now = api.call("GET", "/apis/storage.k8s.io/v1/storageclasses")["items"]
    return any(reduced(item) != before.get((kind, item["metadata"]["name"]), reduced(item)) for item in now)


def _bad_node_named_once(play: Play, expected: Expected) -> None:
    play.verify(expected)
    node = f"{play.cluster.name}-worker3"
    lines = play.lines(node)
    if len(lines) != 1:
        play.problem(f"{node} is named in {len(lines)} lines, not in one", *lines[:5])


LIMITED: Mapping[str, Any] = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "namespaces"},
    "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "get", "list", "delete"]}],
}


def _limited(play: Play, expected: Expected) -> None:
    play.cluster.add_user("limited", "admin", LIMITED)
    with play.unchanged():
        play.verify(expected, user="limited")


#: The administrator whose requests the API server logs.
AUDITED = "audited"


def _rbac(agreed: bool) -> Callable[[Play, Expected], None]:
    """A run whose used rights must be those in the file, and a second run with only these rights."""
    options = (AGREED,) if agreed else ()
    row = "rbac-agreed" if agreed else "rbac"
    name = "kubehave-cluster-scoped-changes" if agreed else "kubehave"
    what = "The rights of a run that may make cluster-scoped changes" if agreed else "The rights of a run"

    def act(play: Play, expected: Expected) -> None:
        play.cluster.add_user(AUDITED, "cluster-admin")
        play.verify(expected, *options, user=AUDITED)
        log = play.cluster.on_node("control-plane", "sh", "-c", f"cat {AUDIT_LOGS}/*.log")
        used = audit.rights(log.splitlines(), username(AUDITED))
        file = rbac.file(agreed)
        made = audit.manifest(name, used, f"{what}: `./verify {' '.join(('--print-rbac', *options))}`.", row)
        if play.write:
            file.write_text(made, encoding="utf-8")
        if not file.exists():
            play.problem(f"{file.name} is missing: --write makes it")
            return
        role = yaml.safe_load(rbac.rules(agreed))
        play.problem(*audit.differences(used, audit.granted(role)))
        play.cluster.add_user("confined", role)
        play.verify(expected, *options, name="with just these rights", user="confined")

    return act


def _audited() -> ApiServer:
    flags = {"audit-policy-file": f"{FILES}/audit.yaml", "audit-log-path": f"{AUDIT_LOGS}/audit.log"}
    return ApiServer(flags, {"audit.yaml": audit.policy(username(AUDITED))})


def _pod_security(level: str) -> ApiServer:
    """An API server whose Pod Security enforces a level in all namespaces but the cluster's own."""
    configuration = {
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": level, "enforce-version": "latest"},
        "exemptions": {"namespaces": ["kube-system", "local-path-storage"]},
    }
    admission = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "PodSecurity", "configuration": configuration}],
    }
    return ApiServer({"admission-control-config-file": f"{FILES}/admission.yaml"}, {"admission.yaml": admission})


# --- the rows

ROWS = {
    row.name: row
    for row in (
        Row(
            "admin",
            "one control plane, two workers, cluster-admin, no Ingress controller: no object of the cluster changes",
            act=_admin,
        ),
        Row(
            "agreed",
            f"the same with {AGREED}: all changes are undone, also after SIGKILL",
            Expected(not_observed=BARE),
            act=_agreed,
        ),
        Row(
            "one-node",
            "only a control plane: what needs two nodes is not observed",
            Expected(
                not_observed=(*PLAIN.not_observed, "need multi-node"),
                not_observed_because="multi-node|add a worker",
                at_least=80,
            ),
            workers=0,
        ),
        Row(
            "no-storageclass",
            "no StorageClass",
            Expected(not_observed=(*PLAIN.not_observed, "need storage")),
            prepare=_no_storageclass,
        ),
        Row(
            "no-coredns",
            "no DNS, which Kubernetes promises",
            Expected(code=1, not_observed=PLAIN.not_observed, broken=BY_NAME, inconclusive=SET_UP_BY_NAME),
            prepare=_no_coredns,
        ),
        Row(
            "foreign-ingress",
            "an Ingress controller with other names, and a provider of load balancers: both topics hold with them",
            Expected(not_observed=(*NOT_BARE, *NOT_AGREED)),
            prepare=_foreign_ingress,
        ),
        Row(
            "notready",
            "one more worker, whose kubelet is stopped",
            workers=3,
            prepare=_notready,
            act=_bad_node_named_once,
        ),
        Row(
            "tainted",
            "one more worker, with a taint that the suite does not know",
            workers=3,
            prepare=_tainted,
            act=_bad_node_named_once,
        ),
        Row(
            "limited",
            "a ServiceAccount with the ClusterRole admin that may create and delete namespaces, but not list nodes",
            Expected(
                not_observed=PLAIN.not_observed, not_observed_because=r"the right to \w+ \S+ is missing", at_least=100
            ),
            act=_limited,
        ),
        Row("baseline", "Pod Security enforces baseline in every namespace", server=_pod_security("baseline")),
        Row(
            "restricted",
            "Pod Security enforces restricted in every namespace",
            Expected(not_observed=PLAIN.not_observed, not_observed_because="refused by Pod Security", at_least=30),
            server=_pod_security("restricted"),
        ),
        Row(
            "rbac",
            "the rights of a run are those that --print-rbac prints; the cluster has all that takes rights",
            Expected(not_observed=(*NOT_BARE, *NOT_AGREED)),
            server=_audited(),
            prepare=_foreign_ingress,
            act=_rbac(False),
        ),
        Row(
            "rbac-agreed",
            f"the same with {AGREED}",
            Expected(not_observed=NOT_BARE),
            server=_audited(),
            prepare=_foreign_ingress,
            act=_rbac(True),
        ),
    )
}
