"""Figures of several runs: their spread, and their ratios to the figures of another checkout.

A run's figures are numbers by name. A name begins with its group: "seconds/tests", "cpu/etcd", "requests/LIST pods".
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, float]
#: The median, the smallest and the largest of several numbers.
Spread = Mapping[str, float]

#: The requests that are shown: so many pairs of verb and resource.
LARGEST = 10


def grouped(group: str, figures: Figures) -> dict[str, float]:
    """These figures with the group in their names."""
    return {f"{group}/{name}": value for name, value in figures.items()}


def spread(values: Sequence[float]) -> Spread:
    """The median, the smallest and the largest."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


def spreads(runs: Sequence[Figures]) -> dict[str, Spread]:
    """The spread of every figure. A figure that a run lacks is 0 there."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: spread([run.get(name, 0) for run in runs]) for name in names}


def ratios(runs: Sequence[Figures], against: Sequence[Figures]) -> dict[str, Spread]:
    """The spread of each figure's ratios to the other checkout's, pair by pair: 0.8 is a fifth less.

    A figure that is 0 or missing in any run has no ratio.
    """
    names = [name for name in runs[0] if all(run.get(name) for run in [*runs, *against])]
    return {name: spread([new[name] / old[name] for new, old in zip(runs, against, strict=True)]) for name in names}


def shown(figures: Mapping[str, Spread]) -> list[str]:
    """The names of the figures to show: all, but of the requests only the sum and the largest."""
    requests = [name for name in figures if name.startswith("requests/")]
    requests.sort(key=lambda name: -figures[name]["median"])
    left_out = set(requests[LARGEST + 1 :])
    return [name for name in figures if name not in left_out and name not in requests] + requests[: LARGEST + 1]


def chosen(figures: Mapping[str, Spread], names: Iterable[str]) -> dict[str, Spread]:
    """The figures of these names, in their order, as far as they exist."""
    return {name: figures[name] for name in names if name in figures}


def readme(result: Mapping[str, Any]) -> str:
    """The README's lines, from the bench's JSON: what was measured, and a table. The figures are medians with their spread."""
    about, figures = result["about"], result["figures"]

    def cell(name: str, unit: str = "", digits: int = 0) -> str:
        found = figures[name]
        low, middle, high = (f"{found[key]:.{digits}f}" for key in ("min", "median", "max"))
        return f"{middle}{unit}" + ("" if low == high else f" ({low} to {high}{unit})")

    rows = [
        ("a cluster of four nodes, from nothing to ready", cell("seconds/cluster", " s")),
        (f"all {cell('count/tests')} tests on it", cell("seconds/tests", " s")),
        ("the cluster deleted", cell("seconds/clean-up", " s")),
        ("`./verify`, all of this", cell("seconds/whole run", " s")),
        ("CPU time of the nodes in the tests", cell("cpu/nodes", " s")),
        ("CPU time of the run's own processes in the tests", cell("cpu/the run's own processes", " s")),
        ("requests to the API server in the tests", cell("requests/all")),
        ("Pods that the tests create", cell("count/Pods")),
        ("memory at the peak, beyond what the machine used before", cell("memory/peak MiB", " MiB")),
    ]
    if specs := result.get("conformance"):
        seconds, cpu = specs["a_behavior_in_specs"]["seconds"], specs["a_behavior_in_specs"]["cpu"]
        what = f"a behavior, in specs of Kubernetes' own ({specs['specs']} specs on the same cluster)"
        rows.append((what, f"{seconds} in time, {cpu} in CPU time of the nodes"))
    lines = [
        f"Measured on {about['date']} at commit {about['commit']}, on {about['cores']} cores with {about['memory_gib']} GiB, "
        f"node image present, nothing else running: the median of {about['repeats']} runs (smallest to largest).",
        "",
        "| what | takes |",
        "|---|---|",
        *(f"| {what} | {takes} |" for what, takes in rows),
    ]
    return "\n".join(lines)
