"""A shared fixture that failed is tried again, but not forever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest
from fixtures import retried

tries = []


@pytest.fixture(scope="session")
def thing():
    tries.append("try")
    assert len(tries) == 3, f"no thing at try {len(tries)}"
    yield "thing"
    tries.append("removed")


@pytest.fixture(scope="session")
def built_on_it(thing):
    return thing


@pytest.mark.parametrize("number", range(4))
def test_uses_it(built_on_it, number):
    assert built_on_it == "thing"
"""


def printed(tmp_path: Path, root: Path, tests: str) -> list[str]:
    """What pytest prints about these tests."""
    (tmp_path / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "fixtures.retried", "-p", "no:cacheprovider", "-rA", "-q"]
    done = subprocess.run(
        [*command, "--tb=short", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)],
        cwd=root,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.splitlines()


def run(tmp_path: Path, root: Path, tests: str) -> list[str]:
    """The result of each test, as `pytest -v` prints it."""
    return [line for line in printed(tmp_path, root, tests) if line.startswith(("PASSED", "ERROR"))]


def test_the_next_test_tries_again(tmp_path: Path, root: Path) -> None:
    lines = run(tmp_path, root, TESTS)

    assert sorted(line.split()[0] for line in lines) == ["ERROR", "ERROR", "PASSED", "PASSED"]
    assert [f"no thing at try {number}" in "".join(lines) for number in (1, 2, 3)] == [True, True, False]


def test_a_fixture_whose_tries_took_too_long_is_not_tried_again(tmp_path: Path, root: Path) -> None:
    lines = run(tmp_path, root, TESTS + "\n\nretried.ALL_TRIES = 0\n")

    assert [line.split()[0] for line in lines] == ["ERROR"] * 4
    assert all("no thing at try 1" in line for line in lines)


def test_the_traceback_begins_with_the_fixture(tmp_path: Path, root: Path) -> None:
    fixtures, _, tests = TESTS.partition("@pytest.mark")
    (tmp_path / "conftest.py").write_text(fixtures)
    lines = printed(tmp_path, root, f"import pytest\n\n\n@pytest.mark{tests}")

    assert [line.rpartition(": in ")[2] for line in lines if ".py:" in line and ": in " in line] == ["thing", "thing"]
