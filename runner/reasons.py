"""Why a test ended as it did, in one line, for the summary, which shows no traceback.

For a failed assertion the line has its source, both values, pytest's "where" lines and what the test read last:

    assert len(pods) == 3: 2 == 3; where 2 = len([Pod a, Pod b]); last read: 2 Pods app=web: a is Running, Ready; b is ...
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.waiting import NO_LONGER_SO, STILL_SO
from runner.evidence import AGAIN, IMAGE_MISSING, LAST_READ, NAMESPACE, POD_REFUSED

#: The most characters of what failed, of each side of a comparison, and of each further part.
REASON, SIDE, MORE = 300, 120, 200

#: Exceptions whose names are left out, because they only repeat the verdict.
NAMELESS = ("AssertionError", "Inconclusive", "NotObserved", "Failed", "Skipped")

#: The beginning of a call of `fixtures.counting.exactly`, whose message says only the numbers and what was found.
COUNTS = "exactly("

NOTES = (STILL_SO, NO_LONGER_SO, LAST_READ, POD_REFUSED, IMAGE_MISSING, NAMESPACE, AGAIN)

#: The beginning of an exception's text: its class, with or without its module.
CLASS = re.compile(r"^(?:\w+\.)*([A-Z]\w*)(?:: |$)")


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The reason in one line of bounded length."""
    longrepr: Any = report.longrepr
    if isinstance(longrepr, tuple | list):
        return _one_line(str(longrepr[2]).removeprefix("Skipped: "), REASON)
    crash = getattr(longrepr, "reprcrash", None)
    text = str(crash.message) if crash else _text_of(str(longrepr or "no reason given"), report.when)
    traceback = getattr(longrepr, "reprtraceback", None)
    entries = list(getattr(traceback, "reprentries", ()))
    told = _Parts.of(text)
    parts = [*told.missing, told.what(_failed(entries)), *told.about]
    fixture = _fixture(entries) if report.when == "setup" else ""
    return fixture + "; ".join(parts) + (f" ({told.waited})" if told.waited else "")


def _text_of(text: str, when: str | None) -> str:
    """The text of a plain report; if a fixture does not exist or a suite cannot be imported, only the line that says so."""
    errors = [line.removeprefix("E").strip() for line in text.splitlines() if line.startswith("E ")] or [text]
    if when == "collect":
        return errors[-1]
    return errors[0] if text.startswith("file ") else text


def _one_line(text: str, limit: int) -> str:
    text = " ".join(line.strip() for line in text.strip().splitlines())
    return text if len(text) <= limit else f"{text[:limit]}..."


@dataclass
class _Parts:
    """The parts of a failure's text."""

    kind: str
    message: list[str] = field(default_factory=list)
    #: The assertion with values in place of its expressions, as pytest prints it.
    values: str = ""
    wheres: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    read: str = ""
    waited: str = ""
    #: The image that cannot be pulled, and the remedy.
    missing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> _Parts:
        lines = text.splitlines()
        begins = next((number for number, line in enumerate(lines) if line.startswith(NOTES)), len(lines))
        body, notes = lines[:begins] or [""], lines[begins:]
        named = CLASS.match(body[0])
        told = cls(named[1] if named else "")
        if named:
            body = [body[0][named.end() :], *body[1:]]
        explained = next((number for number, line in enumerate(body) if line.startswith("assert ")), len(body))
        told.message = [line.strip() for line in body[:explained] if line.strip()]
        told._explain([line.strip() for line in body[explained:]])
        told.waited = next((line for line in notes if line.startswith((STILL_SO, NO_LONGER_SO))), "")
        told.missing = [line.removeprefix(IMAGE_MISSING) for line in notes if line.startswith(IMAGE_MISSING)]
        told.read = next((line for line in notes if line.startswith(LAST_READ)), "")
        return told

    def _explain(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        self.values = lines[0].removeprefix("assert ")
        common = False
        for line in lines[1:]:
            if line.startswith("Full diff:"):
                return
            if line.startswith("+ "):
                self.wheres.append(" ".join(line[1:].split()))
            elif line and not common:
                common = line == "Common items:"
                if not common:
                    self.details.append(line)
            else:
                common = False

    def what(self, condition: str) -> str:
        """What failed: the assertion's message, or else the assertion itself with its values."""
        if self.message:
            name = "" if self.kind in NAMELESS or not self.kind else f"{self.kind}: "
            if condition.startswith(COUNTS):
                name = f"{_one_line(condition, SIDE)}: "
            return _one_line(name + "; ".join(self.message), REASON)
        if not self.values:
            return f"assert {condition}" if condition else self.kind or "no reason given"
        values = _both_sides(self.values)
        if not condition or condition == self.values:
            return _one_line(f"assert {values}", REASON)
        return f"assert {_one_line(condition, SIDE)}: {_one_line(values, REASON)}"

    @property
    def about(self) -> list[str]:
        """Further details of an assertion without a message, and what the test read last."""
        more = []
        if not self.message:
            more = [", ".join(self.wheres), " ".join(self.details)]
        return [_one_line(part, MORE) for part in (*more, self.read) if part]


def _both_sides(values: str) -> str:
    """A comparison in which each long side is cut, so that both sides can be seen."""
    left, middle, right = values.partition(" == ")
    if len(values) <= REASON or not middle:
        return values
    return f"{_one_line(left, SIDE)} == {_one_line(right, SIDE)}"


def _failed(entries: Iterable[Any]) -> str:
    """What failed, as it is in the source: the condition of an assert statement, or a call of `exactly`.

    "" if it is something else, or longer than one line.
    """
    last = list(entries)[-1:]
    lines = [line for entry in last for line in getattr(entry, "lines", ()) if not line.startswith("E ")]
    marked = [line[1:] for line in lines if line.startswith(">")] or lines
    for line in marked:
        source = line.strip()
        try:
            statement = ast.parse(f"{source} pass" if source.endswith(":") else source).body[0]
        except (SyntaxError, IndexError):
            continue
        if isinstance(statement, ast.Assert):
            return ast.get_source_segment(source, statement.test) or ""
        for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
            text = ast.get_source_segment(source, call) or ""
            if text.startswith(COUNTS):
                return text
    return ""


def _fixture(entries: Iterable[Any]) -> str:
    """The fixture that failed: its function is the first one in the traceback."""
    for entry in entries:
        where = str(getattr(getattr(entry, "reprfileloc", None), "message", ""))
        return f"fixture {where.removeprefix('in ')}: " if where.startswith("in ") else ""
    return ""
