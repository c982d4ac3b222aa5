"""A reason says in one line what a person without the traceback needs. The failures here come from real test runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.reasons import reason_of

#: Writes every report as a worker sends it to the controller.
COLLECTOR = """
import json

def pytest_runtest_logreport(report):
    if report.outcome != "passed":
        with open("reports.jsonl", "a") as file:
            file.write(json.dumps(report._to_json(), default=str) + "\\n")
"""

SAMPLES = '''
import pytest

from fixtures.api import ApiRefusal
from fixtures.counting import exactly
from fixtures.inconclusive import Inconclusive
from fixtures.kube import Kube
from fixtures.patience import Budget
from fixtures.waiting import eventually, throughout


class SimulatedServer:
    """Has one Pod, which is Ready."""

    def resource(self, kind):
        return self

    namespaced = True

    def path(self, name, namespace):
        return name

    def call(self, method, path, body=None, query=None):
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "status": ready}
        return pod if path else {"apiVersion": "v1", "kind": "PodList", "items": [pod]}


@pytest.fixture
def kube():
    return Kube(SimulatedServer(), "ns")


def is_ready(name):
    return False


def test_numbers(kube):
    pods = kube.list("Pod", app="web")
    assert len(pods) == 3


def test_one_number():
    replicas = 0
    assert replicas == 1


def test_false():
    assert is_ready("web")


def test_lists():
    phases = ["Running"] * 30
    assert phases == ["Running"] * 29 + ["Pending"]


def test_short_lists():
    assert ["a", "b"] == ["a", "c"]


def test_sets():
    nodes = {"worker2"}
    assert nodes == {"worker"}


def test_dicts():
    images = {"1": "nginx:1", "2": "nginx:2"}
    assert images == {"1": "nginx:1", "2": "nginx:3"}


def test_several_lines(kube):
    assert [
        "a",
    ] == kube.list("Pod")


def test_number_of_things(kube):
    (one, other) = exactly(2, kube.list("Pod"))


def test_message():
    pods = []
    assert pods, "there is no Pod"


def test_long_message():
    assert not 1, "web is Pending:\\n  Unschedulable\\n\\n" + 500 * "x"


def test_wait(kube):
    for look in eventually(within=0.01):
        with look:
            assert kube.exists("Pod", "web", uid="other")


def test_shortened():
    phases = ["Pending"] * 100
    for look in eventually(within=Budget(0.01, "pod_starts", "the budget pod_starts was shortened")):
        with look:
            assert phases == ["Running"] * 100


def test_lasting():
    for look in throughout(0.1):
        with look:
            assert 1 + 1 == 3


def test_refusal():
    raise ApiRefusal("GET /api/v1/pods/web", 404, '{"reason": "NotFound", "message": "pods web not found"}')


def test_timeout():
    raise TimeoutError("sleep in web had not ended after 30 s")


def test_inconclusive():
    raise Inconclusive("the image nginx:1 cannot be pulled on node worker")


def test_cause():
    try:
        {}["x"]
    except KeyError as error:
        raise RuntimeError("the client could not ask") from error


def test_no_traceback():
    pytest.fail("--require-all: the cluster lacks storage", pytrace=False)


def test_skip():
    pytest.skip("there is one node only")


@pytest.fixture
def ready_pod(kube):
    helper(kube.list("Pod"))


def helper(pods):
    assert not pods


def test_fixture(ready_pod):
    pass


def test_no_fixture(no_such_fixture):
    pass
'''

PHASES = ", ".join(["'Running'"] * 30)

EXPECTED = {
    "numbers": ("assert len(pods) == 3: 1 == 3; where 1 = len([Pod web]); last read: Pod web is Running, Ready"),
    "one_number": "assert replicas == 1: 0 == 1",
    "false": "assert is_ready(\"web\"): False; where False = is_ready('web')",
    "lists": (
        f'assert phases == ["Running"] * 29 + ["Pending"]: [{PHASES[:119]}... == [{PHASES[:119]}...; '
        "At index 29 diff: 'Running' != 'Pending'"
    ),
    "short_lists": "assert [\"a\", \"b\"] == [\"a\", \"c\"]: ['a', 'b'] == ['a', 'c']; At index 1 diff: 'b' != 'c'",
    "sets": (
        "assert nodes == {\"worker\"}: {'worker2'} == {'worker'}; "
        "Extra items in the left set: 'worker2' Extra items in the right set: 'worker'"
    ),
    "dicts": (
        'assert images == {"1": "nginx:1", "2": "nginx:3"}: '
        "{'1': 'nginx:1', '2': 'nginx:2'} == {'1': 'nginx:1', '2': 'nginx:3'}; "
        "Differing items: {'2': 'nginx:2'} != {'2': 'nginx:3'}"
    ),
    "several_lines": (
        "assert ['a'] == [Pod web]; At index 0 diff: 'a' != Pod web; last read: Pod web is Running, Ready"
    ),
    "number_of_things": (
        'exactly(2, kube.list("Pod")): expected 2, found 1: [Pod web]; last read: Pod web is Running, Ready'
    ),
    "message": "there is no Pod",
    "long_message": f"web is Pending:; Unschedulable; {'x' * 268}...",
    "lasting": "assert 1 + 1 == 3: (1 + 1) == 3 (no longer so at look 1, after 0.0 s (was to last 0.1 s))",
    "refusal": "ApiRefusal: GET /api/v1/pods/web: 404 NotFound: pods web not found",
    "timeout": "TimeoutError: sleep in web had not ended after 30 s",
    "inconclusive": "the image nginx:1 cannot be pulled on node worker",
    "cause": "RuntimeError: the client could not ask",
    "no_traceback": "--require-all: the cluster lacks storage",
    "skip": "there is one node only",
    "fixture": "fixture ready_pod: assert not pods: not [Pod web]; last read: Pod web is Running, Ready",
    "no_fixture": "fixture 'no_such_fixture' not found",
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, pytest.TestReport]:
    """The reports of the samples, as the controller gets them from a worker."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "collector.py").write_text(COLLECTOR)
    (folder / "test_samples.py").write_text(SAMPLES)
    (folder / "pytest.ini").write_text("[pytest]\nverbosity_assertions = 2\naddopts = --tb=short -p no:cacheprovider\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "collector", "-p", "runner.evidence", "test_samples.py"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    path = os.pathsep.join([str(folder), str(root)])
    done = subprocess.run(command, cwd=folder, env=env | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr
    lines = (folder / "reports.jsonl").read_text().splitlines()
    found = [pytest.TestReport._from_json(json.loads(line)) for line in lines]
    return {report.nodeid.partition("::test_")[2]: report for report in found}


def test_every_sample_has_a_report(reports: dict[str, pytest.TestReport]) -> None:
    assert reports.keys() == {*EXPECTED, "wait", "shortened"}


@pytest.mark.parametrize("sample", EXPECTED)
def test_a_reason_is_the_assertion_with_its_values_and_what_was_read(
    reports: dict[str, pytest.TestReport], sample: str
) -> None:
    assert reason_of(reports[sample]) == EXPECTED[sample]


def test_a_reason_says_how_long_the_wait_lasted(reports: dict[str, pytest.TestReport]) -> None:
    what, _, waited = reason_of(reports["wait"]).rpartition(" (still so after ")

    assert waited.endswith(" s (allowed: 0.01 s))")
    assert what.startswith('assert kube.exists("Pod", "web", uid="other"): False; where False = ')
    assert what.endswith("; last read: Pod web is Running, Ready")


def test_a_reason_says_that_the_budget_was_shortened(reports: dict[str, pytest.TestReport]) -> None:
    what, _, _ = reason_of(reports["shortened"]).rpartition(" (still so after ")

    assert what.startswith("assert ['Pending', ")
    assert what.endswith("...; the budget pod_starts was shortened")


def test_a_reason_is_one_line_of_bounded_length(reports: dict[str, pytest.TestReport]) -> None:
    reasons = [reason_of(report) for report in reports.values()]

    assert [reason for reason in reasons if "\n" in reason or not reason or len(reason) > 1000] == []
