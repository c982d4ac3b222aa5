"""What belongs to a run, and what may be deleted of earlier runs."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures import namespaces
from fixtures.api import Api, Connection
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.namespaces import (
    CLUSTER_GOES,
    HOST,
    KEPT,
    PATCHED,
    PROCESS,
    RunId,
    inverse_patch,
    is_over,
    leftovers,
    make,
    name_for,
    own_namespace,
    remove_run,
)
from fixtures.nodes import OUTAGE
from fixtures.patience import Budget, patience
from tests.stub_cluster import StubCluster, kubeconfig

NOW = datetime.now(UTC)


def namespace(labels: dict[str, str], age: timedelta = timedelta()) -> Fields:
    born = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    meta = {"name": "x", "labels": labels, "creationTimestamp": born}
    return Fields.of({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})


def test_a_running_run_is_not_over() -> None:
    assert not is_over(namespace(RunId.new().labels), NOW)


@pytest.mark.parametrize("process", ["4194305.1", "1.1", "", "nonsense"])
def test_a_run_whose_process_is_dead_is_over(process: str) -> None:
    labels = RunId.new().labels | {PROCESS: process}

    assert is_over(namespace(labels), NOW)


def test_a_kept_namespace_is_never_over() -> None:
    labels = RunId.new().labels | {PROCESS: "4194305.1", KEPT: "true"}

    assert not is_over(namespace(labels), NOW)


@pytest.mark.parametrize(("age", "over"), [(timedelta(minutes=90), False), (timedelta(hours=3), True)])
def test_a_run_on_another_machine_is_over_after_two_hours(age: timedelta, over: bool) -> None:
    labels = RunId.new().labels | {HOST: "another", PROCESS: "1.1"}

    assert is_over(namespace(labels, age), NOW) is over


@pytest.mark.parametrize("test", ["test_a_pod", "test_it[ReplicaSet-3]", "test_" + "long_" * 40, "test_[_]"])
def test_a_namespace_is_named_after_its_test(test: str) -> None:
    name = name_for(test)

    assert len(name) <= 63
    assert name == name.lower().strip("-")
    assert name.startswith(("a-pod-", "it-replicaset-3-", "long-long-", "test-"))
    assert name_for(test) != name


def test_labels_are_valid_label_values() -> None:
    assert all(
        len(value) <= 63 and value.replace("-", "").replace(".", "").isalnum() for value in RunId.new().labels.values()
    )


def test_the_inverse_patch_undoes_a_patch_and_nothing_else() -> None:
    before = {
        "metadata": {"name": "standard", "annotations": {"default": "true", "other": "x"}},
        "reclaimPolicy": "Delete",
    }
    patch = {"metadata": {"annotations": {"default": "false", "new": "y"}}, "reclaimPolicy": "Retain"}

    assert inverse_patch(before, patch) == {
        "metadata": {"annotations": {"default": "true", "new": None}},
        "reclaimPolicy": "Delete",
    }


def test_a_namespace_without_a_service_account_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kube, "create", lambda *_: None)
    monkeypatch.setattr(Kube, "exists", lambda *_: False)
    monkeypatch.setattr(patience, "namespace_comes", Budget(0.05))

    with pytest.raises(AssertionError, match=r"namespace web-1 has no ServiceAccount default after 0\.05 s"):
        make(cast(Api, None), "web-1", RunId.new(), "a test")


@pytest.mark.parametrize(("goes", "deleted"), [(True, ["Job", "ReplicaSet", "Pod"]), (False, ["Namespace"])])
def test_a_namespace_is_only_emptied_on_a_cluster_that_goes_with_the_run(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, goes: bool, deleted: list[str]
) -> None:
    kinds: list[str] = []
    monkeypatch.setattr("fixtures.namespaces.make", lambda api, name, run, _: Kube(api, name, run.labels))
    monkeypatch.setattr(Kube, "delete", lambda _, kind, name: kinds.append(kind))
    monkeypatch.setattr(Kube, "delete_all", lambda _, kind: kinds.append(kind))
    monkeypatch.setitem(cast(Any, request.config.stash), CLUSTER_GOES, goes)

    with own_namespace(request, cast(Api, None), RunId.new(), "a test") as kube:
        kube.made |= {"Job", "ConfigMap"}
        assert kinds == []

    assert kinds == deleted


@pytest.mark.parametrize("error", [RuntimeError("the container is stopped"), subprocess.TimeoutExpired("nft", 60)])
def test_what_cannot_be_undone_or_deleted_does_not_keep_the_rest_of_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    run = RunId.new()
    note = {"run": run.labels, "since": NOW.isoformat(), "back": {"metadata": {"annotations": {OUTAGE: None}}}}
    cut_off = {"metadata": {"name": "spare", "annotations": {PATCHED: json.dumps(note)}}}
    monkeypatch.setattr(namespaces, "reconnect", fail)
    cluster = StubCluster(nodes=[cut_off])
    cluster.namespaces = {name: {"metadata": {"name": name, "labels": run.labels}} for name in ("refused", "web")}
    cluster.answers["DELETE", "/api/v1/namespaces/refused"] = (404, {"reason": "NotFound"})
    kubeconfig(tmp_path / "kubeconfig", cluster.address)
    api = Connection(str(tmp_path / "kubeconfig"), "there").api()

    remove_run(api, run)

    assert leftovers(api, run, 0.05) == ["Namespace refused", "the patch of Node spare"]
    cluster.close()
