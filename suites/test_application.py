"""A stateful application: a front end that keeps its score in a database, which keeps it in a volume."""

from __future__ import annotations

import pytest

from fixtures.clients import Inside
from fixtures.fields import Fields
from fixtures.kube import Kube, is_ready
from fixtures.kubectl import PortForward
from fixtures.manifests import load_all
from fixtures.patience import patience
from fixtures.waiting import eventually

APPLICATION = "application/pacman.yaml"
SCORE = "4711"


def url(kube: Kube) -> str:
    """Where clients in the cluster find the score: the front end's Service, by its name."""
    return f"http://pacman.{kube.namespace}/score"


def post(kube: Kube, inside: Inside, score: str) -> None:
    """Post a score through the front end, as soon as it and its database serve."""
    for look in eventually(within=patience.server_listens):
        with look:
            reply = inside.get(url(kube), options=["--data", score])
            assert reply.status == 200, f"posting the score: {reply}"


@pytest.mark.behavior("state-and-ingress/application-from-one-file")
def test_the_front_end_serves_what_the_database_stores(kube: Kube, inside: Inside) -> None:
    """One file makes front end and database, a Service before each, and a claim; together they are an application."""
    kube.apply(APPLICATION)

    kube.ready_pods(1, name="pacman")
    kube.ready_pods(1, name="mongo")
    post(kube, inside, SCORE)
    assert kube.exec("mongo-0", "redis-cli", "GET", "score").stdout.strip() == SCORE
    assert inside.get(url(kube)).body.strip() == SCORE
    assert kube.get("PersistentVolumeClaim", "mongo-storage").status.phase == "Bound"


@pytest.fixture
def front_end(kube: Kube, inside: Inside) -> Fields:
    """The front end's Pod, when the application runs and a score has been posted."""
    kube.apply(APPLICATION)
    kube.ready_pods(1, name="mongo")
    (pod,) = kube.ready_pods(1, name="pacman")
    post(kube, inside, SCORE)
    return pod


@pytest.mark.behavior("state-and-ingress/score-survives-the-database-pod")
def test_the_score_is_away_and_comes_back(kube: Kube, inside: Inside, front_end: Fields) -> None:
    """Without mongo-0 the front end runs on and has no score; a few seconds later the next mongo-0 has it from its volume."""
    earlier = kube.get("Pod", "mongo-0").metadata.uid

    with inside.asking(url(kube), rate=20) as answers:
        kube.delete("Pod", "mongo-0")
        for look in eventually(within=patience.pod_starts):
            with look:
                assert [pod.metadata.uid for pod in kube.pods(name="mongo") if is_ready(pod)] not in ([], [earlier])
        for look in eventually(within=patience.server_listens):
            with look:
                assert inside.get(url(kube)).body.strip() == SCORE

    statuses = [answer.split()[0] for answer in answers()]
    assert statuses[0] == "200"
    assert "503" in statuses
    pod = kube.get("Pod", front_end.metadata.name)
    assert pod.metadata.uid == front_end.metadata.uid
    assert [status.restartCount for status in pod.status.containerStatuses] == [0]


@pytest.mark.behavior("state-and-ingress/front-end-scales-to-ten")
def test_ten_front_ends_show_one_score(kube: Kube, inside: Inside, front_end: Fields) -> None:
    """The front end keeps nothing itself, so it scales: all ten are in the Service, and all show the database's score."""
    kube.scale("Deployment", "pacman", 10)

    addresses = {pod.status.podIP for pod in kube.ready_pods(10, name="pacman")}
    assert front_end.status.podIP in addresses
    for look in eventually(within=patience.service_rules):
        with look:
            assert served_by(kube) == addresses
    each = f"http://{{{','.join(addresses)}}}:8080/score"
    for look in eventually(within=patience.server_listens):
        with look:
            scores = inside.run("curl", "--silent", "--fail", "--max-time", "2", each).stdout.split()
            assert scores == [SCORE] * 10


def served_by(kube: Kube) -> set[str]:
    """The addresses to which the front end's Service leads."""
    slices = kube.list("EndpointSlice", **{"kubernetes.io/service-name": "pacman"})
    ready = [endpoint for one in slices for endpoint in one.endpoints if endpoint.conditions.ready]
    return {address for endpoint in ready for address in endpoint.addresses}


@pytest.fixture
def lone_front_end(kube: Kube, inside: Inside) -> None:
    """The front end without its database, which its first page does not need; it serves."""
    kube.apply([it for it in load_all(APPLICATION) if it["metadata"]["name"] == "pacman"])
    kube.ready_pods(1, name="pacman")
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(f"http://pacman.{kube.namespace}").status == 200


@pytest.mark.behavior("state-and-ingress/port-forward")
@pytest.mark.usefixtures("lone_front_end")
def test_a_forwarded_port_leads_to_the_application(port_forward: PortForward) -> None:
    """While kubectl forwards it, a port of one's own machine leads through the API server to a Pod of the Service."""
    with port_forward("svc/pacman", 80) as ask:
        answer = ask().stdout.splitlines()

    assert answer[0] == "HTTP/1.0 200 OK"
    assert answer[-1] == "Pac-Man"
    assert ask().code != 0
