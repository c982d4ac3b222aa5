"""The check that the tests agree with the catalogue of behaviors.

Every suite test names the behaviors that it shows: `@pytest.mark.behavior(id, ...)`. Every entry has a test or says
`status: planned`. A disagreement is a collection error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from lessons.catalogue import SUITES, Behavior, catalogue

#: What each fixture needs of the cluster. A test that uses one of them shows behaviors that declare the same need.
#: List a fixture that calls `getfixturevalue`, too, because pytest does not know which fixtures it gets.
FIXTURES_NEED = {
    "outside": "node-network",
    "run_on_node": "node-exec",
    "cloud": "load-balancer",
    "ingress_class": "ingress",
    "installed_class": "ingress",
    "ingress_client": "ingress",
    "controller": "ingress",
    "default_class": "storage",
    "two_classes": "cluster-admin",
    "kubectl": "kubectl",
    "port_forward": "kubectl",
    "outage": "node-fault",
}


def shown_by(item: pytest.Item) -> list[str]:
    """The ids of the behaviors that a test shows."""
    return [name for marker in item.iter_markers("behavior") for name in marker.args]


def disagreements(tests: Mapping[str, list[str]], behaviors: Mapping[str, Behavior], whole: bool = True) -> list[str]:
    """One line for each disagreement between the tests (node id to behavior ids) and the catalogue.

    `whole` says that these are all tests: only then can a behavior be found to have no test.
    """
    lines = []
    for test, ids in tests.items():
        if not ids:
            lines.append(f"{test}: shows no behavior; mark it @pytest.mark.behavior(id)")
        for name in ids:
            if name not in behaviors:
                lines.append(f"{test}: the catalogue has no behavior {name!r}")
            elif behaviors[name].planned:
                lines.append(f"{test}: shows {name}, whose status in behaviors/ is still 'planned'")
    if whole:
        shown = {name for ids in tests.values() for name in ids}
        for behavior in behaviors.values():
            if behavior.id not in shown and not behavior.planned:
                lines.append(f"behaviors/{behavior.document}.yaml: {behavior.id} has no test and is not planned")
    return lines


def undeclared(fixtures: Iterable[str], ids: Iterable[str], behaviors: Mapping[str, Behavior]) -> Iterator[str]:
    """Every fixture whose need is not declared by any of the test's behaviors, with that need."""
    declared = {need for name in ids if name in behaviors for need in behaviors[name].needs}
    for fixture in fixtures:
        if fixture in FIXTURES_NEED and FIXTURES_NEED[fixture] not in declared:
            yield f"{fixture}, which needs {FIXTURES_NEED[fixture]}"


#: The key of a worker's output with what its collection has found.
DISAGREEMENT = "kubehave-disagreement"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behavior(id, ...): the behaviors of the catalogue that this test shows")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    suite = [item for item in items if SUITES in item.path.parents]
    if not suite:
        return
    whole = not session.testsfailed and {item.path for item in suite} == set(SUITES.glob("test_*.py"))
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS and any("::" in arg for arg in config.args)
    lines = disagreements({item.nodeid: shown_by(item) for item in suite}, catalogue(), whole and not named)
    for item in suite:
        for what in undeclared(getattr(item, "fixturenames", ()), shown_by(item), catalogue()):
            lines.append(f"{item.nodeid}: uses the fixture {what}; none of its behaviors declares that need")
    if lines:
        found = "tests and catalogue disagree:\n  " + "\n  ".join(lines)
        if hasattr(config, "workeroutput"):
            config.workeroutput[DISAGREEMENT] = found
        raise pytest.UsageError(found)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With xdist only the workers collect tests. End the run with what they found, as without xdist."""
    if found := getattr(node, "workeroutput", {}).get(DISAGREEMENT):
        raise pytest.UsageError(found)
