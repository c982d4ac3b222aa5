"""The files for pipelines: they call ./selftest and ./verify only, keep the report, and are correct."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lessons.catalogue import TOPICS
from machine.cache import cache_folder

ACTIONLINT = "1.7.12"

#: The only commands of a pipeline. Everything else is in them, so that it can be tried on any machine.
COMMANDS = {"./selftest", './verify --behavior "$TOPIC"'}

ACTIONS = {"actions/checkout", "actions/upload-artifact"}


@pytest.fixture(scope="module")
def workflow() -> Path:
    """The workflow for GitHub."""
    return Path(__file__).parent.parent / ".github" / "workflows" / "kubehave.yml"


@pytest.fixture(scope="module")
def jobs(workflow: Path) -> dict[str, Any]:
    """Its jobs."""
    found: dict[str, Any] = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    assert found
    return found


@pytest.fixture(scope="module")
def gitlab() -> dict[str, Any]:
    """The jobs of the snippet for GitLab."""
    file = Path(__file__).parent.parent / "docs" / "gitlab-ci.yml"
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert found
    return found


def steps(jobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The steps of all jobs."""
    for job in jobs.values():
        yield from job["steps"]


def _go() -> str | None:
    """A Go program: on the PATH, or the one that an image build has put into the cache."""
    cached = sorted(cache_folder().glob("go-*/go/bin/go"))
    return shutil.which("go") or next(map(str, reversed(cached)), None)


@pytest.fixture(scope="module")
def actionlint() -> Path:
    """Actionlint in the cache. Go compiles it there the first time."""
    folder = cache_folder() / f"actionlint-{ACTIONLINT}"
    if not folder.exists():
        go = _go()
        if not go:
            pytest.skip("there is no Go to compile actionlint with; install it, or build the node image")
        attempt = folder.with_name(f"attempt-{folder.name}-{os.getpid()}")
        package = f"github.com/rhysd/actionlint/cmd/actionlint@v{ACTIONLINT}"
        environment = {**os.environ, "GOBIN": str(attempt), "GOFLAGS": "", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        done = subprocess.run([go, "install", package], env=environment, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"actionlint cannot be had; give Go a proxy: {done.stderr.strip().splitlines()[-1:]}")
        attempt.rename(folder)
    return folder / "actionlint"


def test_actionlint_has_no_complaint_and_sees_a_mistake(actionlint: Path, workflow: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(workflow.read_text().replace("matrix.topic", "matrix.topics").replace("runs-on", "run-on"))
    # shellcheck and pyflakes would be used only where they happen to be installed.
    command = [str(actionlint), "-shellcheck=", "-pyflakes=", "-no-color"]

    right = subprocess.run([*command, workflow], capture_output=True, text=True, timeout=60)
    mistake = subprocess.run([*command, wrong], capture_output=True, text=True, timeout=60)

    assert (right.returncode, right.stdout) == (0, "")
    assert mistake.returncode == 1
    assert '"topics" is not defined' in mistake.stdout
    assert 'unexpected key "run-on"' in mistake.stdout


def test_a_workflow_calls_nothing_but_selftest_and_verify(jobs: dict[str, Any]) -> None:
    assert {step["run"] for step in steps(jobs) if "run" in step} == COMMANDS


def test_actions_are_pinned_by_their_major_version(jobs: dict[str, Any]) -> None:
    used = [step["uses"].partition("@") for step in steps(jobs) if "uses" in step]

    assert {name for name, _, _ in used} == ACTIONS
    assert [version for _, _, version in used if not re.fullmatch(r"v\d+", version)] == []


def test_a_workflow_keeps_the_report_however_a_job_ends(jobs: dict[str, Any]) -> None:
    for name, job in jobs.items():
        last = job["steps"][-1]
        assert last["uses"].startswith("actions/upload-artifact@"), name
        assert (last["if"], last["with"]["path"]) == ("always()", "report/"), name


def test_a_workflow_may_only_read_the_repository(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))

    assert content["permissions"] == {"contents": "read"}
    assert [name for name, job in content["jobs"].items() if "permissions" in job] == []


def test_the_matrices_have_every_topic(jobs: dict[str, Any], gitlab: dict[str, Any]) -> None:
    ((at_gitlab,),) = (job["parallel"]["matrix"] for job in gitlab.values() if "parallel" in job)
    (at_github,) = (job["strategy"]["matrix"] for job in jobs.values() if "strategy" in job)

    assert at_github == {"topic": list(TOPICS)}
    assert at_gitlab == {"TOPIC": list(TOPICS)}


def test_the_snippet_for_gitlab_calls_nothing_but_selftest_and_verify(gitlab: dict[str, Any]) -> None:
    assert {line for job in gitlab.values() for line in job["script"]} == COMMANDS
    assert [name for name, job in gitlab.items() if {"before_script", "after_script"} & set(job)] == []


def test_the_snippet_for_gitlab_keeps_and_shows_the_report_however_a_job_ends(gitlab: dict[str, Any]) -> None:
    for name, job in gitlab.items():
        artifacts = job["artifacts"]
        assert (artifacts["when"], artifacts["paths"]) == ("always", ["report/"]), name
        assert artifacts["reports"] == {"junit": "report/junit.xml"}, name
        # GitLab allows only these characters.
        assert re.fullmatch(r"[\w. -]+", artifacts["expose_as"]), name


def test_the_snippet_for_gitlab_has_only_keys_that_gitlab_knows(gitlab: dict[str, Any]) -> None:
    known = {"stage", "timeout", "script", "artifacts", "when", "allow_failure", "parallel"}

    assert {key for job in gitlab.values() for key in job} <= known
    assert {key for job in gitlab.values() for key in job["artifacts"]} <= {"when", "expose_as", "paths", "reports"}
