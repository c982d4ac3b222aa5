"""Every test that there is, whatever a command line has chosen of them.

A run of the suites as they are collects all tests itself, and writes them down before any is deselected. One that names
files or tests sees only these: then a second pytest collects all of them while the first one runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.catalogue import SUITES, shown_by, test_id

#: Names the file into which a process that only collects writes what it found.
WRITE_TO = "KUBEHAVE_COLLECTED"

#: Seconds after which the collection is given up; it takes two.
GIVE_UP = 120

#: The file into which this process writes what it collects.
COLLECTED: pytest.StashKey[Path] = pytest.StashKey()


class EveryTest:
    """What was collected, in this run or beside it; `file` is where it is written."""

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
        """Node id to behavior ids; None where the suites cannot be collected."""
        if self._process:
            try:
                self._process.wait(GIVE_UP)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if not self.file.exists():
            return None
        found: dict[str, list[str]] = json.loads(self.file.read_text(encoding="utf-8"))
        return found


def collects_all(config: pytest.Config) -> bool:
    """Whether this command line makes pytest collect every test, of which it may deselect some afterwards."""
    fewer = ("lf", "ignore", "ignore_glob")
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not named and not any(config.getoption(name, None) for name in fewer)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write down all that was collected, before any of it is deselected."""
    file = config.stash.get(COLLECTED, None)
    if WRITE_TO in os.environ and config.option.collectonly:
        file = Path(os.environ[WRITE_TO])
    if file is not None:
        found = {test_id(item.nodeid): shown_by(item) for item in items}
        attempt = file.with_name(f"{file.name}.{os.getpid()}")
        attempt.write_text(json.dumps(found), encoding="utf-8")
        os.replace(attempt, file)
