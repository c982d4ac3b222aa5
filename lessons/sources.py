"""The tests as lessons: fact, code and manifests of each one, from the syntax trees of the suites and of fixtures/.

No suite is imported, so this needs no cluster, no pytest and little time.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fixtures import manifests
from lessons import catalogue

FIXTURES = Path(__file__).parent.parent / "fixtures"

#: Manifests of what the suite brings along for all tests: the clients' Pods, and the Ingress controller of its own cluster.
#: They belong to a lesson only if the test itself names them.
INFRASTRUCTURE = ("clients/inside.yaml", "ingress/controller.yaml")


@dataclass(frozen=True)
class Manifest:
    """A file under `manifests/`: its name, as tests write it, and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Lesson:
    """A test, to be read.

    `id` is its node id without parameters, `title` its name as a sentence, `fact` its docstring as one paragraph, and
    `code` its source with the decorators, which begins at `line` of `file`.
    """

    id: str
    title: str
    fact: str
    code: str
    file: str
    line: int
    behaviors: tuple[str, ...]
    manifests: tuple[Manifest, ...]


def lesson(test_id: str) -> Lesson:
    """The lesson of a test by its node id, with or without parameters. Raises KeyError if there is no such test."""
    return every()[function_of(test_id)]


def function_of(test_id: str) -> str:
    """A node id without parameters: that of the function, which all its parameters share."""
    return catalogue.test_id(test_id).partition("[")[0]


@cache
def every() -> dict[str, Lesson]:
    """All lessons by their node ids without parameters, in the order of files and lines."""
    known = set(manifests.names())
    fixtures = _fixtures()
    found = {}
    for path in sorted(catalogue.SUITES.glob("test_*.py")):
        try:
            module = _module(path)
        except SyntaxError:  # pytest names it, and such a run has a report, too
            continue
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                one = _lesson(module, node, fixtures, known)
                found[one.id] = one
    return found


def in_order(behaviors: Iterable[catalogue.Behavior]) -> list[catalogue.Behavior]:
    """These behaviors in the order in which a learner should read them: by topic, then by their tests in the topic's suite.

    A topic that the catalogue does not have comes last.
    """
    lines: dict[tuple[str, str], int] = {}
    for one in every().values():
        for name in one.behaviors:
            lines.setdefault((name, one.file), one.line)

    def place(behavior: catalogue.Behavior) -> tuple[int, int]:
        topics, suite = catalogue.TOPICS, f"suites/test_{behavior.topic.replace(' ', '_')}.py"
        return topics.index(behavior.topic) if behavior.topic in topics else len(topics), lines.get(
            (behavior.id, suite), 0
        )

    return sorted(behaviors, key=place)


def _lesson(module: _Module, node: ast.FunctionDef, fixtures: dict[str, _Place], known: set[str]) -> Lesson:
    file = module.path.relative_to(catalogue.SUITES.parent).as_posix()
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    words = node.name.removeprefix("test_").replace("_", " ")
    used = _Uses(fixtures, known)
    used.follow(module, node)
    names = [name for name in used.manifests if name not in INFRASTRUCTURE or name in _strings(node)]
    return Lesson(
        id=f"{file}::{node.name}",
        title=words[:1].upper() + words[1:],
        fact=" ".join((ast.get_docstring(node) or "").split()),
        code="\n".join(module.lines[first - 1 : node.end_lineno]),
        file=file,
        line=first,
        behaviors=tuple(_behaviors(node)),
        manifests=tuple(Manifest(name, manifest_text(name)) for name in names),
    )


@cache
def manifest_text(name: str) -> str:
    """The text of a file under `manifests/`."""
    return (manifests.FOLDER / name).read_text(encoding="utf-8")


def _behaviors(node: ast.FunctionDef) -> Iterator[str]:
    """The arguments of the test's `@pytest.mark.behavior`."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.behavior":
            yield from (str(arg.value) for arg in decorator.args if isinstance(arg, ast.Constant))


# --- which manifests a test uses


@dataclass(frozen=True)
class _Module:
    """A module's syntax tree, and what its names stand for: its own definitions, and what it imports from fixtures/."""

    path: Path
    lines: list[str]
    tree: ast.Module
    own: dict[str, ast.AST]
    imported: dict[str, tuple[str, str]]


#: A definition and its module.
_Place = tuple[_Module, ast.AST]


@cache
def _module(path: Path) -> _Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    own: dict[str, ast.AST] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own[node.name] = node
        elif isinstance(node, ast.Assign):
            own |= _assigned(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            own[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fixtures."):
            file = (node.module or "").rpartition(".")[2]
            imported |= {name.asname or name.name: (file, name.name) for name in node.names}
    return _Module(path, text.splitlines(), tree, own, imported)


def _assigned(node: ast.Assign) -> Iterator[tuple[str, ast.AST]]:
    """Each name of an assignment, with its value; of `A, B = 1, 2` each name has its own."""
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for name, value in zip(target.elts, node.value.elts, strict=False):
                if isinstance(name, ast.Name):
                    yield name.id, value
        elif isinstance(target, ast.Name):
            yield target.id, node.value


def _fixtures() -> dict[str, _Place]:
    """The fixtures of fixtures/, which every suite may use by their names."""
    modules = [_module(path) for path in sorted(FIXTURES.glob("*.py"))]
    return {name: (module, node) for module in modules for name, node in module.own.items() if _is_fixture(node)}


def _is_fixture(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        "pytest.fixture" in ast.unparse(decorator) for decorator in node.decorator_list
    )


@cache
def _strings(node: ast.AST) -> tuple[str, ...]:
    """Every string constant in it, once."""
    found = (it.value for it in ast.walk(node) if isinstance(it, ast.Constant) and isinstance(it.value, str))
    return tuple(dict.fromkeys(found))


class _Uses:
    """Collects the manifests that a definition names, and those that the definitions and fixtures behind it name."""

    def __init__(self, fixtures: dict[str, _Place], known: set[str]) -> None:
        self._fixtures, self._known = fixtures, known
        self._seen: set[int] = set()
        #: In the order in which they are met: the test's own ones first.
        self.manifests: list[str] = []

    def follow(self, module: _Module, node: ast.AST) -> None:
        """Collect from a definition, then from those that it uses."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        self.manifests += [name for name in _strings(node) if name in self._known and name not in self.manifests]
        given = _given(node)
        behind = [self._defined(module, name) for name in _names(node) if name not in given]
        if _is_fixture(node) or _is_test(node):
            behind += [self._fixture(module, name) for name in (*given, *_used_fixtures(node))]
        for place in behind:
            if place:
                self.follow(*place)

    def _defined(self, module: _Module, name: str) -> _Place | None:
        """What a name of the module stands for."""
        if name in module.own:
            return module, module.own[name]
        if name in module.imported:
            file, original = module.imported[name]
            source = _module(FIXTURES / f"{file}.py")
            return self._defined(source, original) if original in source.own else None
        return None

    def _fixture(self, module: _Module, name: str) -> _Place | None:
        """The fixture of this name: the module's own one, or else that of fixtures/."""
        if _is_fixture(module.own.get(name, module.tree)):
            return module, module.own[name]
        return self._fixtures.get(name)


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def _given(node: ast.AST) -> list[str]:
    """The names of a function's parameters."""
    if not isinstance(node, ast.FunctionDef):
        return []
    return [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


@cache
def _names(node: ast.AST) -> tuple[str, ...]:
    """The names that it reads, without those that only annotate."""
    skipped = {id(it) for part in ast.walk(node) for it in _annotations(part)}
    found = (it.id for it in ast.walk(node) if isinstance(it, ast.Name) and id(it) not in skipped)
    return tuple(dict.fromkeys(found))


def _annotations(node: ast.AST) -> Iterator[ast.AST]:
    for value in (getattr(node, "annotation", None), getattr(node, "returns", None)):
        if isinstance(value, ast.AST):
            yield from ast.walk(value)


def _used_fixtures(node: ast.AST) -> Iterator[str]:
    """The fixtures that `@pytest.mark.usefixtures` names."""
    for decorator in getattr(node, "decorator_list", ()):
        if ast.unparse(decorator).startswith("pytest.mark.usefixtures("):
            yield from _strings(decorator)


# --- what the tests wait for


@cache
def budgets() -> dict[str, str]:
    """What each time budget of `fixtures/patience.py` waits for: the first sentence of the comment above it."""
    text = (FIXTURES / "patience.py").read_text(encoding="utf-8")
    found = {}
    for comment, name in re.findall(r"((?:^    #: .*\n)+)    (\w+) = Budget\(", text, re.MULTILINE):
        words = " ".join(comment.replace("#:", " ").split())
        found[name] = re.split(r"(?<=[.:])\s", words)[0].rstrip(".:")
    return found
