"""Which command lines collect all tests, and how long a second collection may take."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from fixtures.patience import patience
from runner import every_test
from runner.every_test import EveryTest, collects_all


@pytest.fixture
def plain(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> pytest.Config:
    """The configuration of a command line that names no file and leaves none out."""
    monkeypatch.setattr(pytestconfig, "args_source", pytest.Config.ArgsSource.TESTPATHS)
    for name in ("lf", "ignore", "ignore_glob"):
        monkeypatch.setattr(pytestconfig.option, name, None, raising=False)  # lf: of a plugin that may be off
    return pytestconfig


def test_a_plain_command_line_collects_all_tests(plain: pytest.Config) -> None:
    assert collects_all(plain)


@pytest.mark.parametrize(
    ("option", "value"), [("lf", True), ("ignore", ["suites/test_pods.py"]), ("ignore_glob", ["*"])]
)
def test_a_command_line_that_leaves_files_out_collects_fewer_tests(
    plain: pytest.Config, monkeypatch: pytest.MonkeyPatch, option: str, value: Any
) -> None:
    monkeypatch.setattr(plain.option, option, value)

    assert not collects_all(plain)


@pytest.mark.parametrize("source", [pytest.Config.ArgsSource.ARGS, pytest.Config.ArgsSource.INVOCATION_DIR])
def test_a_command_line_that_names_files_collects_fewer_tests(
    plain: pytest.Config, monkeypatch: pytest.MonkeyPatch, source: pytest.Config.ArgsSource
) -> None:
    monkeypatch.setattr(plain, "args_source", source)

    assert not collects_all(plain)


def test_the_limit_of_a_second_collection_scales_with_patience(
    plain: pytest.Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits: list[float] = []

    class Process:
        """A process that ends at once."""

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def wait(self, timeout: float) -> None:
            """Note the limit."""
            limits.append(timeout)

    monkeypatch.setattr(plain.option, "lf", True)
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(patience, "factor", 3.0)

    assert EveryTest(plain, tmp_path / "none").found() is None
    assert limits == [3 * every_test.GIVE_UP]
