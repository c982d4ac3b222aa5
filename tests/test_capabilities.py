"""The capabilities of a cluster, and the reasons why it lacks them."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.api import Api, ApiRefusal
from fixtures.fields import Fields
from fixtures.namespaces import RunId
from fixtures.nodes import SPARE, KindNodes
from machine.engine import Engine
from runner import capabilities
from runner.capabilities import Question, why_missing


class AllowsEverything:
    """An API server whose user may do anything."""

    def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The answer to a SelfSubjectAccessReview."""
        return {"status": {"allowed": True}}


RUN = RunId("abc", "host", "1.1")


def node(name: str, ready: bool = True, spare: bool = False) -> Fields:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    meta = {"name": name, "labels": {"kubernetes.io/os": "linux"} | ({SPARE: ""} if spare else {})}
    return Fields.of({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"conditions": [condition]}})


@pytest.mark.parametrize("need", ["cluster-admin", "node-fault"])
@pytest.mark.parametrize("ours", [True, False])
def test_rights_on_a_foreign_cluster_are_not_agreement(monkeypatch: pytest.MonkeyPatch, need: str, ours: bool) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: ours)
    monkeypatch.setattr(capabilities, "kind_nodes", lambda _: KindNodes(Engine("podman"), "mine"))
    monkeypatch.setattr(capabilities, "all_nodes", lambda _: [node("spare", spare=True)])

    missing = capabilities.CHECKS[need](Question(cast("Api", AllowsEverything()), RUN))

    assert (missing is None) is ours


def test_a_kept_cluster_of_an_earlier_version_has_no_node_to_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: True)
    monkeypatch.setattr(capabilities, "kind_nodes", lambda _: KindNodes(Engine("podman"), "mine"))
    monkeypatch.setattr(capabilities, "all_nodes", lambda _: [node("a"), node("b")])

    missing = capabilities.CHECKS["node-fault"](Question(cast("Api", AllowsEverything()), RUN))

    assert missing == (
        "it has no spare worker, because an earlier version made it; ./verify --remove, then ./verify makes one"
    )


@pytest.mark.parametrize(("need", "agreed"), [("cluster-admin", True), ("node-fault", False)])
def test_agreement_to_cluster_scoped_changes_does_not_include_node_faults(
    monkeypatch: pytest.MonkeyPatch, need: str, agreed: bool
) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: False)

    missing = capabilities.CHECKS[need](Question(cast("Api", AllowsEverything()), RUN, agreed=True))

    assert (missing is None) is agreed


def test_a_capability_is_checked_once_in_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter(["the first answer", "another one"])
    monkeypatch.setitem(capabilities.CHECKS, "storage", lambda _: next(answers))
    asked = Question(cast("Api", AllowsEverything()), RUN)

    assert [why_missing(asked, "storage", tmp_path) for _ in range(2)] == ["the first answer"] * 2


def test_a_missing_right_is_the_reason_for_a_missing_capability(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    message = 'nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope'

    def refuse(_: Question) -> str:
        raise ApiRefusal("GET /api/v1/nodes", 403, json.dumps({"message": message}))

    monkeypatch.setitem(capabilities.CHECKS, "multi-node", refuse)

    missing = why_missing(Question(cast("Api", AllowsEverything()), RUN), "multi-node", tmp_path)

    assert missing == "the right to list nodes is missing for this context's user; grant it"


@pytest.mark.parametrize(
    ("nodes", "remedy"),
    [
        ([node("a"), node("b")], None),
        ([node("a"), node("b", ready=False)], "make b Ready"),
        ([node("a")], "add a worker"),
        ([node("a"), node("spare", spare=True)], "add a worker"),
        ([node("a"), node("spare", ready=False, spare=True)], "add a worker"),
    ],
)
def test_the_remedy_is_a_worker_that_is_not_ready_or_a_new_one(
    monkeypatch: pytest.MonkeyPatch, nodes: list[Fields], remedy: str | None
) -> None:
    monkeypatch.setattr(capabilities, "all_nodes", lambda _: nodes)

    missing = capabilities.CHECKS["multi-node"](Question(cast("Api", AllowsEverything()), RUN))

    assert missing is None if remedy is None else str(missing).endswith(remedy)


def test_a_stopped_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KindNodes(Engine("podman"), "mine", stopped=("mine-worker2",))
    monkeypatch.setattr(capabilities, "kind_nodes", lambda _: kind)
    monkeypatch.setattr(capabilities, "all_nodes", lambda _: [node("mine-worker2"), node("mine-worker3", spare=True)])

    missing = capabilities.CHECKS["node-network"](Question(cast("Api", AllowsEverything()), RUN))

    assert str(missing).endswith("because the node mine-worker2 is stopped; start it")


def test_a_spare_worker_that_is_stopped_is_missing_to_the_tests_of_lost_nodes_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = KindNodes(Engine("podman"), "mine", stopped=("mine-worker3",))
    monkeypatch.setattr(capabilities, "kind_nodes", lambda _: kind)
    monkeypatch.setattr(capabilities, "is_ours", lambda _: True)
    monkeypatch.setattr(capabilities, "all_nodes", lambda _: [node("mine-worker2"), node("mine-worker3", spare=True)])
    asked = Question(cast("Api", AllowsEverything()), RUN)

    assert capabilities.CHECKS["node-exec"](asked) is None
    assert capabilities.CHECKS["node-fault"](asked) == "its spare worker mine-worker3 is stopped; start it"
