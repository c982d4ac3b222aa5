"""The folder of a run's report, and in previous/ the last report that had verdicts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lessons.verdict_names import INCONCLUSIVE
from runner.evidence_files import EVIDENCE

BEHAVIORS, JUNIT, PREVIOUS = "behaviors.json", "junit.xml", "previous"
PAGE, SUMMARY = "index.html", "summary.md"

#: All that a run writes into its folder. The script `environment` knows it, too.
PARTS = (BEHAVIORS, JUNIT, PAGE, SUMMARY, EVIDENCE)


class Report:
    """One run's folder."""

    #: Whether this process has begun a report.
    begun = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def junit(self) -> Path:
        """The file for CI."""
        return self.folder / JUNIT

    def begin(self) -> None:
        """Move the earlier report to previous/, so that it is not mistaken for this run's report.

        A report without verdicts (its run never reached its tests) does not replace one with verdicts.
        """
        Report.begun = True
        earlier = self.folder / BEHAVIORS
        if earlier.exists() and '"verdict"' in earlier.read_text(encoding="utf-8"):
            previous = self.folder / PREVIOUS
            shutil.rmtree(previous, ignore_errors=True)
            previous.mkdir(parents=True)
            for name in PARTS:
                if (self.folder / name).exists():
                    os.replace(self.folder / name, previous / name)
        for name in PARTS:
            if (self.folder / name).is_dir():
                shutil.rmtree(self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)

    def write(self, **parts: Any) -> None:
        """Write behaviors.json completely, or not at all: `{"run": {...}, "behaviors": [...], "tests": {...}}`."""
        self._write(json.dumps(parts, indent=1, ensure_ascii=False))

    def write_briefly(self, **parts: Any) -> None:
        """Write the same on one line, which is ten times as fast."""
        self._write(json.dumps(parts, ensure_ascii=False))

    def _write(self, text: str, name: str = BEHAVIORS) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        attempt = self.folder / f".{name}.{os.getpid()}"
        attempt.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        os.replace(attempt, self.folder / name)


def mark_inconclusive_as_errors(junit: Path) -> None:
    """Turn the failures of inconclusive tests in the file for CI into errors."""
    if not junit.exists():
        return
    tree = ElementTree.parse(junit)
    for suite in tree.iter("testsuite"):
        changed = 0
        for case in suite.iter("testcase"):
            properties = {it.get("name"): it.get("value") for it in case.iter("property")}
            failure = case.find("failure")
            if failure is not None and properties.get("verdict") == INCONCLUSIVE:
                failure.tag = "error"
                changed += 1
        for name, change in (("failures", -changed), ("errors", changed)):
            suite.set(name, str(int(suite.get(name, "0")) + change))
    tree.write(junit, encoding="utf-8", xml_declaration=True)
