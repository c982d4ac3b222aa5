"""The client of the Ingress controller: which controller it finds, when that is ready, and a missing reply."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fixtures import ingress
from fixtures.api import Api
from fixtures.clients import Outside
from fixtures.fields import Fields
from fixtures.ingress import BETWEEN, IngressClient, assert_available, class_served, controllers_service
from fixtures.namespaces import MANAGED_BY
from machine.output import Output

LABELS = {"app.kubernetes.io/name": "some", "app.kubernetes.io/instance": "one"}


def ingress_class(name: str, **meta: Any) -> Fields:
    return Fields.of(
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name} | meta, "spec": {}}
    )


# --- the controller


def controller(generation: int = 1, observed: int | None = 1, **counts: int) -> Fields:
    counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1} | counts
    return Fields.of(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "contour", "generation": generation},
            "spec": {"replicas": 1},
            "status": counts | ({} if observed is None else {"observedGeneration": observed}),
        }
    )


def test_a_controller_is_available_on_fresh_status() -> None:
    assert_available(controller())


@pytest.mark.parametrize(
    ("deployment", "why"),
    [
        (controller(generation=2), "has seen generation 1, but not 2"),
        (controller(observed=None), "has seen generation 0, but not 1"),
        (controller(updatedReplicas=0), "0 of 1 Pods are updated"),
        (controller(availableReplicas=0), "0 of 1 Pods are available"),
        (controller(replicas=2, availableReplicas=2), "2 of 1 Pods are there"),
    ],
)
def test_a_controller_that_is_not_ready_says_why(deployment: Fields, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        assert_available(deployment)


def test_the_default_class_is_used_and_classes_of_runs_are_ignored() -> None:
    default = ingress_class("b", annotations={ingress.DEFAULT_CLASS: "true"})
    of_a_test = ingress_class("a", labels=dict(MANAGED_BY))

    assert class_served([of_a_test, ingress_class("c")]) == "c"
    assert class_served([ingress_class("a"), default, ingress_class("c")]) == "b"
    with pytest.raises(AssertionError, match="need ingress"):
        class_served([of_a_test])


def service(name: str, labels: Any = None, address: str = "10.0.0.9", namespace: str = "there", port: int = 80) -> Any:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    }


class Cluster:
    """An API server with these Services, and one namespace of the suite's own, `ours`."""

    def __init__(self, *services: Any) -> None:
        self._services = list(services)

    def resource(self, _: str) -> Any:
        """The API resource of Namespaces."""
        return type("Resource", (), {"namespaced": False, "path": staticmethod(lambda *_: "/api/v1/namespaces")})

    def call(self, _: str, path: str, **__: Any) -> Any:
        """A LIST."""
        ours = {"metadata": {"name": "ours", "labels": dict(MANAGED_BY)}}
        items = [ours] if path.endswith("namespaces") else self._services
        return {"apiVersion": "v1", "kind": "List", "items": items} | (
            {"kind": "NamespaceList"} if path.endswith("namespaces") else {}
        )


@pytest.mark.parametrize(
    ("services", "class_labels", "found"),
    [
        ([service("other"), service("controller", LABELS)], LABELS, "controller"),
        ([service("admission", LABELS, port=443), service("controller", LABELS)], LABELS, "controller"),
        ([service("other", address="10.0.0.8"), service("controller")], {}, "controller"),
        ([service("test", namespace="ours"), service("controller")], {}, "controller"),
        ([service("other", address="10.0.0.8")], {}, None),
    ],
)
def test_a_foreign_controllers_service_is_found_by_labels_or_address(
    services: list[Any], class_labels: dict[str, str], found: str | None
) -> None:
    api = cast("Api", Cluster(*services))

    service = controllers_service(api, ingress_class("some", labels=class_labels), ["10.0.0.9"])

    assert (service.metadata.name if service else None) == found


# --- the client


class Curl:
    """A client whose curl gives this output."""

    def __init__(self, *replies: str, error: str = "", code: int = 0) -> None:
        self._output = Output("".join(reply + BETWEEN for reply in replies), error, code)

    def quietly(self, *_: str) -> Output:
        """One curl."""
        return self._output


def client(*replies: str, error: str = "", code: int = 0) -> IngressClient:
    return IngressClient("some", cast("Outside", Curl(*replies, error=error, code=code)))


def test_each_url_gets_its_reply() -> None:
    replies = client("one\n200", "\n404").get_all(["http://a", "http://b"], "192.0.2.1")

    assert {url: (reply.status, reply.body) for url, reply in replies.items()} == {
        "http://a": (200, "one"),
        "http://b": (404, ""),
    }


def test_after_a_missing_reply_the_other_urls_get_no_request() -> None:
    silent = client("one\n200", "\n000", error="curl: (28) silence", code=28)

    replies = silent.get_all(["http://a", "http://b", "http://c"], "192.0.2.1")

    assert [reply.status for reply in replies.values()] == [200, None, None]


@pytest.mark.parametrize("replies", [(), ("one\n200",)])
def test_a_request_that_was_not_sent_is_an_error(replies: tuple[str, ...]) -> None:
    with pytest.raises(RuntimeError, match="could not send its requests"):
        client(*replies, error="no such container", code=125).get_all(["http://a", "http://b"], "192.0.2.1")


def test_a_controllers_service_comes_before_the_address_in_the_status() -> None:
    found = IngressClient("some", cast("Outside", Curl()), entry="10.96.0.1")

    assert found.address_of(cast("Any", None), "web") == "10.96.0.1"
