"""--behavior and --rerun: which tests run, and what their report is about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from machine.exits import CannotRun
from runner import choice
from tests.stub_cluster import StubCluster
from tests.test_run import Ended, ended, start, write_sample

SUITE = """
from pathlib import Path

@shows("pod")
def test_pod(): pass

@pytest.mark.behavior("controllers/job")
@shows("pod")
def test_pod_and_job(): pass

@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("controllers/job")
def test_job(): {}["typo"]

@shows("service")
@pytest.mark.parametrize("n", [1, 2])
def test_service(n): assert Path("mended").exists() or n == 1

@shows("lost")
def test_lost(outside): pass
"""

TOPICS = {
    "objects/pod": "pods",
    "controllers/job": "jobs and daemonsets",
    "objects/service": "services",
    "objects/lost": "services",
}


@pytest.fixture(scope="module")
def stub() -> Iterator[StubCluster]:
    """A cluster without nodes."""
    cluster = StubCluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, stub: StubCluster) -> Ended:
    """A run of a suite whose behaviors are of two documents and three topics."""
    folder = tmp_path_factory.mktemp("first")
    write_sample(folder, SUITE, {})
    for document in ("objects", "controllers"):
        entries = [
            {"id": name, "topic": topic, "says": "It does.", "observe": "that", "needs": needs}
            for name, topic in TOPICS.items()
            for needs in [["node-network"] if name == "objects/lost" else []]
            if name.startswith(document)
        ]
        (folder / "behaviors" / f"{document}.yaml").write_text(json.dumps(entries))
    return ended(folder, start(folder, stub.address, "-n", "2", "--dist", "loadgroup"))


Again = Callable[..., Ended]


@pytest.fixture
def again(first: Ended, tmp_path: Path, stub: StubCluster) -> Again:
    """`again(*args)`: another run of the same suite. Before it, the report of the first one is in report/."""
    folder = tmp_path / "again"
    shutil.copytree(first.report.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*args: str, server: str = stub.address) -> Ended:
        return ended(folder, start(folder, server, *args))

    return run


def rows(run: Ended) -> dict[str, str]:
    """Behaviors and their verdicts."""
    return {row["id"]: row["verdict"] for row in run.json["behaviors"]}


def ran_in(run: Ended) -> set[str]:
    """The names of the tests that ran."""
    return {name.rpartition("::")[2] for name in run.json["tests"]}


def test_without_a_choice_all_behaviors_are_tested(first: Ended) -> None:
    assert rows(first) == {
        "objects/pod": "holds",
        "controllers/job": "inconclusive",
        "objects/service": "broken",
        "objects/lost": "not observed",
    }
    assert first.json["run"]["rerun_of"] is None


def test_a_chosen_behavior_is_tested_whole_and_only_it_is_reported(again: Again) -> None:
    run = again("--behavior", "pod", "-n", "2", "--dist", "loadgroup")

    assert (run.code, rows(run)) == (0, {"objects/pod": "holds"})
    assert ran_in(run) == {"test_pod", "test_pod_and_job"}
    assert "kubehave: 1 of 1 behaviors hold\n" in run.printed


def test_topics_documents_and_ids_choose_together(again: Again) -> None:
    run = again("--behavior", "controllers", "--behavior=services", "-k", "not lost")

    assert rows(run) == {"controllers/job": "inconclusive", "objects/service": "broken"}
    assert ran_in(run) == {"test_pod_and_job", "test_job", "test_service[1]", "test_service[2]"}


def test_a_choice_with_files_chooses_among_their_tests(again: Again) -> None:
    run = again("suites/test_sample.py::test_pod", "suites/test_sample.py::test_job", "--behavior", "pod")

    assert (run.code, rows(run), ran_in(run)) == (0, {"objects/pod": "in part"}, {"test_pod"})


def test_a_name_that_chooses_nothing_is_a_usage_error_with_a_suggestion(again: Again) -> None:
    run = again("--behavior", "objects/servise")

    line = "there is no behavior, topic or document 'objects/servise'; did you mean objects/service?"
    assert (run.code, run.json["run"]["reason"]) == (4, line)
    assert run.printed == f"kubehave: {line}\n"


@pytest.mark.parametrize(("name", "code"), [("pods", 0), ("pds", 4)])
def test_a_choice_needs_no_cluster_if_tests_are_only_collected(again: Again, name: str, code: int) -> None:
    run = again("--collect-only", "-q", "--behavior", name, server="http://127.0.0.1:1")

    assert run.code == code
    assert ("test_pod_and_job" in run.printed) is (code == 0)
    assert "test_service" not in run.printed
    assert "Traceback" not in run.printed


def test_what_did_not_hold_is_tested_again_in_a_report_of_its_own(again: Again, tmp_path: Path) -> None:
    (tmp_path / "again" / "mended").touch()

    run = again("--rerun", "report", "-n", "2", "--dist", "loadgroup")

    assert (run.code, rows(run)) == (1, {"controllers/job": "inconclusive", "objects/service": "holds"})
    assert ran_in(run) == {"test_pod_and_job", "test_job", "test_service[1]", "test_service[2]"}
    assert run.json["run"]["rerun_of"] == "report"
    assert len(json.loads((run.report / "previous" / "behaviors.json").read_text())["behaviors"]) == 4


def test_if_nothing_is_to_be_tested_again_no_cluster_is_contacted_and_no_report_begun(
    again: Again, tmp_path: Path
) -> None:
    (tmp_path / "again" / "earlier.json").write_text('{"behaviors": [{"id": "objects/pod", "verdict": "holds"}]}')

    run = again("--rerun", "earlier.json", server="http://127.0.0.1:1")

    assert run.code == 0
    assert run.printed == "kubehave: nothing is to be tested again after earlier.json: 1 of 1 behaviors hold\n"
    assert len(run.json["behaviors"]) == 4


# --- the earlier report


@pytest.fixture
def config(pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.Config]:
    """The configuration of a run that is to run again what is in earlier.json."""
    monkeypatch.setattr(pytestconfig.option, "rerun", str(tmp_path / "earlier.json"))
    yield pytestconfig
    if choice.CHOSEN in pytestconfig.stash:
        del pytestconfig.stash[choice.CHOSEN]


def settled(config: pytest.Config, report: Any) -> set[str]:
    """What is run again after a run with this report."""
    Path(config.option.rerun).write_text(report if isinstance(report, str) else json.dumps(report))
    assert choice.settle(config) is None
    return {*(config.stash[choice.CHOSEN] or ())}


VERDICTS = {
    "objects/pod-from-yaml": "broken",
    "objects/exec-into-a-pod": "inconclusive",
    "objects/logs-of-a-pod": "in part",
    "objects/everything-is-an-object": "not observed",
    "objects/components-of-a-cluster": "holds",
    "objects/of-an-earlier-version": "broken",
}


@pytest.mark.parametrize(
    ("verdicts", "line", "code"),
    [
        (["holds", "holds", "planned"], "2 of 2 behaviors hold", 0),
        (["holds", "not observed"], "1 of 2 behaviors hold, 1 not observed", 0),
        (["not observed"], "0 of 1 behaviors hold, 1 not observed", 5),
    ],
)
def test_what_a_cluster_lacked_is_not_tested_again(
    config: pytest.Config, capsys: pytest.CaptureFixture[str], verdicts: list[str], line: str, code: int
) -> None:
    behaviors = [{"id": name, "verdict": verdict} for name, verdict in zip(VERDICTS, verdicts, strict=False)]
    Path(config.option.rerun).write_text(json.dumps({"behaviors": behaviors}))

    assert choice.settle(config) == code

    said = capsys.readouterr().out
    assert said == f"kubehave: nothing is to be tested again after {config.option.rerun}: {line}\n"


def test_broken_inconclusive_and_unfinished_behaviors_are_tested_again(
    config: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviors = [{"id": name, "verdict": verdict} for name, verdict in VERDICTS.items()]

    assert settled(config, {"behaviors": behaviors}) == {
        "objects/pod-from-yaml",
        "objects/exec-into-a-pod",
        "objects/logs-of-a-pod",
    }
    assert "the catalogue no longer has them: objects/of-an-earlier-version\n" in capsys.readouterr().out


def test_the_folder_of_a_report_stands_for_it(
    config: pytest.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "behaviors.json").write_text('{"behaviors": [{"id": "objects/pod-from-yaml", "verdict": "broken"}]}')
    monkeypatch.setattr(config.option, "rerun", str(tmp_path))

    assert choice.settle(config) is None

    assert {*(config.stash[choice.CHOSEN] or ())} == {"objects/pod-from-yaml"}


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        ("", "is no report of a run, because it is no JSON: Expecting value"),
        ("\x00", "is no report of a run, because it is no JSON: Expecting value"),
        ("[]", "is no report of a run: it has no verdicts"),
        ({"tests": {}}, "is no report of a run: it has no verdicts"),
        ({"behaviors": [{"id": "objects/pod-from-yaml"}]}, "is no report of a run: it has no verdicts"),
        (
            {"behaviors": [], "run": {"reason": "no engine"}},
            r"has no verdicts, because its run tested nothing \(no engine\)",
        ),
    ],
)
def test_a_file_that_is_no_report_is_a_usage_error(config: pytest.Config, report: Any, complaint: str) -> None:
    with pytest.raises(CannotRun, match=complaint) as refusal:
        settled(config, report)

    assert refusal.value.exit_code == 4
    assert len(str(refusal.value).splitlines()) == 1


def test_a_missing_report_is_a_usage_error(config: pytest.Config) -> None:
    with pytest.raises(CannotRun, match=r"earlier\.json cannot be read: No such file or directory") as refusal:
        choice.settle(config)

    assert refusal.value.exit_code == 4


def test_rerun_and_behavior_exclude_each_other(config: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.option, "behavior", ["pods"])

    with pytest.raises(CannotRun, match="--behavior does not go with it") as refusal:
        choice.settle(config)

    assert refusal.value.exit_code == 4
