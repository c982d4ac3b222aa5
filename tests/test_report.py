"""The report of a run, and what happens to the earlier report."""

import json
from pathlib import Path

import pytest

from runner.report import Report

WITH_VERDICTS = {"run": {"exit_code": 0}, "behaviors": [{"verdict": "holds"}], "tests": {}}
WITHOUT = {"run": {"exit_code": 11}, "behaviors": [], "tests": {}}


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "report")


def test_the_earlier_report_is_moved_away(report: Report) -> None:
    report.write(**WITH_VERDICTS)
    report.junit.write_text("<x/>")

    report.begin()

    assert sorted(path.name for path in report.folder.iterdir()) == ["previous"]
    assert sorted(path.name for path in (report.folder / "previous").iterdir()) == ["behaviors.json", "junit.xml"]


def test_previous_keeps_the_last_report_with_verdicts(report: Report) -> None:
    report.write(**WITH_VERDICTS)
    for _ in range(2):
        report.begin()
        report.write(**WITHOUT)

    assert json.loads((report.folder / "previous" / "behaviors.json").read_text()) == WITH_VERDICTS


def test_a_brief_report_has_the_same_content(report: Report) -> None:
    report.write_briefly(**WITH_VERDICTS)

    assert json.loads((report.folder / "behaviors.json").read_text()) == WITH_VERDICTS
