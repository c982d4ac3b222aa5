"""The checks of runs on foreign clusters find what is wrong. They need no cluster here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from fixtures.api import Api
from fixtures.kube import Kube
from lessons.catalogue import Behavior, catalogue
from machine import kind as kinds
from machine.exits import CannotRun
from measure.foreign import __main__ as command
from measure.foreign import audit, edge
from measure.foreign.cluster import ApiServer, config
from measure.foreign.expected import Expected, differences, wanted
from measure.foreign.play import Result
from measure.foreign.rows import ROWS
from measure.foreign.unchanged import Snapshot, changes, cluster_scoped, reduced
from runner import rbac

# --- before and after


def node(**changed: Any) -> dict[str, Any]:
    """A Node as the API returns it."""
    whole = {
        "metadata": {"name": "worker", "uid": "1", "resourceVersion": "5", "labels": {"zone": "a"}},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "09:00"}]},
    }
    return {**whole, **changed}


def seen(thing: dict[str, Any]) -> Snapshot:
    return {("nodes", "worker"): reduced(thing)}


def test_a_heartbeat_is_not_a_change() -> None:
    beat = node(
        metadata={**node()["metadata"], "resourceVersion": "6", "managedFields": [{"manager": "kubelet"}]},
        status={"conditions": [{"type": "Ready", "lastHeartbeatTime": "09:10"}]},
    )

    assert changes(seen(node()), seen(beat)) == []


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"spec": {"podCIDR": "10.244.1.0/24", "taints": [{"key": "a"}]}}, "spec.taints"),
        ({"metadata": {**node()["metadata"], "labels": {"zone": "b"}}}, "metadata.labels.zone"),
        ({"metadata": {**node()["metadata"], "uid": "2"}}, "metadata.uid"),
    ],
)
def test_a_changed_field_is_named(changed: dict[str, Any], place: str) -> None:
    assert changes(seen(node()), seen(node(**changed))) == [f"nodes worker: changed at {place}"]


def test_new_and_deleted_objects_are_named() -> None:
    other: Snapshot = {("storageclasses.storage.k8s.io", "fast"): {"metadata": {}}}

    assert changes(seen(node()), other) == ["storageclasses.storage.k8s.io fast: appeared", "nodes worker: gone"]


class Discovery:
    """An API server that knows a few kinds."""

    def call(self, _: str, path: str) -> dict[str, Any]:
        """The discovery document at this path."""
        everything = ["create", "list"]
        versions = [{"groupVersion": "storage.k8s.io/v1beta1"}, {"groupVersion": "storage.k8s.io/v1"}]
        preferred = {"groupVersion": "storage.k8s.io/v1"}
        classes = {"name": "storageclasses", "namespaced": False, "verbs": everything}
        answers: dict[str, dict[str, Any]] = {
            "/apis": {"groups": [{"versions": versions, "preferredVersion": preferred}]},
            "/apis/storage.k8s.io/v1": {"resources": [classes]},
            "/apis/storage.k8s.io/v1beta1": {
                "resources": [classes, {"name": "volumeattributes", "namespaced": False, "verbs": everything}]
            },
            "/api/v1": {
                "resources": [
                    {"name": "nodes", "namespaced": False, "verbs": everything},
                    {"name": "nodes/status", "namespaced": False, "verbs": ["get"]},
                    {"name": "componentstatuses", "namespaced": False, "verbs": everything},
                    {"name": "pods", "namespaced": True, "verbs": everything},
                ]
            },
        }
        return answers[path]


def test_every_kind_without_a_namespace_is_listed_once_in_its_preferred_version() -> None:
    assert list(cluster_scoped(cast("Api", Discovery()))) == [
        ("nodes", "/api/v1/nodes"),
        ("storageclasses.storage.k8s.io", "/apis/storage.k8s.io/v1/storageclasses"),
        ("volumeattributes.storage.k8s.io", "/apis/storage.k8s.io/v1beta1/volumeattributes"),
    ]


# --- from audit events to rights


def event(verb: str, user: str = "looker", uri: str = "/", **reference: str) -> str:
    """A line of an audit log."""
    whole: dict[str, Any] = {"stage": "ResponseComplete", "verb": verb, "requestURI": uri, "user": {"username": user}}
    return json.dumps({**whole, "objectRef": reference} if reference else whole)


def test_requests_become_rights() -> None:
    log = [
        event("get", resource="pods", namespace="a", name="web"),
        event("create", resource="pods", namespace="b"),
        event("patch", resource="deployments", subresource="scale", apiGroup="apps", namespace="a"),
        event("get", uri="/apis/apps/v1?timeout=32s"),
        event("get", uri="/version"),
    ]

    assert audit.rights(log, "looker") == {
        ("", "pods"): {"get", "create"},
        ("apps", "deployments/scale"): {"patch"},
        "/apis/*": {"get"},
        "/version": {"get"},
    }


def test_another_users_requests_are_left_out() -> None:
    assert audit.rights([event("delete", user="admin", resource="nodes")], "looker") == {}


def test_an_exec_by_websocket_needs_the_right_to_create() -> None:
    log = [event("get", resource="pods", subresource="exec", namespace="a", name="web")]

    assert audit.rights(log, "looker") == {("", "pods/exec"): {"get", "create"}}


@pytest.mark.parametrize(("code", "verbs"), [(200, {"patch"}), (201, {"patch", "create"})])
def test_an_apply_that_creates_an_object_needs_the_right_to_create(code: int, verbs: set[str]) -> None:
    applied = json.loads(event("patch", resource="daemonsets", apiGroup="apps", namespace="a", name="inside"))

    log = [json.dumps({**applied, "responseStatus": {"code": code}})]

    assert audit.rights(log, "looker") == {("apps", "daemonsets"): verbs}


def test_who_creates_and_binds_a_role_needs_the_rights_to_do_that() -> None:
    group = "rbac.authorization.k8s.io"
    log = [event("create", resource=kind, apiGroup=group, name="x") for kind in ("clusterroles", "clusterrolebindings")]

    assert audit.rights(log, "looker") == {
        (group, "clusterroles"): {"create", "escalate", "bind"},
        (group, "clusterrolebindings"): {"create"},
    }


USED: audit.Rights = {
    ("", "pods"): {"get", "list"},
    ("", "services"): {"list", "get"},
    ("apps", "deployments"): {"get", "list"},
    "/version": {"get"},
    "/api": {"get"},
}


def test_resources_with_the_same_verbs_are_one_rule() -> None:
    assert audit.rules(USED) == [
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
        {"nonResourceURLs": ["/api", "/version"], "verbs": ["get"]},
    ]


def test_a_written_role_grants_what_was_used() -> None:
    role = yaml.safe_load(audit.manifest("kubehave", USED, "The rights of a run.", "rbac"))

    assert role["kind"] == "ClusterRole"
    assert audit.differences(USED, audit.granted(role)) == []


def test_missing_and_unused_rights_are_named() -> None:
    granted = audit.granted(
        {"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "watch"]}]}
    )
    used: audit.Rights = {("apps", "deployments"): {"get", "patch"}}

    assert audit.differences(used, granted) == [
        "deployments.apps: patch was used but is not in the file",
        "deployments.apps: watch is in the file but was not used",
    ]


@pytest.mark.parametrize("agreed", [False, True])
def test_the_printed_role_is_yaml_of_a_clusterrole(agreed: bool) -> None:
    role = yaml.safe_load(rbac.rules(agreed))

    assert role["kind"] == "ClusterRole"
    assert ("", "namespaces") in audit.granted(role)


# --- expectations


def behavior(name: str, *needs: str, topic: str = "pods", planned: bool = False) -> Behavior:
    return Behavior(f"doc/{name}", topic, "says", "observe", needs, planned=planned)


BEHAVIORS = {
    entry.id: entry
    for entry in (
        behavior("simple"),
        behavior("stored", "storage", topic="storage"),
        behavior("spread", "multi-node"),
        behavior("later", "storage", planned=True),
    )
}


def report(**verdicts: str | tuple[str, str]) -> dict[str, Any]:
    """A behaviors.json in which all behaviors hold except these, which have a verdict, or a verdict and a reason."""
    rows = []
    for name, entry in BEHAVIORS.items():
        found = verdicts.get(entry.id.removeprefix("doc/"), "planned" if entry.planned else "holds")
        verdict, reason = (found, None) if isinstance(found, str) else found
        rows.append({"id": name, "topic": entry.topic, "verdict": verdict, "reason": reason})
    return {"behaviors": rows}


def found(expected: Expected, verdicts: Mapping[str, str | tuple[str, str]], code: int = 0) -> list[str]:
    return differences(expected, code, report(**verdicts), BEHAVIORS)


def test_a_run_as_expected_has_no_differences() -> None:
    assert found(Expected(), {}) == []
    assert found(Expected(not_observed=("need storage",)), {"stored": "not observed"}) == []
    assert found(Expected(code=1, broken=("topic storage",)), {"stored": "broken"}, code=1) == []


def test_a_planned_behavior_stays_planned_in_every_group() -> None:
    assert wanted(Expected(not_observed=("need storage",)), BEHAVIORS)["doc/later"] == "planned"


@pytest.mark.parametrize("verdict", ["broken", "not observed", "inconclusive", "in part", "unknown verdict"])
def test_any_other_verdict_than_the_expected_one_is_a_difference(verdict: str) -> None:
    assert found(Expected(), {"simple": (verdict, "so it is")}) == [
        f"doc/simple: {verdict} instead of holds (so it is)"
    ]


def test_a_behavior_that_must_be_not_observed_must_not_hold() -> None:
    assert found(Expected(not_observed=("doc/spread",)), {}) == ["doc/spread: holds instead of not observed"]


def test_an_exit_code_is_compared() -> None:
    assert found(Expected(code=1), {}) == ["exit code 0, not 1"]


def test_a_reason_may_excuse_what_is_not_observed() -> None:
    expected = Expected(not_observed_because="refused by Pod Security")

    assert found(expected, {"simple": ("not observed", "refused by Pod Security: hostPort")}) == []
    assert found(expected, {"simple": ("not observed", "some other reason")}) != []
    assert found(expected, {"simple": ("inconclusive", "refused by Pod Security")}) != []


def test_too_few_holding_behaviors_are_a_difference() -> None:
    nothing = dict.fromkeys(("simple", "stored", "spread"), ("not observed", "refused"))

    assert found(Expected(not_observed_because="refused"), nothing) == ["0 behaviors hold, not at least 1"]


def test_a_behavior_that_the_report_leaves_out_is_a_difference() -> None:
    short = {"behaviors": [row for row in report()["behaviors"] if row["id"] != "doc/spread"]}

    assert differences(Expected(), 0, short, BEHAVIORS) == ["1 behaviors are not in the report: doc/spread"]


def test_a_run_of_a_few_tests_must_break_nothing() -> None:
    looked_at = report(stored="in part", simple="in part", spread="in part")
    failed = report(stored="in part", simple="in part", spread=("broken", "it is not so"))

    assert differences(Expected(), 0, looked_at, BEHAVIORS, chosen=True) == []
    assert differences(Expected(), 0, failed, BEHAVIORS, chosen=True) == ["doc/spread: broken (it is not so)"]


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_every_row_names_behaviors_of_the_catalogue(row: Any) -> None:
    assert "holds" in wanted(row.expected, catalogue()).values()


# --- clusters


def test_a_foreign_cluster_has_the_patches_of_the_suites_own(tmp_path: Path) -> None:
    whole = config(0, ApiServer(), tmp_path)

    own = yaml.safe_load(kinds.CONFIG.read_text(encoding="utf-8"))
    assert whole == {**own, "nodes": [{"role": "control-plane"}]}


def test_flags_of_an_api_server_come_with_their_files(tmp_path: Path) -> None:
    whole = config(1, ROWS["restricted"].server, tmp_path)

    control_plane, worker = whole["nodes"]
    assert (control_plane["role"], worker["role"]) == ("control-plane", "worker")
    (mount,) = control_plane["extraMounts"]
    server = yaml.safe_load(whole["kubeadmConfigPatches"][-1])["apiServer"]
    (flag,) = server["extraArgs"]
    assert flag["value"] == f"{mount['containerPath']}/admission.yaml"
    assert mount["containerPath"] in {volume["hostPath"] for volume in server["extraVolumes"]}
    (plugin,) = yaml.safe_load((tmp_path / "admission.yaml").read_text())["plugins"]
    assert plugin["configuration"]["defaults"]["enforce"] == "restricted"


def test_the_foreign_controller_shares_no_names_with_the_suites_own() -> None:
    documents = edge.foreign_controller()

    definitions = [document for document in documents if document["kind"] == "CustomResourceDefinition"]
    others = [document for document in documents if document["kind"] != "CustomResourceDefinition"]
    assert definitions
    assert not {document["metadata"]["name"] for document in others} & set(edge.NAMES)
    (deployment,) = [document for document in others if document["kind"] == "Deployment"]
    pods = deployment["spec"]["template"]
    assert pods["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"] == {"app": "edge"}
    assert "--ingress-class-name=edge" in pods["spec"]["containers"][0]["args"]
    (service,) = [document for document in others if document["kind"] == "Service"]
    assert service["spec"]["selector"] == {"app": "edge"}


class Services:
    """An API server that has Services, and stores changes to their status."""

    def __init__(self, *services: dict[str, Any]) -> None:
        self.services = services

    def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        """All Services."""
        return {"items": list(self.services)}


def load_balancer(name: str, port: int, address: str | None = None) -> dict[str, Any]:
    status = {"loadBalancer": {"ingress": [{"ip": address}]} if address else {}}
    spec = {"type": "LoadBalancer", "ports": [{"port": port}]}
    return {"metadata": {"name": name, "namespace": "web"}, "spec": spec, "status": status}


def test_two_services_with_the_same_port_get_addresses_of_two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    monkeypatch.setattr(
        Kube,
        "patch",
        lambda _, __, name, change, *___: given.update({name: change["status"]["loadBalancer"]["ingress"][0]["ip"]}),
    )
    services = Services(load_balancer("a", 80, "10.0.0.1"), load_balancer("b", 80), load_balancer("c", 443))

    edge._give_addresses(cast("Api", services), ["10.0.0.1", "10.0.0.2"])

    assert given == {"b": "10.0.0.2", "c": "10.0.0.1"}


# --- the command


def test_the_table_has_problems_below_their_row() -> None:
    wrong = Result("admin", 1, problems=["exit code 1, not 0"])
    wrong.counts["holds"] = 100

    head, line, problem = command.table([wrong])

    assert head.split()[:4] == ["row", "exit", "seconds", "holds"]
    assert line.split()[:4] == ["admin", "1", "0", "100"]
    assert problem.strip() == "exit code 1, not 0"


def test_an_unknown_row_is_named_with_the_existing_ones() -> None:
    with pytest.raises(CannotRun, match="no row nowhere; there are: admin, "):
        command.arguments(["nowhere"])


def test_only_one_cluster_can_be_kept() -> None:
    with pytest.raises(CannotRun, match="one row"):
        command.arguments(["--keep", "admin", "one-node"])
