"""Whole runs of sample suites on a simulated cluster: how they end, and what is in the report.

A run takes the machine about a second, so tests about the same run share it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import pytest
import yaml

from fixtures.api import Api, Connection
from machine.engine import Engine
from runner import run as runs
from tests.schema import violations
from tests.stub_cluster import StubCluster, kubeconfig

ROOT = Path(__file__).parent.parent

#: The project's conftest.py, with another catalogue and other suites.
CONFTEST = f"""
from pathlib import Path
import lessons.catalogue
lessons.catalogue.SUITES = Path(__file__).parent / "suites"
lessons.catalogue.FOLDER = Path(__file__).parent / "behaviors"
exec(Path({str(ROOT / "conftest.py")!r}).read_text())
"""

CONFIG = "[pytest]\npythonpath = .\ntestpaths = suites\nstrict = true\ntimeout = {timeout}\njunit_family = xunit1\n"


@dataclass
class Ended:
    """The end of a run: its exit code, its output, and its report."""

    code: int
    printed: str
    report: Path

    @property
    def json(self) -> dict[str, Any]:
        """behaviors.json, which is valid however the run ended."""
        found: dict[str, Any] = json.loads((self.report / "behaviors.json").read_text())
        assert violations(found) == []
        return found

    def verdicts(self) -> dict[str, str]:
        """Behaviors and their verdicts."""
        return {row["id"].removeprefix("objects/"): row["verdict"] for row in self.json["behaviors"]}

    def reason(self, behavior: str) -> str:
        """Why a behavior has its verdict."""
        return str(next(row["reason"] for row in self.json["behaviors"] if row["id"] == f"objects/{behavior}"))


@pytest.fixture(scope="session")
def stub() -> Iterator[StubCluster]:
    """A cluster without nodes."""
    cluster = StubCluster()
    yield cluster
    cluster.close()


def write_sample(folder: Path, code: str, needs: dict[str, list[str]], timeout: float = 60) -> None:
    """Write a checkout with one suite, and a catalogue of the behaviors that its tests name."""
    (folder / "suites").mkdir(parents=True)
    (folder / "behaviors").mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text(CONFIG.format(timeout=timeout))
    head = 'import pytest\n\n\ndef shows(name):\n    return pytest.mark.behavior(f"objects/{name}")\n\n\n'
    (folder / "suites" / "test_sample.py").write_text(head + textwrap.dedent(code))
    names = dict.fromkeys(part.partition('"')[0] for part in code.split('@shows("')[1:])
    entries = [
        {"id": f"objects/{name}", "topic": "pods", "says": "It does.", "observe": "that", "needs": needs.get(name, [])}
        for name in names
    ]
    (folder / "behaviors" / "objects.yaml").write_text(json.dumps(entries))


def _ignore_no_signal() -> None:
    """A shell that starts something in the background has it ignore Ctrl-C, and nohup has it ignore SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(
    folder: Path, server: str | None, *args: str, output: int | IO[str] = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    """Start `./verify --context there ARGS` in a sample checkout; without a server, `./verify ARGS`."""
    if server:
        kubeconfig(folder / "kubeconfig", server)
    context = ["--context", "there"] if server else []
    own = {"XDG_CACHE_HOME": str(folder / "cache"), "KUBECONFIG": str(folder / "kubeconfig"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", "-p", "no:cacheprovider", *context, *args],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "KUBECONFIG"} | own | environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_ignore_no_signal,
    )


def ended(folder: Path, process: subprocess.Popen[str]) -> Ended:
    """Wait until the run ends."""
    printed, _ = process.communicate(timeout=100)
    return Ended(process.returncode, printed, folder / "report")


Sample = Callable[..., Ended]


@pytest.fixture
def sample(tmp_path: Path, stub: StubCluster) -> Sample:
    """`sample(code, *args)`: run a suite with this code."""

    def run(code: str, *args: str, timeout: float = 60, **needs: list[str]) -> Ended:
        if not (tmp_path / "suites").exists():
            write_sample(tmp_path, code, needs, timeout)
        return ended(tmp_path, start(tmp_path, stub.address, *args))

    return run


OUTCOMES = """
from fixtures.api import ApiRefusal
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.patience import Budget
from fixtures.waiting import eventually

def refusal(status, message=""):
    return ApiRefusal("GET /x", status, '{"message": "%s"}' % message.replace('"', '\\\\"'))

@shows("holds")
def test_holds(): pass

@shows("broken")
def test_broken(): assert 2 == 3

@shows("refused")
def test_refused(): raise refusal(422)

@pytest.mark.parametrize("status", [401, 408, 429, 500, 503])
@shows("server-trouble")
def test_server_trouble(status): raise refusal(status)

@shows("lost-connection")
def test_lost_connection(): raise ConnectionError("reset")

@shows("our-own-mistake")
def test_our_own_mistake(): {}["typo"]

@shows("inconclusive")
def test_inconclusive(): raise Inconclusive("no client")

@shows("missing-right")
def test_missing_right():
    raise refusal(403, 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "x"')

@shows("pod-security")
def test_pod_security():
    raise refusal(403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces')

@shows("other-admission")
def test_other_admission(): raise refusal(403, "a webhook says no")

@pytest.fixture
def missing_right_in_a_fixture():
    raise refusal(403, 'nodes is forbidden: User "u" cannot list resource "nodes" in API group ""')

@shows("missing-right-in-a-fixture")
def test_in_a_fixture(missing_right_in_a_fixture): pass

@pytest.fixture
def failed_assertion(): assert 0 == 1

@shows("failed-fixture")
def test_failed_fixture(failed_assertion): pass

@shows("not-observed")
def test_not_observed(): raise NotObserved("no second worker")

@shows("skipped")
def test_skipped(): pytest.skip("no kube-proxy")

@pytest.mark.xfail(strict=False)
@shows("xfail")
def test_xfail(): assert False

@shows("lacks")
def test_lacks(outside): pass

@shows("waits")
def test_waits():
    looks = []
    for look in eventually(within=Budget(5, "pod_starts")):
        with look:
            looks.append(1)
            assert len(looks) > 1

@shows("several")
def test_one_of_several(): pass

@shows("several")
def test_another_of_several(): raise refusal(500)

@shows("several")
def test_the_broken_one_of_several(): assert 0
"""

EXPECTED = {
    "holds": "holds",
    "broken": "broken",
    "refused": "broken",
    "server-trouble": "inconclusive",
    "lost-connection": "inconclusive",
    "our-own-mistake": "inconclusive",
    "inconclusive": "inconclusive",
    "missing-right": "not observed",
    "pod-security": "not observed",
    "other-admission": "inconclusive",
    "missing-right-in-a-fixture": "not observed",
    "failed-fixture": "inconclusive",
    "not-observed": "not observed",
    "skipped": "not observed",
    "xfail": "inconclusive",
    "lacks": "not observed",
    "waits": "holds",
    "several": "broken",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, stub: StubCluster) -> Ended:
    """A run with one test for each way in which a test can end."""
    folder = tmp_path_factory.mktemp("outcomes")
    write_sample(folder, OUTCOMES, {"lacks": ["node-network"]})
    return ended(folder, start(folder, stub.address, "-n", "2", "--dist", "loadgroup"))


def test_only_the_cluster_breaks_a_behavior(outcomes: Ended) -> None:
    assert outcomes.verdicts() == EXPECTED
    assert outcomes.code == 1


def test_what_is_not_observed_says_what_is_missing(outcomes: Ended) -> None:
    assert outcomes.reason("missing-right").startswith("the right to list pods is missing")
    assert outcomes.reason("missing-right-in-a-fixture").startswith("the right to list nodes is missing")
    assert outcomes.reason("pod-security") == "refused by Pod Security restricted: host namespaces"
    assert outcomes.reason("lacks").startswith("the cluster lacks node-network: this machine cannot run a client")


def test_inconclusive_tests_are_errors_in_junit(outcomes: Ended) -> None:
    (suite,) = ElementTree.parse(outcomes.report / "junit.xml").iter("testsuite")
    tags = {case.get("name"): [it.tag for it in case if it.tag != "properties"] for case in suite.iter("testcase")}

    assert tags["test_broken"] == ["failure"]
    assert tags["test_our_own_mistake"] == tags["test_failed_fixture"] == ["error"]
    assert tags["test_lacks"] == ["skipped"]
    assert suite.get("failures") == str(sum(found == ["failure"] for found in tags.values()))
    assert suite.get("errors") == str(sum(found == ["error"] for found in tags.values()))


def told(junit: Path) -> list[tuple[Any, ...]]:
    """What a file for CI says of each test, without times. What the cluster lacks depends on this machine."""
    found = []
    for case in ElementTree.parse(junit).iter("testcase"):
        about = [case.get(key) for key in ("classname", "name", "file", "line")]
        properties = {it.get("name"): it.get("value") for it in case.iter("property")}
        properties = {name: value for name, value in properties.items() if "waited" not in str(name)}
        elements = [(it.tag, it.get("message")) for it in case if it.tag != "properties"]
        found.append((*about, properties, elements if case.get("name") != "test_lacks" else []))
    return sorted(found, key=lambda it: str(it[1]))


def test_the_stored_file_for_ci_is_what_a_run_writes(outcomes: Ended) -> None:
    stored = ROOT / "tests" / "reports" / "junit.xml"

    assert told(stored) == told(outcomes.report / "junit.xml"), "write it anew: .venv/bin/python -m tests.junit"


def test_inconclusive_tests_are_errors_in_a_file_that_the_user_names(sample: Sample, tmp_path: Path) -> None:
    run = sample('@shows("a")\ndef test_a(): {}["typo"]', "--junitxml", "ci.xml")

    (suite,) = ElementTree.parse(tmp_path / "ci.xml").iter("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")
    assert run.printed.endswith("kubehave: report: report/index.html; for programs report/behaviors.json and ci.xml\n")


WITHOUT_IMAGE = """
@shows("called")
def test_called(kube): assert kube.pods() == []

@pytest.fixture
def no_pod(kube): assert kube.pods() == []

@shows("set-up")
def test_set_up(no_pod): pass
"""


def test_a_missing_image_is_inconclusive_and_its_reason_has_the_remedy(tmp_path: Path) -> None:
    waiting = {"name": "web", "image": "nginx:1", "state": {"waiting": {"reason": "ErrImagePull"}}}
    cluster = StubCluster()
    cluster.pods = [
        {
            "metadata": {"name": "web"},
            "spec": {"nodeName": "worker"},
            "status": {"phase": "Pending", "containerStatuses": [waiting]},
        }
    ]
    write_sample(tmp_path, WITHOUT_IMAGE, {})

    run = ended(tmp_path, start(tmp_path, cluster.address))
    cluster.close()

    why = "the image nginx:1 cannot be pulled on node worker (ErrImagePull); put it there or give the cluster a registry: "
    assert run.verdicts() == {"called": "inconclusive", "set-up": "inconclusive"}
    assert run.reason("called").startswith(f"{why}./verify --list-images; assert [Pod web] == []")
    assert run.reason("set-up").startswith(f"{why}./verify --list-images; assert [Pod web] == []")


WITH_A_SECRET = """
import base64
from fixtures.api import refused

@shows("shown")
def test_shown(kube, capsys):
    password = kube.get("Secret", "planted").data["password"]
    print(password)
    assert password == "another one"

@shows("refused")
def test_refused(kube):
    kube.get("Secret", "planted")
    with refused(409):
        kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}})
    raise RuntimeError(base64.b64decode(kube.get("Secret", "planted").data["password"]).decode())
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A run whose tests read a Secret and fail. The Secret's password is also in a refusal and in a Pod's environment."""
    folder, cluster = tmp_path_factory.mktemp("planted"), StubCluster()
    password = base64.b64encode(b"planted-by-the-test").decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted"}, "data": {"password": password}}
    container = {"name": "web", "image": "nginx:1", "env": [{"name": "PASSWORD", "value": "planted-by-the-test"}]}
    cluster.secrets = [secret]
    cluster.pods = [{"metadata": {"name": "web"}, "spec": {"containers": [container]}, "status": {"phase": "Pending"}}]
    cluster.creates["Pod"] = 409, {"message": "planted-by-the-test is taken"}
    write_sample(folder, WITH_A_SECRET, {})
    run = ended(folder, start(folder, cluster.address))
    cluster.close()
    return run


def test_a_secrets_data_is_in_no_report(planted: Ended) -> None:
    texts = {path.name: path.read_text() for path in planted.report.rglob("*") if path.is_file()}

    assert planted.verdicts() == {"shown": "broken", "refused": "inconclusive"}
    assert {"behaviors.json", "junit.xml", "index.html", "summary.md", "objects.yaml"} <= texts.keys()
    assert "(hidden) is taken" in texts["behaviors.json"]
    assert "value: (hidden)" in texts["objects.yaml"]
    for text in (*texts.values(), planted.printed):
        assert "planted-by-the-test" not in text
        assert base64.b64encode(b"planted-by-the-test").decode() not in text


def test_a_failed_test_leaves_what_its_namespace_held(planted: Ended) -> None:
    folder = planted.report / planted.json["tests"]["suites/test_sample.py::test_shown"]["evidence"]

    assert folder.parent.name == "evidence"
    (pod,) = [it for it in yaml.safe_load_all((folder / "objects.yaml").read_text()) if it["kind"] == "Pod"]
    assert pod["status"] == {"phase": "Pending"}
    assert (folder / "nodes.yaml").exists()
    assert (folder / "events.txt").exists()


CHOICE = """
@shows("a")
@pytest.mark.parametrize("n", [1, 2])
def test_one(n): pass

@shows("a")
def test_other(): pass

@shows("b")
@pytest.mark.parametrize("n", [1, 2])
def test_two(n): pass
"""


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, stub: StubCluster) -> Ended:
    """A run of all tests of a, and of one test of b. Its report is in another folder, which exists before."""
    folder, elsewhere = tmp_path_factory.mktemp("chosen"), tmp_path_factory.mktemp("elsewhere")
    write_sample(folder, CHOICE, {})
    run = ended(folder, start(folder, stub.address, "-k", "not two[2]", "--report", str(elsewhere)))
    return replace(run, report=elsewhere)


def test_all_tests_of_a_behavior_make_it_hold(chosen: Ended) -> None:
    assert (chosen.code, chosen.verdicts()["a"]) == (0, "holds")
    assert chosen.json["run"]["exit_code"] == 0


def test_a_behavior_that_was_looked_at_in_part_does_not_hold(chosen: Ended) -> None:
    assert (chosen.code, chosen.verdicts()["b"]) == (0, "in part")
    assert chosen.reason("b") == "1 of 2 tests ran"


def test_the_report_is_in_the_requested_folder(chosen: Ended, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert (chosen.report / "behaviors.json").exists()
    assert (chosen.report / "junit.xml").exists()
    folder = chosen.report
    assert chosen.printed.endswith(
        f"kubehave: report: {folder}/index.html; for programs {folder}/behaviors.json and {folder}/junit.xml\n"
    )
    assert list(tmp_path_factory.getbasetemp().glob("chosen*/report")) == []


def test_every_run_writes_a_report_and_keeps_the_last_one_with_verdicts(
    sample: Sample, chosen: Ended, tmp_path: Path
) -> None:
    shutil.copytree(chosen.report, tmp_path / "report")

    for args, reason in {
        ("--patience", "0"): "--patience must be a number above 0",
        ("--no-such-option",): "usage error",
        ("-k", "one and"): "usage error",
    }.items():
        run = sample(CHOICE, *args)
        assert run.code == 4
        assert run.json["run"]["exit_code"] == 4
        assert reason in run.json["run"]["reason"]
        assert not run.json["behaviors"]
    previous = json.loads((run.report / "previous" / "behaviors.json").read_text())
    assert [row["verdict"] for row in previous["behaviors"]] == ["holds", "in part"]
    assert (run.report / "previous" / "junit.xml").exists()


@pytest.mark.parametrize(
    ("docker", "code", "reason"),
    [("echo busy >&2; exit 1", 12, ": exit 1: busy"), ("kill -INT $PPID; exec sleep 60", 2, "interrupted")],
)
def test_a_removal_that_fails_keeps_the_last_report_with_verdicts(
    tmp_path: Path, chosen: Ended, docker: str, code: int, reason: str
) -> None:
    write_sample(tmp_path, CHOICE, {})
    shutil.copytree(chosen.report, tmp_path / "report")
    cluster = tmp_path / "cache" / "kubehave" / "clusters" / "kubehave"
    for file, text in ((cluster / "engine", "docker"), (tmp_path / "bin" / "docker", f"#!/bin/sh\n{docker}\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    (tmp_path / "bin" / "docker").chmod(0o755)

    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    run = ended(tmp_path, start(tmp_path, None, "--remove", PATH=path))

    assert (run.code, run.json["run"]["exit_code"]) == (code, code)
    assert run.json["run"]["reason"].endswith(reason)
    previous = json.loads((run.report / "previous" / "behaviors.json").read_text())
    assert [row["verdict"] for row in previous["behaviors"]] == ["holds", "in part"]


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """A run on a cluster that has one node, which is not Ready, and that never deletes a namespace."""
    status = {"conditions": [{"type": "Ready", "status": "False"}]}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "lame"}, "status": status}
    cluster = StubCluster(nodes=[node], keeps_namespaces=True)
    folder = tmp_path_factory.mktemp("troubled")
    write_sample(folder, '@shows("a")\ndef test_a(kube): pass', {})
    with (folder / "conftest.py").open("a") as conftest:
        conftest.write(
            "from fixtures.patience import Budget, Patience\nPatience.namespace_goes = Budget(1, 'namespace_goes')\n"
        )
    yield ended(folder, start(folder, cluster.address))
    cluster.close()


def test_leftovers_have_their_own_exit_code(troubled: Ended) -> None:
    assert (troubled.code, troubled.verdicts()) == (13, {"a": "holds"})
    (left,) = troubled.json["run"]["left_behind"]
    assert re.fullmatch(r"Namespace a-\w+: pods\. has 1 resource instances", left)
    assert f"LEFT BEHIND, not removed: {left}" in troubled.printed


def test_a_node_that_is_not_ready_is_named_once(troubled: Ended) -> None:
    assert troubled.printed.count("node lame is not Ready") == 1
    assert troubled.json["run"]["nodes_left_out"] == ["node lame is not Ready: tests leave it out"]


def test_tests_that_are_named_show_their_behaviors_in_part(sample: Sample) -> None:
    run = sample(CHOICE, "suites/test_sample.py::test_one", "suites/test_sample.py::test_two[1]")

    assert (run.code, run.verdicts()) == (0, {"a": "in part", "b": "in part"})
    assert run.reason("a") == "2 of 3 tests ran"
    assert run.reason("b") == "1 of 2 tests ran"


def test_a_run_without_chosen_tests_is_no_success(sample: Sample) -> None:
    run = sample(CHOICE, "-k", "nothing_like_this")

    assert (run.code, run.verdicts()) == (5, {})


def test_a_run_that_observes_nothing_is_no_success(sample: Sample) -> None:
    run = sample('@shows("a")\ndef test_a(nodes): pass', a=["multi-node"])

    assert (run.code, run.verdicts()) == (5, {"a": "not observed"})


def test_with_require_all_not_observed_is_an_error(sample: Sample) -> None:
    run = sample('@shows("a")\ndef test_a(): pytest.skip("no kube-proxy")', "--require-all")

    assert (run.code, run.verdicts()) == (1, {"a": "inconclusive"})
    assert run.reason("a") == "--require-all: not observed: no kube-proxy"


def test_a_set_up_without_a_call_shows_nothing(sample: Sample) -> None:
    run = sample(CHOICE, "--setup-only")

    assert (run.code, run.verdicts()) == (1, {"a": "inconclusive", "b": "inconclusive"})


@pytest.mark.parametrize("args", [[], ["-n", "2"]])
def test_a_fixture_whose_need_no_behavior_declares_is_a_usage_error(sample: Sample, args: list[str]) -> None:
    run = sample('@shows("a")\ndef test_a(outside): pass', *args, a=["node-exec"])

    line = "test_a: uses the fixture outside, which needs node-network; none of its behaviors declares that need"
    assert (run.code, run.verdicts()) == (4, {})
    assert line in run.printed


STOPS_EARLY = """
@shows("first")
def test_first(): assert 0

@shows("last")
def test_last(): pass
"""


@pytest.mark.parametrize("args", [[], ["-n", "1"]])
def test_a_run_that_stops_at_its_first_failure_is_broken_not_interrupted(sample: Sample, args: list[str]) -> None:
    run = sample(STOPS_EARLY, "-x", *args)

    assert run.code == 1
    assert run.verdicts() == {"first": "broken", "last": "inconclusive"}
    assert run.reason("last") == "its test never began"


def with_a_suite_that_cannot_be_imported(folder: Path) -> None:
    """Add a suite to the sample of CHOICE, and the behavior that it would show."""
    write_sample(folder, CHOICE, {})
    (folder / "suites" / "test_typo.py").write_text("import no_such_module\n")
    catalogue = folder / "behaviors" / "objects.yaml"
    entries = json.loads(catalogue.read_text())
    catalogue.write_text(json.dumps([*entries, entries[0] | {"id": "objects/lost"}]))


@pytest.mark.parametrize(("args", "verdict"), [(["-n", "2"], "in part"), ([], "inconclusive")])
def test_a_suite_that_cannot_be_imported_is_no_success(
    sample: Sample, tmp_path: Path, args: list[str], verdict: str
) -> None:
    with_a_suite_that_cannot_be_imported(tmp_path)

    run = sample(CHOICE, *args)

    why = "suites/test_typo.py cannot be collected: ModuleNotFoundError: No module named 'no_such_module'"
    assert (run.code, run.verdicts()) == (1, {"a": verdict, "b": verdict, "lost": "inconclusive"})
    assert run.reason("lost") == "its tests could not be collected"
    assert run.printed.count(f"kubehave:   {why}\n") == 1
    assert run.json["run"]["reason"] == why


def test_nothing_holds_if_another_suite_cannot_be_imported(sample: Sample, tmp_path: Path) -> None:
    with_a_suite_that_cannot_be_imported(tmp_path)

    run = sample(CHOICE, "suites/test_sample.py")

    assert (run.code, run.verdicts()) == (0, {"a": "in part", "b": "in part"})
    assert run.reason("a") == "its other tests are not known, because the suites could not be collected"


FAILING_PLUGIN = """
def pytest_runtest_logfinish(nodeid):
    if "test_two" in nodeid:
        raise RuntimeError("a plugin failed")
"""


def test_an_error_of_pytest_itself_is_no_success(sample: Sample, tmp_path: Path) -> None:
    write_sample(tmp_path, CHOICE, {})
    with (tmp_path / "conftest.py").open("a") as conftest:
        conftest.write(FAILING_PLUGIN)

    run = sample(CHOICE, "-n", "2")

    assert run.code == 1
    assert "kubehave:   pytest failed: RuntimeError: a plugin failed" in run.printed
    assert run.json["run"]["reason"].startswith("pytest failed: RuntimeError: a plugin failed")


def test_a_run_cleans_up_and_reports_if_junit_cannot_be_written(sample: Sample, stub: StubCluster) -> None:
    run = sample('@shows("a")\ndef test_a(kube): pass', "--junitxml", "/proc/none/junit.xml")

    assert (run.code, run.verdicts()) == (1, {"a": "holds"})
    assert "kubehave:   pytest failed: FileNotFoundError: " in run.printed
    assert run.json["run"]["phases"].keys() >= {"clean-up"}
    assert not stub.namespaces


def test_a_report_that_cannot_be_written_is_named(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    run = sample(CHOICE, "--report", "file/in-a-file")

    assert run.code == 12
    assert "kubehave: the report cannot be written: [Errno 20] Not a directory" in run.printed
    assert "Traceback" not in run.printed


@pytest.mark.parametrize("args", [["--report", "file/in-a-file", "--no-such-option"], ["--report"]])
def test_a_command_line_that_pytest_rejects_is_a_usage_error_wherever_the_report_is(
    sample: Sample, tmp_path: Path, args: list[str]
) -> None:
    (tmp_path / "file").touch()

    run = sample(CHOICE, *args)

    assert run.code == 4
    assert "Traceback" not in run.printed
    assert ("kubehave: the report cannot be written: [Errno 20] Not a directory" in run.printed) is (len(args) > 1)


def test_a_run_that_cannot_begin_writes_its_report_even_if_it_cannot_print(tmp_path: Path, stub: StubCluster) -> None:
    write_sample(tmp_path, CHOICE, {})

    with Path("/dev/full").open("w") as full:
        run = ended(tmp_path, start(tmp_path, stub.address, "--patience", "0", output=full))

    assert (run.code, run.json["run"]["exit_code"]) == (4, 4)


CLOSES_THE_TERMINAL = """
import os

@shows("a")
def test_a(): os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
"""


def test_the_exit_code_does_not_depend_on_a_terminal_that_is_closed(sample: Sample) -> None:
    run = sample(CLOSES_THE_TERMINAL, "--capture=no", "-p", "no:terminal")

    assert (run.code, run.json["run"]["exit_code"]) == (0, 0)
    assert "Traceback" not in run.printed


LEADERLESS = {"kind": "Status", "reason": "InternalError", "message": "etcd has no leader", "code": 500}


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        (
            {("GET", "/version"): (200, {"major": "1", "minor": "20", "gitVersion": "v1.20.0"})},
            "v1.20.0; 1.33 or newer",
        ),
        ({("GET", "/api/v1/nodes"): (500, LEADERLESS)}, "500 InternalError: etcd has no leader"),
    ],
)
def test_a_cluster_that_cannot_be_prepared_ends_the_run_with_a_report(
    tmp_path: Path, answers: dict[tuple[str, str], tuple[int, dict[str, Any]]], line: str
) -> None:
    cluster = StubCluster()
    cluster.answers = answers
    write_sample(tmp_path, CHOICE, {})

    run = ended(tmp_path, start(tmp_path, cluster.address))
    cluster.close()

    assert (run.code, run.json["run"]["exit_code"]) == (11, 11)
    assert line in run.json["run"]["reason"]
    assert "Traceback" not in run.printed


def test_a_machine_without_an_engine_ends_the_run_with_a_report(tmp_path: Path) -> None:
    write_sample(tmp_path, CHOICE, {})

    process = start(tmp_path, None, "--no-install", PATH=str(tmp_path))
    run = ended(tmp_path, process)

    assert (run.code, run.json["run"]["exit_code"]) == (12, 12)
    assert "podman" in run.json["run"]["reason"]
    assert run.printed == f"kubehave: {run.json['run']['reason']}\n"


DIES = """
import os

@shows("dies")
def test_dies():
    os._exit(1)

@pytest.mark.parametrize("n", range(6))
@shows("others")
def test_others(n):
    pass
"""


def test_a_worker_that_dies_ends_the_run_with_a_report(sample: Sample) -> None:
    began = time.monotonic()
    run = sample(DIES, "-n", "2", "--dist", "loadgroup")

    assert run.code == 1
    assert run.verdicts()["dies"] == "inconclusive"
    assert "crashed" in run.reason("dies")
    assert "worker restarting disabled" in run.printed
    assert time.monotonic() - began < 30


#: A docker whose containers are a node and the files in the folder clients/.
DOCKER = """#!/bin/sh
case "$*" in
*label=io.x-k8s.kind.cluster*) echo k-worker ;;
ps*) ls clients ;;
inspect*) shift 3; cd clients; echo "["; cat "$@" | paste -s -d ,; echo "]" ;;
rm*) shift 3; cd clients; rm "$@" ;;
esac
"""

LEAVES_A_CLIENT = """
import json, os, pathlib

@shows("dies")
def test_dies(run_id):
    client = {"Name": "mine", "Created": "2020-01-01T00:00:00Z", "Config": {"Labels": run_id.labels}}
    pathlib.Path("clients", "mine").write_text(json.dumps(client))
    os.kill(os.getpid(), 9)
"""


def test_a_run_removes_the_clients_of_its_killed_worker_and_of_killed_runs(tmp_path: Path) -> None:
    node = {"metadata": {"name": "k-worker"}, "spec": {"providerID": "kind://docker/k/k-worker"}}
    cluster = StubCluster(nodes=[node])
    write_sample(tmp_path, LEAVES_A_CLIENT, {})
    old = {"Name": "old", "Created": "2020-01-01T00:00:00Z", "Config": {"Labels": {"kubehave/run": "old"}}}
    for folder, name, text in (("bin", "docker", DOCKER), ("clients", "old", json.dumps(old))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    (tmp_path / "bin" / "docker").chmod(0o755)

    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    run = ended(tmp_path, start(tmp_path, cluster.address, "-n", "1", "--dist", "loadgroup", PATH=path))
    cluster.close()

    assert (run.code, run.verdicts()) == (1, {"dies": "inconclusive"})
    assert "kubehave: removing container old, left by a run that was killed" in run.printed
    assert list((tmp_path / "clients").iterdir()) == []
    assert run.json["run"]["left_behind"] == []


@pytest.mark.parametrize("answers", [True, False])
def test_clients_that_cannot_be_removed_are_left_behind_whatever_else_is(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    def api(_: Connection) -> Api | None:
        if not answers:
            raise ConnectionError("refused")
        return None

    monkeypatch.setattr(Connection, "api", api)
    monkeypatch.setattr(runs, "remove_clients", lambda *_: ["clients outside the cluster: busy"])
    monkeypatch.setattr(runs, "remove_run", lambda *_: None)
    monkeypatch.setattr(runs, "leftovers", lambda *_: [])
    run = runs.Run(Connection(None, None))
    run.engine = Engine("podman")

    runs._clean_up(pytestconfig, run)
    run._folder.cleanup()

    assert run.left == ["clients outside the cluster: busy", *([] if answers else ["namespaces: refused"])]


ORDER = """
@pytest.mark.starts_last
@shows("a")
def test_short(): pass

@pytest.mark.xdist_group("cluster")
@shows("a")
def test_one_of_many(): pass

@pytest.mark.starts_first
@shows("a")
def test_long(): pass

@pytest.mark.starts_first
@pytest.mark.xdist_group("outage")
@shows("a")
def test_long_in_a_group(): pass
"""


def test_groups_of_tests_that_wait_long_start_first_and_short_tests_last(sample: Sample) -> None:
    printed = sample(ORDER, "--verbose").printed

    begun = [line.partition("::")[2].split()[0] for line in printed.splitlines() if line.endswith("%]")]
    assert begun == ["test_long_in_a_group", "test_long", "test_one_of_many", "test_short"]


SLOW = """
import time

@shows("within")
def test_within(): time.sleep(0.6)

@shows("beyond")
def test_beyond(): time.sleep(60)
"""


def test_patience_multiplies_the_time_limit_of_a_test(sample: Sample) -> None:
    run = sample(SLOW, "--patience", "6", timeout=0.5)

    assert run.verdicts() == {"within": "holds", "beyond": "inconclusive"}
    assert "Timeout (>3.0s)" in run.reason("beyond")


TWO_WAITS = """
import time, pathlib

@shows("ended")
def test_1(): pass

@shows("running")
def test_2():
    pathlib.Path("began").touch(); time.sleep(60)

@shows("waiting")
def test_3(): pass
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGHUP, 2)]
)
def test_a_killed_run_leaves_the_results_so_far(
    tmp_path: Path, stub: StubCluster, number: signal.Signals, code: int
) -> None:
    write_sample(tmp_path, TWO_WAITS, {})
    process = start(tmp_path, stub.address)
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline, "the second test never began"
        time.sleep(0.05)
    process.send_signal(number)
    run = ended(tmp_path, process)

    assert run.code == code
    assert run.verdicts() == {"ended": "holds", "running": "inconclusive", "waiting": "inconclusive"}
    assert run.json["run"]["exit_code"] == (None if number == signal.SIGKILL else 2)
    if number == signal.SIGKILL:
        assert run.reason("running") == "its test began and did not end"
    assert run.reason("waiting") == "its test never began"


def test_the_tests_of_a_group_run_one_after_another_in_one_process(sample: Sample) -> None:
    """Tests that change the cluster, or share one outage, rely on that."""
    code = """
    import os

    @pytest.mark.parametrize("number", range(8))
    @pytest.mark.xdist_group("cluster")
    @shows("alone")
    def test_alone(number, record_property): record_property("process", os.getpid())

    @pytest.mark.parametrize("number", range(8))
    @shows("beside")
    def test_beside(number): pass
    """

    run = sample(code, "-n", "2", "--dist", "loadgroup")

    found = ElementTree.parse(run.report / "junit.xml").iter("property")
    processes = {it.get("value") for it in found if it.get("name") == "process"}
    assert (run.verdicts(), len(processes)) == ({"alone": "holds", "beside": "holds"}, 1)
