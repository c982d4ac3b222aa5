"""Probes: what the kubelet asks a container, and what it does when the answer is bad."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fixtures.clients import Inside
from fixtures.fields import Fields
from fixtures.kube import Changes, Kube
from fixtures.manifests import load
from fixtures.patience import patience
from fixtures.waiting import eventually

STARTUP, LIVENESS = "probes/startup-goes-first.yaml", "probes/liveness.yaml"

#: nginx's page in its container: the probes ask for it.
PAGE = "/usr/share/nginx/html/index.html"

# --- startup


@pytest.fixture
def starting_pod(kube: Kube) -> str:
    """The name of a Pod whose container runs; its startup probe fails as long as nginx has no page /started."""
    name: str = kube.create(STARTUP).metadata.name
    for look in eventually(within=patience.pod_starts):
        with look:
            statuses = kube.get("Pod", name).status.containerStatuses
            assert [bool(status.state.running) for status in statuses] == [True]
    return name


def calls(kube: Kube, pod: str) -> list[str]:
    """The pages that nginx was asked for, in their order, as its log has them."""
    return re.findall(r'"GET (\S+) ', kube.logs(pod))


@pytest.mark.behavior("controllers/startup-probe-goes-first", "controllers/probes-are-optional-and-many")
def test_the_other_probes_wait_for_the_startup_probe(kube: Kube, starting_pod: str) -> None:
    """As long as the startup probe has not succeeded it alone is asked; once it has, the others are, and it no more."""
    for look in eventually(within=patience.probe_counts):
        with look:
            asked = calls(kube, starting_pod)
            assert asked.count("/started") >= 3, f"nginx was asked for {' '.join(asked[:8]) or 'nothing'}"
    assert kube.get("Pod", starting_pod).status.containerStatuses[0].started is False

    kube.exec(starting_pod, "touch", "/usr/share/nginx/html/started")

    for look in eventually(within=patience.probe_counts):
        with look:
            asked = calls(kube, starting_pod)
            assert set(asked[-4:]) == {"/?ready", "/?alive"}, f"nginx was last asked for {' '.join(asked[-4:])}"
    first_of_the_others = min(asked.index("/?ready"), asked.index("/?alive"))
    assert set(asked[:first_of_the_others]) == {"/started"}


# --- readiness


@pytest.fixture
def ready_pod(kube: Kube) -> Fields:
    """A Pod that is ready as long as it has its page, Ready; a Service leads to it."""
    kube.apply("probes/readiness.yaml")
    return kube.ready_pod("readiness")


def endpoints(kube: Kube) -> list[bool]:
    """What the EndpointSlices of the Service say of each endpoint: whether it is ready."""
    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": "readiness"})
    return [endpoint.conditions.ready for piece in slices for endpoint in piece.endpoints]


def through_the_service(kube: Kube, inside: Inside) -> int | None:
    """The status that a client inside gets from the Service; None where nobody answers."""
    return inside.get(f"http://{kube.get('Service', 'readiness').spec.clusterIP}").status


@pytest.mark.behavior("controllers/readiness-gates-traffic")
def test_a_pod_that_is_not_ready_gets_no_requests(kube: Kube, ready_pod: Fields, inside: Inside) -> None:
    """Unready, the Pod runs on and answers, but no request is sent to it; ready again, it is back, without a restart."""
    name = ready_pod.metadata.name
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [True]
            assert through_the_service(kube, inside) == 200

    kube.exec(name, "mv", PAGE, "/tmp/index.html")
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [False], "the EndpointSlice calls the Pod ready"
            assert through_the_service(kube, inside) is None
    assert inside.get(f"http://{ready_pod.status.podIP}").status == 403

    kube.exec(name, "mv", "/tmp/index.html", PAGE)
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [True], "the EndpointSlice does not call the Pod ready"
            assert through_the_service(kube, inside) == 200
    assert restarts(kube, ready_pod) == 0


# --- liveness


@pytest.fixture
def alive_pod(kube: Kube) -> Fields:
    """A Pod that is alive as long as it has its page, Ready."""
    return kube.ready_pod(kube.create(LIVENESS).metadata.name)


@pytest.fixture
def unasked_pod(kube: Kube) -> Fields:
    """The same Pod without probes, Ready."""
    manifest = load(LIVENESS)
    manifest["metadata"]["name"] = "unasked"
    (container,) = manifest["spec"]["containers"]
    del container["startupProbe"], container["livenessProbe"]
    return kube.ready_pod(kube.create(manifest).metadata.name)


@pytest.mark.behavior("controllers/liveness-restarts", "controllers/probes-are-optional-and-many")
def test_a_container_that_fails_its_liveness_probe_is_restarted(
    kube: Kube, alive_pod: Fields, unasked_pod: Fields, inside: Inside
) -> None:
    """The container is restarted in its Pod, which stays the same; a Pod that nobody probes is left in the same plight."""
    for pod in (alive_pod, unasked_pod):
        kube.exec(pod.metadata.name, "rm", PAGE)

    for look in eventually(within=patience.container_restarts):
        with look:
            assert restarts(kube, alive_pod) == 1, "the container that fails its probe has not been restarted once"
            assert inside.get(f"http://{alive_pod.status.podIP}").status == 200
    assert kube.get("Pod", "liveness").metadata.uid == alive_pod.metadata.uid
    assert "Killing" in [event.reason for event in kube.events(alive_pod)]
    assert restarts(kube, unasked_pod) == 0, "the container without probes has been restarted"
    assert inside.get(f"http://{unasked_pod.status.podIP}").status == 403


def restarts(kube: Kube, pod: Fields) -> int:
    """How often the Pod's one container has been restarted."""
    (status,) = kube.get("Pod", pod.metadata.name).status.containerStatuses
    return int(status.restartCount)


@pytest.fixture
def sick_pod(kube: Kube) -> Iterator[Changes]:
    """Every change to a Pod whose container has started, and removes its page each time it does."""
    manifest = load(LIVENESS)
    manifest["spec"]["containers"][0]["command"] = ["sh", "-c", f"rm {PAGE}; exec nginx -g 'daemon off;'"]
    with kube.record("Pod") as changes:
        kube.create(manifest)
        for look in eventually(within=patience.pod_starts):
            with look:
                assert any(status.state.running for status in statuses(changes))
        yield changes


def statuses(changes: Changes) -> list[Fields]:
    """Every status that the Pod's one container has had, in their order."""
    return [status for change in changes for status in change.object.status.containerStatuses]


@pytest.mark.behavior("controllers/liveness-restarts")
@pytest.mark.starts_first
def test_every_failure_of_the_liveness_probe_counts(sick_pod: Changes) -> None:
    """A restart mends nothing in a container that is made sick: it fails again, is restarted again, and all are counted."""
    for look in eventually(within=patience.container_restarts):
        with look:
            counts = list(dict.fromkeys(status.restartCount for status in statuses(sick_pod)))
            assert counts == [0, 1, 2]


# --- how they ask

#: What makes the server in each container fail its probe, and what makes it succeed again.
FAIL_AND_MEND = {
    "http": (["mv", PAGE, "/tmp/index.html"], ["mv", "/tmp/index.html", PAGE]),
    "tcp": (["killall", "httpd"], ["httpd", "-h", "/tmp", "-p", "9000"]),
    "exec": (["rm", "/tmp/ready"], ["touch", "/tmp/ready"]),
    "grpc": (["curl", "localhost:8080/make-not-serving"], ["curl", "localhost:8080/make-serving"]),
}


@pytest.fixture
def probed_pod(kube: Kube) -> str:
    """The name of a Pod with a container for each way of asking, and one that nobody asks; all are ready."""
    manifest = load("probes/handlers.yaml")
    assert {container["name"] for container in manifest["spec"]["containers"]} == {*FAIL_AND_MEND, "unasked"}
    return str(kube.ready_pod(kube.create(manifest).metadata.name).metadata.name)


@pytest.mark.behavior("controllers/probes-are-optional-and-many")
def test_each_way_of_asking_believes_its_server(kube: Kube, probed_pod: str) -> None:
    """A probe asks by httpGet, tcpSocket, exec or grpc, and each is right about its container; without one, all is well."""
    for container, (fail, mend) in FAIL_AND_MEND.items():
        assert kube.exec(probed_pod, *fail, container=container).code == 0
        for look in eventually(within=patience.probe_counts):
            with look:
                assert unready(kube, probed_pod) == [container], f"{container}'s server fails its probe, alone"
        assert kube.exec(probed_pod, *mend, container=container).code == 0

    for look in eventually(within=patience.probe_counts):
        with look:
            assert unready(kube, probed_pod) == []


def unready(kube: Kube, pod: str) -> list[str]:
    """The containers of the Pod that are not ready."""
    return [status.name for status in kube.get("Pod", pod).status.containerStatuses if not status.ready]
