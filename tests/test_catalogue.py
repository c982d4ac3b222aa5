"""The catalogue and the tests agree, and the check of that can fail."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from lessons.catalogue import NEEDS, TOPICS, Behavior, catalogue, parse
from lessons.catalogue import test_id as id_without_group
from runner.agreement import FIXTURES_NEED, disagreements, undeclared
from runner.capabilities import CHECKS

ENTRY = {"id": "objects/a", "topic": "pods", "says": "It does.", "observe": "that it does"}


def behavior(name: str, planned: bool = False) -> Behavior:
    return Behavior(name, "pods", "It does.", "that it does", planned=planned)


def claims() -> list[Behavior]:
    return [entry for entry in catalogue().values() if not entry.is_walkthrough]


def test_the_catalogue_has_all_claims_of_the_documents() -> None:
    documents = {claim.document for claim in claims()}
    number = len(claims())

    assert number == 163, "behaviors/ has gained or lost entries; if that is meant, write the new number here"
    assert documents == {"core-concepts", "objects", "controllers", "state-and-ingress", "nginx-walkthrough"}


def test_the_readme_says_how_many_claims_there_are(root: Path) -> None:
    stated = re.findall(r"\b(\d+) claims\b", (root / "README.md").read_text())
    number = len(claims())

    assert stated == [str(number)] * 2, f"README.md says twice how many claims there are; write {number} there"


def test_the_changelog_says_how_many_claims_there_are(root: Path) -> None:
    stated = re.findall(r"catalogue of (\d+) behaviors", (root / "CHANGELOG.md").read_text())
    number = len(claims())

    assert stated == [str(number)], f"CHANGELOG.md says how many claims there are; write {number} there"


def test_every_topic_is_in_the_reading_order() -> None:
    assert sorted(TOPICS) == sorted({entry.topic for entry in catalogue().values()})


def test_fixtures_need_known_capabilities() -> None:
    assert set(FIXTURES_NEED.values()) <= set(NEEDS)


def asserted_needs(source: str) -> dict[str, str]:
    """Every fixture that asserts a need of its tests, by itself or in a function that it calls, and that need."""
    functions = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    needs = {
        name: re.search(r"the behaviors of this test need ([\w-]+)", ast.unparse(it)) for name, it in functions.items()
    }
    return {
        name: found[1]
        for name, function in functions.items()
        if any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)
        for used in (name, *(node.id for node in ast.walk(function) if isinstance(node, ast.Name)))
        if (found := needs.get(used))
    }


def test_a_fixture_that_asserts_a_need_is_in_the_table(root: Path) -> None:
    found = {
        name: need
        for path in sorted((root / "fixtures").glob("*.py"))
        for name, need in asserted_needs(path.read_text(encoding="utf-8")).items()
        if not name.startswith("_")
    }

    assert found.keys() >= {"outside", "run_on_node", "kubectl", "installed_class"}
    assert found.items() <= FIXTURES_NEED.items()


def test_a_fixture_that_gets_others_by_name_is_in_the_table(root: Path) -> None:
    found = {
        node.name
        for path in sorted((root / "fixtures").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "getfixturevalue" in ast.unparse(node)
    }

    assert found == {"cloud", "ingress_client"}
    assert found <= FIXTURES_NEED.keys()


def test_an_undeclared_need_of_a_fixture_is_found() -> None:
    behaviors = {"objects/a": Behavior("objects/a", "pods", "It does.", "that", needs=("node-exec",))}

    assert list(undeclared(["kube", "run_on_node"], ["objects/a"], behaviors)) == []
    assert list(undeclared(["outside"], ["objects/a"], behaviors)) == ["outside, which needs node-network"]


@pytest.mark.parametrize("test", ["suites/test_a.py::test_a", "suites/test_a.py::test_a[b@c]"])
@pytest.mark.parametrize("group", ["", "@cluster", "@outage"])
def test_a_test_has_one_id_in_every_group(test: str, group: str) -> None:
    assert id_without_group(test + group) == test


def test_every_need_has_a_check() -> None:
    assert set(CHECKS) == set(NEEDS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"needs": ["a-unicorn"]}, "unknown need a-unicorn"),
        ({"status": "done"}, "only status is 'planned'"),
        ({"sayz": "x"}, "unknown key sayz"),
        ({"id": "controllers/a"}, "must begin with objects/"),
        ({"topic": "unicorns"}, "unknown topic 'unicorns'"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse("objects", [ENTRY | change])


def test_an_entry_without_a_required_key_is_refused() -> None:
    with pytest.raises(ValueError, match="missing observe"):
        parse("objects", [{key: value for key, value in ENTRY.items() if key != "observe"}])


def test_agreement_gives_no_disagreements() -> None:
    behaviors = {"objects/a": behavior("objects/a"), "objects/b": behavior("objects/b", planned=True)}

    assert disagreements({"suites/test_pods.py::test_a": ["objects/a"]}, behaviors) == []


@pytest.mark.parametrize(
    ("tests", "complaint"),
    [
        ({"t": []}, "t: shows no behavior"),
        ({"t": ["objects/x"]}, "has no behavior 'objects/x'"),
        ({"t": ["objects/b"]}, "is still 'planned'"),
        ({}, "objects/a has no test and is not planned"),
    ],
)
def test_every_disagreement_is_named(tests: dict[str, list[str]], complaint: str) -> None:
    behaviors = {"objects/a": behavior("objects/a"), "objects/b": behavior("objects/b", planned=True)}

    assert any(complaint in line for line in disagreements(tests, behaviors))


def test_behaviors_without_a_test_are_found_only_among_all_tests() -> None:
    assert disagreements({}, {"objects/a": behavior("objects/a")}, whole=False) == []
