"""The expected verdict of each behavior, and the differences of a report from that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lessons.catalogue import Behavior
from lessons.verdict_names import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED

#: The verdicts, in the order of a table's columns.
VERDICTS = (HOLDS, BROKEN, NOT_OBSERVED, INCONCLUSIVE, IN_PART, PLANNED)


@dataclass(frozen=True)
class Expected:
    """The expected exit code and verdicts. Every behavior that is not planned must hold, unless a field here names it.

    Behaviors are named by id, or in groups: "topic ingress", "need multi-node".
    """

    code: int = 0
    not_observed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    #: Tests that never reached their assertions, because their set-up needs something that is missing here.
    inconclusive: tuple[str, ...] = ()
    #: A behavior may also be "not observed" if its reason matches this expression.
    not_observed_because: str | None = None
    #: At least so many behaviors must hold, whatever the expression allows.
    at_least: int = 1


def named(selector: str, behaviors: Mapping[str, Behavior]) -> set[str]:
    """The ids of the behaviors that a selector names. Raises ValueError if there is none."""
    kind, _, name = selector.partition(" ")
    if kind == "topic":
        found = {behavior.id for behavior in behaviors.values() if behavior.topic == name}
    elif kind == "need":
        found = {behavior.id for behavior in behaviors.values() if name in behavior.needs}
    else:
        found = {selector} & set(behaviors)
    if not found:
        raise ValueError(f"the catalogue has no {selector}")
    return found


def wanted(expected: Expected, behaviors: Mapping[str, Behavior]) -> dict[str, str]:
    """The verdict that each behavior must have, by id. Broken has precedence, then inconclusive, then not observed."""
    verdicts = {behavior.id: PLANNED if behavior.planned else HOLDS for behavior in behaviors.values()}
    groups = (
        (NOT_OBSERVED, expected.not_observed),
        (INCONCLUSIVE, expected.inconclusive),
        (BROKEN, expected.broken),
    )
    for verdict, selectors in groups:
        for selector in selectors:
            for name in named(selector, behaviors):
                if verdicts[name] != PLANNED:
                    verdicts[name] = verdict
    return verdicts


def differences(
    expected: Expected, code: int, report: Mapping[str, Any], behaviors: Mapping[str, Behavior], chosen: bool = False
) -> list[str]:
    """One line for each difference of an exit code and a behaviors.json from what is expected.

    `chosen` says that only a few tests were chosen. Then no behavior may be broken, and none needs to hold.
    """
    lines = [] if code == expected.code else [f"exit code {code}, not {expected.code}"]
    rows = {row["id"]: row for row in report.get("behaviors", ())}
    if chosen:
        failed = [row for row in rows.values() if row["verdict"] in (BROKEN, INCONCLUSIVE)]
        return [*lines, *(f"{row['id']}: {row['verdict']} ({row['reason']})" for row in failed)]
    verdicts = wanted(expected, behaviors)
    if missing := [name for name in verdicts if name not in rows]:
        first = ", ".join([*missing[:5], *(["..."] if missing[5:] else [])])
        lines.append(f"{len(missing)} behaviors are not in the report: {first}")
    for name, verdict in verdicts.items():
        if name not in rows:
            continue
        found, reason = rows[name]["verdict"], rows[name].get("reason") or ""
        if found == verdict or (found == NOT_OBSERVED and verdict == HOLDS and _allowed(expected, reason)):
            continue
        lines.append(f"{name}: {found} instead of {verdict}" + (f" ({reason})" if reason else ""))
    lines += [f"{name}: it is not in the catalogue" for name in rows if name not in behaviors]
    held = counts(rows.values())[HOLDS]
    if held < expected.at_least:
        lines.append(f"{held} behaviors hold, not at least {expected.at_least}")
    return lines


def _allowed(expected: Expected, reason: str) -> bool:
    return expected.not_observed_because is not None and re.search(expected.not_observed_because, reason) is not None


def counts(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many behaviors have each verdict."""
    return Counter(str(row["verdict"]) for row in rows)
