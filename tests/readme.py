"""The generated parts of the README.

`python -m tests.readme` writes the example test, the reading path and the table of needs again.
`python -m tests.readme --failure CONTEXT` also runs that test on the cluster of a kube context, in a copy of the
checkout whose manifest has two replicas, and writes the failure.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lessons.catalogue import NEEDS, TOPICS, WALKTHROUGHS, catalogue

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

SUITE, TEST = "suites/test_replicasets.py", "test_three_replicas_are_three_pods_from_the_template"
MANIFEST = "manifests/replicasets/replicaset-nginx.yaml"

#: The most characters of a line of the failure, without the number in brackets.
WIDTH = 104

END = "<!-- end of the {} -->\n"
BEGIN = {
    "test": "<!-- test: python -m tests.readme -->\n",
    "reading path": "<!-- reading path: python -m tests.readme -->\n",
    "needs": "<!-- needs: python -m tests.readme -->\n",
    "failure": "<!-- failure: python -m tests.readme --failure CONTEXT -->\n",
}

#: The lines of the failure, in this order: the beginning of a line of pytest's output, and the number of its explanation.
EXPLAINED = (
    (f"{SUITE}:", ""),
    ("    ", "(1)"),
    ("E   AssertionError", "(2)"),
    ("E   still so after", "(3)"),
    ("E   last read:", "(4)"),
    ("E   namespace ", "(5)"),
    ("E     Pod ", ""),
    ("E     ReplicaSet ", ""),
    ("E     Event ", ""),
    ("E   the same test again:", "(6)"),
)


def reading_path() -> str:
    """One row for each topic that has a suite, in reading order, and one line for the topics without a suite."""
    topics: dict[str, list[bool]] = {topic: [] for topic in TOPICS}
    for behavior in catalogue().values():
        topics[behavior.topic].append(behavior.planned)
    rows = ["| topic | behaviors | tests | manifests |", "|---|---|---|---|"]
    for topic, planned in topics.items():
        name = topic.replace(" ", "_")
        if shown := planned.count(False):
            suite, folder = f"suites/test_{name}.py", f"manifests/{name}/"
            number = f"{shown}, counted apart" if topic == WALKTHROUGHS else f"{shown}"
            manifests = f"[{folder}]({folder})" if Path(ROOT, folder).is_dir() else "none of its own"
            rows.append(f"| {topic} | {number} | [{suite}]({suite}) | {manifests} |")
    waiting = [f"{topic} ({planned.count(True)})" for topic, planned in topics.items() if any(planned)]
    if waiting:
        rows += ["", f"Planned: {', '.join(waiting)}."]
    return "\n".join(rows) + "\n"


def needs() -> str:
    """One row for each need: its name in the catalogue and in reports, what it is, and how many behaviors have it."""
    rows = ["| need | what the cluster must have | behaviors |", "|---|---|---|"]
    behaviors = [entry for entry in catalogue().values() if not entry.is_walkthrough]
    for name, what in NEEDS.items():
        rows.append(f"| `{name}` | {what} | {sum(name in behavior.needs for behavior in behaviors)} |")
    return "\n".join(rows) + "\n"


def example() -> str:
    """The example test as it is in its suite, and the command that runs only this test."""
    text = (ROOT / SUITE).read_text(encoding="utf-8")
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == TEST]
    first = found[0].decorator_list[0].lineno - 1
    code = "\n".join(text.splitlines()[first : found[0].end_lineno])
    command = f"./verify --keep {SUITE} -k {TEST.removeprefix('test_')}"
    return (
        f"```python\n{code}\n```\n\nRun this lesson alone, on a cluster that stays for the next one:\n\n"
        f"```console\n$ {command}\n```\n"
    )


def failure(context: str) -> str:
    """What the example test and its run print if the manifest has two replicas."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "kubehave"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".tox", "report", ".*_cache", "__pycache__")
        )
        manifest = copy / MANIFEST
        manifest.write_text(manifest.read_text().replace("replicas: 3", "replicas: 2"))
        command = [sys.executable, "-m", "runner", "-p", "no:cacheprovider", "--context", context, f"{SUITE}::{TEST}"]
        printed = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False).stdout
    return f"```\n{annotated(printed)}\n```\n"


def annotated(printed: str) -> str:
    """The lines that the README explains, numbered, and the run's verdicts."""
    lines = printed.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{SUITE}:") and f"in {TEST}" in line)
    shown = []
    for begin, number in EXPLAINED:
        found = [line for line in lines[at:] if line.startswith(begin)]
        if found:
            line = found[0] if len(found[0]) <= WIDTH else f"{found[0][: WIDTH - 4]} ..."
            shown.append(f"{line:<{WIDTH}} {number}".rstrip() if number else line)
    verdicts = [line for line in lines if re.match(r"kubehave: (\d+ of \d+ behaviors |  )", line)]
    cut = [line if len(line) <= WIDTH else f"{line[: WIDTH - 4]} ..." for line in verdicts]
    return "\n".join([*shown, "", *cut])


def part(name: str, text: str) -> str:
    """The text between the marks of a generated part."""
    return text.partition(BEGIN[name])[2].partition(END.format(name))[0]


def written(name: str, text: str, content: str) -> str:
    """The text with new content between the marks of a generated part."""
    before, begin, rest = text.partition(BEGIN[name])
    _, end, after = rest.partition(END.format(name))
    if not (begin and end):
        raise SystemExit(f"README.md has no marks for the {name}")
    return before + begin + content + end + after


def main() -> None:
    """Write the generated parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failure", metavar="CONTEXT", help="run the example on this cluster and write its failure")
    context = parser.parse_args().failure
    text = README.read_text(encoding="utf-8")
    for name, content in {"test": example(), "reading path": reading_path(), "needs": needs()}.items():
        text = written(name, text, content)
    if context:
        text = written("failure", text, failure(context))
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
