"""The names of the verdicts, which one of several counts, and the lines that sum up a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lessons.catalogue import WALKTHROUGHS

HOLDS, BROKEN, INCONCLUSIVE = "holds", "broken", "inconclusive"
NOT_OBSERVED, IN_PART, PLANNED = "not observed", "in part", "planned"

NEVER_BEGAN, DID_NOT_END = "its test never began", "its test began and did not end"
NOT_COLLECTED = "its tests could not be collected"

#: The worst verdict first. The worst one of a test's phases, or of a behavior's tests, counts.
RANK = {verdict: rank for rank, verdict in enumerate((BROKEN, INCONCLUSIVE, NOT_OBSERVED, HOLDS))}


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The verdicts as lines for the terminal: a count of each, then every behavior that does not hold, with its reason."""
    groups: dict[str, list[dict[str, Any]]] = {"behaviors": [], "walkthroughs": []}
    for row in rows:
        groups["walkthroughs" if row["id"].startswith(f"{WALKTHROUGHS}/") else "behaviors"].append(row)
    lines = ["; ".join(_counts(what, some) for what, some in groups.items() if some) or _counts("behaviors", [])]
    unseen = (NEVER_BEGAN, NOT_COLLECTED)
    for verdict in (BROKEN, INCONCLUSIVE):
        for row in rows:
            if row["verdict"] == verdict and row["reason"] not in unseen:
                test = row["decided_by"].rpartition("::")[2]
                lines.append(f"  {verdict}: {row['id']}, {test}: {row['reason']}")
    shared = [row for row in rows if row["verdict"] in (NOT_OBSERVED, IN_PART) or row["reason"] in unseen]
    for (verdict, reason), ids in _by_reason(shared).items():
        lines.append(f"  {verdict}: {reason}: {', '.join(ids)}")
    for remark, ids in _by_remark(rows).items():
        lines.append(f"  {remark}: {', '.join(ids)}")
    return lines


def _counts(what: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """How many of these hold, and of each other verdict: "161 of 163 behaviors hold, 1 broken, 1 not observed"."""
    counts = Counter(row["verdict"] for row in rows)
    planned = f" ({counts[PLANNED]} more are planned)" if counts[PLANNED] else ""
    others = [verdict for verdict in (BROKEN, INCONCLUSIVE, NOT_OBSERVED, IN_PART) if counts[verdict]]
    holding = f"{counts[HOLDS]} of {counts.total() - counts[PLANNED]} {what} hold"
    return ", ".join([holding, *(f"{counts[verdict]} {verdict}" for verdict in others)]) + planned


def _by_reason(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Ids by their verdict and reason, so that a reason that several behaviors share is printed once."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["verdict"], row["reason"]), []).append(row["id"])
    return found


def _by_remark(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        for remark in row.get("remarks", ()):
            found.setdefault(remark, []).append(row["id"])
    return found
