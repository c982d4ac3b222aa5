"""What the report says that a test has seen."""

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures import seen
from fixtures.fields import Fields
from machine.output import Output


@pytest.fixture(autouse=True)
def nothing_seen() -> Iterator[None]:
    seen.forget()
    yield
    seen.forget()


def pod(name: str, phase: str = "Running") -> Fields:
    ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
    return Fields.of(raw | {"status": {"phase": phase, "conditions": [ready]}})


def test_what_a_test_made_is_shown_as_it_was_read_last() -> None:
    seen.made(pod("web", "Pending"))
    seen.read("Pod", [pod("web"), pod("web-2")], "app=web")
    seen.read("v1/Pod", [pod("web")], "web")

    assert seen.lines() == [
        "Pod web is Running, Ready",
        "2 Pods app=web: web is Running, Ready; web-2 is Running, Ready",
    ]


def test_what_a_test_made_and_never_read_has_no_status() -> None:
    seen.made(pod("web", "Pending"))

    assert seen.lines() == ["Pod web: made"]


def test_a_made_object_that_is_no_longer_there_is_gone() -> None:
    seen.made(pod("web"))
    seen.read("Pod", [], "web")

    assert seen.lines() == ["Pod web: gone"]


def test_the_answer_to_a_binding_is_no_object() -> None:
    seen.made(Fields.of({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}))

    assert seen.lines() == []


def test_equal_answers_are_counted() -> None:
    for status in ("200", "200", "503"):
        seen.answered("GET http://web", status)

    assert seen.lines() == ["GET http://web: 200 (2 times)", "GET http://web: 503"]


def test_of_many_replies_the_last_count_is_shown() -> None:
    seen.counted("GET http://web", ["200"])
    seen.counted("GET http://web", ["200", "200", "000 curl error 7"])

    assert seen.lines() == ["GET http://web: 2 times 200, 1 times 000 curl error 7"]


def test_a_command_is_shown_with_its_first_line_and_a_failed_one_with_its_code() -> None:
    seen.ran("web", ["hostname"], Output("web\nmore\n", "", 0))
    seen.ran("", ["kubectl", "get", "pod"], Output("", "no such thing", 1))

    assert seen.lines() == ["web$ hostname: done: web", "$ kubectl get pod: exit code 1: no such thing"]


def test_of_a_long_command_both_ends_are_shown() -> None:
    seen.ran("web", ["curl", *["--option"] * 20, "http://web:8080/"], Output("", "", 0))

    (line,) = seen.lines()
    assert line.startswith("web$ curl --option")
    assert line.endswith("--option http://web:8080/: done")


def test_lines_are_few_and_short() -> None:
    for number in range(40):
        seen.answered(f"GET http://web/{number}/{'x' * 200}", "200")

    lines = seen.lines()

    assert len(lines) == seen.LINES
    assert lines[-1] == "and 29 more"
    assert max(map(len, lines)) == seen.WIDTH
