"""The folder of a run's report, and in previous/ the last report that had verdicts."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lessons.catalogue import test_id
from lessons.verdict_names import BROKEN, INCONCLUSIVE, NOT_OBSERVED
from machine.progress import line_of
from runner.evidence_files import EVIDENCE
from runner.verdicts import Ledger

#: The elements of the file for CI about a phase that did not pass, and the attributes that count them.
TAGS = {BROKEN: "failure", INCONCLUSIVE: "error", NOT_OBSERVED: "skipped"}
COUNTS = {"failure": "failures", "error": "errors", "skipped": "skipped"}

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
        ours = earlier.exists()
        if ours and '"verdict"' in earlier.read_text(encoding="utf-8"):
            previous = self.folder / PREVIOUS
            shutil.rmtree(previous, ignore_errors=True)
            previous.mkdir(parents=True)
            for name in PARTS:
                if (self.folder / name).exists():
                    os.replace(self.folder / name, previous / name)
        # Without behaviors.json the folder has no report of ours, and a page or a folder of these names is its user's.
        for name in PARTS if ours else (BEHAVIORS, JUNIT):
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

    def write_pages(self, whole: dict[str, Any]) -> None:
        """Write what people read: the page and the summary, which a pipeline's own page shows, too, where it asks for it."""
        # They take half a second to import, and a run needs them only at its end.
        from lessons.page import page
        from lessons.summary import append_to_step_summary, markdown

        text = markdown(whole)
        self._write(text, SUMMARY)
        append_to_step_summary(text)
        try:
            self._write(page(whole), PAGE)
        except OSError:
            raise
        except Exception as error:  # a mistake in the page must not take the verdicts away
            print(f"kubehave: the page cannot be made: {type(error).__name__}: {line_of(error)}", file=sys.stderr)

    def _write(self, text: str, name: str = BEHAVIORS) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        attempt = self.folder / f".{name}.{os.getpid()}"
        attempt.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        os.replace(attempt, self.folder / name)


def finish_junit(junit: Path, ledger: Ledger) -> None:
    """Give the file for CI the verdicts and the reasons of behaviors.json; pytest knows failures only.

    Each case has its test's verdict as a property. What did not pass is a failure, an error or skipped, as its verdict
    says, with the reason in one line as its message. Lines are counted from 1.
    """
    if not junit.exists():
        return
    tree = ElementTree.parse(junit)
    for suite in tree.iter("testsuite"):
        cases: dict[tuple[str, str], list[ElementTree.Element]] = {}
        for case in suite.iter("testcase"):
            case.set("name", test_id(case.get("name", "")))
            if line := case.get("line"):
                case.set("line", str(int(line) + 1))
            cases.setdefault((case.get("classname", ""), case.get("name", "")), []).append(case)
        for test, result in ledger.results.items():
            _finish(cases.get(_name_of_case(test), []), ledger.verdict_of(test)[0], result.not_passed)
        for tag, name in COUNTS.items():
            for element in suite.iter(tag):
                element.set("message", next(iter(element.get("message", "").splitlines()), ""))
            suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    tree.write(junit, encoding="utf-8", xml_declaration=True)


def _name_of_case(test: str) -> tuple[str, str]:
    """The class name and the name that pytest gives the case of a test."""
    path, bracket, parameters = test.partition("[")
    file, *classes, name = path.split("::") if "::" in path else (path, "")
    return ".".join([file.replace("/", ".").removesuffix(".py"), *classes]), f"{name}{bracket}{parameters}"


def _finish(cases: list[ElementTree.Element], verdict: str, not_passed: list[tuple[str, str]]) -> None:
    """Finish the cases of one test. It has a second one if both the call and the teardown failed; only that has properties."""
    elements = [element for case in cases for element in case if element.tag in COUNTS]
    for element, (of_phase, reason) in zip(elements, not_passed, strict=False):
        element.tag = TAGS[of_phase]
        element.set("message", reason)
    properties = [it for case in cases for it in case.iter("property") if it.get("name") != "verdict"]
    properties.append(ElementTree.Element("property", name="verdict", value=verdict))
    for case in cases:
        for old in case.findall("properties"):
            case.remove(old)
        new = ElementTree.Element("properties")
        new.extend(properties)
        case.insert(0, new)
