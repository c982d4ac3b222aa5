"""--list and --explain: what they print, and that they contact and change nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lessons.catalogue import TOPICS, WALKTHROUGHS, catalogue
from lessons.listing import choose, explain, found, lessons_of, listing, near, needs_of
from lessons.sources import in_order
from machine.exits import CannotRun
from runner import choice
from tests.stub_cluster import StubCluster, kubeconfig

POD = "objects/pod-from-yaml"

HAS_ALL: dict[str, str | None] = dict.fromkeys(
    [
        *("multi-node", "node-network", "control-plane", "node-exec", "node-fault"),
        *("storage", "ingress", "cluster-admin", "kubectl"),
    ]
)


# --- the list


def test_every_behavior_has_one_line_in_the_order_of_topics() -> None:
    ids = [line.split()[0] for line in listing()]

    assert sorted(ids) == sorted(catalogue())
    topics = [catalogue()[name].topic for name in ids]
    assert list(dict.fromkeys(topics)) == list(TOPICS)
    assert topics == sorted(topics, key=TOPICS.index)


def test_behaviors_of_a_topic_are_in_the_order_of_its_suite() -> None:
    pods = [it.id for it in in_order(catalogue().values()) if it.topic == "pods"]

    lines = [min(it.line for it in lessons_of(name) if it.file == "suites/test_pods.py") for name in pods]
    assert lines == sorted(lines)
    assert lines[0] < lines[-1]


def test_a_line_has_id_topic_and_needs_in_columns() -> None:
    lines = {line.split()[0]: line for line in listing()}

    assert lines[POD].split() == [POD, "pods", "-"]
    assert lines["objects/yaml-for-every-kind"].endswith("  pods                 cluster-admin, kubectl")
    assert {
        line.index(f"  {it.topic}  ") for it, line in zip(in_order(catalogue().values()), listing(), strict=True)
    } == {max(map(len, catalogue()))}


def test_a_cluster_with_everything_can_show_all_but_what_only_a_run_finds_out() -> None:
    lines = {line.split()[0]: line for line in listing(HAS_ALL)}

    unsure = {name for name, line in lines.items() if "  only a run finds out: " in line}
    assert unsure == {name for name in lines if {"load-balancer", "no-load-balancer"} & {*needs_of(catalogue()[name])}}
    assert unsure
    assert all(line.endswith("  can be shown") for name, line in lines.items() if name not in unsure)


def test_what_a_cluster_lacks_is_said_with_the_remedy() -> None:
    lines = {line.split()[0]: line for line in listing(HAS_ALL | {"kubectl": "there is none; install it"})}

    assert lines["objects/yaml-for-every-kind"].endswith(
        "  not here: the cluster lacks kubectl: there is none; install it"
    )
    assert lines[POD].endswith("  can be shown")


def test_a_behavior_needs_what_its_tests_need() -> None:
    """A test is skipped if the cluster lacks what any of its behaviors declares."""
    for behavior in catalogue().values():
        lessons = lessons_of(behavior.id)
        assert bool(lessons) is not behavior.planned
        declared = {need for lesson in lessons for name in lesson.behaviors for need in catalogue()[name].needs}
        assert {*needs_of(behavior)} == declared


# --- one behavior


def test_a_behavior_is_explained_with_its_tests_and_manifests() -> None:
    lines = explain(POD)

    text = "\n".join(lines)
    assert lines[:2] == [POD, "pods; from the document objects"]
    assert catalogue()[POD].says in " ".join(text.split())
    assert catalogue()[POD].observe in " ".join(text.split())
    assert lessons_of(POD)
    assert {f"{lesson.file}:{lesson.line}" for lesson in lessons_of(POD)} <= {*lines}
    assert f'    @pytest.mark.behavior("{POD}")' in lines
    assert "manifests/pods/nginx-pod.yaml" in lines
    assert "    kind: Pod" in lines
    assert "last verdict" not in text


def test_a_correction_and_needs_are_explained() -> None:
    behavior = next(it for it in catalogue().values() if it.outdated and len(it.needs) > 1)

    lines = explain(behavior.id)

    assert [line for line in lines if line.startswith("today:        ")]
    at = lines.index(next(line for line in lines if line.startswith(f"needs:        {behavior.needs[0]}: ")))
    assert [line for line in lines[at:] if line.startswith(f"{' ' * 14}{behavior.needs[1]}: ")]


def test_every_behavior_can_be_explained() -> None:
    assert [name for name in catalogue() if not any("def test_" in line for line in explain(name))] == []


REPORT = {
    "run": {"began": "2026-11-30T19:08:20Z", "context": "kind-kubehave"},
    "behaviors": [{"id": POD, "verdict": "broken", "reason": "no Pod"}],
}


def test_the_last_verdict_has_its_date_cluster_and_reason() -> None:
    assert "last verdict: broken (2026-11-30 19:08:20 UTC) on kind-kubehave: no Pod" in explain(POD, REPORT)
    assert "last verdict: broken: no Pod" in explain(POD, REPORT | {"run": {}})
    assert not [line for line in explain("objects/exec-into-a-pod", REPORT) if "last verdict" in line]


# --- names


def test_the_last_part_of_an_id_is_enough() -> None:
    assert found("pod-from-yaml") == found(POD) == POD


@pytest.mark.parametrize("name", ["pod-from-yml", "objects/pod-form-yaml", "objcets/pod-from-yaml"])
def test_a_near_miss_suggests_the_id(name: str) -> None:
    assert near(name)[0] == POD
    with pytest.raises(CannotRun, match=rf"there is no behavior '{name}'; did you mean {POD}") as refusal:
        found(name)
    assert refusal.value.exit_code == 4


def test_a_name_like_nothing_names_the_list() -> None:
    with pytest.raises(CannotRun, match=r"there is no behavior 'qqq'; \./verify --list prints all behaviors"):
        found("qqq")


def test_an_ending_of_several_ids_is_refused_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    two = {name: catalogue()[POD] for name in ("objects/same", "controllers/same")}
    monkeypatch.setattr("lessons.listing.catalogue", lambda: two)

    with pytest.raises(CannotRun, match="several behaviors are called 'same': objects/same, controllers/same"):
        found("same")


def test_topics_documents_and_ids_choose() -> None:
    assert choose([POD, "exec-into-a-pod"]) == {POD, "objects/exec-into-a-pod"}
    for topic in ("jobs and daemonsets", "jobs_and_daemonsets", "jobs-and-daemonsets"):
        assert choose([topic]) == {it.id for it in catalogue().values() if it.topic == "jobs and daemonsets"}
    assert choose(["state-and-ingress"]) == {name for name in catalogue() if name.startswith("state-and-ingress/")}
    assert choose(["walkthroughs"]) == {it.id for it in catalogue().values() if it.document == WALKTHROUGHS}
    assert choose(["pods", "services"]) == choose(["pods"]) | choose(["services"])


def test_no_name_has_two_meanings() -> None:
    """A document with the name of a topic would choose both."""
    documents = {it.document for it in catalogue().values()}
    endings = {name.partition("/")[2] for name in catalogue()}

    assert {topic.replace(" ", "-") for topic in TOPICS} & documents == {WALKTHROUGHS}
    assert not endings & {*documents, *TOPICS}


def test_a_topic_that_is_misspelled_is_suggested() -> None:
    with pytest.raises(CannotRun, match="no behavior, topic or document 'trafic-policy'; did you mean traffic policy"):
        choose(["pods", "trafic-policy"])


# --- the command

Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def verify(root: Path, tmp_path: Path) -> Verify:
    """`./verify` with a report, a cache and a kubeconfig of its own, and without any program on the PATH."""

    def run(*args: str, report: Path = tmp_path / "report") -> subprocess.CompletedProcess[str]:
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "KUBECONFIG": str(tmp_path / "kubeconfig"), "PATH": "/none"}
        return subprocess.run(
            [sys.executable, "-m", "runner", "-n", "auto", "--dist", "loadgroup", "--report", str(report), *args],
            cwd=root,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of an earlier report."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "behaviors.json").write_text(json.dumps(REPORT))
    return tmp_path / "report"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubCluster]:
    """A cluster with two workers, which are not this machine's."""
    nodes = [
        {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        for name in ("one", "two")
    ]
    cluster = StubCluster(nodes=nodes)
    kubeconfig(tmp_path / "kubeconfig", cluster.address)
    yield cluster
    cluster.close()


def untouched(folder: Path) -> bool:
    """Whether the folder still has the earlier report, and nothing else."""
    return [path.name for path in folder.iterdir()] == ["behaviors.json"] and json.loads(
        (folder / "behaviors.json").read_text()
    ) == REPORT


def test_the_list_needs_no_cluster_and_begins_no_report(verify: Verify, earlier: Path) -> None:
    done = verify("--list")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == listing()
    assert untouched(earlier)


def test_the_list_of_chosen_behaviors_has_only_them(verify: Verify) -> None:
    done = verify("--list", "--behavior", "lost_nodes", "--behavior", "pod-from-yaml")

    ids = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert ids == [POD, *(it.id for it in in_order(catalogue().values()) if it.topic == "lost nodes")]
    assert len(ids) > 1


def test_the_list_says_what_a_named_cluster_can_show_and_creates_nothing_there(
    verify: Verify, earlier: Path, stub: StubCluster
) -> None:
    done = verify("--list", "--context", "there")

    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[POD].endswith("  can be shown")
    assert lines["objects/pod-ip-serves-inside-only"].endswith(
        "  not here: the cluster lacks node-network: this machine cannot run a client on the nodes' network; "
        "run on the machine whose engine runs the kind nodes"
    )
    assert {path.rpartition("/")[2] for method, path in stub.requests if method != "GET"} <= {
        "selfsubjectaccessreviews"
    }
    assert untouched(earlier)


def test_a_near_miss_is_said_in_one_line_and_begins_no_report(verify: Verify, earlier: Path) -> None:
    done = verify("--explain", "pod-form-yaml")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"kubehave: there is no behavior 'pod-form-yaml'; did you mean {POD}?\n"
    assert untouched(earlier)


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        ({"context": "nowhere"}, 4, "no context 'nowhere'"),
        ({"context": "there"}, 11, "http://127.0.0.1:1 does not answer"),
        ({"keep": True}, 4, "no cluster is kept: ./verify --keep makes one"),
        ({"keep": True, "context": "there"}, 4, "--keep and --node-image are for the run's own cluster"),
        ({"behavior": ["pds"]}, 4, "there is no behavior, topic or document 'pds'; did you mean pods?"),
    ],
)
def test_what_cannot_be_listed_is_said_in_one_line(
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: dict[str, Any],
    code: int,
    line: str,
) -> None:
    kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The client has read the variable KUBECONFIG when it was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    for name, value in options.items():
        monkeypatch.setattr(pytestconfig.option, name, value)

    assert choice.show(pytestconfig) == code

    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith(f"kubehave: {line}")
    assert len(said.splitlines()) == 1


def test_a_behavior_is_explained_with_its_last_verdict(verify: Verify, earlier: Path) -> None:
    done = verify("--explain", "pod-from-yaml")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == explain(POD, REPORT)
    assert untouched(earlier)


def test_explain_without_an_id_begins_no_report(verify: Verify, earlier: Path) -> None:
    assert verify("--explain").returncode == 4
    assert untouched(earlier)
