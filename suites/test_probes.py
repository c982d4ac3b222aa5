"""Probes: what the kubelet asks a container, and what it does when a probe fails."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fixtures.clients import Inside
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.kube import Changes, Kube
from fixtures.manifests import load
from fixtures.patience import patience
from fixtures.waiting import eventually

STARTUP, LIVENESS = "probes/startup-goes-first.yaml", "probes/liveness.yaml"

#: nginx's page in its container; the probes request it.
PAGE = "/usr/share/nginx/html/index.html"

# --- startup probes


@pytest.fixture
def starting_pod(kube: Kube) -> str:
    """The name of a Pod whose container runs; its startup probe fails as long as nginx has no page /started."""
    name: str = kube.create(STARTUP).metadata.name
    for look in eventually(within=patience.pod_starts):
        with look:
            (status,) = exactly(1, kube.get("Pod", name).status.containerStatuses)
            assert status.state.running
    return name


def probe_calls(kube: Kube, pod: str) -> list[str]:
    """The pages that the probes have requested so far, in their order, from nginx's log."""
    return re.findall(r'"GET (\S+) ', kube.logs(pod))


@pytest.mark.behavior("controllers/startup-probe-goes-first", "controllers/probes-are-optional-and-many")
def test_the_other_probes_wait_for_the_startup_probe(kube: Kube, starting_pod: str) -> None:
    """Only the startup probe is called until it succeeds. From then on, only the other probes are called."""
    for look in eventually(within=patience.probe_counts):
        with look:
            called = probe_calls(kube, starting_pod)
            assert called.count("/started") >= 3
    assert set(called) == {"/started"}

    kube.exec(starting_pod, "touch", "/usr/share/nginx/html/started")

    for look in eventually(within=patience.probe_counts):
        with look:
            latest = probe_calls(kube, starting_pod)[-4:]
            assert set(latest) == {"/?ready", "/?alive"}


# --- readiness probes


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
    """The status that a client inside gets from the Service; None if nobody answers."""
    return inside.get(f"http://{kube.get('Service', 'readiness').spec.clusterIP}").status


@pytest.mark.behavior("controllers/readiness-gates-traffic")
def test_a_pod_that_is_not_ready_gets_no_requests(kube: Kube, ready_pod: Fields, inside: Inside) -> None:
    """A Service sends no requests to a Pod that is not ready. The Pod keeps running, and gets requests when it is ready again."""
    name = ready_pod.metadata.name
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [True]
            assert through_the_service(kube, inside) == 200

    kube.exec(name, "mv", PAGE, "/tmp/index.html")
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [False], "the EndpointSlice says that the Pod is ready"
            assert through_the_service(kube, inside) is None
    for look in eventually(within=patience.server_listens):
        with look:
            assert endpoints(kube) == [False]
            assert inside.get(f"http://{ready_pod.status.podIP}").status == 403

    kube.exec(name, "mv", "/tmp/index.html", PAGE)
    for look in eventually(within=patience.service_rules):
        with look:
            assert endpoints(kube) == [True], "the EndpointSlice does not say that the Pod is ready"
            assert through_the_service(kube, inside) == 200
    assert restarts(kube, ready_pod) == 0


# --- liveness probes


@pytest.fixture
def probed_pod(kube: Kube) -> Fields:
    """A Pod whose liveness probe succeeds as long as it has its page, Ready. The probe leaves a slow nginx time to start."""
    manifest = load(LIVENESS)
    manifest["spec"]["containers"][0]["livenessProbe"]["initialDelaySeconds"] = round(patience.server_listens)
    return kube.ready_pod(kube.create(manifest).metadata.name)


@pytest.fixture
def unprobed_pod(kube: Kube) -> Fields:
    """The same Pod without probes, Ready."""
    manifest = load(LIVENESS)
    manifest["metadata"]["name"] = "unprobed"
    for container in manifest["spec"]["containers"]:
        del container["startupProbe"], container["livenessProbe"]
    return kube.ready_pod(kube.create(manifest).metadata.name)


@pytest.mark.behavior("controllers/liveness-restarts", "controllers/probes-are-optional-and-many")
@pytest.mark.starts_first
def test_a_container_that_fails_its_liveness_probe_is_restarted(
    kube: Kube, probed_pod: Fields, unprobed_pod: Fields, inside: Inside
) -> None:
    """The container is restarted, and its Pod stays the same one. Without a probe the same fault causes no restart."""
    for pod in (probed_pod, unprobed_pod):
        kube.exec(pod.metadata.name, "rm", PAGE)

    for look in eventually(within=patience.container_restarts):
        with look:
            assert restarts(kube, probed_pod) == 1, "the container that fails its probe has not been restarted once"
            assert inside.get(f"http://{probed_pod.status.podIP}").status == 200
            assert "Killing" in [event.reason for event in kube.events(probed_pod)]
    assert kube.get("Pod", "liveness").metadata.uid == probed_pod.metadata.uid
    assert restarts(kube, unprobed_pod) == 0, "the container without probes has been restarted"
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://{unprobed_pod.status.podIP}").status == 403


def restarts(kube: Kube, pod: Fields) -> int:
    """How often the Pod's one container has been restarted."""
    (status,) = exactly(1, kube.get("Pod", pod.metadata.name).status.containerStatuses)
    return int(status.restartCount)


@pytest.fixture
def failing_pod(kube: Kube) -> Iterator[Changes]:
    """Every change to a Pod whose container removes its page each time it starts; it has been started once."""
    manifest = load(LIVENESS)
    manifest["spec"]["containers"][0]["command"] = ["sh", "-c", f"rm {PAGE}; exec nginx -g 'daemon off;'"]
    with kube.record("Pod") as changes:
        kube.create(manifest)
        for look in eventually(within=patience.pod_starts):
            with look:
                assert any(status.state.running for status in container_statuses(changes))
        yield changes


def container_statuses(changes: Changes) -> list[Fields]:
    """Every status that the Pod's container has had, in their order."""
    return [status for change in changes for status in change.object.status.containerStatuses]


@pytest.mark.behavior("controllers/liveness-restarts")
@pytest.mark.starts_first
def test_a_container_is_restarted_each_time_its_liveness_probe_fails(failing_pod: Changes) -> None:
    """A restart does not repair a container that fails again after each start. It is restarted again, and each one counts."""
    for look in eventually(within=patience.container_restarts):
        with look:
            failing_pod.check()
            counts = list(dict.fromkeys(status.restartCount for status in container_statuses(failing_pod)))
            assert counts == [0, 1, 2]


# --- kinds of probe handlers

#: What makes the server in each container fail its probe, and what makes it succeed again.
FAIL_AND_REPAIR = {
    "http": (["mv", PAGE, "/tmp/index.html"], ["mv", "/tmp/index.html", PAGE]),
    "tcp": (["killall", "httpd"], ["httpd", "-h", "/tmp", "-p", "9000"]),
    "exec": (["rm", "/tmp/ready"], ["touch", "/tmp/ready"]),
    "grpc": (["curl", "localhost:8080/make-not-serving"], ["curl", "localhost:8080/make-serving"]),
}


@pytest.fixture
def pod_of_all_handlers(kube: Kube) -> str:
    """The name of a Pod with one container for each kind of handler, and one without a probe; all are ready."""
    manifest = load("probes/handlers.yaml")
    assert {container["name"] for container in manifest["spec"]["containers"]} == {*FAIL_AND_REPAIR, "unprobed"}
    return str(kube.ready_pod(kube.create(manifest).metadata.name).metadata.name)


@pytest.mark.behavior("controllers/probes-are-optional-and-many")
def test_each_kind_of_probe_judges_its_own_container(kube: Kube, pod_of_all_handlers: str) -> None:
    """A probe asks by httpGet, tcpSocket, exec or grpc. A container without a readiness probe counts as ready."""
    for container, (fail, repair) in FAIL_AND_REPAIR.items():
        assert kube.exec(pod_of_all_handlers, *fail, container=container).code == 0
        for look in eventually(within=patience.probe_counts):
            with look:
                not_ready = unready(kube, pod_of_all_handlers)
                assert not_ready == [container], f"the probe of {container} fails, and not ready are {not_ready}"
        assert kube.exec(pod_of_all_handlers, *repair, container=container).code == 0

    for look in eventually(within=patience.probe_counts):
        with look:
            assert unready(kube, pod_of_all_handlers) == []


def unready(kube: Kube, pod: str) -> list[str]:
    """The containers of the Pod that are not ready."""
    return [status.name for status in kube.get("Pod", pod).status.containerStatuses if not status.ready]
