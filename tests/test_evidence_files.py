"""Keeping evidence of a failed test does not take long."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import pytest

from fixtures.api import Api, ApiRefusal
from fixtures.fields import Fields
from fixtures.kube import Kube
from runner import evidence_files


def thing(kind: str, name: str, **others: Any) -> Fields:
    return Fields.of({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | others)


def node(name: str, ready: str) -> Fields:
    return thing("Node", name, status={"conditions": [{"type": "Ready", "status": ready}]})


def pod(name: str, on: str) -> Fields:
    return thing("Pod", name, spec={"nodeName": on, "containers": [{"name": "web"}]})


class _Logs:
    """A namespace with two Pods on each of three nodes. One node is not Ready, and the kubelet of another does not answer."""

    def __init__(self, status: int) -> None:
        self._status = status
        self.asked: list[str] = []

    def aside(self) -> _Logs:
        return self

    def list(self, kind: str) -> list[Fields]:
        nodes = [node("good", "True"), node("silent", "True"), node("lost", "Unknown")]
        pods = [pod(f"{on}-{number}", on) for on in ("good", "silent", "lost") for number in (1, 2)]
        return {"Node": nodes, "Pod": pods}.get(kind, [])

    def logs(self, name: str, _container: str) -> str:
        self.asked.append(name)
        if name.startswith("silent"):
            raise ApiRefusal("GET log", self._status, "dial tcp: i/o timeout")
        return "a line"


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (500, ["good-1", "good-2", "silent-1", "good-1", "good-2"]),
        (404, ["good-1", "good-2", "silent-1", "silent-2"] * 2),
    ],
)
def test_a_node_that_does_not_answer_is_asked_for_one_log_only(
    monkeypatch: pytest.MonkeyPatch, status: int, asked: list[str]
) -> None:
    logs = _Logs(status)
    monkeypatch.setattr(evidence_files, "Kube", lambda *_: logs)

    monkeypatch.setattr(evidence_files, "_silent", {})

    for _ in ("one test", "another test"):
        for _, text in evidence_files._files(cast("Api", None), [cast("Kube", cast("Any", logs))]):
            with suppress(Exception):
                text()

    assert logs.asked == asked
