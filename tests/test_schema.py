"""The JSON Schema of behaviors.json allows what runs write, and nothing else. tests/test_run.py checks every sample run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lessons.catalogue import NEEDS, TOPICS
from lessons.verdict_names import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED, RANK
from machine import exits
from tests.schema import schema, violations

REPORTS = sorted((Path(__file__).parent / "reports").glob("*.json"))

TEST = "suites/test_pods.py::test_a"


def whole() -> dict[str, Any]:
    """A report that has every key."""
    node = {
        "name": "kubehave-worker",
        "roles": ["worker"],
        "ready": True,
        "os": "Debian GNU/Linux 12",
        "kernel": "6.1.0",
        "runtime": "containerd://2.1.4",
        "architecture": "amd64",
        "kubelet": "v1.36.3",
        "spare": False,
    }
    run = {
        "exit_code": 0,
        "reason": None,
        "version": "0.1 (d892832)",
        "command": ["./verify", "--keep"],
        "began": "2026-11-30T19:08:20Z",
        "ended": "2026-11-30T19:11:20Z",
        "workers": 8,
        "rerun_of": None,
        "context": "kind-kubehave",
        "own_cluster": True,
        "node_image": "localhost/kubehave-node:1",
        "id": "d1267f",
        "phases": {"cluster": 23.4, "tests": 31.4},
        "nodes_left_out": [],
        "left_behind": [],
        "cluster": {
            "kubernetes": "v1.36.3",
            "nodes": [node],
            "network_plugin": "flannel",
            "kube_proxy": "iptables",
            "dns": "CoreDNS",
            "storage_class": "standard (rancher.io/local-path)",
            "ingress_classes": ["contour (projectcontour.io/ingress-controller)"],
            "load_balancer": "played by the suite",
        },
        "capabilities": {"storage": None, "ingress": "there is no IngressClass; install an Ingress controller"},
    }
    behavior = {
        "id": "objects/pod",
        "topic": "pods",
        "says": "A Pod runs.",
        "verdict": "holds",
        "reason": None,
        "decided_by": TEST,
        "tests": [TEST],
        "ran": [TEST],
        "remarks": [],
        "seconds": 1.5,
    }
    test = {
        "verdict": "holds",
        "seconds": 1.5,
        "waited": {"pod_starts": 0.7},
        "reason": None,
        "behaviors": ["objects/pod"],
        "worker": "gw0",
        "began": 3.1,
        "phases": {"setup": 0.2, "call": 1.2, "teardown": 0.1},
        "waits": [{"for": "pod_starts", "began": 3.4, "seconds": 0.7}],
        "seen": ["Pod web: Running, Ready"],
        "failure": None,
        "evidence": None,
    }
    return {"run": run, "behaviors": [behavior], "tests": {TEST: test}}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())


def test_a_report_with_every_key_is_valid() -> None:
    assert violations(whole()) == []


def test_a_report_that_ended_before_its_tests_is_valid() -> None:
    run = {"exit_code": 12, "reason": "there is no engine"}

    assert violations({"run": run, "behaviors": [], "tests": {}}) == []


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_stored_report_is_valid(path: Path) -> None:
    assert violations(json.loads(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("keys", "value", "place"),
    [
        (("more",), 1, ""),
        (("run", "more"), 1, "run"),
        (("run", "exit_code"), 3, "run/exit_code"),
        (("run", "began"), "2026-11-30 19:08", "run/began"),
        (("run", "phases"), {"tests": "31.4"}, "run/phases/tests"),
        (("run", "cluster"), {}, "run/cluster"),
        (("run", "cluster", "nodes", 0, "more"), 1, "run/cluster"),
        (("run", "capabilities"), {"gpu": None}, "run/capabilities"),
        (("behaviors", 0, "more"), 1, "behaviors/0"),
        (("behaviors", 0, "verdict"), "fine", "behaviors/0/verdict"),
        (("behaviors", 0, "verdict"), "broken", "behaviors/0/reason"),
        (("behaviors", 0, "reason"), "it holds", "behaviors/0/reason"),
        (("behaviors", 0, "topic"), "gpus", "behaviors/0/topic"),
        (("behaviors", 0, "seconds"), -1, "behaviors/0/seconds"),
        (("tests", "test_a"), {}, "tests"),
        (("tests", TEST, "more"), 1, f"tests/{TEST}"),
        (("tests", TEST, "verdict"), "in part", f"tests/{TEST}/verdict"),
        (("tests", TEST, "reason"), "two\nlines", f"tests/{TEST}/reason"),
        (("tests", TEST, "seen"), ["x"] * 13, f"tests/{TEST}/seen"),
        (("tests", TEST, "evidence"), "/tmp/evidence", f"tests/{TEST}/evidence"),
    ],
)
def test_what_no_run_writes_is_not_valid(keys: tuple[str | int, ...], value: Any, place: str) -> None:
    report = whole()

    part: Any = report
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value

    assert place in [line.partition(": ")[0] for line in violations(report)]


@pytest.mark.parametrize("part", ["run", "behaviors", "tests"])
def test_a_report_without_one_of_its_parts_is_not_valid(part: str) -> None:
    report = whole()

    del report[part]

    assert len(violations(report)) == 1


def test_the_schema_has_the_names_that_the_code_has() -> None:
    parts = schema()["$defs"]

    assert parts["need"]["enum"] == list(NEEDS)
    assert parts["behavior"]["properties"]["topic"]["enum"] == list(TOPICS)
    verdicts = {HOLDS, BROKEN, INCONCLUSIVE, NOT_OBSERVED, IN_PART, PLANNED}
    assert set(parts["behavior"]["properties"]["verdict"]["enum"]) == verdicts
    assert set(parts["test_verdict"]["enum"]) == set(RANK)
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    assert set(parts["run"]["properties"]["exit_code"]["enum"]) == {None, *codes}


def test_every_key_of_the_report_is_described() -> None:
    parts = schema()["$defs"]
    bare = [
        f"{part}/{key}"
        for part in ("run", "cluster", "node", "behavior", "test")
        for key, value in parts[part]["properties"].items()
        if "description" not in value
    ]

    assert bare == []
