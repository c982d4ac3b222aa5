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


def everything(folder: Path) -> None:
    """Write a page, a summary and evidence into the folder."""
    (folder / "evidence" / "test_x").mkdir(parents=True)
    for name in ("index.html", "summary.md", "evidence/test_x/objects.yaml"):
        (folder / name).write_text("x")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_page_the_summary_and_the_evidence_go_with_their_report(report: Report) -> None:
    report.write(**WITH_VERDICTS)
    everything(report.folder)

    report.begin()

    assert names(report.folder) == ["previous"]
    assert names(report.folder / "previous") == ["behaviors.json", "evidence", "index.html", "summary.md"]
    assert (report.folder / "previous" / "evidence" / "test_x" / "objects.yaml").exists()


def test_those_of_a_run_without_verdicts_are_removed(report: Report) -> None:
    report.write(**WITHOUT)
    everything(report.folder)

    report.begin()

    assert names(report.folder) == []


def test_what_a_user_has_in_a_folder_without_a_report_stays(report: Report) -> None:
    everything(report.folder)

    report.begin()

    assert names(report.folder) == ["evidence", "index.html", "summary.md"]
