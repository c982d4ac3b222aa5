"""Compares all cluster-scoped objects before and after a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fixtures.api import Api, ApiRefusal

#: Cluster-scoped resources (group, resource) whose objects change by themselves, with the reason.
BY_THEMSELVES = {
    ("", "componentstatuses"): "the API server checks other components when it is asked",
    ("certificates.k8s.io", "certificatesigningrequests"): "kubelets make them, a controller removes old ones",
}

#: The fields of metadata that the API server sets by itself.
NOTED = ("resourceVersion", "managedFields", "generation")

#: Objects by group and resource ("storageclasses.storage.k8s.io"), and name.
Snapshot = dict[tuple[str, str], dict[str, Any]]


def cluster_scoped(api: Api) -> Iterator[tuple[str, str]]:
    """Every cluster-scoped kind that can be listed, from discovery: group and resource, and the path of the list."""
    seen = set()
    for path in _versions(api):
        for resource in api.call("GET", path)["resources"]:
            name, group = resource["name"], path.split("/")[2] if path.startswith("/apis/") else ""
            if resource["namespaced"] or "list" not in resource["verbs"] or "/" in name:
                continue
            if (group, name) not in BY_THEMSELVES and (group, name) not in seen:
                seen.add((group, name))
                yield f"{name}.{group}".rstrip("."), f"{path}/{name}"


def _versions(api: Api) -> Iterator[str]:
    """The paths of all API versions; in each group the preferred one comes first."""
    yield "/api/v1"
    for group in api.call("GET", "/apis")["groups"]:
        first = group["preferredVersion"]["groupVersion"]
        versions = [version["groupVersion"] for version in group["versions"]]
        yield from (f"/apis/{version}" for version in sorted(versions, key=lambda version: version != first))


def snapshot(api: Api) -> Snapshot:
    """Every cluster-scoped object, including Namespaces, without the fields that change by themselves."""
    objects: Snapshot = {}
    for kind, path in cluster_scoped(api):
        try:
            items = api.call("GET", path)["items"]
        except ApiRefusal as refusal:
            if refusal.status in (
                404,
                405,
            ):  # its definition was deleted meanwhile, or it cannot be listed after all
                continue
            raise
        for item in items:
            objects[kind, item["metadata"]["name"]] = reduced(item)
    return objects


def reduced(thing: Mapping[str, Any]) -> dict[str, Any]:
    """An object without its status and without the metadata that the API server sets by itself."""
    kept = {key: value for key, value in thing.items() if key not in ("status", "apiVersion", "kind")}
    kept["metadata"] = {key: value for key, value in thing["metadata"].items() if key not in NOTED}
    return kept


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each object that has appeared, gone or changed: "node kind-worker: changed at spec.taints"."""
    lines = [f"{kind} {name}: appeared" for kind, name in sorted(after.keys() - before.keys())]
    lines += [f"{kind} {name}: gone" for kind, name in sorted(before.keys() - after.keys())]
    for kind, name in sorted(before.keys() & after.keys()):
        places = sorted(_places(before[kind, name], after[kind, name]))
        if places:
            lines.append(f"{kind} {name}: changed at {', '.join(places)}")
    return lines


def _places(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The paths of the fields that differ; lists count as a whole."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() | after.keys():
            yield from _places(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield path
