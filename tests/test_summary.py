"""The summary for pipelines: what it says, that Markdown shows its texts as they are, and that it is bounded."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from lessons.summary import LIMIT, append_to_step_summary, escaped, markdown, verdict_on


def row(name: str, verdict: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A behavior of a report."""
    about = {"id": f"objects/{name}", "topic": "pods", "says": f"It is {name}.", "verdict": verdict, "reason": reason}
    return {**about, "decided_by": f"suites/test_pods.py::test_{name}", "tests": [], "seconds": 1.0, **more}


def report(*rows: dict[str, Any], exit_code: int | None = 1, **run: Any) -> dict[str, Any]:
    """A report with these behaviors."""
    about = {"exit_code": exit_code, "reason": None, "left_behind": [], "nodes_left_out": [], **run}
    return {"run": about, "behaviors": list(rows), "tests": {}}


def shown(text: str) -> str:
    """What a reader sees of Markdown: its text, without tags."""
    html = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(text)
    return unescape(re.sub(r"<[^>]*>", "", html))


LACKS = "the cluster lacks storage; install a provisioner"

MIXED = report(
    row("fine", "holds"),
    row("torn", "broken", "there are 2 Pods, not 3"),
    row("unclear", "inconclusive", "the connection failed"),
    row("late", "inconclusive", "its test never began"),
    row("volume", "not observed", LACKS),
    row("claim", "not observed", LACKS),
    row("half", "in part", "1 of 2 tests ran"),
    reason="suites/test_x.py cannot be collected",
    version="0.1 (d892832)",
    began="2026-11-30T19:08:20Z",
    cluster={"kubernetes": "v1.36.3", "nodes": [{}, {}, {}, {}]},
    own_cluster=True,
    phases={"cluster": 23.4, "tests": 199.2},
    left_behind=["Namespace a-1"],
    nodes_left_out=["node lame is not Ready: tests leave it out"],
)


def test_the_heading_has_the_verdict_and_below_it_are_counts_time_and_cluster() -> None:
    heading, counts, about, *_ = markdown(MIXED).split("\n\n")

    assert heading == "# kubehave: 1 broken, 2 inconclusive"
    assert counts == "1 of 7 behaviors hold, 1 broken, 2 inconclusive, 2 not observed, 1 in part."
    assert about == (
        "Kubernetes v1.36.3, 4 nodes, the suite's own cluster; cluster 23.4 s, tests 199.2 s; "
        "began 2026-11-30T19:08:20Z; kubehave 0.1 (d892832)."
    )


def test_only_what_does_not_hold_is_named_with_its_reason() -> None:
    text = shown(markdown(MIXED))

    assert "objects/fine" not in text
    for line in ("broken\nobjects/torn: It is torn.\nthere are 2 Pods, not 3\ntest_torn", "objects/unclear: It is"):
        assert line in text
    assert "inconclusive (1): its test never began: objects/late" in text
    assert "in part (1): 1 of 2 tests ran: objects/half" in text
    assert text.count("objects/late") == 1


def test_a_reason_that_several_behaviors_share_is_written_once() -> None:
    assert f"not observed (2): {LACKS}: objects/volume, objects/claim\n" in shown(markdown(MIXED))


def test_trouble_and_what_is_left_behind_are_named() -> None:
    text = shown(markdown(MIXED))

    assert "trouble: suites/test_x.py cannot be collected\n" in text
    assert "left behind, not removed: Namespace a-1\n" in text
    assert "not used: node lame is not Ready: tests leave it out\n" in text


def test_a_run_in_which_everything_holds_has_no_sections() -> None:
    text = markdown(report(row("fine", "holds"), row("walk", "holds", id="walkthroughs/walk"), exit_code=0))

    assert text == ("# kubehave: everything that ran holds\n\n1 of 1 behaviors hold; 1 of 1 walkthroughs hold.\n")


def test_a_run_that_ended_before_its_tests_says_why() -> None:
    text = shown(markdown({"run": {"exit_code": 12, "reason": "there is no engine"}, "behaviors": [], "tests": {}}))

    assert text == "kubehave: this machine lacks something\nTrouble\n\ntrouble: there is no engine\n\n"


@pytest.mark.parametrize(
    ("code", "rows", "verdict"),
    [
        (None, [row("a", "broken", "x")], "the run did not end, 1 broken"),
        (1, [], "not all tests could run"),
        (2, [row("a", "inconclusive", "x")], "interrupted, 1 inconclusive"),
        (5, [row("a", "not observed", "x")], "nothing was observed"),
        (13, [row("a", "holds")], "something was left behind"),
    ],
)
def test_the_verdict_says_how_the_run_ended(code: int | None, rows: list[dict[str, Any]], verdict: str) -> None:
    assert verdict_on(report(*rows, exit_code=code)) == verdict


NASTY = [
    "a | b || c",
    "<script>alert(1)</script> & &lt;b&gt;",
    "`code` ``more`` ```",
    "*strong* __init__ snake_case_name ~~gone~~",
    "[a](http://b) ![c](d) # e",
    r"a backslash \ at | its \| end \\",
    "assert {'a': \"x\"} == {}; where $HOME = 1 < 2",
    "two\nlines",
]


@pytest.mark.parametrize("reason", NASTY)
def test_a_reason_is_shown_as_it_is_in_a_table_and_in_a_list(reason: str) -> None:
    inside = report(row("a", "broken", reason), row("b", "not observed", reason), reason=reason, left_behind=[reason])

    text = shown(markdown(inside))

    line = " ".join(reason.split())
    assert f"\n{line}\ntest_a\n" in text
    assert f"not observed (1): {line}: objects/b\n" in text
    assert f"left behind, not removed: {line}\n" in text
    assert f"trouble: {line}\n" in text


def test_a_very_long_text_is_cut() -> None:
    assert escaped("x" * 5000) == "x" * 1000 + "..."


def test_the_summary_is_bounded_and_says_how_much_is_left_out() -> None:
    rows = [row(f"b{number}", "broken", "<ü>" * 300) for number in range(150)]
    rows += [row(f"n{number}", "not observed", f"{number} {'|' * 900}") for number in range(50)]

    text = markdown(report(*rows))

    assert LIMIT * 0.9 < len(text.encode()) < LIMIT
    (left_out,) = re.findall(
        r"^(\d+) more lines are left out here; behaviors.json has everything\.$", text, re.MULTILINE
    )
    assert text.count("| broken |") + text.count("- **not observed**") + int(left_out) == 200


def test_the_summary_is_appended_where_github_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary"
    file.write_text("earlier\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))

    append_to_step_summary("# Ü\n")

    assert file.read_text(encoding="utf-8") == "earlier\n# Ü\n\n"


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_is_appended_elsewhere(
    value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if value is not None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)

    append_to_step_summary("text")

    assert capsys.readouterr() == ("", "")


def test_a_step_summary_that_cannot_be_written_is_named_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))

    append_to_step_summary("text")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kubehave: the step summary cannot be written: [Errno 21] Is a directory")


def test_a_cluster_that_was_wrong_on_purpose_is_said_first() -> None:
    text = shown(markdown(report(row("torn", "broken", "why"), faults=[{"name": "no-x", "says": "There is no *x*."}])))

    assert "This cluster was wrong on purpose: There is no *x*." in text
    assert text.index("wrong on purpose") < text.index("torn")
