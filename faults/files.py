"""The faults: the files `faults/<kind>/<name>.yaml`.

A file has these keys:

- `says`: one sentence, what is wrong with this cluster,
- `make`: how it is made so: steps of `faults.steps` (`steps_of` has their order); they are undone in the opposite order,
- `breaks`: the behaviors that it must break,
- `others`: what else it may do: the verdicts `broken` and `inconclusive`, each with ids, topics or documents, or `all`.

Under a disturbance (`faults/disturbances/`) everything must still hold, so it breaks nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from fixtures.manifests import Loader
from lessons.catalogue import TOPICS, catalogue
from machine.exits import USAGE, CannotRun

FOLDER = Path(__file__).parent

KINDS = {
    "admission": "policies alter objects as they are stored, or refuse them",
    "controllers": "a controller is switched off, or set in another way",
    "nodes": "something on a node, or in the cluster's network, does one thing wrong",
    "control_plane": "a part of the control plane has another configuration",
    "answers": "an answer of the API server, or a command of kubectl, is altered on its way",
    "disturbances": "the cluster is disturbed, and everything must still hold",
}


#: The keys of what is given to a step, for those steps that do not take any. `faults.steps` says what they mean.
KEYS: Mapping[str, set[str]] = {
    "alters": {"resource", "operations", "when", "patches"},
    "refuses": {"resource", "operations", "when", "says"},
    "patch": {"kind", "namespace", "name", "change", "undo", "restart"},
    "on-nodes": {"nodes", "run", "undo"},
    "containers": {"nodes", "change"},
    "again": {"nodes", "run", "every"},
    "answers": {"method", "path", "sends", "drops", "status", "becomes", "replace"},
    "kubectl": {"when", "run"},
}


@dataclass(frozen=True)
class Fault:
    """One way in which a cluster can be wrong."""

    name: str
    kind: str
    says: str
    make: Sequence[Mapping[str, Any]]
    breaks: frozenset[str]
    may_break: frozenset[str]
    may_be_inconclusive: frozenset[str]

    @property
    def digest(self) -> str:
        """A digest of what it does to a cluster: 12 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.make).encode()).hexdigest()[:12]


def parse(kind: str, name: str, given: Mapping[str, Any]) -> Fault:
    """One file's fault. Raises ValueError that names the file and what is wrong with it."""
    if unknown := given.keys() - {"says", "make", "breaks", "others"}:
        raise ValueError(f"{kind}/{name}: unknown key {', '.join(sorted(unknown))}")
    if missing := {"says", "make"} - given.keys():
        raise ValueError(f"{kind}/{name}: missing {', '.join(sorted(missing))}")
    breaks, others = frozenset(given.get("breaks", ())), given.get("others", {})
    if unknown := others.keys() - {"broken", "inconclusive"}:
        raise ValueError(f"{kind}/{name}: others: unknown verdict {', '.join(sorted(unknown))}")
    for step, keys in ((step, keys) for part in given["make"] for step, keys in part.items() if step in KEYS):
        for one in keys if isinstance(keys, list) else [keys]:
            if unknown := {str(key) for key in one.keys() - KEYS[step]}:  # YAML takes `on` for a boolean
                raise ValueError(f"{kind}/{name}: {step}: unknown key {', '.join(sorted(unknown))}")
    if strange := sorted(breaks - catalogue().keys()):
        raise ValueError(f"{kind}/{name}: breaks: no behavior {', '.join(strange)}")
    if bool(breaks) == (kind == "disturbances"):
        raise ValueError(f"{kind}/{name}: a fault breaks something, and a disturbance breaks nothing")
    return Fault(
        name,
        kind,
        " ".join(given["says"].split()),
        given["make"],
        breaks,
        *(frozenset(_ids(f"{kind}/{name}", others.get(verdict, ()))) for verdict in ("broken", "inconclusive")),
    )


def _ids(where: str, names: Sequence[str]) -> Iterator[str]:
    """The behaviors that these ids, topics and documents stand for."""
    for name in names:
        found = [it.id for it in catalogue().values() if name in ("all", it.id, it.topic, it.document)]
        if not found and name not in TOPICS:
            raise ValueError(f"{where}: others: no behavior, topic or document {name!r}")
        yield from found


@cache
def faults() -> dict[str, Fault]:
    """Every fault by its name, kind by kind. Raises ValueError if a name is used twice."""
    found: dict[str, Fault] = {}
    for kind in KINDS:
        for path in sorted((FOLDER / kind).glob("*.yaml")):
            fault = parse(kind, path.stem, yaml.load(path.read_text(encoding="utf-8"), Loader))
            if fault.name in found:
                raise ValueError(f"{kind}/{fault.name}: this name is used twice")
            found[fault.name] = fault
    return found


def named(name: str) -> Fault:
    """The fault of this name. Raises CannotRun that suggests names."""
    if name in faults():
        return faults()[name]
    close = difflib.get_close_matches(name, faults(), n=3)
    raise CannotRun(
        f"no fault {name!r}" + (f"; did you mean {', '.join(close)}?" if close else "; see --faults"), USAGE
    )


def listing() -> Iterator[str]:
    """The faults for people: kind by kind, each with its sentence and the number of behaviors that it must break."""
    for kind, what in KINDS.items():
        yield f"{kind.replace('_', ' ')}: {what}"
        for fault in faults().values():
            if fault.kind == kind:
                breaks = f" (breaks {len(fault.breaks)})" if fault.breaks else ""
                yield f"  {fault.name}: {fault.says}{breaks}"
