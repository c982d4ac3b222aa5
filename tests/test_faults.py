"""The files of faults, the steps that make a cluster wrong, and what is said about a run on it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import yaml

import measure.faults
from faults import files, proxy, steps
from faults.files import KINDS, Fault, faults, listing, named, parse
from faults.steps import POLICIES, STEPS, World, policy, steps_of, with_flags
from fixtures.api import Api
from machine.exits import USAGE, CannotRun
from measure.faults import AT_ONCE, FEW, INNOCENTS, _behaviors, at_once, latest, problems, table, together
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
        ({"make": [{"answers": [{"on": "GET"}]}]}, "answers: unknown key on"),
        ({"make": [{"alters": {True: ["UPDATE"]}}]}, "alters: unknown key True"),
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
    given = {"resource": "apps/v1/deployments/scale", "operations": ["UPDATE"], "when": "true"}

    rules, binding = policy("Mutating", given, {"mutations": []}, {"validationActions": ["Deny"]})

    spec = rules["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert (rule["apiGroups"], rule["apiVersions"]) == (["apps"], ["v1"])
    assert (rule["operations"], rule["resources"]) == (["UPDATE"], ["deployments/scale"])
    assert "kube-system" in str(spec["matchConstraints"]["namespaceSelector"])
    assert (rules["kind"], binding["kind"]) == ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    assert spec["mutations"] == []
    assert binding["spec"] == {"policyName": rules["metadata"]["name"], "validationActions": ["Deny"]}


def test_every_policy_of_a_fault_is_well_formed() -> None:
    given = [
        part for fault in faults().values() for step in fault.make for name, part in step.items() if name in POLICIES
    ]

    assert given
    assert all(policy("Mutating", part, {}, {}) for part in given)


class Policies:
    """A world that writes down the admission policies that are made in it."""

    goes = True

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[dict[str, Any]] = []
        self.api = None
        monkeypatch.setattr(steps, "Kube", lambda *_: SimpleNamespace(apply=self.made.extend))


def test_objects_are_altered_by_patches_and_refused_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Policies(monkeypatch)
    patches = [{"op": "remove", "path": "/spec/x"}, {"op": "add", "path": "/spec/y", "value": "1"}]

    with (
        STEPS["alters"](cast("World", world), {"resource": "v1/pods", "patches": patches}),
        STEPS["refuses"](cast("World", world), {"resource": "v1/pods", "says": "no"}),
    ):
        alters, _, refuses, binding = world.made

    (mutation,) = alters["spec"]["mutations"]
    assert mutation["jsonPatch"]["expression"] == (
        '[JSONPatch{op: "remove", path: "/spec/x"}, JSONPatch{op: "add", path: "/spec/y", value: 1}]'
    )
    assert refuses["spec"]["validations"] == [{"expression": "false", "message": "no"}]
    assert binding["spec"]["validationActions"] == ["Deny"]


def of(name: str, *make: dict[str, Any]) -> Fault:
    return parse("admission", name, GIVEN | {"make": make})


def test_several_faults_start_a_component_once_and_have_one_proxy() -> None:
    alters, before, kubectl = {"when": "1"}, {"run": "before"}, {"run": "x"}
    rule, other = {"path": "rule"}, {"path": "other"}
    one = of("one", {"alters": alters}, {"flags": {"etcd": {"controllers": "1", "b": None}}}, {"answers": [rule]})
    two = of(
        "two",
        {"on-nodes": before},
        {"flags": {"etcd": {"controllers": "2,1"}}},
        {"answers": [other]},
        {"kubectl": kubectl},
    )

    assert list(steps_of([one, two])) == [
        ("two", "on-nodes", before),
        ("one, two", "flags", {"etcd": {"controllers": "1,2", "b": None}}),
        ("one, two", "answers", [rule, other]),
        ("two", "kubectl", [kubectl]),
        ("one", "alters", alters),
        ("one", "policies count", None),
    ]


def test_two_faults_cannot_give_a_flag_two_values() -> None:
    one, two = (of(name, {"flags": {"etcd": {"port": name}}}) for name in ("one", "two"))

    with pytest.raises(ValueError, match="two faults give --port of etcd other values"):
        list(steps_of([one, two]))


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl, as a node has it")
def test_a_container_is_altered_before_the_runtime_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtime, bundle = tmp_path / "crun", tmp_path / "bundle"
    runtime.write_text('#!/bin/sh\necho real "$@"\n')
    runtime.chmod(0o755)
    bundle.mkdir()
    (bundle / "config.json").write_text('{"hostname": "a", "annotations": {"name": "web"}}')
    monkeypatch.setattr(steps, "RUNTIME", str(runtime))
    world = Steps()
    monkeypatch.setattr(world, "run", lambda _, script: subprocess.run(script, shell=True, check=True))

    with (
        STEPS["containers"](cast("World", world), {"nodes": "it", "change": '$c->{hostname} .= "-of-$pod->{name}"'}),
        STEPS["containers"](cast("World", world), {"nodes": "it", "change": '$c->{hostname} .= "-and-more"'}),
    ):
        called = [str(runtime), "--root", "x", "create", "--bundle", str(bundle), "id"]
        said = subprocess.run(called, capture_output=True, text=True, check=True).stdout

    assert said == f"real --root x create --bundle {bundle} id\n"
    assert json.loads((bundle / "config.json").read_text())["hostname"] == "a-and-more-of-web"
    assert runtime.read_text().startswith("#!/bin/sh")


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
        cast("World", SimpleNamespace(api=None)), [{"when": "rollout undo", "run": "echo nothing; exit 0"}]
    ):
        said = subprocess.run(["kubectl", *typed.split()], capture_output=True, text=True, check=True).stdout

    assert said == f"{printed}\n"
    assert os.environ["PATH"] == before


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback, with its key."""
    path, key = tmp_path / "certificate", tmp_path / "key"
    own = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", *own], check=True)
    path.write_text(path.read_text() + key.read_text())
    return path


@pytest.fixture
def stub(certificate: Path) -> Iterator[StubCluster]:
    cluster = StubCluster(certificate=certificate)
    yield cluster
    cluster.close()


RULES: list[dict[str, Any]] = [
    {"method": "POST", "path": "/api/v1/namespaces$", "status": 409, "becomes": 201, "replace": {"Conflict": "Fine"}},
    {"method": "GET", "path": r"/pods\?watch=true$", "replace": {"Conflict": "Fine"}},
    {"method": "DELETE", "path": "/pods/web$", "drops": True},
    {"method": "PUT", "path": "/pods/web$", "status": 500, "becomes": 200},
    {"method": "PUT", "path": "/pods/web$", "sends": {"right": "wrong"}},
]


@pytest.fixture
def altered(stub: StubCluster, monkeypatch: pytest.MonkeyPatch, certificate: Path) -> Iterator[str]:
    """The address of a proxy before the simulated cluster."""
    monkeypatch.setattr(urllib.request, "_opener", opener(certificate))
    with proxy.AnswersAltered(at(stub, certificate), RULES, certificate) as running:
        yield running.address


def at(stub: StubCluster, certificate: Path) -> Api:
    """What the proxy has to know of a cluster: its address, the authority, and the user's certificate."""
    known = {"ssl_ca_cert": certificate, "cert_file": certificate, "key_file": certificate}
    configuration = SimpleNamespace(host=stub.address, **known)
    return cast("Api", SimpleNamespace(client=SimpleNamespace(configuration=configuration)))


def opener(certificate: Path, shows: bool = False) -> urllib.request.OpenerDirector:
    """Requests that trust this certificate alone, and that may show it."""
    trusting = ssl.create_default_context(cafile=certificate)
    if shows:
        trusting.load_cert_chain(certificate)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusting))


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


def test_a_request_is_altered_on_its_way(altered: str, stub: StubCluster) -> None:
    ask(f"{altered}/api/v1/namespaces/x/pods/web", "PUT", b'{"this": "right"}')

    assert stub.bodies[-1] == {"this": "wrong"}


def test_each_line_of_a_watch_is_altered(altered: str, stub: StubCluster) -> None:
    stub.answers["GET", "/api/v1/pods"] = (200, {"phase": "Conflict"})

    assert ask(f"{altered}/api/v1/pods?watch=true") == (200, '{"phase": "Fine"}')


def test_an_answer_without_a_body_has_no_chunks(altered: str, stub: StubCluster, certificate: Path) -> None:
    stub.answers["GET", "/openapi/v3"] = (304, {})
    trusting = ssl.create_default_context(cafile=certificate)

    with closing(http.client.HTTPSConnection(urlsplit(altered).netloc, context=trusting)) as connection:
        connection.request("GET", "/openapi/v3")
        answer = connection.getresponse()

    assert (answer.status, answer.getheader("Transfer-Encoding")) == (304, None)


@pytest.mark.parametrize("shows", [True, False])
def test_only_who_shows_a_certificate_is_the_user(
    altered: str, stub: StubCluster, certificate: Path, monkeypatch: pytest.MonkeyPatch, shows: bool
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", opener(certificate, shows))

    ask(f"{altered}/version")

    assert stub.identified == [shows]


def test_a_request_without_tls_gets_the_api_servers_own_answer(certificate: Path) -> None:
    plain = StubCluster()
    plain.answers["GET", "/version"] = (400, {"message": "this port speaks TLS"})
    with closing(plain), proxy.AnswersAltered(at(plain, certificate), RULES, certificate) as running:
        answer = ask(running.address.replace("https", "http") + "/version")

    assert answer == (400, '{"message": "this port speaks TLS"}')


# --- what is said about a run


def fault(**others: Any) -> Fault:
    return parse("admission", "it", GIVEN | {"others": others})


def verdicts(**given: str) -> dict[str, Any]:
    ids = {"made": "objects/pod-from-yaml", "probe": "controllers/liveness-restarts"}
    return {
        verdict: {ids[it]: "why" for it, found in given.items() if found == verdict}
        for verdict in ("broken", "inconclusive")
    }


def test_as_expected_is_what_must_break_and_nothing_else() -> None:
    assert list(problems(fault(), verdicts(made="broken", probe="holds"))) == []


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"made": "holds"}, "objects/pod-from-yaml must be broken, but it holds"),
        ({"made": "inconclusive"}, "objects/pod-from-yaml must be broken, but it is inconclusive (why)"),
        ({"made": "broken", "probe": "broken"}, "controllers/liveness-restarts must hold, but it is broken: why"),
        (
            {"made": "broken", "probe": "inconclusive"},
            "controllers/liveness-restarts must hold, but it is inconclusive: why",
        ),
    ],
)
def test_what_is_not_as_expected_is_said(given: dict[str, str], line: str) -> None:
    assert list(problems(fault(), verdicts(**given))) == [line]


def test_a_broad_fault_may_do_more() -> None:
    broad = fault(inconclusive=["all"], broken=["probes"])

    assert list(problems(broad, verdicts(made="broken", probe="broken"))) == []
    assert list(problems(broad, verdicts(made="broken", probe="inconclusive"))) == []


def test_the_few_are_of_each_kind_that_breaks_something() -> None:
    assert [named(name).kind for name in FEW] == [kind for kind in KINDS if kind != "disturbances"]
    assert len(INNOCENTS) == 5


def test_faults_are_made_at_once_unless_one_touches_what_the_other_must_break() -> None:
    narrow = fault()
    other = parse("admission", "other", GIVEN | {"breaks": ["controllers/liveness-restarts"]})
    broad = parse("admission", "broad", GIVEN | {"breaks": ["objects/rollout-history"], "others": {"broken": ["all"]}})

    assert at_once([narrow, other, broad]) == [[narrow, other], [broad]]
    assert at_once([narrow, narrow]) == [[narrow], [narrow]]
    assert max(map(len, at_once(list(faults().values())))) <= AT_ONCE


def result(broken: dict[str, str], *names: str) -> dict[str, Any]:
    return {
        "faults": dict.fromkeys(names, "old"),
        "tests": "old",
        "date": "2026-01-01",
        "holds": 1,
        "broken": broken,
        "inconclusive": {},
        "broken_tests": ["suites/test_pods.py::test_a_pod_from_yaml"],
    }


def test_the_table_names_what_broke_by_fault_and_by_behavior() -> None:
    name = "no-liveness-probes"
    lines = list(table([result({"controllers/liveness-restarts": "it `never` restarts"}, name)]))

    assert "- controllers/liveness-restarts: `it 'never' restarts`" in lines
    assert f"| controllers/liveness-restarts | {name} |" in lines
    assert any(line.startswith("Run on 2026-01-01, before the last change") for line in lines)
    assert "| objects/pod-from-yaml | none yet |" in lines


def test_of_several_faults_each_has_broken_what_its_file_says() -> None:
    broken = {"controllers/liveness-restarts": "it", "controllers/job-in-parallel": "that"}
    lines = list(table([result(broken, "no-liveness-probes", "no-job-controller")]))

    assert "| controllers/liveness-restarts | no-liveness-probes |" in lines
    assert "| controllers/job-in-parallel | no-job-controller |" in lines


def test_a_fault_that_another_one_has_hidden_is_run_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = named("no-quota-controller"), named("no-leader-of-the-controllers")
    runs: list[list[str]] = []

    def run(names: list[str], _options: list[str]) -> tuple[int, dict[str, Any]]:
        runs.append(names)
        broken = named(names[-1]).breaks
        return 1, {"behaviors": [{"id": it, "verdict": "broken", "reason": "why"} for it in broken], "tests": {}}

    monkeypatch.setattr(measure.faults, "faults", lambda: {it.name: it for it in (one, other)})
    for name, answer in {"run": run, "stored": list, "store": lambda _: None, "unseen": lambda _: []}.items():
        monkeypatch.setattr(measure.faults, name, answer)

    assert measure.faults.all_of([]) == 0
    assert runs == [[one.name, other.name], [one.name]]


def test_the_stored_results_are_in_the_table(root: Path) -> None:
    stored = json.loads((root / "docs" / "faults.json").read_text())

    written = (root / "docs" / "faults.md").read_text() == "\n".join(table(stored)) + "\n"
    assert written, "docs/faults.md is out of date; write it: .venv/bin/python -m measure.faults --table"
    assert {name for one in stored for name in one["faults"]} <= files.faults().keys()


def test_the_stored_results_are_what_the_faults_files_say(root: Path) -> None:
    stored = json.loads((root / "docs" / "faults.json").read_text())
    # Of the others the page says that they were run before the last change of a fault.
    current = [one for one in stored if all(named(name).digest == it for name, it in one["faults"].items())]
    assert current
    for one in current:
        parts = [named(name) for name in one["faults"]]
        run_later = together([part for part in parts if latest(part.name, stored) is not one]).breaks
        all_parts = together(parts)
        said = replace(all_parts, breaks=all_parts.breaks - run_later, may_break=all_parts.may_break | run_later)

        assert list(problems(said, one)) == []


def test_a_fault_under_which_anything_may_be_is_run_on_what_it_must_break() -> None:
    assert _behaviors(fault(inconclusive=["all"])) == ["--behavior", "objects/pod-from-yaml"]
    assert _behaviors(fault(broken=["all"])) == []
    assert _behaviors(named("another-leader")) == []
