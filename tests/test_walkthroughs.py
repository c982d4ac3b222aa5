"""Every command that the documents print is typed by a walkthrough of its document, or has a reason in docs/commands.yaml."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lessons.catalogue import WALKTHROUGHS, catalogue

#: The consoles of the suite. The arguments of their calls are what is typed.
CONSOLES = {"shell", "console"}

#: A document's commands, by heading: the lines that are typed as printed, and those that are not.
Commands = Mapping[str, list[dict[str, Any]]]


def _text(node: ast.expr) -> str | None:
    """A string in the code, with the {expressions} of an f-string; None for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                "{" + ast.unparse(part.value) + "}" if isinstance(part, ast.FormattedValue) else _text(part) or ""
                for part in parts
            )
    return None


def _console(call: ast.Call) -> str:
    """The name of the console in `shell(...)` or `shell.output(...)`; "" in other calls."""
    called = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    return called.id if isinstance(called, ast.Name) else ""


def _documents(function: ast.FunctionDef, known: set[str]) -> set[str]:
    """The documents whose walkthrough a test is; all of them for a fixture and for a function that tests call."""
    named = {
        document
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Constant)
        for document in known
        if str(node.value).startswith(f"{WALKTHROUGHS}/{document}-")
    }
    return named or known


def typed(source: str, known: set[str]) -> dict[str, set[str]]:
    """What a suite types, by document."""
    found: dict[str, set[str]] = {document: set() for document in known}
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and _console(node) in CONSOLES]
        lines = {text for call in calls for argument in call.args if (text := _text(argument)) is not None}
        for document in _documents(function, known):
            found[document] |= lines
    return found


def not_typed(commands: Commands, lines: Mapping[str, set[str]]) -> Iterator[str]:
    """One line for each command that no walkthrough of its document types, in the form that the list says."""
    for document, headings in commands.items():
        for heading in headings:
            for command in heading["commands"]:
                for line in forms(command):
                    if line not in lines[document]:
                        yield f"{document}, {heading['heading']}: no walkthrough types {line!r}"


def forms(command: str | Mapping[str, Any]) -> list[str]:
    """The lines that must be typed for a command of the list."""
    if isinstance(command, str):
        return [command]
    today = command.get("today", [])
    return [today] if isinstance(today, str) else today


def unexplained(commands: Commands) -> Iterator[str]:
    """One line for each command that is not typed as printed, and lacks a reason or has other keys."""
    for document, headings in commands.items():
        for heading in headings:
            for command in heading["commands"]:
                if isinstance(command, str):
                    continue
                where = f"{document}, {heading['heading']}: {command.get('line')!r}"
                if not command.get("because") or set(command) - {"line", "today", "because"}:
                    yield f"{where} needs the keys line and because; today is the only other key"
                if command.get("line") in forms(command):
                    yield f"{where} is typed as printed, so its line alone is enough"


@pytest.fixture(scope="module")
def commands() -> Commands:
    text = (Path(__file__).parent.parent / "docs" / "commands.yaml").read_text(encoding="utf-8")
    found: Commands = yaml.safe_load(text)
    return found


def test_every_document_has_its_commands(commands: Commands) -> None:
    claims = {entry.document for entry in catalogue().values() if not entry.is_walkthrough}
    printed = {document: sum(len(heading["commands"]) for heading in found) for document, found in commands.items()}

    assert set(commands) == claims
    assert printed == {
        "core-concepts": 21,
        "objects": 37,
        "controllers": 0,
        "state-and-ingress": 17,
        "nginx-walkthrough": 9,
    }


def test_every_command_is_typed_or_has_a_reason(commands: Commands, root: Path) -> None:
    source = (root / "suites" / "test_walkthroughs.py").read_text(encoding="utf-8")

    assert list(not_typed(commands, typed(source, set(commands)))) == []
    assert list(unexplained(commands)) == []


def test_no_claim_depends_on_a_walkthrough(root: Path) -> None:
    for suite in (root / "suites").glob("test_*.py"):
        shown = re.findall(r'behavior\(\s*"([\w-]+)/', suite.read_text(encoding="utf-8"))
        assert shown
        apart = [document == WALKTHROUGHS for document in shown]
        assert all(apart) if suite.stem == f"test_{WALKTHROUGHS}" else not any(apart), suite.name


# --- the checks themselves

SUITE = """
@pytest.fixture
def pod(shell):
    shell("kubectl apply -f pod.yaml")

@pytest.mark.behavior("walkthroughs/objects-pod")
def test_pod(shell, name):
    \"\"\"kubectl explain pod\"\"\"
    assert "kubectl api-versions" in shell.output(f"kubectl get pods {name}", "curl localhost").stdout
"""


def test_what_is_typed_is_found_by_document() -> None:
    assert typed(SUITE, {"objects", "other"}) == {
        "objects": {"kubectl apply -f pod.yaml", "kubectl get pods {name}", "curl localhost"},
        "other": {"kubectl apply -f pod.yaml"},
    }


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("kubectl apply -f pod.yaml", None),
        ("kubectl get pods", "kubectl get pods"),
        ("curl 10.0.0.1", "curl 10.0.0.1"),
        ({"line": "kubectl get", "today": "kubectl apply -f pod.yaml", "because": "it is the verb alone"}, None),
        ({"line": "kubectl get", "today": ["kubectl apply -f pod.yaml", "kubectl top"], "because": "x"}, "kubectl top"),
        ({"line": "minikube tunnel", "because": "there is no Minikube"}, None),
    ],
)
def test_a_command_that_is_not_typed_is_found(command: Any, missing: str | None) -> None:
    list_of_one: Commands = {"other": [{"heading": "1", "commands": [command]}]}

    found = list(not_typed(list_of_one, typed(SUITE, {"objects", "other"})))

    assert found == ([f"other, 1: no walkthrough types {missing!r}"] if missing else [])


@pytest.mark.parametrize(
    "command",
    [
        {"line": "kubectl get"},
        {"line": "kubectl get", "because": ""},
        {"line": "kubectl get", "because": "x", "instead": "y"},
        {"line": "kubectl get", "today": "kubectl get", "because": "x"},
    ],
)
def test_a_command_without_a_reason_is_found(command: dict[str, Any]) -> None:
    (found,) = unexplained({"other": [{"heading": "1", "commands": [command]}]})

    assert found.startswith("other, 1: 'kubectl get' ")
