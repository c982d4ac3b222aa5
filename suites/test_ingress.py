"""Ingress: to which Service a request from outside is sent, by its host and path, and what does it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fixtures.cloud import addresses_in
from fixtures.counting import exactly
from fixtures.fields import Fields
from fixtures.ingress import IngressClient
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
    """A hostname that no other test uses, because all tests ask one controller."""
    return f"{kube.namespace}.{host}"


def publish(kube: Kube, manifest: str | Manifest, class_name: str) -> Fields:
    """Create the manifest's Ingress with this class, and with hosts of the test's own."""
    manifest = load(manifest) if isinstance(manifest, str) else manifest
    spec = manifest["spec"]
    spec["ingressClassName"] = class_name
    for rule in spec["rules"]:
        rule["host"] = own(kube, rule["host"])
    for entry in spec.get("tls", ()):
        entry["hosts"] = [own(kube, host) for host in entry["hosts"]]
    return kube.create(manifest)


Answer = str | int | None


def answers(ingress_client: IngressClient, address: str, *urls: str) -> dict[str, Answer]:
    """By URL, the name of the Service that answers with 200, or else the status; None if nothing answers."""
    replies = ingress_client.get_all([f"http://{url}" for url in urls], address)
    return {
        url.removeprefix("http://"): reply.body if reply.status == 200 else reply.status
        for url, reply in replies.items()
    }


def answer(ingress_client: IngressClient, address: str, url: str) -> Answer:
    """The same for one URL."""
    return answers(ingress_client, address, url)[url]


# --- rules


@pytest.fixture
def rules_address(kube: Kube, ingress_client: IngressClient, pacman: Fields) -> str:
    """The address of the Ingress with two hosts and two kinds of paths."""
    publish(kube, RULES, ingress_client.class_name)
    return ingress_client.address_of(kube, "rules")


@pytest.mark.behavior("state-and-ingress/ingress-routes-by-rule")
def test_the_rule_that_fits_best_decides(kube: Kube, ingress_client: IngressClient, rules_address: str) -> None:
    """The host decides first, then the path: Exact before Prefix, the longer Prefix first; without a fitting rule it is 404."""
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
            found = answers(ingress_client, rules_address, *expected)
            wrong = {url: answer for url, answer in found.items() if answer != expected[url]}
            assert wrong == {}, f"answers that do not fit the rules: {wrong}"


# --- address


@pytest.mark.behavior("state-and-ingress/ingress-gets-an-address")
@pytest.mark.usefixtures("pacman")
def test_an_ingress_answers_at_the_address_in_its_status(kube: Kube, ingress_client: IngressClient) -> None:
    """The controller writes its address into the Ingress's status; requests that are sent there reach the Ingress's hosts."""
    publish(kube, INGRESS, ingress_client.class_name)
    served, unknown = own(kube, "pacman.example"), own(kube, "unknown.example")

    address = ingress_client.status_address(kube, "pacman")

    for look in eventually(within=patience.ingress_follows):
        with look:
            found = answers(ingress_client, address, served, unknown)
            assert found == {served: "pacman", unknown: NOT_FOUND}, f"at {address}, the address in the status: {found}"


# --- controller


@pytest.fixture
def unserved_class(kube: Kube) -> Iterator[str]:
    """The name of an IngressClass whose controller does not run."""
    manifest = load("ingress/unserved-class.yaml")
    manifest["metadata"]["name"] = f"unserved-{kube.namespace}"
    name: str = kube.create(manifest).metadata.name
    yield name
    kube.delete("IngressClass", name)


@pytest.mark.xdist_group("cluster")
@pytest.mark.behavior("state-and-ingress/ingress-needs-a-controller")
@pytest.mark.usefixtures("pacman")
def test_an_ingress_without_a_controller_does_nothing(
    kube: Kube, ingress_client: IngressClient, unserved_class: str
) -> None:
    """An Ingress whose class no controller serves gets no address and no route; a later one with a served class gets both."""
    manifest = load(INGRESS)
    manifest["metadata"]["name"] = "unserved"
    manifest["spec"]["rules"][0]["host"] = "unserved.example"
    served, unserved = own(kube, "pacman.example"), own(kube, "unserved.example")

    publish(kube, manifest, unserved_class)
    publish(kube, INGRESS, ingress_client.class_name)

    address = ingress_client.address_of(kube, "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answers(ingress_client, address, served) == {served: "pacman"}
    for look in throughout(patience.stays_so):
        with look:
            assert answer(ingress_client, address, unserved) in (NOT_FOUND, None)
            assert addresses_in(kube.get("Ingress", "unserved")) == []
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answers(ingress_client, address, served, unserved) == {served: "pacman", unserved: NOT_FOUND}

    kube.patch("Ingress", "unserved", {"spec": {"ingressClassName": ingress_client.class_name}})
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(ingress_client, address, unserved) == "pacman"


@pytest.mark.behavior("state-and-ingress/ingress-needs-a-controller")
def test_an_ingress_controller_is_pods_and_a_class_names_it(
    kube: Kube, installed_class: str, controller: tuple[Kube, dict[str, str]]
) -> None:
    """The controller is no part of Kubernetes: it runs in ordinary Pods, and an IngressClass names what serves it."""
    namespace, labels = controller

    for look in eventually(within=patience.controller_installs):
        with look:
            ready = [is_ready(pod) for pod in namespace.pods(**labels)]
            assert ready, f"no Pod of the controller with the labels {labels}"
            assert all(ready), f"Pods of the controller that are Ready: {ready}"
    assert kube.get("IngressClass", installed_class).spec.controller


# --- Services


@pytest.fixture
def pacman_address(kube: Kube, ingress_client: IngressClient, pacman: Fields) -> str:
    """The address of the document's Ingress; it is served, and leads to the Pod."""
    publish(kube, INGRESS, ingress_client.class_name)
    address = ingress_client.address_of(kube, "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(ingress_client, address, own(kube, "pacman.example")) == "pacman"
    return address


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_changed_rule_is_followed(kube: Kube, ingress_client: IngressClient, pacman_address: str) -> None:
    """A rule can change its host, its path and its Service; the controller follows, also when the Ingress is deleted.

    It does so within 20 seconds after each change.
    """
    old, new = own(kube, "pacman.example"), own(kube, "moved.example")
    rule = "/spec/rules/0"
    changes = {
        f"{rule}/http/paths/0/backend/service/name": ("scores", {old: "scores", new: NOT_FOUND}),
        f"{rule}/host": (new, {new: "scores", old: NOT_FOUND}),
        f"{rule}/http/paths/0/path": ("/game", {f"{new}/game": "scores", new: NOT_FOUND}),
    }

    for field, (value, expected) in changes.items():
        kube.patch("Ingress", "pacman", [{"op": "replace", "path": field, "value": value}], JSON)
        for look in eventually(within=patience.ingress_follows):
            with look:
                assert answers(ingress_client, pacman_address, *expected) == expected

    kube.delete("Ingress", "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(ingress_client, pacman_address, f"{new}/game") == NOT_FOUND


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_service_that_is_deleted_and_created_is_followed(
    kube: Kube, ingress_client: IngressClient, pacman_address: str
) -> None:
    """An Ingress outlives its Service: without one it leads nowhere, and to a new one within 20 seconds."""
    host = own(kube, "pacman.example")
    (service,) = [document for document in load_all(APPLICATION) if document["metadata"]["name"] == "scores"]
    service["metadata"]["name"] = "pacman"

    kube.delete("Service", "pacman")
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(ingress_client, pacman_address, host) in (NOT_FOUND, NO_ENDPOINTS)

    kube.create(service)
    for look in eventually(within=patience.ingress_follows):
        with look:
            assert answer(ingress_client, pacman_address, host) == "scores"


@pytest.mark.behavior("state-and-ingress/ingress-follows-its-services")
def test_a_backend_without_endpoints_gives_503(kube: Kube, ingress_client: IngressClient, pacman_address: str) -> None:
    """While the application is scaled to 0 its host answers 503, not 404, because the rule is still there.

    It does so within 40 seconds after the scaling, and the application answers within 60 seconds after it is scaled to 1.
    """
    host = own(kube, "pacman.example")

    kube.scale("Deployment", "pacman", 0)
    for look in eventually(within=patience.pod_goes):
        with look:
            assert answer(ingress_client, pacman_address, host) == NO_ENDPOINTS

    kube.scale("Deployment", "pacman", 1)
    for look in eventually(within=patience.pod_starts):
        with look:
            assert answer(ingress_client, pacman_address, host) == "pacman"


# --- TLS


#: How curl's error begins if the server's certificate is not one that the client trusts.
UNTRUSTED = "curl: (60)"

#: Prints a new private key and a self-signed certificate for it.
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
        key, certificate = exactly(2, re.findall(r"-----BEGIN .*?-----END [^-]+-----\n", output.stdout, re.DOTALL))
        meta, data = {"name": f"{name}-tls"}, {"tls.key": key, "tls.crt": certificate}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta}
        kube.create(secret | {"stringData": data})
        made[host] = certificate
    return made


@pytest.fixture
def tls_address(kube: Kube, ingress_client: IngressClient, certificates: dict[str, str]) -> str:
    """The address of the Ingress with a certificate for each of its two hosts."""
    publish(kube, "ingress/tls.yaml", ingress_client.class_name)
    return ingress_client.address_of(kube, "tls")


@pytest.mark.behavior("state-and-ingress/ingress-terminates-tls")
def test_each_host_has_its_own_certificate(
    kube: Kube, ingress_client: IngressClient, certificates: dict[str, str], tls_address: str
) -> None:
    """HTTPS ends at the controller: before any request it shows the certificate of the host that the client names."""
    trusting = {host: ingress_client.trusting(host, certificate) for host, certificate in certificates.items()}
    one, other = own(kube, "pacman.example"), own(kube, "players.example")

    for look in eventually(within=patience.ingress_follows):
        with look:
            for host, service in ((one, "pacman"), (other, "players")):
                reply = ingress_client.get(f"https://{host}", tls_address, trusting[host])
                assert reply.status == 200, reply.error
                assert reply.body == service
            for host, another in ((one, other), (other, one)):
                reply = ingress_client.get(f"https://{host}", tls_address, trusting[another])
                assert reply.error.startswith(UNTRUSTED), f"trusting {another} only, {host} replies: {reply}"
