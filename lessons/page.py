"""The page about a run, made from its behaviors.json, and the same page without a run: the book."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from markupsafe import Markup

from lessons import highlight, sources
from lessons.catalogue import DOCUMENTS, NEEDS, WALKTHROUGHS, Behavior, catalogue, test_id
from lessons.layout import prose, render, seconds
from lessons.timeline import Bar, Timeline, timeline
from lessons.verdict_names import BROKEN, HOLDS, IN_PART, INCONCLUSIVE, NOT_OBSERVED, PLANNED, RANK
from machine import exits

#: What the page calls a behavior of the catalogue that the run did not choose, and a chosen test that did not begin.
NOT_CHOSEN, DID_NOT_RUN = "not chosen", "did not run"

#: The ids of more behaviors than these that share a reason open with a click.
MANY = 12

#: What looks like the id of a behavior.
ID = re.compile(r"[a-z][a-z-]+/[a-z0-9-]+")

#: What a verdict means, in the order of the legend.
MEANINGS = {
    HOLDS: "every test of it ran and passed",
    BROKEN: "an assertion failed, or the API server refused what it should accept",
    INCONCLUSIVE: "a test could not find out",
    NOT_OBSERVED: "the cluster lacks what it needs, or its user lacks a right",
    IN_PART: "some tests of it passed and others did not run",
    PLANNED: "no test shows it yet",
    NOT_CHOSEN: "this run was not asked about it",
}

#: The most characters of all failures that are shown whole. Of the others the page shows so many lines.
WHOLE, LINES = 1_000_000, 12

#: What an exit code means.
EXITS = {
    exits.HOLDS: "all that the cluster can show of what was chosen ran and passed",
    exits.BROKEN: "something is broken or inconclusive, or not all tests could run",
    exits.INTERRUPTED: "the run was interrupted",
    exits.USAGE: "the command line was wrong",
    exits.NOTHING: "nothing was chosen, or nothing could be observed",
    exits.CLUSTER: "the cluster does not answer, is too old, or refuses this user what the suite needs",
    exits.MACHINE: "this machine lacks something",
    exits.LEFTOVERS: "something of the run still exists after its clean-up",
}

#: The topics' names as headings, where they are not just capitalized.
HEADINGS = {
    "replicasets": "ReplicaSets",
    "statefulsets": "StatefulSets",
    "jobs and daemonsets": "Jobs and DaemonSets",
    "kubectl": "kubectl",
    "etcd": "etcd",
}

#: How many tests that ran beside a failed one are listed, and how many rows the tables about time have.
BESIDE, SLOWEST = 10, 10

#: So many failures are shown whole at once; of more than that each one opens with a click. A reason that so many share is
#: told above them, and at most so many such reasons.
FEW, CAUSES = 3, 5

Report = Mapping[str, Any]


# --- what the templates show


@dataclass(frozen=True)
class Result:
    """One test with its parameters, if it has some, and what the run says about it."""

    id: str
    parameters: str
    verdict: str
    reason: str | None = None
    seconds: float | None = None
    waited: tuple[tuple[str, float], ...] = ()
    seen: tuple[str, ...] = ()
    evidence: str | None = None
    failed: bool = False


@dataclass(frozen=True)
class Sheet:
    """A manifest. Its text is in the page once: `code` is None everywhere else, and `home` names the test there."""

    name: str
    code: Markup | None
    home: str


@dataclass(frozen=True)
class Proof:
    """A test function within a behavior. It is in the page once: `home` is the behavior where it is, None if it is here."""

    anchor: str
    title: str
    fact: str
    where: str
    results: tuple[Result, ...]
    home: str | None
    code: Markup | None = None
    manifests: tuple[Sheet, ...] = ()

    @property
    def verdict(self) -> str | None:
        """The worst verdict of its results; None if there are none."""
        return min((result.verdict for result in self.results), key=_rank, default=None)

    @property
    def seconds(self) -> float:
        """The seconds of all results."""
        return sum(result.seconds or 0 for result in self.results)


@dataclass(frozen=True)
class Need:
    """What a behavior needs of the cluster; `missing` says why this cluster lacks it, and the remedy."""

    name: str
    what: str
    missing: str | None = None


@dataclass(frozen=True)
class Entry:
    """A behavior with its verdict and its tests."""

    behavior: Behavior
    observe: Markup
    number: int
    verdict: str
    reason: str | None = None
    seconds: float | None = None
    remarks: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    proofs: tuple[Proof, ...] = ()


@dataclass(frozen=True)
class Group:
    """The behaviors of one topic or of one document."""

    name: str
    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Failure:
    """A test that is broken or inconclusive, with all that the run knows about it."""

    result: Result
    title: str
    fact: str
    anchor: str
    behaviors: tuple[Entry, ...]
    text: str | None
    beside: tuple[tuple[Bar, str, float], ...]


@dataclass(frozen=True)
class Shared:
    """Behaviors that do not hold for the same reason, without a test of their own that failed."""

    verdict: str
    reason: str
    entries: tuple[Entry, ...]


@dataclass
class _Shelf:
    """What is in the page already: tests and manifests, each with the place where it is."""

    tests: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)


# --- the two pages


def page(report: Report) -> str:
    """The page about a run. Keys that an old report, or one that broke off, does not have are left out of the page."""
    run = report.get("run") or {}
    entries = _entries(report) if report.get("behaviors") else []
    times = timeline(report)
    failures = list(_failures(report, entries, times))
    return render(
        "page.html",
        script="page.js",
        book=False,
        headline=_headline(entries),
        lead=_lead(run, entries),
        run=run,
        facts=list(_facts(run)),
        cluster=run.get("cluster") or {},
        lacking=[Need(name, NEEDS.get(name, ""), why) for name, why in (run.get("capabilities") or {}).items() if why],
        verdicts=_counts(entries),
        legend=_counts(entry for entry in entries if not entry.behavior.is_walkthrough),
        topics=_by_topic(entries),
        documents=_by_document(entries),
        failures=failures,
        failure_of={failure.result.id: failure.anchor for failure in failures},
        few=FEW,
        many=MANY,
        frequent=_frequent(failures),
        shared=_shared(entries),
        times=times,
        phases=[(name, length) for name, length in (run.get("phases") or {}).items() if length >= 0.05],
        slowest=_slowest(report),
        waits=_waits(report),
        waited_share=_waited_share(report),
        homes=_homes(entries),
        title_of=_title_of,
    )


def book() -> str:
    """All claims in the order in which a learner should read them, each with its manifests and its proof."""
    entries = _entries({})
    return render(
        "book.html",
        script="page.js",
        book=True,
        topics=_by_topic(entries),
        documents=_by_document(entries),
        claims=[entry for entry in entries if not entry.behavior.is_walkthrough],
    )


# --- the behaviors


def _entries(report: Report) -> list[Entry]:
    """All behaviors of the catalogue and of the report, in reading order."""
    rows = {row["id"]: row for row in report.get("behaviors") or ()}
    tests = report.get("tests") or {}
    capabilities = (report.get("run") or {}).get("capabilities") or {}
    behaviors = dict(catalogue()) | {name: _of_row(row) for name, row in rows.items() if name not in catalogue()}
    shelf, known = _Shelf(), _functions_by_behavior()
    entries = []
    for number, behavior in enumerate(sources.in_order(behaviors.values()), 1):
        row = rows.get(behavior.id, {})
        names = [test_id(name) for name in row["tests"]] if row.get("tests") else known.get(behavior.id, [])
        entries.append(
            Entry(
                behavior=behavior,
                observe=_linked(behavior.observe),
                number=number,
                verdict=row.get("verdict") or (PLANNED if behavior.planned else NOT_CHOSEN),
                reason=row.get("reason"),
                seconds=row.get("seconds"),
                remarks=tuple(row.get("remarks") or ()),
                needs=tuple(Need(name, NEEDS.get(name, ""), capabilities.get(name)) for name in behavior.needs),
                proofs=tuple(_proofs(behavior.id, names, tests if row else {}, shelf)),
            )
        )
    return entries


def _linked(text: str) -> Markup:
    """A text of the catalogue, in which the ids of other behaviors are links to them."""
    link = r'<a href="#\g<0>">\g<0></a>'
    return Markup(ID.sub(lambda found: found.expand(link) if found[0] in catalogue() else found[0], str(prose(text))))


def _of_row(row: Mapping[str, Any]) -> Behavior:
    """A behavior that only the report knows: another version of the catalogue had it."""
    return Behavior(row["id"], row.get("topic") or "other", row.get("says") or "", "", outdated=row.get("outdated"))


def _functions_by_behavior() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in sources.every().values():
        for name in one.behaviors:
            found.setdefault(name, []).append(one.id)
    return found


def _proofs(behavior: str, names: Iterable[str], tests: Mapping[str, Any], shelf: _Shelf) -> Iterator[Proof]:
    """The test functions of a behavior in the order of their files, each with the results of all its parameters."""
    functions: dict[str, list[str]] = {}
    for name in names:
        functions.setdefault(sources.function_of(name), []).append(name)
    order = list(sources.every())
    for function in sorted(functions, key=lambda it: order.index(it) if it in order else len(order)):
        results = tuple(_result(name, tests.get(name)) for name in functions[function]) if tests else ()
        yield _proof(behavior, function, results, shelf)


def _proof(behavior: str, function: str, results: tuple[Result, ...], shelf: _Shelf) -> Proof:
    lesson = sources.every().get(function)
    title, fact = _title_of(function), lesson.fact if lesson else ""
    anchor = function.rpartition("/")[2]
    if (home := shelf.tests.setdefault(function, behavior)) != behavior:
        return Proof(anchor, title, fact, "", results, home)
    if lesson is None:
        return Proof(anchor, title, fact, function, results, None)
    sheets = []
    for manifest in lesson.manifests:
        there = manifest.name in shelf.manifests
        code = None if there else highlight.yaml(manifest.text)
        sheets.append(Sheet(manifest.name, code, shelf.manifests.setdefault(manifest.name, anchor)))
    where = f"{lesson.file}, line {lesson.line}"
    return Proof(anchor, title, fact, where, results, None, code=highlight.python(lesson.code), manifests=tuple(sheets))


def _title_of(name: str) -> str:
    """A test's name as a sentence, with its parameters."""
    function, _, parameters = name.partition("[")
    lesson = sources.every().get(function)
    title = lesson.title if lesson else function.rpartition("::")[2]
    return f"{title} [{parameters}" if parameters else title


def _result(name: str, test: Mapping[str, Any] | None) -> Result:
    parameters = name.partition("[")[2].removesuffix("]")
    if test is None:
        return Result(name, parameters, DID_NOT_RUN)
    return Result(
        id=name,
        parameters=parameters,
        verdict=test.get("verdict") or DID_NOT_RUN,
        reason=test.get("reason"),
        seconds=test.get("seconds"),
        waited=tuple((what, length) for what, length in (test.get("waited") or {}).items() if length >= 0.05),
        seen=tuple(test.get("seen") or ()),
        evidence=test.get("evidence"),
        failed=test.get("verdict") in (BROKEN, INCONCLUSIVE),
    )


def _rank(verdict: str) -> int:
    """The worst verdict is the least."""
    return RANK.get(verdict, RANK[NOT_OBSERVED])


def _by_topic(entries: Iterable[Entry]) -> list[Group]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.behavior.topic, []).append(entry)
    return [Group(name, HEADINGS.get(name, name.capitalize()), tuple(some)) for name, some in groups.items()]


def _by_document(entries: Iterable[Entry]) -> list[Group]:
    """The documents, each in its own order; the walkthroughs, which come from all documents, are last."""
    order = {name: place for place, name in enumerate(catalogue())}
    groups: dict[str, list[Entry]] = {name: [] for name in (*DOCUMENTS, WALKTHROUGHS)}
    for entry in sorted(entries, key=lambda entry: order.get(entry.behavior.id, len(order))):
        groups.setdefault(entry.behavior.document, []).append(entry)
    return [Group(name, DOCUMENTS.get(name, ""), tuple(some)) for name, some in groups.items() if some]


# --- at a glance


def _counts(entries: Iterable[Entry]) -> list[tuple[str, str, int]]:
    """Each verdict that occurs, what it means, and how often it occurs."""
    counts = Counter(entry.verdict for entry in entries)
    return [(name, what, counts[name]) for name, what in MEANINGS.items() if counts[name]]


def _headline(entries: Iterable[Entry]) -> str:
    """The verdict as a sentence."""
    chosen = [entry for entry in entries if entry.verdict not in (NOT_CHOSEN, PLANNED)]
    claims = [entry for entry in chosen if not entry.behavior.is_walkthrough]
    of = claims or chosen
    what = "behavior" if claims or not chosen else "walkthrough"
    if not of:
        return "No behavior was tested"
    counts = Counter(entry.verdict for entry in of)
    number = len(of)
    every = sum(not it.is_walkthrough and not it.planned for it in catalogue().values())
    those = f"{what}{'' if number == 1 else 's'}" if not claims or number >= every else f"chosen {what}s"
    if counts[HOLDS] == number:
        return (
            f"The {'' if number >= every else 'chosen '}{what} holds" if number == 1 else f"All {number} {those} hold"
        )
    parts = [f"{counts[HOLDS]} of {number} {those} {'holds' if counts[HOLDS] == 1 else 'hold'}"]
    for verdict, words in (
        (BROKEN, "broken"),
        (INCONCLUSIVE, "inconclusive"),
        (NOT_OBSERVED, "not observed"),
        (IN_PART, "seen in part"),
    ):
        if count := counts[verdict]:
            was = {BROKEN: ("is", "are"), INCONCLUSIVE: ("is", "are")}.get(verdict, ("was", "were"))
            parts.append(f"{count} {was[count != 1]} {words}")
    return f"{parts[0]}: {', '.join(parts[1:])}" if len(parts) > 1 else parts[0]


def _lead(run: Mapping[str, Any], entries: Iterable[Entry]) -> str:
    """The sentence below the headline: how the run ended, and the walkthroughs, which are counted apart."""
    code = run.get("exit_code")
    if "exit_code" not in run:
        said = ""
    elif code is None:
        said = "The run has not ended: it goes on, or it was killed. This is what it had found by then."
    else:
        said = f"Exit code {code}: {EXITS.get(code, 'unknown')}."
    typed = [entry for entry in entries if entry.behavior.is_walkthrough and entry.verdict not in (NOT_CHOSEN, PLANNED)]
    if typed:
        holding = sum(entry.verdict == HOLDS for entry in typed)
        said += f" Counted apart: {holding} of {len(typed)} walkthroughs hold."
    return said.strip()


def _facts(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the run was: pairs of a name and a text, without those that the report does not have."""
    cluster = run.get("cluster") or {}
    load_balancer = cluster.get("load_balancer")
    pairs = (
        ("When", _when(run)),
        ("How long", _how_long(run)),
        ("Cluster", _whose(run)),
        ("Kubernetes", cluster.get("kubernetes")),
        ("Network plugin", cluster.get("network_plugin")),
        ("Service proxy", cluster.get("kube_proxy") and f"kube-proxy, mode {cluster['kube_proxy']}"),
        ("DNS", cluster.get("dns")),
        ("Default StorageClass", cluster.get("storage_class") or ("none" if "storage_class" in cluster else None)),
        (
            "IngressClasses",
            ", ".join(cluster.get("ingress_classes") or ()) or ("none" if "ingress_classes" in cluster else None),
        ),
        ("Load balancers", load_balancer),
        ("kubehave", run.get("version")),
        ("Command", shlex.join(run["command"]) if run.get("command") else None),
        ("Earlier report", run.get("rerun_of") and f"it runs again what did not hold in {run['rerun_of']}"),
    )
    return ((name, str(text)) for name, text in pairs if text)


def _when(run: Mapping[str, Any]) -> str | None:
    try:
        return f"{datetime.fromisoformat(run['began']):%Y-%m-%d %H:%M} UTC" if run.get("began") else None
    except ValueError:
        return str(run["began"])


def _how_long(run: Mapping[str, Any]) -> str | None:
    phases = run.get("phases") or {}
    if not phases:
        return None
    tests = f", the tests {seconds(phases['tests'])} of it" if "tests" in phases else ""
    workers = f", on {run['workers']} workers" if run.get("workers") else ""
    return f"{seconds(sum(phases.values()))}{tests}{workers}"


def _whose(run: Mapping[str, Any]) -> str | None:
    if run.get("own_cluster"):
        image = f", made from {run['node_image']}" if run.get("node_image") else ""
        return f"the run's own, a kind cluster{image}"
    return f"of the context {run['context']}; it is not the suite's own" if run.get("context") else None


# --- what does not hold


def _failures(report: Report, entries: Iterable[Entry], times: Timeline | None) -> Iterator[Failure]:
    """Every test that is broken or inconclusive, the broken ones first."""
    tests = report.get("tests") or {}
    shown: dict[str, list[Entry]] = {}
    for entry in entries:
        for proof in entry.proofs:
            for result in proof.results:
                shown.setdefault(result.id, []).append(entry)
    length = 0
    failed = [name for name, test in tests.items() if test.get("verdict") in (BROKEN, INCONCLUSIVE)]
    for number, name in enumerate(sorted(failed, key=lambda name: _rank(tests[name]["verdict"])), 1):
        function = sources.function_of(name)
        lesson = sources.every().get(function)
        beside = times.beside(name)[:BESIDE] if times else []
        text = tests[name].get("failure")
        length += len(text or "")
        if text and length > WHOLE and len(lines := text.splitlines()) > LINES:
            text = "\n".join([*lines[:LINES], f"({len(lines) - LINES} more lines are in behaviors.json and junit.xml)"])
        yield Failure(
            result=_result(name, tests[name]),
            title=_title_of(name),
            fact=lesson.fact if lesson else "",
            anchor=f"failure-{number}",
            behaviors=tuple(shown.get(name, ())),
            text=text,
            beside=tuple((bar, _title_of(bar.test), both) for bar, both in beside),
        )


def _frequent(failures: Iterable[Failure]) -> list[tuple[int, str]]:
    """The reasons that several failures share, apart from numbers and from names with a number in them; one example of each."""
    alike: dict[str, list[str]] = {}
    for failure in failures:
        if reason := failure.result.reason:
            alike.setdefault(re.sub(r"\S*\d\S*", "#", reason), []).append(reason)
    often = sorted(alike.values(), key=len, reverse=True)[:CAUSES]
    return [(len(reasons), reasons[0]) for reasons in often if len(reasons) >= FEW]


def _shared(entries: Iterable[Entry]) -> list[Shared]:
    """Behaviors that do not hold, and of which no test failed, by verdict and reason; the worst verdict first."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        failed = any(result.failed for proof in entry.proofs for result in proof.results)
        if entry.verdict in (BROKEN, INCONCLUSIVE, NOT_OBSERVED, IN_PART) and not failed:
            groups.setdefault((entry.verdict, entry.reason or "no reason is given"), []).append(entry)
    order = (BROKEN, INCONCLUSIVE, NOT_OBSERVED, IN_PART)
    return [
        Shared(verdict, reason, tuple(some))
        for (verdict, reason), some in sorted(groups.items(), key=lambda it: (order.index(it[0][0]), -len(it[1])))
    ]


# --- the time


def _slowest(report: Report) -> list[Result]:
    tests = report.get("tests") or {}
    names = sorted(tests, key=lambda name: -(tests[name].get("seconds") or 0))[:SLOWEST]
    return [_result(name, tests[name]) for name in names if tests[name].get("seconds")]


def _waits(report: Report) -> list[tuple[str, str, float, int]]:
    """What the tests waited for: the budget, in words, the seconds of all tests, and how many tests; the longest first."""
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for test in (report.get("tests") or {}).values():
        for name, length in (test.get("waited") or {}).items():
            total[name] += length
            count[name] += 1
    what = sources.budgets()
    return [
        (name, what.get(name, ""), length, count[name]) for name, length in total.most_common(SLOWEST) if length >= 1
    ]


def _waited_share(report: Report) -> float | None:
    """The part of the tests' seconds in which they waited."""
    tests = (report.get("tests") or {}).values()
    whole = sum(test.get("seconds") or 0 for test in tests)
    return sum(sum((test.get("waited") or {}).values()) for test in tests) / whole if whole else None


def _homes(entries: Iterable[Entry]) -> dict[str, str]:
    """The behavior in which each test is, by the test's id."""
    found: dict[str, str] = {}
    for entry in entries:
        for proof in entry.proofs:
            for result in proof.results:
                found.setdefault(result.id, entry.behavior.id)
    return found
