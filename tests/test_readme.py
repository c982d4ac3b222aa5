"""The README's generated parts are up to date. `python -m tests.readme` writes them again."""

import re
from collections.abc import Callable

import pytest

from fixtures.patience import Patience
from tests.readme import README, ROOT, SUITE, TEST, WIDTH, annotated, example, needs, part, reading_path

ANEW = "write it anew: .venv/bin/python -m tests.readme"
FAILURE_ANEW = f"{ANEW} --failure CONTEXT (it runs the example on the cluster of that kube context)"


@pytest.mark.parametrize(("name", "made"), [("reading path", reading_path), ("needs", needs), ("test", example)])
def test_a_generated_part_is_up_to_date(name: str, made: Callable[[], str]) -> None:
    assert part(name, README.read_text()) == made(), ANEW


def test_the_failure_has_the_line_number_of_its_quote() -> None:
    first, quoted, *rest = part("failure", README.read_text()).splitlines()[1:]

    found = re.fullmatch(rf"{SUITE}:(\d+): in {TEST}", first)
    assert found, f"the failure begins with {first!r}; {FAILURE_ANEW}"
    line = (ROOT / SUITE).read_text().splitlines()[int(found[1]) - 1]
    assert quoted.startswith(line.rstrip()), f"line {found[1]} is another now; {FAILURE_ANEW}"
    verdict = f"kubehave:   broken: objects/replicaset-of-three, {TEST}"[: WIDTH - 4]
    assert [line for line in rest if line.startswith(verdict)]


def test_the_failure_has_the_budgets_of_today() -> None:
    failure = part("failure", README.read_text())

    (unchanged,) = re.findall(r"nothing at all has happened for (\d+) s", failure)
    assert 0 <= int(unchanged) - Patience.controller_acts <= 2, FAILURE_ANEW
    assert re.findall(r"\(allowed: (\S+) s\)", failure) == [f"{Patience.pod_starts:g}"], FAILURE_ANEW


def test_every_number_of_the_failure_is_explained() -> None:
    text = README.read_text()
    numbers = re.findall(r"\((\d)\)$", part("failure", text), re.MULTILINE)

    assert numbers == ["1", "2", "3", "4", "5", "6"]
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == numbers


def test_a_failure_is_shortened_to_the_explained_lines() -> None:
    printed = (
        f"kubehave: 0 of 1, running: x (20 s)\n{SUITE}:9: in {TEST}\n    pods = x\n    ^^^\nE   AssertionError: no\n"
        f"E   {'y' * 200}\nkubehave: 0 of 1 behaviors hold, 1 broken\n"
    )

    assert [line.split()[-1] for line in annotated(printed).splitlines() if line] == [TEST, "(1)", "(2)", "broken"]


def test_every_link_of_the_readme_has_a_target() -> None:
    targets = [part.partition(")")[0] for part in README.read_text().split("](")[1:]]

    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_every_folder_is_on_the_map() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"} - {"report"}

    assert set(re.findall(r"^\| `(\w+)/` \|", README.read_text(), re.MULTILINE)) == folders
