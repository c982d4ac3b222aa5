"""A run checks once whether the cluster has a provider of load balancers, and all processes get the same answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from fixtures import cloud
from fixtures.api import Api, ApiRefusal
from fixtures.cloud import ANSWER, Provider, assigns_addresses
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.patience import Budget, patience

ADDRESS, DOCUMENTATION_ADDRESS = {"ip": "10.1.2.3"}, {"ip": "192.0.2.7"}


def service(name: str, *given: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "resourceVersion": "1", "annotations": {}},
        "status": {"loadBalancer": {"ingress": list(given)} if given else {}},
    }


class Cluster:
    """The Services of a cluster as `Kube` and `Api` show them. `before_patch` happens just before the next patch."""

    def __init__(self, *others: dict[str, Any], given: tuple[dict[str, str], ...] = ()) -> None:
        self.probe: dict[str, Any] | None = None
        self.others, self._given = list(others), given
        self.before_patch: Callable[[dict[str, Any]], object] = lambda _: None

    def shared(self) -> Kube:
        """The run's shared namespace, as another process sees it."""
        return cast("Kube", Process(self))


class Process:
    """The verbs and the connection of one process."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self.api = cluster, self

    def call(self, *_: Any) -> dict[str, Any]:
        """LIST of all Services."""
        return {"items": [it for it in (*self._cluster.others, self._cluster.probe) if it]}

    def create(self, manifest: dict[str, Any]) -> None:
        """POST."""
        if self._cluster.probe:
            raise ApiRefusal("POST", 409, "{}")
        self._cluster.probe = service(manifest["metadata"]["name"], *self._cluster._given)

    def get(self, _: str, name: str) -> Fields:
        """GET."""
        found = next(it for it in self.call()["items"] if it["metadata"]["name"] == name)
        return Fields.of(found | {"metadata": dict(found["metadata"])})

    def patch(self, kind: str, name: str, change: dict[str, Any], *_: str) -> Fields:
        """PATCH, refused if the Service has changed."""
        assert self._cluster.probe
        meta = self._cluster.probe["metadata"]
        happens, self._cluster.before_patch = self._cluster.before_patch, lambda _: None
        happens(meta)
        if change["metadata"]["resourceVersion"] != meta["resourceVersion"]:
            raise ApiRefusal("PATCH", 409, "{}")
        meta["annotations"] = meta["annotations"] | change["metadata"]["annotations"]
        meta["resourceVersion"] += "1"
        return self.get(kind, name)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud, "is_ours", lambda _: False)
    monkeypatch.setattr(patience, "provider_answers", Budget(0.05, "provider_answers"))
    monkeypatch.setattr(patience, "load_balancer", Budget(0.05, "load_balancer"))


def test_a_provider_is_found_before_it_has_services() -> None:
    assert assigns_addresses(Cluster(given=(ADDRESS,)).shared())


def test_a_provider_that_gives_hostnames_is_found() -> None:
    assert assigns_addresses(Cluster(given=({"hostname": "lb.example"},)).shared())


def test_without_an_address_there_is_no_provider() -> None:
    assert not assigns_addresses(Cluster(service("without")).shared())


def test_addresses_from_the_suite_do_not_show_a_provider() -> None:
    assert not assigns_addresses(Cluster(service("of-a-test", DOCUMENTATION_ADDRESS)).shared())


def test_a_provider_that_gives_only_the_probe_no_address_exists_but_is_broken() -> None:
    cluster = Cluster(service("foreign", ADDRESS), service("own"))

    assert assigns_addresses(cluster.shared())
    with pytest.raises(AssertionError, match="expected 1, found 0"):
        Provider().address_of(cluster.shared(), "own")


def test_two_addresses_are_an_error() -> None:
    cluster = Cluster(service("own", ADDRESS, {"ip": "10.1.2.4"}))

    with pytest.raises(AssertionError, match="expected 1, found 2"):
        Provider().address_of(cluster.shared(), "own")


class Refusing:
    """An API server whose user may not list Services."""

    def call(self, *_: Any) -> Any:
        """403."""
        raise ApiRefusal("GET /api/v1/services", 403, "{}")


def test_without_the_right_to_list_services_there_are_none() -> None:
    assert cloud.all_services(cast("Api", Refusing())) == []


def test_later_processes_get_the_first_answer() -> None:
    cluster = Cluster()
    assert not assigns_addresses(cluster.shared())

    assert cluster.probe
    cluster.probe["status"] = service("late", ADDRESS)["status"]

    assert not assigns_addresses(cluster.shared())


def test_the_first_written_of_two_answers_counts() -> None:
    def another_process_answers(meta: dict[str, Any]) -> None:
        meta.update(annotations={ANSWER: "yes"}, resourceVersion="2")

    cluster = Cluster()
    cluster.before_patch = another_process_answers

    assert assigns_addresses(cluster.shared())


def test_a_process_checks_once() -> None:
    cluster = Cluster(given=(ADDRESS,))
    shared = cluster.shared()

    first = assigns_addresses(shared)
    cluster.probe = None

    assert assigns_addresses(shared) is first
