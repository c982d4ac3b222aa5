"""What is not the suite's own is changed nowhere outside of the suite's namespaces."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.api import Api, ApiRefusal
from fixtures.namespaces import RunId
from runner import capabilities
from runner.capabilities import Question, why_missing


class AllowsEverything:
    """An API server whose user may do anything."""

    def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The answer to a SelfSubjectAccessReview."""
        return {"status": {"allowed": True}}


RUN = RunId("abc", "host", "1.1")


@pytest.mark.parametrize("need", ["cluster-admin", "node-fault"])
@pytest.mark.parametrize("ours", [True, False])
def test_an_administrator_of_a_foreign_cluster_is_not_taken_at_their_word(
    monkeypatch: pytest.MonkeyPatch, need: str, ours: bool
) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: ours)

    missing = capabilities.CHECKS[need](Question(cast("Api", AllowsEverything()), RUN))

    assert (missing is None) is ours


@pytest.mark.parametrize(("need", "agreed"), [("cluster-admin", True), ("node-fault", False)])
def test_who_agrees_to_cluster_scoped_changes_agrees_to_no_more(
    monkeypatch: pytest.MonkeyPatch, need: str, agreed: bool
) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: False)

    missing = capabilities.CHECKS[need](Question(cast("Api", AllowsEverything()), RUN, agreed=True))

    assert (missing is None) is agreed


def test_a_capability_is_looked_up_once_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter(["the first answer", "another one"])
    monkeypatch.setitem(capabilities.CHECKS, "storage", lambda _: next(answers))
    asked = Question(cast("Api", AllowsEverything()), RUN)

    assert [why_missing(asked, "storage", tmp_path) for _ in range(2)] == ["the first answer"] * 2


def test_a_missing_right_is_what_the_cluster_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    message = 'nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope'

    def refuse(_: Question) -> str:
        raise ApiRefusal("GET /api/v1/nodes", 403, json.dumps({"message": message}))

    monkeypatch.setitem(capabilities.CHECKS, "multi-node", refuse)

    missing = why_missing(Question(cast("Api", AllowsEverything()), RUN), "multi-node", tmp_path)

    assert missing == "the right to list nodes is missing for this context's user; grant it"
