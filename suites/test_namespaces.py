"""Namespaces: each has its own objects, names, DNS names and limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from fixtures.api import ApiRefusal, Connection, refused
from fixtures.clients import Inside
from fixtures.fields import Fields
from fixtures.kube import Kube
from fixtures.kubectl import Kubectl, context_of, print_of
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.waiting import eventually

POD = "namespaces/counted-pod.yaml"
SERVICE = "namespaces/db-service.yaml"


def pod(name: str, **requests: str) -> Manifest:
    """The counted Pod by another name, and with these requests changed."""
    manifest = load(POD)
    manifest["metadata"]["name"] = name
    manifest["spec"]["containers"][0]["resources"]["requests"] |= requests
    return manifest


def names(kube: Kube) -> list[str]:
    """The names of the Pods in a namespace."""
    return [found.metadata.name for found in kube.list("Pod")]


# --- objects


@pytest.mark.behavior("core-concepts/namespaces-separate-resources")
@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_a_cluster_comes_with_namespaces_of_its_own(kube: Kube, name: str) -> None:
    """Every cluster has the namespaces default, kube-system and kube-public."""
    assert kube.get("Namespace", name).status.phase == "Active"


@pytest.mark.behavior("core-concepts/namespaces-separate-resources")
def test_two_namespaces_can_have_objects_of_one_name(kube: Kube, other: Kube) -> None:
    """A name is taken in one namespace only: in another one it names another object. A list shows one namespace's objects."""
    one, another = kube.create(pod("same-name")), other.create(pod("same-name"))

    assert one.metadata.uid != another.metadata.uid
    with refused(409):
        kube.create(pod("same-name"))
    kube.create(pod("only-here"))
    assert names(kube) == ["only-here", "same-name"]
    assert names(other) == ["same-name"]


@pytest.mark.behavior("core-concepts/namespaces-separate-resources")
def test_a_namespace_is_deleted_with_all_that_is_in_it(kube: Kube, other: Kube) -> None:
    """Delete a namespace, and its objects are deleted with it. Other namespaces keep theirs."""
    for place in (kube, other):
        place.create(pod("same-name"))
    kept = kube.get("Pod", "same-name").metadata.uid

    other.delete("Namespace", other.namespace)

    for look in eventually(within=patience.namespace_empties):
        with look:
            assert names(other) == []
            assert not other.exists("ServiceAccount", "default")
    assert kube.exists("Pod", "same-name", kept)
    assert kube.get("Namespace", kube.namespace).status.phase == "Active"


# --- DNS names


@pytest.fixture
def neighbor(kube: Kube) -> Iterator[Inside]:
    """A client in the test's namespace. The Service is there, too, and its Pod is Ready."""
    kube.apply(SERVICE)
    kube.ready_pods(2)
    with closing(Inside(kube, {"": "client"})) as client:
        yield client


@pytest.mark.behavior("core-concepts/short-name-in-the-same-namespace")
def test_a_short_name_leads_to_the_service_of_the_same_namespace(kube: Kube, neighbor: Inside, inside: Inside) -> None:
    """In its own namespace a Service is reached by its name alone. In another namespace there is nothing by this name."""
    address = kube.get("Service", "db-service").spec.clusterIP

    for look in eventually(within=patience.names_follow):
        with look:
            assert neighbor.addresses("db-service") == {address}
            assert neighbor.get("http://db-service/hostname").body == "db"
            elsewhere = inside.addresses("db-service"), inside.get("http://db-service/hostname").body
            assert address in inside.addresses(f"db-service.{kube.namespace}")
            assert inside.get(f"http://db-service.{kube.namespace}/hostname").body == "db"

    # A search domain of the nodes may have an address for every name, but not the Service's.
    assert address not in elsewhere[0]
    assert elsewhere[1] != "db"


@pytest.fixture
def db_service(kube: Kube) -> Fields:
    """A Service whose Pod is Ready. There is no client in its namespace."""
    service, server, _ = load_all(SERVICE)
    kube.apply(server)
    kube.ready_pod("db")
    return kube.apply(service)


@pytest.mark.behavior("core-concepts/full-dns-name-across-namespaces")
def test_a_full_name_leads_to_the_service_from_another_namespace(
    kube: Kube, db_service: Fields, inside: Inside, cluster_domain: str
) -> None:
    """<service>.<namespace>.svc.<domain> leads to a Service from everywhere. The name is made and deleted with the Service."""
    name = f"db-service.{kube.namespace}.svc.{cluster_domain}."
    for look in eventually(within=patience.names_follow):
        with look:
            assert inside.addresses(name) == {db_service.spec.clusterIP}
            assert inside.get(f"http://{name}/hostname").body == "db"

    kube.delete("Service", "db-service")

    for look in eventually(within=patience.names_follow):
        with look:
            assert inside.addresses(name) == set()
            assert inside.addresses(f"kubernetes.default.svc.{cluster_domain}.") != set()


# --- a context's default


@pytest.mark.behavior("core-concepts/default-namespace-of-a-context")
def test_a_context_names_the_namespace_of_commands(
    kube: Kube, other: Kube, kubectl: Kubectl, connection: Connection
) -> None:
    """Commands without a namespace act in that of the kubeconfig's context. `kubectl config set-context` changes it there."""
    users_own, whole = context_of(connection), print_of(connection)
    assert kubectl("create", "-f", "-", input=pod("before")).code == 0

    assert kubectl("config", "set-context", "--current", f"--namespace={other.namespace}").code == 0

    assert kubectl("create", "-f", "-", input=pod("after")).code == 0
    assert kubectl("get", "pods", "-o", "name").stdout.split() == ["pod/after"]
    assert (names(kube), names(other)) == (["before"], ["after"])
    assert context_of(connection) == users_own
    assert print_of(connection) == whole, "the user's own kubeconfig is not as it was"


# --- limits


def refusal_of(kube: Kube, manifest: Manifest, **query: str) -> str:
    """Create an object, or try to: why the API server does not admit it; "" if it does."""
    try:
        kube.create(manifest, **query)
    except ApiRefusal as refusal:
        if refusal.status != 403 or refusal.why_not_permitted:
            raise
        return refusal.message
    return ""


def counting_quota(kube: Kube) -> str:
    """Make a ResourceQuota, and wait until its controller has counted for the first time, before which it admits nothing.

    Returns its name.
    """
    made = kube.create("namespaces/compute-quota.yaml")
    for look in eventually(within=patience.controller_acts):
        with look:
            assert kube.get("ResourceQuota", made.metadata.name).status.hard == made.spec.hard
            assert refusal_of(kube, pod("fits"), dryRun="All") == ""
    return str(made.metadata.name)


@pytest.fixture
def quota(kube: Kube) -> str:
    """The name of a ResourceQuota whose controller has counted for the first time."""
    return counting_quota(kube)


@pytest.mark.behavior("core-concepts/resource-quota-per-namespace")
def test_a_quota_counts_what_fits(kube: Kube) -> None:
    """What fits into a ResourceQuota is admitted, and its status counts what all Pods together have requested."""
    quota = counting_quota(kube)

    assert [refusal_of(kube, pod(name)) for name in ("one", "two")] == ["", ""]

    for look in eventually(within=patience.controller_acts):
        with look:
            used = kube.get("ResourceQuota", quota).status.used
            assert used == {"pods": "2", "requests.cpu": "500m", "requests.memory": "512Mi"}


@pytest.mark.behavior("core-concepts/resource-quota-per-namespace")
def test_a_quota_refuses_one_pod_too_many(kube: Kube, other: Kube, quota: str) -> None:
    """Two Pods are allowed: the third is refused with 403, which names the quota. Another namespace is not limited."""
    three = [pod(name) for name in ("one", "two", "three")]
    assert [refusal_of(kube, one) for one in three[:2]] == ["", ""]

    why = refusal_of(kube, three[2])

    assert quota in why
    assert "requested: pods=1" in why
    assert names(kube) == ["one", "two"]
    assert [refusal_of(other, one) for one in three] == ["", "", ""]


@pytest.mark.behavior("core-concepts/resource-quota-per-namespace")
@pytest.mark.parametrize(("resource", "amount"), [("cpu", "2"), ("memory", "2Gi")])
def test_a_quota_refuses_too_large_a_request(kube: Kube, other: Kube, quota: str, resource: str, amount: str) -> None:
    """A Pod that requests too much is refused with 403, which names quota and resource. Another namespace is not limited."""
    too_large = pod("too-large", **{resource: amount})
    assert refusal_of(kube, pod("fits")) == ""

    why = refusal_of(kube, too_large)

    assert quota in why
    assert f"requested: requests.{resource}={amount}" in why
    assert names(kube) == ["fits"]
    assert refusal_of(other, too_large) == ""


@pytest.mark.behavior("core-concepts/resource-quota-per-namespace")
def test_a_quota_refuses_a_pod_without_requests(kube: Kube, other: Kube, quota: str) -> None:
    """Where a quota counts cpu and memory, each Pod must say how much it requests. Another namespace does not ask for it."""
    without = pod("without")
    del without["spec"]["containers"][0]["resources"]
    assert refusal_of(kube, pod("fits")) == ""

    why = refusal_of(kube, without)

    assert quota in why
    assert [resource for resource in ("requests.cpu", "requests.memory") if resource not in why] == []
    assert names(kube) == ["fits"]
    assert refusal_of(other, without) == ""
