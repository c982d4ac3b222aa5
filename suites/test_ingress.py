"""Ingress: which Service a request from outside is led to, by its host and path, and who does it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fixtures.fields import Fields
from fixtures.ingress import FrontDoor, address_in
from fixtures.kube import JSON, Kube, is_ready
from fixtures.manifests import Manifest, load, load_all
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout

APPLICATION = "ingress/pacman.yaml"
INGRESS, RULES = "ingress/pacman-ingress.yaml", "ingress/rules.yaml"
NOT_FOUND, NO_ENDPOINTS = 404, 503


@pytest.fixture
def pacman(kube: Kube) -> Fields:
    """The Pod, Ready, to which the Services pacman, scores and players lead."""
    kube.apply(APPLICATION)
    (pod,) = kube.ready_pods(1, app="pacman")
    return pod


def own(kube: Kube, host: str) -> str:
    """A host name that no other test uses: all of them ask one controller."""
    return f"{kube.namespace}.{host}"


def publish(kube: Kube, exhibit: str | Manifest, class_name: str) -> Fields:
    """Make the exhibit's Ingress with this class, and with hosts of the test's own."""
    manifest = load(exhibit) if isinstance(exhibit, str) else exhibit
    spec = manifest["spec"]
    spec["ingressClassName"] = class_name
    for rule in spec["rules"]:
        rule["host"] = own(kube, rule["host"])
    for entry in spec.get("tls", ()):
        entry["hosts"] = [own(kube, host) for host in entry["hosts"]]
    return kube.create(manifest)


Answer = str | int | None


def answers(front_door: FrontDoor, address: str, *urls: str) -> dict[str, Answer]:
    """By URL, the name of the Service that answers with 200, or else the status; None where nobody answers."""
    replies = front_door.get_all([f"http://{url}" for url in urls], address)
    return {url: reply.body if reply.status == 200 else reply.status for url, reply in zip(urls, replies, strict=True)}


def answer(front_door: FrontDoor, address: str, host: str) -> Answer:
    """The same for one URL."""
    return answers(front_door, address, host)[host]


# --- rules


@pytest.fixture
def rules_address(kube: Kube, front_door: FrontDoor, pacman: Fields) -> str:
    """The address of the Ingress with two hosts and two kinds of paths."""
    publish(kube, RULES, front_door.class_name)
    return front_door.address_of(kube, "rules")


@pytest.mark.behavior("state-and-ingress/ingress-routes-by-rule")
def test_the_rule_that_fits_best_decides(kube: Kube, front_door: FrontDoor, rules_address: str) -> None:
    """First the host, then the path: an exact one before a prefix, the longer prefix first; what fits no rule gets 404."""
    one, other, unknown = own(kube, "pacman.example"), own(kube, "players.example"), own(kube, "unknown.example")
    expected: dict[str, Answer] = {
        f"{one}/": "pacman",
        f"{one}/any/other": "pacman",
        f"{one}/scores": "scores",
        f"{one}/scores/": "scores",
        f"{one}/scores/today": "scores",
        f"{one}/scoresheet": "pacman",
        f"{one}/scores/players": "players",
        f"{one}/scores/players/": "scores",
        f"{one}/scores/players/1": "scores",
        f"{other}/players": "players",
        f"{other}/players/1": "players",
        f"{other}/": NOT_FOUND,
        f"{other}/scores": NOT_FOUND,
        f"{unknown}/": NOT_FOUND,
    }

    for look in eventually(within=patience.ingress_follows):
        with look:
            found = answers(front_door, rules_address, *expected)
            wrong = {url: answer for url, answer in found.items() if answer != expected[url]}
            assert wrong == {}, f"answers that the rules do not give: {wrong}"


# --- address


@pytest.mark.behavior("state-and-ingress/ingress-gets-an-address")
@pytest.mark.usefixtures("pacman")
def test_at_the_address_in_the_status_the_host_answers(kube: Kube, front_door: FrontDoor) -> None:
    """The controller writes into the Ingress where it is reached; who asks there for the host by its name is answered."""
    publish(kube, INGRESS, front_door.class_name)

    address = front_door.address_of(kube, "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, address, own(kube, "pacman.example")) == "pacman"
            assert answer(front_door, address, own(kube, "another.example")) == NOT_FOUND


# --- controller


@pytest.fixture
def pacman_address(kube: Kube, front_door: FrontDoor, pacman: Fields) -> str:
    """The address of the document's Ingress; it is served, and leads to the Pod."""
    publish(kube, INGRESS, front_door.class_name)
    address = front_door.address_of(kube, "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, address, own(kube, "pacman.example")) == "pacman"
    return address


@pytest.fixture
def nobodys_class(kube: Kube) -> Iterator[str]:
    """The name of an IngressClass whose controller does not run."""
    manifest = load("ingress/nobodys-class.yaml")
    manifest["metadata"]["name"] = f"nobodys-{kube.namespace}"
    name: str = kube.create(manifest).metadata.name
    yield name
    kube.delete("IngressClass", name)


@pytest.mark.behavior("state-and-ingress/ingress-needs-a-controller")
def test_an_ingress_that_no_controller_serves_does_nothing(
    kube: Kube, front_door: FrontDoor, pacman_address: str, nobodys_class: str
) -> None:
    """An Ingress is only a wish: without a controller for its class it gets no address and no route, beside one that works."""
    manifest = load(INGRESS)
    manifest["metadata"]["name"] = "unserved"
    manifest["spec"]["rules"][0]["host"] = "unserved.example"

    publish(kube, manifest, nobodys_class)

    served, unserved = own(kube, "pacman.example"), own(kube, "unserved.example")
    for look in throughout(patience.stays_so):
        with look:
            assert answer(front_door, pacman_address, served) == "pacman"
            assert answer(front_door, pacman_address, unserved) == NOT_FOUND
            assert address_in(kube.get("Ingress", "unserved")) is None

    kube.patch("Ingress", "unserved", {"spec": {"ingressClassName": front_door.class_name}})
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, pacman_address, unserved) == "pacman"


@pytest.mark.behavior("state-and-ingress/ingress-needs-a-controller")
def test_the_controller_is_pods_and_a_class_that_names_it(
    kube: Kube, ingress_class: str, controller_pods: list[Fields]
) -> None:
    """The controller is no part of Kubernetes: its Pods run as others do, and an IngressClass says what they serve."""
    assert kube.get("IngressClass", ingress_class).spec.controller == "projectcontour.io/ingress-controller"
    assert [is_ready(pod) for pod in controller_pods] == [True]


# --- Services


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_changed_rule_leads_elsewhere(kube: Kube, front_door: FrontDoor, pacman_address: str) -> None:
    """Name another Service in the rule and its answers come; delete the Ingress and its host is unknown."""
    host = own(kube, "pacman.example")
    backend = [{"op": "replace", "path": "/spec/rules/0/http/paths/0/backend/service/name", "value": "scores"}]

    kube.patch("Ingress", "pacman", backend, JSON)
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, pacman_address, host) == "scores"

    kube.delete("Ingress", "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, pacman_address, host) == NOT_FOUND


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_service_that_goes_and_comes_is_followed(kube: Kube, front_door: FrontDoor, pacman_address: str) -> None:
    """An Ingress outlives its Service: without one it leads nowhere, and as soon as there is one again, to that."""
    host = own(kube, "pacman.example")
    (service,) = [document for document in load_all(APPLICATION) if document["metadata"]["name"] == "scores"]
    service["metadata"]["name"] = "pacman"

    kube.delete("Service", "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, pacman_address, host) in (NOT_FOUND, NO_ENDPOINTS)

    kube.create(service)
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(front_door, pacman_address, host) == "scores"


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_backend_without_endpoints_gives_503(kube: Kube, front_door: FrontDoor, pacman_address: str) -> None:
    """Scale the application to none and its host answers 503, not 404: the rule is there; scale it up and it is back."""
    host = own(kube, "pacman.example")

    kube.scale("Deployment", "pacman", 0)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert answer(front_door, pacman_address, host) == NO_ENDPOINTS

    kube.scale("Deployment", "pacman", 1)
    for look in eventually(within=patience.pod_starts):
        with look:
            assert answer(front_door, pacman_address, host) == "pacman"


# --- TLS


#: Prints a new private key and a certificate for it that is signed by itself alone.
OPENSSL = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=kubehave -days 1 "
    "-keyout /dev/stdout -out /dev/stdout -addext"
)


@pytest.fixture
def certificates(kube: Kube, pacman: Fields) -> dict[str, str]:
    """By host, the certificate (PEM) in the Secret that the Ingress names for it."""
    made = {}
    for name in ("pacman", "players"):
        host = own(kube, f"{name}.example")
        output = kube.exec(pacman.metadata.name, *OPENSSL.split(), f"subjectAltName=DNS:{host}")
        key, certificate = re.findall(r"-----BEGIN .*?-----END [^-]+-----\n", output.stdout, re.DOTALL)
        meta, data = {"name": f"{name}-tls"}, {"tls.key": key, "tls.crt": certificate}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta}
        kube.create(secret | {"stringData": data})
        made[host] = certificate
    return made


@pytest.fixture
def tls_address(kube: Kube, front_door: FrontDoor, certificates: dict[str, str]) -> str:
    """The address of the Ingress with a certificate for each of its two hosts."""
    publish(kube, "ingress/tls.yaml", front_door.class_name)
    return front_door.address_of(kube, "tls")


@pytest.mark.behavior("state-and-ingress/ingress-terminates-tls")
def test_each_host_shows_its_own_certificate(
    kube: Kube, front_door: FrontDoor, certificates: dict[str, str], tls_address: str
) -> None:
    """HTTPS ends at the controller: it shows the certificate of the host that the client names, before any request."""
    trusting = {host: front_door.trusting(host, certificate) for host, certificate in certificates.items()}
    one, other = certificates

    for look in eventually(within=patience.ingress_follows):
        with look:
            for host, service in ((one, "pacman"), (other, "players")):
                reply = front_door.get(f"https://{host}", tls_address, trusting[host])
                assert reply.status == 200, reply.error
                assert reply.body == service

    assert front_door.get(f"https://{one}", tls_address, trusting[other]).status is None
    assert front_door.get(f"https://{other}", tls_address, trusting[one]).status is None
