"""The files of faults, the steps that make a cluster wrong, and what is said about a run on it."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from faults import files, proxy, steps
from faults.files import KINDS, Fault, faults, listing, named, parse
from faults.steps import STEPS, World, policy, with_flags
from fixtures.api import Api
from machine.exits import USAGE, CannotRun
from measure.faults import FEW, INNOCENTS, problems, table
from tests.stub_cluster import StubCluster

GIVEN: dict[str, Any] = {"says": "It is wrong.", "make": [{"objects": []}], "breaks": ["objects/pod-from-yaml"]}


def test_every_kind_has_a_fault_and_every_step_exists() -> None:
    assert {fault.kind for fault in faults().values()} == set(KINDS)
    assert {name for fault in faults().values() for step in fault.make for name in step} <= STEPS.keys()


def test_every_fault_says_one_sentence() -> None:
    for fault in faults().values():
        assert fault.says.endswith("."), fault.name
        assert len(fault.says) <= 120, fault.name


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"break": []}, "unknown key break"),
        ({"breaks": ["objects/no-such"]}, "no behavior objects/no-such"),
        ({"breaks": []}, "a fault breaks something"),
        ({"others": {"holds": []}}, "unknown verdict holds"),
        ({"others": {"broken": ["pods", "no-such"]}}, "no behavior, topic or document 'no-such'"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^admission/it: .*{why}"):
        parse("admission", "it", GIVEN | change)


def test_a_disturbance_breaks_nothing() -> None:
    with pytest.raises(ValueError, match="a disturbance breaks nothing"):
        parse("disturbances", "it", GIVEN)


def test_topics_and_documents_stand_for_their_behaviors() -> None:
    fault = parse("admission", "it", GIVEN | {"others": {"broken": ["probes"], "inconclusive": ["all"]}})

    assert "controllers/liveness-restarts" in fault.may_break
    assert len(fault.may_be_inconclusive) > len(fault.may_break)


def test_an_unknown_name_gets_suggestions() -> None:
    with pytest.raises(CannotRun, match=r"did you mean .*no-job-controller") as refusal:
        named("no-jobs-controller")

    assert refusal.value.exit_code == USAGE


def test_the_list_has_every_fault_with_its_sentence() -> None:
    lines = list(listing())

    for fault in faults().values():
        assert any(fault.name in line and fault.says in line for line in lines)


# --- steps

MANIFEST = """
spec:
  containers:
    - command: [kube-apiserver, --secure-port=6443, --anonymous-auth, --secure-port-range=1]
"""


def test_flags_are_replaced_added_and_taken_away() -> None:
    changed = with_flags(MANIFEST, {"secure-port": "1", "v": "2", "anonymous-auth": None})

    command = yaml.safe_load(changed)["spec"]["containers"][0]["command"]
    assert command == ["kube-apiserver", "--secure-port-range=1", "--secure-port=1", "--v=2"]


class Steps:
    """A world that writes down what is done to its only worker."""

    goes = False

    def __init__(self) -> None:
        self.done: list[str] = []

    def names(self, which: str) -> list[str]:
        """The worker."""
        return [which]

    def run(self, node: str, script: str) -> str:
        """Write it down."""
        self.done.append(f"{node}: {script}")
        return ""


@pytest.mark.parametrize(("goes", "undone"), [(False, ["workers: undo"]), (True, [])])
def test_what_was_done_on_nodes_is_undone_unless_the_cluster_goes(goes: bool, undone: list[str]) -> None:
    world = Steps()
    world.goes = goes

    with STEPS["on-nodes"](cast("World", world), {"nodes": "workers", "run": "do", "undo": "undo"}):
        assert world.done == ["workers: do"]

    assert world.done == ["workers: do", *undone]


def test_what_is_done_again_stops_with_the_block() -> None:
    world, threads = Steps(), threading.active_count()

    with STEPS["again"](cast("World", world), {"nodes": "workers", "run": "do", "every": 0.01}):
        until = time.monotonic() + 10
        while len(world.done) < 3 and time.monotonic() < until:
            time.sleep(0.01)

    assert len(world.done) >= 3
    assert threading.active_count() == threads


def test_a_policy_alters_what_its_condition_names_outside_of_the_clusters_own_namespaces() -> None:
    given = {"resource": "v1/pods", "when": "true", "patches": [{"op": "remove", "path": "/spec/x"}]}

    rules, binding = policy(given | {"patches": [*given["patches"], {"op": "add", "path": "/spec/y", "value": "1"}]})

    spec = rules["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert rule == {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    assert "kube-system" in str(spec["matchConstraints"]["namespaceSelector"])
    (mutation,) = spec["mutations"]
    assert mutation["jsonPatch"]["expression"] == (
        '[JSONPatch{op: "remove", path: "/spec/x"}, JSONPatch{op: "add", path: "/spec/y", value: 1}]'
    )
    assert binding["spec"]["policyName"] == rules["metadata"]["name"]


@pytest.mark.parametrize(
    ("typed", "printed"), [("rollout undo deployment/web", "nothing"), ("get pods", "real get pods")]
)
def test_some_commands_of_kubectl_do_something_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, printed: str
) -> None:
    real = tmp_path / "real-kubectl"
    real.write_text('#!/bin/sh\necho real "$@"\n')
    real.chmod(0o755)
    monkeypatch.setattr(steps, "program", lambda _: str(real))
    before = os.environ["PATH"]

    with STEPS["kubectl"](
        cast("World", SimpleNamespace(api=None)), {"when": "rollout undo", "run": "echo nothing; exit 0"}
    ):
        said = subprocess.run(["kubectl", *typed.split()], capture_output=True, text=True, check=True).stdout

    assert said == f"{printed}\n"
    assert os.environ["PATH"] == before


@pytest.fixture
def stub() -> Iterator[StubCluster]:
    cluster = StubCluster()
    yield cluster
    cluster.close()


RULES = [
    {"method": "POST", "path": "/api/v1/namespaces$", "status": 409, "becomes": 201, "replace": {"Conflict": "Fine"}},
    {"method": "DELETE", "path": "/pods/web$", "drops": True},
]


@pytest.fixture
def altered(stub: StubCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a proxy before the simulated cluster, which speaks no TLS."""
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: SimpleNamespace(load_cert_chain=lambda *_: 0))
    monkeypatch.setattr(
        http.client, "HTTPSConnection", lambda host, port, context: http.client.HTTPConnection(host, port)
    )
    configuration = SimpleNamespace(host=stub.address, ssl_ca_cert=None, cert_file=None, key_file=None)
    api = cast("Api", SimpleNamespace(client=SimpleNamespace(configuration=configuration)))
    with proxy.AnswersAltered(api, RULES) as running:
        yield running.address


def ask(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_proxy_passes_what_no_rule_names(altered: str) -> None:
    status, text = ask(f"{altered}/version")

    assert (status, json.loads(text)["gitVersion"]) == (200, "v1.36.3")


def test_the_proxy_alters_the_answer_that_a_rule_names(altered: str, stub: StubCluster) -> None:
    stub.answers["POST", "/api/v1/namespaces"] = (409, {"reason": "Conflict"})

    assert ask(f"{altered}/api/v1/namespaces", "POST", b"{}") == (201, '{"reason": "Fine"}')


def test_a_rule_counts_only_for_its_status(altered: str, stub: StubCluster) -> None:
    stub.answers["POST", "/api/v1/namespaces"] = (422, {"reason": "Conflict"})

    assert ask(f"{altered}/api/v1/namespaces", "POST", b"{}") == (422, '{"reason": "Conflict"}')


def test_a_dropped_request_does_not_arrive(altered: str, stub: StubCluster) -> None:
    status, _ = ask(f"{altered}/api/v1/namespaces/x/pods/web", "DELETE")

    assert status == 200
    assert [method for method, path in stub.requests if path.endswith("/pods/web")] == ["GET"]


# --- what is said about a run


def fault(**others: Any) -> Fault:
    return parse("admission", "it", GIVEN | {"others": others})


def report(**verdicts: str) -> dict[str, Any]:
    ids = {"made": "objects/pod-from-yaml", "probe": "controllers/liveness-restarts"}
    return {
        "behaviors": [{"id": ids[name], "verdict": verdict, "reason": "why"} for name, verdict in verdicts.items()],
        "tests": {},
    }


def test_as_expected_is_what_must_break_and_nothing_else() -> None:
    assert list(problems(fault(), report(made="broken", probe="holds"))) == []


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        ({"made": "holds"}, "objects/pod-from-yaml must be broken, but it is: holds"),
        ({"made": "inconclusive"}, "objects/pod-from-yaml must be broken, but it is: inconclusive"),
        ({"made": "broken", "probe": "broken"}, "controllers/liveness-restarts must hold, but it is broken"),
        (
            {"made": "broken", "probe": "inconclusive"},
            "controllers/liveness-restarts must hold, but it is inconclusive",
        ),
        ({"probe": "holds"}, "not in the report: objects/pod-from-yaml"),
    ],
)
def test_what_is_not_as_expected_is_said(verdicts: dict[str, str], line: str) -> None:
    (found,) = problems(fault(), report(**verdicts))

    assert found.startswith(line)


def test_a_broad_fault_may_do_more() -> None:
    broad = fault(inconclusive=["all"], broken=["probes"])

    assert list(problems(broad, report(made="broken", probe="broken"))) == []
    assert list(problems(broad, report(made="broken", probe="inconclusive"))) == []


def test_the_few_are_of_each_kind_that_breaks_something() -> None:
    assert [named(name).kind for name in FEW] == [kind for kind in KINDS if kind != "disturbances"]
    assert len(INNOCENTS) == 5


def test_the_table_names_what_broke_by_fault_and_by_behavior() -> None:
    name = "no-liveness-probes"
    result = {"fault": "old", "tests": "old", "date": "2026-01-01", "holds": 1, "inconclusive": {}}
    lines = list(table({name: result | {"broken": {"controllers/liveness-restarts": "it `never` restarts"}}}))

    assert "- broken: controllers/liveness-restarts: `it 'never' restarts`" in lines
    assert f"| controllers/liveness-restarts | {name} |" in lines
    assert any(line.startswith("Run on 2026-01-01, before the last change") for line in lines)
    assert "| objects/pod-from-yaml | none yet |" in lines


def test_the_stored_results_are_in_the_table(root: Path) -> None:
    stored = json.loads((root / "docs" / "faults.json").read_text())

    assert (root / "docs" / "faults.md").read_text() == "\n".join(table(stored)) + "\n"
    assert stored.keys() <= files.faults().keys()
