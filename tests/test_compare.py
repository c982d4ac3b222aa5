"""The comparison of two reports: its kinds of change, its exit code, its warnings, and its forms."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lessons.compare import LOST, MENDED, NEWLY_BROKEN, NEWLY_SEEN, compare, compare_page, read
from machine.exits import CannotRun
from runner.__main__ import joined

VERDICTS = ("holds", "broken", "inconclusive", "not observed", "in part", "planned")


def report(
    verdicts: dict[str, str] | None = None, seconds: dict[str, float] | None = None, **run: Any
) -> dict[str, Any]:
    """A report with these behaviors and with tests that held and took so long."""
    rows: list[dict[str, Any]] = [
        {"id": f"objects/{name}", "topic": "pods", "says": f"It is {name}.", "verdict": verdict}
        | {"reason": None if verdict == "holds" else f"why {name}", "tests": [], "seconds": 1.0}
        for name, verdict in (verdicts or {"pod": "holds"}).items()
    ]
    tests = {
        f"suites/test_x.py::test_{name}": {"verdict": "holds", "seconds": took, "waited": {}}
        for name, took in (seconds or {}).items()
    }
    return {"run": {"exit_code": 0, "reason": None, **run}, "behaviors": rows, "tests": tests}


def changes(old: dict[str, str], new: dict[str, str]) -> dict[str, list[str]]:
    """The ids by the kind of their change, without kinds that have none."""
    found = compare(report(old), report(new)).changes
    return {kind: [it.id.removeprefix("objects/") for it in some] for kind, some in found.items() if some}


BAD, UNSEEN = ("broken", "inconclusive"), ("not observed", "in part", "planned")


@pytest.mark.parametrize("before", VERDICTS)
@pytest.mark.parametrize("after", VERDICTS)
def test_every_pair_of_verdicts_is_one_kind_of_change_or_none(before: str, after: str) -> None:
    kinds = {
        NEWLY_BROKEN: before not in BAD and after in BAD,
        LOST: before == "holds" and after in UNSEEN,
        NEWLY_SEEN: before in UNSEEN and after == "holds",
        MENDED: before in BAD and after == "holds",
    }

    assert changes({"pod": before}, {"pod": after}) == {kind: ["pod"] for kind, applies in kinds.items() if applies}


@pytest.mark.parametrize(
    ("verdict", "gone", "came"),
    [
        ("holds", LOST, NEWLY_SEEN),
        ("broken", None, NEWLY_BROKEN),
        ("inconclusive", None, NEWLY_BROKEN),
        ("not observed", None, None),
        ("in part", None, None),
        ("planned", None, None),
    ],
)
def test_a_behavior_that_only_one_run_has(verdict: str, gone: str | None, came: str | None) -> None:
    assert changes({"a": "holds", "b": verdict}, {"a": "holds"}) == ({gone: ["b"]} if gone else {})
    assert changes({"a": "holds"}, {"a": "holds", "b": verdict}) == ({came: ["b"]} if came else {})


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("holds", "holds", 0),
        ("holds", "broken", 1),
        ("holds", "not observed", 1),
        ("not observed", "holds", 0),
        ("broken", "holds", 0),
        ("broken", "broken", 0),
    ],
)
def test_only_a_step_back_is_no_success(old: str, new: str, code: int) -> None:
    assert compare(report({"a": old}), report({"a": new})).exit_code == code


@pytest.mark.parametrize(
    ("before", "after", "slower"),
    [(4.0, 6.1, True), (4.0, 6.0, False), (1.0, 2.9, False), (1.0, 3.0, True), (60.0, 80.0, False), (9.0, 3.0, False)],
)
def test_slower_is_more_than_half_as_long_again_and_at_least_two_seconds(
    before: float, after: float, slower: bool
) -> None:
    found = compare(report(seconds={"a": before}), report(seconds={"a": after})).slower

    assert [it.what for it in found] == (["suites/test_x.py::test_a"] if slower else [])


def test_times_of_a_test_that_did_not_pass_twice_are_not_compared() -> None:
    old, new = report(seconds={"a": 1.0}), report(seconds={"a": 60.0, "b": 60.0})
    new["tests"]["suites/test_x.py::test_a"]["verdict"] = "inconclusive"

    assert compare(old, new).slower == []
    old["tests"]["suites/test_x.py::test_a"]["verdict"] = "inconclusive"
    assert compare(old, new).slower == []


def test_all_tests_together_come_first_and_then_the_largest_loss() -> None:
    old = report(seconds={"a": 2.0, "b": 2.0}, phases={"tests": 100.0})
    new = report(seconds={"a": 6.0, "b": 9.0}, phases={"tests": 160.0})

    assert [it.line for it in compare(old, new).slower] == [
        "all tests: 100.0 s -> 160.0 s",
        "suites/test_x.py::test_b: 2.0 s -> 9.0 s",
        "suites/test_x.py::test_a: 2.0 s -> 6.0 s",
    ]


def of_cluster(version: str, nodes: int) -> dict[str, Any]:
    """What a report says of a cluster."""
    return {"kubernetes": version, "nodes": [{"name": f"node{number}"} for number in range(nodes)]}


def test_runs_that_are_not_alike_are_compared_with_a_warning() -> None:
    old = report(seconds=dict.fromkeys("abcde", 2.0), cluster=of_cluster("v1.35.1", 4), workers=8)
    new = report(seconds=dict.fromkeys("abcde", 3.0), cluster=of_cluster("v1.36.3", 1), workers=2)

    version, nodes, workers, speed = compare(old, new).warnings

    assert version == "not the same version of Kubernetes: v1.35.1 and v1.36.3"
    assert nodes == "not the same number of nodes: 4 and 1"
    assert workers == "not the same number of tests at a time: 8 and 2"
    assert speed.startswith("not the same speed: the tests took 1.5 times as long as before (the median of 5), ")


def test_runs_that_are_alike_have_no_warning() -> None:
    old = report(seconds=dict.fromkeys("abcde", 2.0), cluster=of_cluster("v1.36.3", 4), workers=8)
    new = report(seconds=dict.fromkeys("abcde", 2.2), cluster=of_cluster("v1.36.3", 4), workers=8)

    assert compare(old, new).warnings == []


def test_a_run_without_an_end_and_one_without_verdicts_are_named() -> None:
    empty = {"run": {"exit_code": 12, "reason": "there is no engine"}, "behaviors": [], "tests": {}}
    broken_off = report(exit_code=None)

    assert compare(empty, broken_off).warnings == [
        "the old report has no verdicts: there is no engine",
        "the new run did not end: its report has the results so far",
    ]


OLD = report(
    {"torn": "holds", "gone": "holds", "found": "not observed", "healed": "broken", "same": "holds"},
    {"a": 2.0},
    began="2026-11-29T19:08:20Z",
    version="0.1 (d892832)",
    command=["./verify", "--keep"],
    cluster=of_cluster("v1.35.1", 4),
    own_cluster=True,
)
NEW = report(
    {"torn": "broken", "found": "holds", "healed": "holds", "same": "holds"},
    {"a": 8.0},
    began="2026-11-30T19:08:20Z",
    version="0.2 (e63ce33)",
    command=["./verify", "--context", "a<b>"],
    cluster=of_cluster("v1.36.3", 4),
    context="a<b>",
)


def test_the_lines_name_both_runs_and_what_changed() -> None:
    assert compare(OLD, NEW).lines() == [
        "old: 2026-11-29T19:08:20Z; kubehave 0.1 (d892832); Kubernetes v1.35.1, 4 nodes, the suite's own cluster; "
        "./verify --keep",
        "new: 2026-11-30T19:08:20Z; kubehave 0.2 (e63ce33); Kubernetes v1.36.3, 4 nodes, context a<b>; "
        "./verify --context a<b>",
        "warning: not the same version of Kubernetes: v1.35.1 and v1.36.3",
        "  newly broken: objects/torn: holds -> broken: why torn",
        "  lost from sight: objects/gone: holds -> not there",
        "  newly seen: objects/found: not observed -> holds",
        "  mended: objects/healed: broken -> holds",
        "  slower by half: suites/test_x.py::test_a: 2.0 s -> 8.0 s",
        "1 newly broken, 1 lost from sight, 1 newly seen, 1 mended, 1 slower by half",
    ]


def test_a_comparison_without_changes_says_so() -> None:
    assert compare(report(), report()).lines() == [
        "old: unknown",
        "new: unknown",
        "nothing newly broken, nothing lost from sight",
    ]


def test_the_markdown_has_the_same_and_is_escaped() -> None:
    text = compare(OLD, NEW).markdown()

    assert text.startswith("# kubehave, two runs: 1 newly broken, 1 lost from sight, 1 newly seen, 1 mended, 1 slower")
    assert "## Newly broken\n\n- objects/torn: holds -\\> broken: why torn\n" in text
    assert "- suites/test\\_x.py::test\\_a: 2.0 s -\\> 8.0 s\n" in text
    assert "**Warning**: not the same version of Kubernetes: v1.35.1 and v1.36.3." in text
    assert "a\\<b\\>" in text


def test_the_page_has_the_same_and_is_escaped() -> None:
    page = compare_page(OLD, NEW)

    text = " ".join(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]).split())
    for part in (
        "1 newly broken, 1 lost from sight",
        "2026-11-29T19:08:20Z",
        "./verify --context a&lt;b&gt;",
        "Warning : not the same version of Kubernetes: v1.35.1 and v1.36.3.",
        "It is torn. objects/torn why torn holds broken",
        "It is gone. objects/gone holds not there",
        "suites/test_x.py::test_a 2.0 s 8.0 s",
    ):
        assert part in text
    assert "same" not in re.findall(r"objects/(\w+)", page)
    assert re.findall(r"(?:src|href)=\"(?!#|data:)", page) == []


def test_a_page_without_changes_and_without_knowledge_can_be_made() -> None:
    page = compare_page(report(), report())

    assert page.count("unknown") == 8
    assert page.count("<table") == 1


# --- the command line


def stored(folder: Path, content: dict[str, Any]) -> Path:
    """A folder with this report."""
    folder.mkdir(parents=True)
    (folder / "behaviors.json").write_text(json.dumps(content))
    return folder


Verify = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def verify(root: Path, tmp_path: Path) -> Verify:
    """`./verify` with a cache and a kubeconfig of its own."""

    def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "KUBECONFIG": str(tmp_path / "kubeconfig"), "PATH": "/none"}
        return subprocess.run(
            [sys.executable, "-m", "runner", "-n", "auto", "--dist", "loadgroup", *map(str, args)],
            cwd=root,
            env=os.environ | own | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_two_reports_are_compared_without_a_run(verify: Verify, root: Path, tmp_path: Path) -> None:
    old, new = stored(tmp_path / "old", OLD), stored(tmp_path / "new", NEW)
    before = {path: path.stat().st_mtime_ns for path in (root / "report").glob("*")}

    done = verify(
        "--compare",
        old,
        new / "behaviors.json",
        "--report",
        tmp_path / "page",
        GITHUB_STEP_SUMMARY=str(tmp_path / "step"),
    )

    assert (done.returncode, done.stderr) == (1, "")
    *lines, page = done.stdout.splitlines()
    assert lines == [f"kubehave: {line}" for line in compare(OLD, NEW).lines()]
    assert page == f"kubehave: page: {tmp_path}/page/compare.html"
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["compare.html"]
    assert (tmp_path / "step").read_text() == compare(OLD, NEW).markdown() + "\n"
    assert {path: path.stat().st_mtime_ns for path in (root / "report").glob("*")} == before


def test_a_comparison_that_cannot_be_made_is_a_usage_error_in_one_line(verify: Verify, tmp_path: Path) -> None:
    new = stored(tmp_path / "new", NEW)

    done = verify("--compare", tmp_path / "none.json", new, "--report", new)

    line = f"kubehave: {tmp_path}/none.json cannot be read: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, "", line)
    assert json.loads((new / "behaviors.json").read_text()) == NEW


def test_a_page_that_cannot_be_written_is_named(verify: Verify, tmp_path: Path) -> None:
    old, new = stored(tmp_path / "old", OLD), stored(tmp_path / "new", NEW)

    done = verify("--compare", old, new, "--report", old / "behaviors.json")

    assert (done.returncode, done.stdout) == (12, "")
    assert done.stderr.startswith("kubehave: the page cannot be written: [Errno 17] File exists")
    assert len(done.stderr.splitlines()) == 1


def test_the_exit_code_does_not_depend_on_who_reads_the_lines(root: Path, tmp_path: Path) -> None:
    old, new = stored(tmp_path / "old", OLD), stored(tmp_path / "new", NEW)
    command = [sys.executable, "-m", "runner", "--compare", str(old), str(new)]

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=root, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("\xff", "is not JSON: 'utf-8' codec can't decode"),
        ("[]", "is not a report: docs/behaviors.schema.json says what a report has"),
        ('{"run": {}, "behaviors": [{"id": "a/b"}], "tests": {}}', "is not a report: "),
        ('{"run": {}, "behaviors": [], "tests": {"a": {"verdict": "holds"}}}', "is not a report: "),
        ('{"run": {"phases": {"tests": "1"}}, "behaviors": [], "tests": {}}', "is not a report: "),
    ],
)
def test_what_is_no_report_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "behaviors.json"
    file.write_bytes(content.encode("latin-1"))

    with pytest.raises(CannotRun, match=re.escape(f"{file} {complaint}")) as refusal:
        read(tmp_path)

    assert refusal.value.exit_code == 4
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--compare", "a", "b", "-q"], ["--compare=a", "--compare=b", "-q"]),
        (["--compare=a", "b", "c"], ["--compare=a", "--compare=b", "c"]),
        (["--compare", "a", "--report", "b", "c"], ["--compare=a", "--report=b", "c"]),
        (["--compare"], ["--compare"]),
        (["--report", "a", "b"], ["--report=a", "b"]),
        (["--report=a", "b"], ["--report=a", "b"]),
        (["--report", "-x", "b"], ["--report", "-x", "b"]),
        (["--junitxml=a", "b"], ["--junitxml=a", "b"]),
    ],
)
def test_pytest_takes_no_path_of_an_option_for_that_of_its_tests(args: list[str], words: list[str]) -> None:
    assert joined(args) == words


def test_one_report_is_too_few(verify: Verify, tmp_path: Path) -> None:
    done = verify("--compare", stored(tmp_path / "old", OLD))

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "kubehave: --compare needs two reports: --compare OLD NEW\n"
