"""Makes clusters wrong in known ways, runs the suites on them, and checks which behaviors are broken.

`tox run -e faults` does this for every fault whose result is missing or out of date; an interrupted run goes on where it
stopped. Faults that cannot be mistaken for one another are made at once: none may break, or make inconclusive, what another
one must break. One that has not broken all that it must is run again by itself, because another one may have hidden it. A
fault under which anything may be inconclusive is run only on what it must break. `tox run -e faults -- NAME...` runs each of
these faults anew, by itself. Each result is stored in docs/faults.json, and docs/faults.md is generated from that file.
`--table` only writes docs/faults.md.

`--few NAME...` runs only the tests of what a fault must break, and five others, on one cluster that is made right again after
each fault. `--few` alone makes one cluster wrong in five ways at once, one of each kind, and does the same; the cluster goes
after that. Nothing is stored.

Exit code 1: a behavior that must break holds, one that must hold is broken or inconclusive, or, after all faults, there is a
behavior that no fault breaks.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.files import KINDS, Fault, faults, named
from lessons.catalogue import WALKTHROUGHS, Behavior, catalogue
from lessons.sources import every, function_of
from lessons.verdict_names import BROKEN, HOLDS, INCONCLUSIVE
from machine.exits import BROKEN as WRONG
from machine.exits import INTERRUPTED, CannotRun
from machine.signals import interrupted_by_signals
from machine.steps import duration

ROOT = Path(__file__).parent.parent
RESULTS, TABLE = ROOT / "docs" / "faults.json", ROOT / "docs" / "faults.md"

#: What tests are made of. If it changes, all results are out of date.
OF_TESTS = ("behaviors", "fixtures", "manifests", "suites")

#: Behaviors that hardly any fault concerns, and whose tests are short. `--few` runs them beside what must break.
INNOCENTS = (
    "core-concepts/containers-of-a-pod-share-localhost-and-storage",
    "objects/logs-of-a-pod",
    "core-concepts/metadata-is-typed-labels-are-free",
    "core-concepts/targetport-defaults-to-port",
    "core-concepts/replicaset-adopts-earlier-pods",
)

#: The faults of `--few` alone: one of each kind that breaks something. They do not hide one another, and are seen soon.
FEW = (
    "pods-of-nginx-are-all-localhost",
    "no-leader-of-the-controllers",
    "one-node-is-in-two-networks",
    "an-old-key-is-left-in-etcd",
    "a-replace-of-nothing-succeeds",
)

#: How many faults are made at once at most. With more, one run takes longer than two runs of half as many.
AT_ONCE = 16

Result = dict[str, Any]


def say(line: str) -> None:
    """Print one line of progress."""
    print(f"faults: {line}", flush=True)


def digest_of_tests() -> str:
    """A digest of everything that tests are made of: 12 hexadecimal digits."""
    whole = hashlib.sha256()
    for folder in OF_TESTS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                whole.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def problems(fault: Fault, result: Result) -> Iterator[str]:
    """What a run on the wrong cluster has shown that the fault's file does not say, one line each."""
    for name in sorted(fault.breaks - result[BROKEN].keys()):
        found = f"it is inconclusive ({result[INCONCLUSIVE][name]})" if name in result[INCONCLUSIVE] else "it holds"
        yield f"{name} must be broken, but {found}"
    for verdict, allowed in ((BROKEN, fault.may_break), (INCONCLUSIVE, fault.may_be_inconclusive)):
        for name in sorted(result[verdict].keys() - fault.breaks - allowed):
            yield f"{name} must hold, but it is {verdict}: {result[verdict][name]}"


def result_of(faults: Sequence[Fault], report: Mapping[str, Any], seconds: float) -> Result:
    """What is stored about a run on the wrong cluster."""
    by_verdict = {
        verdict: {row["id"]: _lasting(row["reason"]) for row in report["behaviors"] if row["verdict"] == verdict}
        for verdict in (BROKEN, INCONCLUSIVE)
    }
    return {
        "faults": {fault.name: fault.digest for fault in faults},
        "tests": digest_of_tests(),
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds),
        "holds": sum(row["verdict"] == HOLDS for row in report["behaviors"]),
        **by_verdict,
        "broken_tests": sorted({function_of(it) for it, one in report["tests"].items() if one["verdict"] == BROKEN}),
    }


def _lasting(reason: str) -> str:
    """A reason without what is another one in each run: temporary folders and addresses in memory."""
    return re.sub(r"/tmp/[^\s\"']*/| at 0x[0-9a-f]+", "", reason)


def run(names: Sequence[str], options: Sequence[str]) -> tuple[int, dict[str, Any] | None]:
    """Run ./verify on a cluster with these faults; its exit code and its report, if it came to its tests."""
    with tempfile.TemporaryDirectory(prefix="kubehave-faults-") as folder:
        faults = [part for name in names for part in ("--fault", name)]
        command = [str(ROOT / "verify"), *faults, "--report", folder, *options]
        # A pipeline's own page is not about clusters that are wrong on purpose.
        env = os.environ | {"GITHUB_STEP_SUMMARY": ""}
        code = subprocess.run(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode
        report = json.loads((Path(folder) / "behaviors.json").read_text(encoding="utf-8"))
    return code, report if report["behaviors"] else None


def stored() -> list[Result]:
    """The results so far."""
    return list(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else []


def store(results: Sequence[Result]) -> None:
    """Write the results that are the latest of a fault that exists, and the table."""
    kept = [one for one in results if any(latest(name, results) is one for name in one["faults"] if name in faults())]
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    TABLE.write_text("\n".join(table(kept)) + "\n", encoding="utf-8")


def latest(name: str, results: Sequence[Result]) -> Result | None:
    """The latest result of a fault."""
    return next((one for one in reversed(results) if name in one["faults"]), None)


def is_current(fault: Fault, results: Sequence[Result]) -> bool:
    """Whether the stored result is of this fault and of these tests."""
    found = latest(fault.name, results)
    return bool(found and found["faults"][fault.name] == fault.digest and found["tests"] == digest_of_tests())


def at_once(chosen: Sequence[Fault]) -> list[list[Fault]]:
    """These faults in groups; no fault of a group touches what another one of it must break."""
    groups: list[list[Fault]] = []
    for fault in chosen:
        for group in groups:
            if len(group) < AT_ONCE and all(_apart(fault, other) for other in group):
                group.append(fault)
                break
        else:
            groups.append([fault])
    return groups


def _apart(one: Fault, other: Fault) -> bool:
    if not (one.breaks and other.breaks):  # under a disturbance everything must hold
        return False
    touched = [it.breaks | it.may_break | it.may_be_inconclusive for it in (one, other)]
    return not (one.breaks & touched[1] or other.breaks & touched[0])


def hidden_in(group: Sequence[Fault], result: Result) -> list[Fault]:
    """The faults of a group that have not broken all that they must. Another one may have hidden them."""
    return [fault for fault in group if len(group) > 1 and not fault.breaks <= result[BROKEN].keys()]


def broken_by(fault: Fault, result: Result) -> dict[str, str]:
    """What the fault broke, with the reasons. In a run with others, that is what no other one's file names."""
    others = [faults()[name] for name in result["faults"] if name != fault.name and name in faults()]
    named_too = frozenset().union(*(other.breaks | other.may_break for other in others))
    mine = fault.breaks | (fault.may_break - named_too)
    return {name: reason for name, reason in result[BROKEN].items() if not others or name in mine}


def unseen(results: Sequence[Result]) -> list[str]:
    """The behaviors that no fault has broken."""
    found = [(fault, latest(fault.name, results)) for fault in faults().values()]
    broken = {name for fault, result in found if result for name in broken_by(fault, result)}
    return [it.id for it in _claims() if it.id not in broken]


def _claims() -> list[Behavior]:
    return [it for it in catalogue().values() if it.document != WALKTHROUGHS]


def table(results: Sequence[Result]) -> Iterator[str]:
    """docs/faults.md."""
    found = [(fault, latest(fault.name, results)) for fault in faults().values()]
    by_fault = {fault.name: broken_by(fault, result) for fault, result in found if result}
    yield "# Wrong clusters"
    yield ""
    yield "Each fault makes a cluster wrong in one known way."
    yield f"So far {len(by_fault)} of {len(faults())} faults were run."
    yield f"In these runs {len(_claims()) - len(unseen(results))} of {len(_claims())} behaviors were seen broken."
    yield "Faults that cannot be mistaken for one another were made at once."
    yield "`python -m measure.faults --table` generates this page from docs/faults.json."
    yield ""
    yield "## By fault"
    for kind, what in KINDS.items():
        yield ""
        yield f"### {kind.replace('_', ' ').capitalize()}: {what}"
        for fault, result in found:
            if fault.kind == kind:
                yield ""
                yield from _of_fault(fault, result)
    yield ""
    yield "## By behavior"
    yield ""
    yield "| behavior | faults that broke it |"
    yield "|---|---|"
    for behavior in _claims():
        by = [name for name, broken in by_fault.items() if behavior.id in broken]
        yield f"| {behavior.id} | {', '.join(by) or 'none yet'} |"
    yield ""
    yield "## Tests that no fault broke"
    yield ""
    seen = {test for one in results for test in one["broken_tests"]}
    yield from (f"- {test}" for test in every() if test not in seen)


def _of_fault(fault: Fault, result: Result | None) -> Iterator[str]:
    yield f"**{fault.name}**: {fault.says}"
    if result is None:
        yield "Not run yet."
        return
    stale = result["faults"][fault.name] != fault.digest or result["tests"] != digest_of_tests()
    others = [name for name in result["faults"] if name != fault.name]
    broken = broken_by(fault, result)
    yield (
        f"Run on {result['date']}"
        f"{f' together with {len(others)} others' if others else ''}"
        f"{', before the last change of the fault or of the tests' if stale else ''}: {len(broken)} broken."
    )
    if broken:
        yield ""
    yield from (f"- {name}: {_plain(reason)}" for name, reason in broken.items())


def _plain(reason: str) -> str:
    """A reason in a line of Markdown, cut."""
    return f"`{reason.replace('`', chr(39))[:200]}`"


def few(names: Sequence[str]) -> int:
    """Run faults on what they must break and on five innocents: each by itself, or without names five of them at once."""
    code = 0
    for fault in [named(name) for name in names] or [together([named(name) for name in FEW])]:
        began = time.monotonic()
        chosen = [*sorted(fault.breaks), *(it for it in INNOCENTS if it not in fault.breaks)]
        options = [part for it in chosen for part in ("--behavior", it)]
        said, report = run([fault.name], ["--keep", *options]) if names else run(FEW, options)
        found = (
            list(problems(fault, result_of([fault], report, 0)))
            if report
            else [f"./verify ended with {said} before its tests"]
        )
        code = _tell([fault], found, time.monotonic() - began) or code
    return code


def _behaviors(fault: Fault) -> list[str]:
    """All behaviors, or those that a fault must break if all others may be anything."""
    broad = catalogue().keys() <= fault.breaks | fault.may_be_inconclusive
    return [part for name in sorted(fault.breaks) for part in ("--behavior", name)] if broad and fault.breaks else []


def together(parts: Sequence[Fault]) -> Fault:
    """Several faults as one."""
    return Fault(
        ", ".join(part.name for part in parts),
        "",
        " ".join(part.says for part in parts),
        [step for part in parts for step in part.make],
        frozenset().union(*(part.breaks for part in parts)),
        frozenset().union(*(part.may_break for part in parts)),
        frozenset().union(*(part.may_be_inconclusive for part in parts)),
    )


def _tell(faults: Sequence[Fault], found: Sequence[str], seconds: float) -> int:
    names = ", ".join(fault.name for fault in faults)
    say(f"{names}: {'as expected' if not found else 'NOT AS EXPECTED'} ({duration(seconds)})")
    for line in found:
        say(f"  {line}")
    return WRONG if found else 0


def all_of(names: Sequence[str]) -> int:
    """Run these faults against all suites, or without names those whose results are missing or out of date."""
    results, code = stored(), 0
    missing = [it for it in faults().values() if not is_current(it, results)]
    groups = [[named(name)] for name in names] or at_once(missing)
    for number, group in enumerate(groups, 1):
        say(f"run {number} of {len(groups)}")
        began = time.monotonic()
        said, report = run([fault.name for fault in group], _behaviors(together(group)))
        seconds = time.monotonic() - began
        if said == INTERRUPTED:
            return INTERRUPTED
        if report is None:
            code = _tell(group, [f"./verify ended with {said} before its tests"], seconds)
            groups += [[fault] for fault in group] if len(group) > 1 else []
            continue
        results.append(result_of(group, report, seconds))
        store(results)
        whole, hidden = together(group), hidden_in(group, results[-1])
        seen = replace(whole, breaks=whole.breaks & results[-1][BROKEN].keys()) if hidden else whole
        code = _tell(group, list(problems(seen, results[-1])), seconds) or code
        for fault in hidden:
            say(f"  {fault.name} has not broken all that it must; it is run again by itself")
        groups += [[fault] for fault in hidden]
    if not names:
        for name in unseen(results):
            say(f"no fault breaks {name}")
        code = code or (WRONG if unseen(results) else 0)
    return code


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m measure.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults (./verify --faults lists them)")
    parser.add_argument("--few", action="store_true", help="only what must break, and five others; stores nothing")
    parser.add_argument("--table", action="store_true", help="write docs/faults.md, and run nothing")
    asked = parser.parse_args()
    interrupted_by_signals()
    try:
        if asked.table:
            store(stored())
            return 0
        return few(asked.names) if asked.few else all_of(asked.names)
    except CannotRun as refusal:
        say(str(refusal))
        return refusal.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
