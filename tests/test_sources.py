"""Every test is a lesson with a fact, its code and its manifests, and every manifest belongs to a lesson."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures import manifests
from fixtures.patience import BUDGETS
from lessons import catalogue, sources
from lessons.sources import INFRASTRUCTURE, budgets, every, lesson


def names_of(test_id: str) -> list[str]:
    """The names of the manifests that belong to a test."""
    return [manifest.name for manifest in lesson(test_id).manifests]


def test_every_test_of_the_suites_is_a_lesson(root: Path) -> None:
    written = {
        f"suites/{path.name}::{name}"
        for path in (root / "suites").glob("*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert len(written) > 100
    assert every().keys() == written


def test_every_lesson_has_a_fact_and_code() -> None:
    assert [one.id for one in every().values() if not one.fact or "\n" in one.fact] == []
    assert [one.id for one in every().values() if f"def {one.id.rpartition('::')[2]}(" not in one.code] == []


def test_every_behavior_has_a_lesson() -> None:
    shown = {name for one in every().values() for name in one.behaviors}

    assert shown == {behavior.id for behavior in catalogue.catalogue().values() if not behavior.planned}


def test_every_manifest_belongs_to_a_lesson() -> None:
    used = {manifest.name for one in every().values() for manifest in one.manifests}

    unused = [name for name in manifests.names() if name not in used and name not in INFRASTRUCTURE]
    assert unused == [], (
        "no test names these manifests in double quotes, nor does a fixture of a test; use or delete them"
    )


def test_infrastructure_exists_and_belongs_to_no_lesson() -> None:
    used = {manifest.name for one in every().values() for manifest in one.manifests}

    assert set(INFRASTRUCTURE) <= set(manifests.names())
    assert used & set(INFRASTRUCTURE) == set()


def test_a_lesson_is_what_a_reader_sees_in_the_suite(root: Path) -> None:
    name = "suites/test_replicasets.py::test_three_replicas_are_three_pods_from_the_template"

    found = lesson(name)

    assert found.title == "Three replicas are three pods from the template"
    assert found.fact.startswith("`replicas: 3` gives three running Pods: named after the ReplicaSet")
    assert found.behaviors == ("objects/replicaset-of-three",)
    assert found.code.startswith('@pytest.mark.behavior("objects/replicaset-of-three")\n')
    assert (root / found.file).read_text().splitlines()[found.line - 1] == found.code.splitlines()[0]
    (manifest,) = found.manifests
    assert manifest.name == "replicasets/replicaset-nginx.yaml"
    assert manifest.text == (root / "manifests" / manifest.name).read_text()


@pytest.mark.parametrize("suffix", ["", "[node-selector.yaml]", "@cluster", "[a@b]@cluster"])
def test_parameters_and_groups_lead_to_the_function(suffix: str) -> None:
    (function, *_) = every()

    assert lesson(function + suffix).id == function


def test_there_is_no_lesson_of_a_test_that_does_not_exist() -> None:
    with pytest.raises(KeyError):
        lesson("suites/test_pods.py::test_nothing")


def test_the_manifests_of_fixtures_behind_fixtures_belong_to_the_test() -> None:
    found = names_of("suites/test_services.py::test_no_interface_has_the_services_address")

    assert found == ["services/svc-clusterip.yaml", "services/unready-pod.yaml", "services/deployment-nginx.yaml"]


def test_every_time_budget_has_words() -> None:
    assert budgets().keys() == set(BUDGETS)
    assert [name for name, words in budgets().items() if not words or len(words) > 200] == []


# --- suites of other shapes

Suite = Callable[[str], list[str]]


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """`suite(code)`: the manifests of the only test of a suite with this code."""
    (tmp_path / "suites").mkdir()
    monkeypatch.setattr(catalogue, "SUITES", tmp_path / "suites")
    every.cache_clear()

    def manifests_of(code: str) -> list[str]:
        (tmp_path / "suites" / "test_sample.py").write_text(f"import pytest\n{code}\n")
        return names_of("suites/test_sample.py::test_it")

    yield manifests_of
    every.cache_clear()


A, B = "pods/nginx-pod.yaml", "pods/labeled-pod.yaml"


@pytest.mark.parametrize(
    "code",
    [
        f'def test_it(kube): kube.create("{A}")',
        f'POD = "{A}"\ndef test_it(kube): kube.create(POD)',
        f'NAME, POD = "x", "{A}"\ndef test_it(kube): kube.create(POD)',
        f'POD: str = "{A}"\ndef test_it(kube): kube.create(POD)',
        f'@pytest.mark.parametrize("name", ["{A}"])\ndef test_it(kube, name): kube.create(name)',
        f'CASES = ["{A}"]\n@pytest.mark.parametrize("name", CASES)\ndef test_it(kube, name): kube.create(name)',
        f'def made(kube): return kube.create("{A}")\ndef test_it(kube): made(kube)',
        f'class Made:\n    name = "{A}"\ndef test_it(kube): Made()',
        f'@pytest.fixture\ndef pod(kube): return kube.create("{A}")\ndef test_it(pod): pass',
        f'@pytest.fixture\ndef pod(kube): return kube.create("{A}")\n@pytest.fixture\ndef it(pod): pass\ndef test_it(it): pass',
        f'@pytest.fixture\ndef pod(kube): kube.create("{A}")\n@pytest.mark.usefixtures("pod")\ndef test_it(): pass',
        f'def test_it(inside): "{A}"',
    ],
)
def test_a_manifest_belongs_to_the_test_that_uses_it(suite: Suite, code: str) -> None:
    assert suite(code) == [A]


@pytest.mark.parametrize(
    "code",
    [
        f'def pod(kube): return kube.create("{A}")\ndef test_it(pod): pass',
        f'def test_it(kube): pass\ndef test_another(kube): kube.create("{A}")',
        f'def pod(): "{A}"\ndef test_it(x: pod) -> pod: pass',
        "def test_it(inside, ingress_class): pass",
        'def test_it(kube): kube.create("pods/no-such-file.yaml")',
    ],
)
def test_a_manifest_that_a_test_does_not_use_is_not_its_own(suite: Suite, code: str) -> None:
    assert suite(code) == []


def test_infrastructure_belongs_to_a_test_that_names_it(suite: Suite) -> None:
    assert suite(f'def test_it(inside): "{INFRASTRUCTURE[0]}"') == [INFRASTRUCTURE[0]]


def test_the_tests_own_manifests_come_before_those_of_its_fixtures(suite: Suite) -> None:
    code = f'@pytest.fixture\ndef pod(kube): kube.create("{A}")\ndef test_it(pod, kube): kube.create("{B}")'

    assert suite(code) == [B, A]


def test_a_suite_with_a_syntax_error_has_no_lessons(suite: Suite) -> None:
    with pytest.raises(KeyError):
        suite("def test_it(:")
    assert sources.every() == {}
