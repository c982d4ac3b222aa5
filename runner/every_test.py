"""All tests that exist, whichever of them the command line has chosen.

A run of all suites collects all tests itself, and writes their ids into a file before it deselects any. A run that
names files or tests collects only those; then a second pytest process collects all tests meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.patience import patience
from lessons.catalogue import SUITES, test_id
from runner.agreement import shown_by

#: The environment variable that names the file into which a process that only collects writes the tests.
WRITE_TO = "KUBEHAVE_COLLECTED"

#: Seconds after which the collection is given up; `--patience` multiplies them. It takes 2 s.
GIVE_UP = 120

#: The file into which this process writes the collected tests.
COLLECTED: pytest.StashKey[Path] = pytest.StashKey()


class EveryTest:
    """All collected tests, written into `file` by this process or by a second one."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self.file = file
        self._process: subprocess.Popen[bytes] | None = None
        if collects_all(config):
            config.stash[COLLECTED] = file
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", str(SUITES)],
            cwd=config.rootpath,
            env=os.environ | {WRITE_TO: str(file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def found(self) -> dict[str, list[str]] | None:
        """Node id to behavior ids; None if the suites cannot be collected."""
        if self._process:
            try:
                self._process.wait(GIVE_UP * patience.factor)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if not self.file.exists():
            return None
        found: dict[str, list[str]] = json.loads(self.file.read_text(encoding="utf-8"))
        return found


def collects_all(config: pytest.Config) -> bool:
    """Whether pytest collects every test with this command line. It may deselect some afterwards."""
    fewer = ("lf", "ignore", "ignore_glob")
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not named and not any(config.getoption(name, None) for name in fewer)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write all collected tests into the file, before any test is deselected.

    If a second process cannot collect all of them, it writes none.
    """
    file = config.stash.get(COLLECTED, None)
    if WRITE_TO in os.environ and config.option.collectonly:
        file = None if session.testsfailed else Path(os.environ[WRITE_TO])
    if file is not None:
        found = {test_id(item.nodeid): shown_by(item) for item in items}
        attempt = file.with_name(f"{file.name}.{os.getpid()}")
        attempt.write_text(json.dumps(found), encoding="utf-8")
        os.replace(attempt, file)
