"""An Ingress controller with names that the suite does not know, and a provider of load balancers that is not the suite's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fixtures.api import Api, ApiRefusal
from fixtures.ingress import CONTROLLER
from fixtures.kube import MERGE, Kube
from fixtures.manifests import load_all
from fixtures.nodes import all_nodes, internal_ip
from fixtures.patience import patience
from fixtures.waiting import eventually
from machine.background import repeatedly

#: The controller's names in the suite's manifest, and its names here. The program's own names stay: its custom
#: resources, its commands, and its controller name.
NAMES: Mapping[str, str] = {
    "contour": "edge",
    "envoy": "front-door",
    "projectcontour": "edge-system",
    "always": "forever",
}

#: Seconds between two looks at all Services.
EVERY = 0.5


def foreign_controller() -> list[dict[str, Any]]:
    """A Namespace, and the manifest of the suite's Ingress controller with other names."""
    documents = [_renamed(document) for document in load_all(CONTROLLER)]
    for document in documents:
        if document["kind"] == "Deployment":
            _point_to_the_others(document)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMES["projectcontour"]}}
    return [namespace, *documents]


def _renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the document with other names of objects, other references to them, and other labels."""
    if document["kind"] == "CustomResourceDefinition":
        return dict(document)
    return {key: _with_other_names(value, key) for key, value in document.items()}


def _with_other_names(value: Any, key: str) -> Any:
    """The new value of the field `key`. Names of containers and images, commands and API groups are kept."""
    if isinstance(value, Mapping):
        return {inner: _with_other_names(part, inner) for inner, part in value.items()}
    if isinstance(value, list):
        return value if key in ("containers", "initContainers") else [_with_other_names(part, key) for part in value]
    named = ("name", "namespace", "app", "serviceAccountName", "ingressClassName")
    return NAMES.get(value, value) if key in named and isinstance(value, str) else value


def _point_to_the_others(deployment: dict[str, Any]) -> None:
    """Make the controller use the other names of the IngressClass and of the Service from which it takes its address."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        if container["name"] == "contour":
            others = [argument for argument in container["args"] if not argument.startswith("--ingress-class-name=")]
            container["args"] = [
                *others,
                f"--ingress-class-name={NAMES['contour']}",
                f"--envoy-service-name={NAMES['envoy']}",
                f"--envoy-service-namespace={NAMES['projectcontour']}",
            ]


def install(api: Api) -> None:
    """Apply the foreign controller, and wait until it is ready."""
    kube = Kube(api, NAMES["projectcontour"])
    for document in foreign_controller():
        kube.apply(document)
    for look in eventually(within=patience.controller_installs):
        with look:
            assert kube.get("Deployment", NAMES["contour"]).status.availableReplicas, "the controller is not available"


@contextmanager
def provider(api: Api) -> Iterator[None]:
    """During the block every Service of type LoadBalancer gets a node's InternalIP. Raises RuntimeError if that failed."""
    nodes = [internal_ip(node) for node in all_nodes(api)]
    failures: list[Exception] = []

    def work() -> None:
        try:
            _give_addresses(api, nodes)
        except Exception as error:
            failures.append(error)

    with repeatedly(work, EVERY):
        yield
    if failures:
        raise RuntimeError(f"the provider of load balancers failed {len(failures)} times: {failures[0]}")


def _give_addresses(api: Api, nodes: list[str]) -> None:
    """Give each Service without an address that of a node on which all its ports are free. If there is none, it waits."""
    services = [item for item in api.call("GET", "/api/v1/services")["items"] if item["spec"]["type"] == "LoadBalancer"]
    taken = {place for service in services for place in _places(service)}
    for service in services:
        meta = service["metadata"]
        if _addresses(service) or "deletionTimestamp" in meta:
            continue
        for node in nodes:
            places = {(node, port["port"]) for port in service["spec"]["ports"]}
            if places & taken:
                continue
            change = {"status": {"loadBalancer": {"ingress": [{"ip": node}]}}}
            try:
                Kube(api, meta["namespace"]).patch("Service", meta["name"], change, MERGE, "status")
            except ApiRefusal as refusal:
                if refusal.status not in (404, 409, 422):  # the Service is gone, or has changed its type
                    raise
            taken |= places
            break


def _addresses(service: Mapping[str, Any]) -> list[str]:
    given = service["status"].get("loadBalancer", {}).get("ingress", ())
    return [entry["ip"] for entry in given if "ip" in entry]


def _places(service: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The addresses that a Service has, with its ports."""
    for address in _addresses(service):
        for port in service["spec"]["ports"]:
            yield address, port["port"]
