"""The behaviors as lines for a terminal: all of them, or one with its lessons; and the words that choose some of them."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from lessons import sources
from lessons.catalogue import NEEDS, TOPICS, Behavior, catalogue
from lessons.sources import in_order
from machine.exits import USAGE, CannotRun

#: Columns of a paragraph.
WIDTH = 100

#: Columns of the names of `explain`'s paragraphs.
NAMES = 14

#: How many ids are suggested for a name that does not exist.
SUGGESTED = 3


def listing(capabilities: Mapping[str, str | None] | None = None, only: Collection[str] | None = None) -> list[str]:
    """One line for each behavior, or for those with the ids `only`: its id, its topic and its needs, in columns.

    `capabilities` say of a cluster why it lacks each need, None if it has it. Then each line also says whether the
    cluster can show the behavior, and if not, why. Only a run finds out about needs that are not among them.
    """
    rows = [
        (it.id, it.topic, ", ".join(it.needs) or "-", _shown(it, capabilities))
        for it in in_order(catalogue().values())
        if only is None or it.id in only
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]


def _shown(behavior: Behavior, capabilities: Mapping[str, str | None] | None) -> str:
    """Whether a cluster with these capabilities can show the behavior; "" if there is no cluster."""
    if capabilities is None:
        return ""
    if behavior.planned:
        return "not yet: it has no test"
    needs = needs_of(behavior)
    for need in needs:
        if missing := capabilities.get(need):
            return f"not here: the cluster lacks {need}: {missing}"
    unknown = [need for need in needs if need not in capabilities]
    return f"only a run finds out: {', '.join(unknown)}" if unknown else "can be shown"


def needs_of(behavior: Behavior) -> list[str]:
    """What the behavior's tests need of the cluster: its own needs, and those of the other behaviors that they show."""
    shown = [name for lesson in lessons_of(behavior.id) for name in lesson.behaviors if name in catalogue()]
    return list(dict.fromkeys([*behavior.needs, *(need for name in shown for need in catalogue()[name].needs)]))


def lessons_of(behavior: str) -> list[sources.Lesson]:
    """The tests that show a behavior, in the order of their files."""
    return [lesson for lesson in sources.every().values() if behavior in lesson.behaviors]


def explain(name: str, report: Mapping[str, Any] | None = None) -> list[str]:
    """One behavior as lines: claim, correction, needs, last verdict, and the code and manifests of its tests.

    `name` is its id, or the last part of it. `report` is the last run's. Raises CannotRun if there is no such behavior.
    """
    behavior = catalogue()[found(name)]
    lines = [behavior.id, f"{behavior.topic}; from the document {behavior.document}", ""]
    lines += _paragraph("claim", behavior.says)
    lines += _paragraph("today", behavior.outdated or "")
    lines += _paragraph("observed", behavior.observe)
    for number, need in enumerate(behavior.needs):
        lines += _paragraph("" if number else "needs", f"{need}: {NEEDS[need]}")
    lines += _paragraph("last verdict", _last_verdict(behavior.id, report))
    lessons = lessons_of(behavior.id)
    for lesson in lessons:
        lines += ["", f"{lesson.file}:{lesson.line}", *textwrap.indent(lesson.code, "    ").splitlines()]
    manifests = {manifest.name: manifest.text for lesson in lessons for manifest in lesson.manifests}
    for file, text in manifests.items():
        lines += ["", f"manifests/{file}", *textwrap.indent(text.rstrip(), "    ").splitlines()]
    return lines


def _paragraph(name: str, text: str) -> Iterator[str]:
    """A paragraph with its name in the left column; nothing if the text is empty."""
    if text:
        begin, rest = f"{name}:".ljust(NAMES) if name else " " * NAMES, " " * NAMES
        yield from textwrap.wrap(
            " ".join(text.split()),
            WIDTH,
            initial_indent=begin,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _last_verdict(behavior: str, report: Mapping[str, Any] | None) -> str:
    row = next((row for row in (report or {}).get("behaviors", ()) if row.get("id") == behavior), None)
    if report is None or row is None:
        return ""
    run = report.get("run") or {}
    told = str(row.get("verdict"))
    if began := run.get("began"):
        told += f" ({str(began).replace('T', ' ').replace('Z', ' UTC')})"
    if context := run.get("context"):
        told += f" on {context}"
    return f"{told}: {row['reason']}" if row.get("reason") else told


# --- the words that choose


def found(name: str) -> str:
    """The id of the behavior that is called so: its id, or the last part of it. Raises CannotRun with suggestions."""
    if name in catalogue():
        return name
    if ids := _ending_in(name):
        return ids[0]
    raise CannotRun(f"there is no behavior {name!r}{_suggestion(near(name))}", USAGE)


def choose(names: Iterable[str]) -> set[str]:
    """The ids of the behaviors that these words choose, each of them an id, the last part of an id, a topic or a document.

    Topics may be written with underscores or hyphens. Raises CannotRun with suggestions if a word chooses nothing.
    """
    chosen: set[str] = set()
    for name in names:
        ids = {
            it.id for it in catalogue().values() if name in (it.id, it.document) or _as_topic(name) == it.topic
        } or set(_ending_in(name))
        if not ids:
            groups = [*TOPICS, *dict.fromkeys(it.document for it in catalogue().values())]
            close = [] if "/" in name else difflib.get_close_matches(_as_topic(name), groups, 1)
            raise CannotRun(
                f"there is no behavior, topic or document {name!r}{_suggestion(close or near(name))}", USAGE
            )
        chosen |= ids
    return chosen


def _as_topic(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")


def _ending_in(name: str) -> list[str]:
    """The id with this last part. Raises CannotRun if there are several."""
    ids = [each for each in catalogue() if each.partition("/")[2] == name]
    if len(ids) > 1:
        raise CannotRun(f"several behaviors are called {name!r}: {', '.join(ids)}", USAGE)
    return ids


def near(name: str) -> list[str]:
    """The ids of the behaviors whose names are most like this one; they may be none."""
    names = {each.partition("/")[2]: each for each in catalogue()}
    return [names[each] for each in difflib.get_close_matches(name.rpartition("/")[2], names, SUGGESTED)]


def _suggestion(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else "; ./verify --list prints all behaviors"
