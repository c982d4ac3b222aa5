"""What a run must say of every behavior, and where its report says something else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.catalogue import Behavior
from runner.verdicts import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED

#: The verdicts, in the order of a table's columns.
VERDICTS = (HOLDS, BROKEN, NOT_OBSERVED, INCONCLUSIVE, IN_PART, PLANNED)


@dataclass(frozen=True)
class Expected:
    """The exit code, and the verdict of each behavior that is not planned: "holds", unless something here says otherwise.

    Behaviors are named by their ids, or in groups: "topic ingress", "need multi-node".
    """

    code: int = 0
    not_observed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    #: Never reached their assertions, because what is missing here is part of their set-up.
    inconclusive: tuple[str, ...] = ()
    #: A behavior may also be "not observed" if its reason matches this expression.
    not_observed_because: str | None = None
    #: At least so many behaviors hold, whatever the expression allows.
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
    """The verdict that each behavior must have, by id. Broken goes first, then inconclusive, then not observed."""
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
    """Where an exit code and a behaviors.json are not as expected, a line each.

    `chosen` says that the run was to look at a few tests only: it must break nothing, and need not show anything.
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
    lines += [f"{name}: the catalogue does not have it" for name in rows if name not in behaviors]
    held = counts(rows.values())[HOLDS]
    if held < expected.at_least:
        lines.append(f"{held} behaviors hold, not {expected.at_least} or more")
    return lines


def _allowed(expected: Expected, reason: str) -> bool:
    return expected.not_observed_because is not None and re.search(expected.not_observed_because, reason) is not None


def counts(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many behaviors have each verdict."""
    return Counter(str(row["verdict"]) for row in rows)
