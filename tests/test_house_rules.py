"""Checks the rules of CONTRIBUTING in the code of suites and fixtures.

A hidden assertion is an expression that raises another exception than AssertionError if the cluster is not as expected:
`(pod,) = kube.pods()` raises ValueError if there are two Pods. That says nothing about the cluster, so a broken promise would be
reported as inconclusive.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

#: Lines that a test may have after its docstring.
LINES = 25

#: Calls whose result always has as many parts as their callers unpack, whatever the cluster returns. `load_all` reads
#: a manifest of the repository, and unit tests check the manifests.
OF_FIXED_LENGTH = {"load_all", "partition", "rpartition", "divmod"}

#: Calls that assert how many things they return: the number is their first argument.
COUNTED = {"exactly", "ready_pods"}

#: Names of the objects that send requests to the cluster.
KUBES = {"kube", "other", "shared", "system", "everywhere", "made_by_the_test", "pacman_namespace", "full_namespace"}

#: What objects and Pods have by name, and may lack.
NAMED = {"labels", "annotations", "matchLabels", "options"}

#: Every Node has this label, and no test claims it. Without it nothing can be looked at.
GIVEN = {"HOSTNAME", "'kubernetes.io/hostname'"}

COUNT = "raises ValueError, which is no verdict; write `exactly(n, ...)`"
FIRST = "raises IndexError, which is no verdict; write `(thing,) = exactly(1, ...)`"


#: The syntax tree of a module. Several tests look at the same modules.
parsed = cache(ast.parse)


def files(root: Path, *folders: str) -> dict[str, str]:
    """The Python files of these folders, by their path in the checkout."""
    found = (path for folder in folders for path in sorted((root / folder).glob("*.py")))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in found}


def _returns_tuple(node: ast.FunctionDef) -> bool:
    """Whether the function is annotated with a tuple of fixed length: not tuple[str, ...], and not a union with None."""
    match node.returns:
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
            return not any(isinstance(part, ast.Constant) and part.value is ... for part in parts)
    return False


def tuples(*sources: str) -> set[str]:
    """The names of the functions that are annotated to return a tuple. mypy checks its length."""
    return {
        node.name
        for source in sources
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef) and _returns_tuple(node)
    }


def _called(node: ast.expr) -> str:
    """The last name in a call: "pods" of `kube.pods()`; "" if it is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _attribute_or_call(node: ast.expr) -> str:
    """The last name in an attribute or a call: "labels" of `pod.metadata.labels`, "options" of `options(pod)`."""
    return node.attr if isinstance(node, ast.Attribute) else _called(node)


def _asks_kube(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in KUBES
    )


def _is_body(node: ast.expr) -> bool:
    """Whether this reads the body of an answer as JSON."""
    return _called(node) == "loads" and "body" in [_attribute_or_call(arg) for arg in getattr(node, "args", ())]


def _counts(node: ast.expr, number: int) -> bool:
    """Whether this call asserts that it returns this number of things."""
    return (
        isinstance(node, ast.Call)
        and _called(node) in COUNTED
        and bool(node.args)
        and ast.unparse(node.args[0]) == str(number)
    )


def _may_differ(target: ast.Tuple | ast.List, value: ast.expr, fixed: set[str]) -> bool:
    """Whether the value may have more or fewer parts than the target has names."""
    if isinstance(value, ast.ListComp | ast.GeneratorExp | ast.SetComp):
        return _called(value.generators[0].iter) != "load_all"
    if not isinstance(value, ast.Call) or _called(value) in fixed or _called(value) == "zip":
        return False  # another rule is about zip
    starred = any(isinstance(name, ast.Starred) for name in target.elts)
    if starred and len(target.elts) == 2 and _called(value) == "split" and value.args:
        return False  # a string that is split at a separator has at least one part
    return not _counts(value, len(target.elts))


def _flaw(node: ast.AST, fixed: set[str]) -> str | None:
    """What is wrong with this syntax node, and the remedy."""
    if isinstance(node, ast.Assign):
        targets = [target for target in node.targets if isinstance(target, ast.Tuple | ast.List)]
        return f"unpacking {COUNT}" if any(_may_differ(target, node.value, fixed) for target in targets) else None
    if isinstance(node, ast.Subscript):
        place = ast.unparse(node.slice)
        if _attribute_or_call(node.value) in NAMED and isinstance(node.ctx, ast.Load) and place not in GIVEN:
            return f"[{place}] raises KeyError, which is no verdict; write `.get({place})`"
        if _is_body(node.value):
            return f"[{place}] raises KeyError, which is no verdict; read it as `Fields`, or write `.get({place})`"
        found = _asks_kube(node.value) and place in ("0", "-1") and not _counts(node.value, 1)
        return f"[{place}] of what the cluster has {FIRST}" if found else None
    if not isinstance(node, ast.Call):
        return None
    if _called(node) == "zip" and any(
        word.arg == "strict" and ast.unparse(word.value) == "True" for word in node.keywords
    ):
        return "zip(strict=True) raises ValueError, which is no verdict; assert the lengths, or compare lists of pairs"
    if isinstance(node.func, ast.Attribute) and node.func.attr == "index":
        return ".index() raises ValueError, which is no verdict; assert that it is in there, or compare lists"
    if isinstance(node.func, ast.Name) and node.func.id == "next" and len(node.args) == 1:
        return "next() raises StopIteration, which is no verdict; give it a default, or write `exactly(1, ...)`"
    return None


def hidden_assertions(source: str, label: str, fixed: set[str]) -> Iterator[str]:
    """Every hidden assertion: its file, line and code, and the remedy."""
    lines = source.splitlines()
    for node in ast.walk(parsed(source)):
        if flaw := _flaw(node, OF_FIXED_LENGTH | fixed):
            line = getattr(node, "lineno", 0)
            yield f"{label}:{line}: {lines[line - 1].strip()}: {flaw}"


def suite_tests(source: str) -> Iterator[ast.FunctionDef]:
    """The tests of a suite."""
    for node in parsed(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def body_lines(test: ast.FunctionDef) -> int:
    """The lines of a test after its docstring, blank ones included."""
    body = test.body[1:] if ast.get_docstring(test) else test.body
    return (test.end_lineno or 0) - body[0].lineno + 1 if body else 0


def sleeps(source: str) -> Iterator[int]:
    """The lines on which a module sleeps or imports what would."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node) == "time.sleep":
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module == "time" and "sleep" in [name.name for name in node.names]:
            yield node.lineno


#: A limit of a program's own that `--patience` does not multiply.
FIXED_LIMIT = re.compile(r'"--max-time", "\d|\+time=\d|timeout=\d+(?:m?s|")')


def fixed_limits(source: str) -> Iterator[int]:
    """The lines on which a program gets a fixed limit."""
    for number, line in enumerate(source.splitlines(), 1):
        if FIXED_LIMIT.search(line):
            yield number


def without_remedy(source: str) -> Iterator[int]:
    """The lines that skip a test with a reason that names no remedy, after a semicolon. A rule that forbids Pods is one."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.skip", "NotObserved") and node.args:
            reason = _text(node.args[0], parsed(source))
            if "; " not in reason and not reason.startswith("refused by Pod Security"):
                yield node.lineno


def _text(node: ast.expr, tree: ast.Module) -> str:
    """The constant parts of a text, and of the names in it."""
    parts = []
    for part in ast.walk(node):
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.Name):
            assigned = (
                it for it in ast.walk(tree) if isinstance(it, ast.Assign) and ast.unparse(it.targets[0]) == part.id
            )
            parts += [_text(it.value, tree) for it in assigned if isinstance(it.value, ast.Constant)]
    return "".join(parts)


def none(found: list[str]) -> None:
    """Assert that nothing was found; the message has one line for each finding."""
    if found:
        pytest.fail("\n".join(found), pytrace=False)


# --- the suites and the fixtures


def test_no_assertion_is_hidden(root: Path) -> None:
    shared = tuples(*files(root, "fixtures").values())

    found = [
        line
        for label, source in files(root, "suites", "fixtures").items()
        for line in hidden_assertions(source, label, shared | tuples(source))
    ]

    none(found)


def findings(
    root: Path, rule: Callable[[str], Iterator[int]], advice: str, folders: tuple[str, ...] = ("suites", "fixtures")
) -> list[str]:
    """Every line that breaks a rule, with its file and the advice."""
    return [f"{label}:{line}: {advice}" for label, source in files(root, *folders).items() for line in rule(source)]


def test_no_suite_sleeps(root: Path) -> None:
    advice = "a suite never sleeps; wait for an event with `eventually`, or repeat a check with `throughout`"

    none(findings(root, sleeps, advice, ("suites",)))


def test_patience_multiplies_every_limit(root: Path) -> None:
    none(findings(root, fixed_limits, "a fixed limit; multiply it by `patience.factor`, or use `silence()`"))


def test_every_skip_names_a_remedy(root: Path) -> None:
    none(findings(root, without_remedy, "a skip without a remedy; say after a semicolon what a user can do"))


def test_every_test_states_its_fact(root: Path) -> None:
    found = [
        f"{label}:{test.lineno}: {test.name} has no docstring; write the fact as a learner should remember it"
        for label, source in files(root, "suites").items()
        for test in suite_tests(source)
        if not ast.get_docstring(test)
    ]

    none(found)


def test_every_test_fits_on_a_screen(root: Path) -> None:
    found = [
        f"{label}:{test.lineno}: {test.name} has {body_lines(test)} lines; {LINES} fit on a screen, show one fact in each test"
        for label, source in files(root, "suites").items()
        for test in suite_tests(source)
        if body_lines(test) > LINES
    ]

    none(found)


def test_all_objects_that_send_requests_are_known(root: Path) -> None:
    found = {
        node.name
        for source in files(root, "suites", "fixtures").values()
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef)
        and any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list)
        and node.returns
        and ast.unparse(node.returns) in ("Kube", "Iterator[Kube]")
    }

    assert found >= {"kube", "system", "made_by_the_test"}
    assert found <= KUBES


def test_there_are_suites_to_check(root: Path) -> None:
    assert sum(len(list(suite_tests(source))) for source in files(root, "suites").values()) > 100
    assert len(files(root, "fixtures")) > 10


# --- the rules themselves


@pytest.mark.parametrize(
    "code",
    [
        '(pod,) = kube.pods(app="web")',
        "[pod] = kube.pods()",
        "first, second = sorted(kube.pods(), key=name)",
        "first, *others = kube.pods()",
        '(pod,) = exactly(2, kube.pods(app="web"))',
        "first, second = kube.ready_pods(3)",
        "(new,) = [pod for pod in pods if pod.metadata.uid != old]",
        "head, row = (line.split() for line in lines)",
        "status, reason = line.split()",
        "pod = kube.ready_pods(replicas)[0]",
        "last = shared.list('Pod')[-1]",
        "first = other.pods()[0]",
        "user = json.loads(answer.body)['status']['userInfo']",
        "there, ready = zip(*over_time(pods), strict=True)",
        "pairs = dict(zip(head, row, strict=True))",
        "number = names.index('web')",
        "pod = next(pod for pod in pods if is_ready(pod))",
        "uid = pod.metadata.labels[JOB_UID]",
        "index = pod.metadata.annotations['index']",
        "peers = options(pod)['--initial-cluster'].split(',')",
    ],
)
def test_a_hidden_assertion_is_found(code: str) -> None:
    (found,) = {line.partition(": ")[0] for line in hidden_assertions(f"\n{code}\n", "x.py", set())}

    assert found == "x.py:2"


@pytest.mark.parametrize(
    "code",
    [
        '(pod,) = exactly(1, kube.pods(app="web"))',
        '(pod,) = kube.ready_pods(1, app="web")',
        "pod = kube.ready_pods(1)[0]",
        "status, reason = progress(kube)",
        "*lines, rest = text.split('\\n')",
        "(service,) = [it for it in load_all('services/myapp.yaml') if it['kind'] == 'Service']",
        "deployment, service = load_all('deployments/without-downtime.yaml')",
        "name, _, tag = image.partition(':')",
        "old, new = 'nginx:1', 'nginx:2'",
        "for name, image in images.items(): pass",
        "pod = next((pod for pod in pods if is_ready(pod)), None)",
        "pairs = list(zip(head, row, strict=False))",
        "container = pod.spec.containers[0]",
        "index = labels['index']",
        "user = json.loads(answer.body).get('status')",
        "index = pod.metadata.labels.get('index')",
        "name = node.metadata.labels['kubernetes.io/hostname']",
    ],
)
def test_code_that_does_not_depend_on_the_cluster_is_allowed(code: str) -> None:
    fixed = tuples("def progress(kube) -> tuple[str, str]: ...")

    assert list(hidden_assertions(code, "x.py", fixed)) == []


def test_a_tuple_of_any_length_is_not_fixed() -> None:
    source = "def a() -> tuple[str, ...]: ...\ndef b() -> list[str]: ...\ndef c() -> tuple[int, int] | None: ..."

    assert tuples(source) == set()


def test_a_finding_names_file_line_code_and_remedy() -> None:
    (found,) = hidden_assertions("x = 1\n(pod,) = kube.pods()\n", "suites/test_x.py", set())

    assert found == (
        "suites/test_x.py:2: (pod,) = kube.pods(): "
        "unpacking raises ValueError, which is no verdict; write `exactly(n, ...)`"
    )


def test_lines_are_counted_without_the_docstring() -> None:
    (test,) = suite_tests('def test_x(kube):\n    """A fact.\n\n    More.\n    """\n    a = 1\n\n    assert a\n')

    assert body_lines(test) == 3


@pytest.mark.parametrize(
    "code", ['run("curl", "--max-time", "2")', 'run("dig", "+time=2")', 'run("etcdctl", "--command-timeout=20s")']
)
def test_a_fixed_limit_is_found(code: str) -> None:
    assert list(fixed_limits(f"\n{code}\n")) == [2]
    assert list(fixed_limits(re.sub(r"\d+", "{silence():g}", code))) == []


@pytest.mark.parametrize("call", ["pytest.skip", "raise NotObserved"])
def test_a_skip_without_a_remedy_is_found(call: str) -> None:
    assert list(without_remedy(f'\n{call}("no etcd")\n')) == [2]
    assert list(without_remedy(f'\n{call}(f"no etcd ({{there}})")\n')) == [2]
    assert list(without_remedy(f'\n{call}("no etcd; add one")\n')) == []
    assert list(without_remedy(f'\nwhy = "no etcd; add one"\n{call}(f"{{why}}: {{error}}")\n')) == []


@pytest.mark.parametrize("code", ["import time\ntime.sleep(1)", "pass\nfrom time import sleep"])
def test_a_sleep_is_found(code: str) -> None:
    assert list(sleeps(code)) == [2]
