"""Everything on a cluster that does not belong to a namespace, before and after a run, and what has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fixtures.api import Api, ApiRefusal

#: Cluster-scoped kinds that come, go and change by themselves, by group and resource.
BY_THEMSELVES = {
    ("", "componentstatuses"): "what the API server says of its neighbors when it is asked",
    ("certificates.k8s.io", "certificatesigningrequests"): "kubelets make them, a controller removes old ones",
}

#: Of metadata, what the API server counts and notes by itself.
NOTED = ("resourceVersion", "managedFields", "generation")

#: Objects by group and resource ("storageclasses.storage.k8s.io"), and name.
Snapshot = dict[tuple[str, str], dict[str, Any]]


def cluster_scoped(api: Api) -> Iterator[tuple[str, str]]:
    """Group and resource, and the path of the list, of every listable kind without a namespace, from the API's discovery."""
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
    """The paths of all versions of the API: of each group the preferred one first."""
    yield "/api/v1"
    for group in api.call("GET", "/apis")["groups"]:
        first = group["preferredVersion"]["groupVersion"]
        versions = [version["groupVersion"] for version in group["versions"]]
        yield from (f"/apis/{version}" for version in sorted(versions, key=lambda version: version != first))


def snapshot(api: Api) -> Snapshot:
    """Every cluster-scoped object, Namespaces included, without what changes by itself."""
    objects: Snapshot = {}
    for kind, path in cluster_scoped(api):
        try:
            items = api.call("GET", path)["items"]
        except ApiRefusal as refusal:
            if refusal.status in (
                404,
                405,
            ):  # its definition went away in the meantime, or it cannot be listed after all
                continue
            raise
        for item in items:
            objects[kind, item["metadata"]["name"]] = reduced(item)
    return objects


def reduced(thing: Mapping[str, Any]) -> dict[str, Any]:
    """An object without its status, and without what the API server notes about it by itself."""
    kept = {key: value for key, value in thing.items() if key not in ("status", "apiVersion", "kind")}
    kept["metadata"] = {key: value for key, value in thing["metadata"].items() if key not in NOTED}
    return kept


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """What has appeared, gone or changed, a line each: "node kind-worker: changed at spec.taints"."""
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
