"""What a failed wait for a Pod says of it."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.fields import Fields
from fixtures.kube import _state

CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "score"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
BAD_IMAGE = {"name": "c", "image": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ({}, {"conditions": [UNSCHEDULABLE]}, "Unschedulable"),
        ({"nodeName": "worker"}, {"containerStatuses": [BAD_IMAGE]}, "ErrImagePull"),
        ({"nodeName": "worker"}, {}, "no reason given"),
        ({}, {}, "waiting for a node"),
        ({"volumes": [CLAIM, {"name": "tmp", "emptyDir": {}}]}, {}, "waiting for a node, or for a volume for score"),
    ],
)
def test_a_pod_that_is_not_ready_says_what_holds_it_up(spec: Any, status: Any, said: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}

    assert _state(Fields.of(pod | {"status": {"phase": "Pending"} | status})) == f"web is Pending: {said}"
