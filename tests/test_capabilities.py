"""What is not the suite's own is changed nowhere outside of the suite's namespaces."""

from typing import Any, cast

import pytest

from fixtures.api import Api
from runner import capabilities


class AllowsEverything:
    """An API server whose user may do anything."""

    def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The answer to a SelfSubjectAccessReview."""
        return {"status": {"allowed": True}}


@pytest.mark.parametrize("need", ["cluster-admin", "node-fault"])
@pytest.mark.parametrize("ours", [True, False])
def test_an_administrator_of_a_foreign_cluster_is_not_taken_at_their_word(
    monkeypatch: pytest.MonkeyPatch, need: str, ours: bool
) -> None:
    monkeypatch.setattr(capabilities, "is_ours", lambda _: ours)

    lack = capabilities.CHECKS[need](cast("Api", AllowsEverything()))

    assert (lack is None) is ours
