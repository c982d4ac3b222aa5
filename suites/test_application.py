"""A stateful application: a front end that keeps its score in a database, which keeps it in a volume."""

from __future__ import annotations

import pytest

from fixtures.clients import Inside, silence
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.kube import Kube, is_ready
from fixtures.kubectl import Kubectl, PortForward
from fixtures.namespaces import in_namespace
from fixtures.patience import patience
from fixtures.storage import wait_until_bound
from fixtures.waiting import eventually

APPLICATION = "application/pacman.yaml"
SCORE = "4711"


def url(kube: Kube) -> str:
    """Where clients in the cluster find the score: the front end's Service, by its name."""
    return f"http://pacman.{kube.namespace}/score"


def post(kube: Kube, inside: Inside, score: str) -> None:
    """Post a score through the front end, as soon as the front end and its database serve."""
    for look in eventually(within=patience.names_follow):
        with look:
            reply = inside.get(url(kube), options=["--data", score])
            assert reply.status == 200, f"posting the score: {reply}"


@pytest.mark.behavior("state-and-ingress/application-from-one-file")
def test_one_file_makes_a_whole_application(kubectl: Kubectl, made_by_the_test: Kube, inside: Inside) -> None:
    """`kubectl create -f` makes all that a file holds: here a namespace and in it an application that works."""
    kube = made_by_the_test
    file = in_namespace(APPLICATION, kube)

    done = kubectl("create", "--namespace", kube.namespace, "-f", "-", input=file)

    assert done.code == 0, done.stderr
    kinds = [line.partition("/")[0].partition(".")[0] for line in done.stdout.splitlines()]
    assert kinds == [document["kind"].lower() for document in file]
    kube.ready_pods(1, name="pacman")
    wait_until_bound(kube, "mongo-storage", name="mongo")
    kube.ready_pods(1, name="mongo")
    post(kube, inside, SCORE)
    for look in eventually(within=patience.server_listens):
        with look:
            assert inside.get(url(kube)).body.strip() == SCORE
    assert kube.exec("mongo-0", "redis-cli", "GET", "score").stdout.strip() == SCORE


@pytest.fixture
def front_end(kube: Kube, inside: Inside) -> Fields:
    """The front end's Pod. The application runs, and a score has been posted."""
    kube.apply(in_namespace(APPLICATION, kube))
    wait_until_bound(kube, "mongo-storage", name="mongo")
    kube.ready_pods(1, name="mongo")
    (pod,) = kube.ready_pods(1, name="pacman")
    post(kube, inside, SCORE)
    return pod


def statuses(replies: list[str]) -> list[str]:
    """The HTTP status of each reply ("200 BaseHTTP/0.6"), in order."""
    return [reply.partition(" ")[0] for reply in replies]


@pytest.mark.behavior("state-and-ingress/score-survives-the-database-pod")
def test_the_score_is_away_and_comes_back(kube: Kube, inside: Inside, front_end: Fields) -> None:
    """Without mongo-0 the front end runs on, without a score; a few seconds later the next mongo-0 has it from its volume."""
    earlier = kube.get("Pod", "mongo-0").metadata.uid

    with inside.asking(url(kube), rate=20) as replies:
        for look in eventually(within=patience.server_listens):
            with look:
                assert "200" in statuses(replies())
        before = len(replies())
        kube.delete("Pod", "mongo-0")
        for look in eventually(within=patience.rollout):
            with look:
                (mongo,) = exactly(1, [pod for pod in kube.pods(name="mongo") if is_ready(pod)])
                assert mongo.metadata.uid != earlier
        for look in eventually(within=patience.service_rules):
            with look:
                assert inside.get(url(kube)).body.strip() == SCORE

    assert "503" in statuses(replies()[before:])
    pod = kube.get("Pod", front_end.metadata.name)
    assert pod.metadata.uid == front_end.metadata.uid
    assert [status.restartCount for status in pod.status.containerStatuses] == [0]


@pytest.mark.behavior("state-and-ingress/front-end-scales-to-ten")
def test_ten_front_ends_show_one_score(kube: Kube, inside: Inside, front_end: Fields) -> None:
    """The front end stores nothing itself, so it scales: behind its Service ten Pods answer, all with the database's score."""
    kube.scale("Deployment", "pacman", 10)

    ten = {pod.metadata.name for pod in kube.ready_pods(10, name="pacman")}
    assert front_end.metadata.name in ten
    answered: set[str] = set()
    for look in eventually(within=patience.service_rules):
        with look:
            told = replies_of(inside, f"{url(kube)}?[1-40]")
            assert {score for _, score in told} == {SCORE}
            answered |= {pod for pod, _ in told}
            assert answered == ten, f"the Service has not led to {', '.join(sorted(ten - answered))}"


def replies_of(inside: Inside, urls: str) -> list[tuple[str, str]]:
    """For each request, on a connection of its own, the Pod that replied and what it said; refused connections aside."""
    options = ("--header", "Connection: close", "--max-time", f"{silence():g}", "--write-out", "\t%header{server}\n")
    lines = inside.run("curl", "--silent", *options, urls).stdout.replace("\r\n\t", "\t").splitlines()
    replies = [line.partition("\t") for line in lines]
    return [(pod, score) for score, _, pod in replies if pod]


@pytest.fixture
def first_page(kube: Kube, inside: Inside) -> str:
    """The URL of the front end's first page, which is served. There is no database, because this page does not need one."""
    kube.apply([document for document in in_namespace(APPLICATION, kube) if document["metadata"]["name"] == "pacman"])
    kube.ready_pods(1, name="pacman")
    url = f"http://{kube.get('Service', 'pacman').spec.clusterIP}"
    for look in eventually(within=patience.service_rules):
        with look:
            assert inside.get(url).status == 200
    return url


@pytest.mark.behavior("state-and-ingress/port-forward")
def test_a_forwarded_port_leads_to_the_application(port_forward: PortForward, inside: Inside, first_page: str) -> None:
    """`kubectl port-forward svc/pacman 9090:80`: while it runs, a local port leads through the API server to a Pod."""
    with port_forward("svc/pacman", 9090, 80) as ask:
        lines = ask().stdout.splitlines()

    assert lines[:1] == ["HTTP/1.0 200 OK"]
    assert lines[-1:] == ["Pac-Man"]
    for look in eventually(within=patience.server_listens):
        with look:
            later = ask()
            assert inside.get(first_page).status == 200, "the application itself has ended"
    assert later.code != 0, "the port answers after kubectl has ended"
