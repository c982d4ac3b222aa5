"""Turns an API server's audit log into the rights that were used, as rules of a ClusterRole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

#: The audit policy for one user: the metadata of that user's requests is logged, and nothing else.
POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
}

#: Subresources that upgrade the connection. A WebSocket client requests them with GET, which also needs `create`.
UPGRADED = ("pods/attach", "pods/exec", "pods/portforward")

#: The status of a request that created an object. A server-side apply that creates an object needs that right, too.
CREATED = 201

#: Who creates a role with rights of its own, or binds one, must also be allowed to do just that. A user with all rights needs
#: no such right, so the log does not show it: the resource that is created, and the right, which is one to ClusterRoles.
ALSO_NEEDED = {"clusterroles": "escalate", "clusterrolebindings": "bind"}

#: Paths without a resource. If one path of a family is used, the whole family is granted.
FAMILIES = ("/api/", "/apis/", "/openapi/")

#: What a right applies to: API group and resource ("", "pods/log"), or a path.
Rights = dict[tuple[str, str] | str, set[str]]

HEADER = """\
# {what}
# Made from the API server's audit log of such a run by `tox run -e foreign -- {row} --write`, and compared by
# `tox run -e foreign`: a right that is missing here, or is here and was not used, fails there.
# Most of these resources are in namespaces. A ClusterRole grants them everywhere, because a run makes a namespace for each test
# and their names are not known before: bind it with a ClusterRoleBinding.
"""


def policy(user: str) -> dict[str, Any]:
    """An audit policy for one user's requests."""
    return {**POLICY, "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}]}


def rights(log: Iterable[str], user: str) -> Rights:
    """The rights that the user's requests used, from the lines of an audit log."""
    used: Rights = {}
    for line in log:
        event = json.loads(line)
        if event["user"]["username"] != user:
            continue
        reference = event.get("objectRef") or {}
        if "resource" not in reference:
            used.setdefault(_family(event["requestURI"]), set()).add(event["verb"])
            continue
        resource = "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)
        verbs = used.setdefault((reference.get("apiGroup", ""), resource), set())
        verbs.add(event["verb"])
        if resource in UPGRADED or event.get("responseStatus", {}).get("code") == CREATED:
            verbs.add("create")
        if "create" in verbs and (right := ALSO_NEEDED.get(resource)):
            used.setdefault((reference.get("apiGroup", ""), "clusterroles"), set()).add(right)
    return used


def _family(uri: str) -> str:
    path = uri.partition("?")[0].rstrip("/") or "/"
    return next((f"{family}*" for family in FAMILIES if path.startswith(family)), path)


def rules(used: Rights) -> list[dict[str, list[str]]]:
    """The rules of a ClusterRole that grants these rights: resources of one group with the same verbs are in one rule."""
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    paths: dict[tuple[str, ...], list[str]] = {}
    for what, verbs in used.items():
        if isinstance(what, str):
            paths.setdefault(tuple(sorted(verbs)), []).append(what)
        else:
            resources.setdefault((what[0], tuple(sorted(verbs))), []).append(what[1])
    return [
        {"apiGroups": [group], "resources": sorted(names), "verbs": list(verbs)}
        for (group, verbs), names in sorted(resources.items(), key=lambda entry: (entry[0][0], sorted(entry[1])))
    ] + [{"nonResourceURLs": sorted(names), "verbs": list(verbs)} for verbs, names in sorted(paths.items())]


def granted(role: Mapping[str, Any]) -> Rights:
    """The rights that a ClusterRole grants, in the same form as the used rights."""
    grants: Rights = {}
    for rule in role["rules"]:
        for path in rule.get("nonResourceURLs", ()):
            grants.setdefault(path, set()).update(rule["verbs"])
        for group in rule.get("apiGroups", ()):
            for resource in rule["resources"]:
                grants.setdefault((group, resource), set()).update(rule["verbs"])
    return grants


def manifest(name: str, used: Rights, what: str, row: str) -> str:
    """The file with the ClusterRole of these rights: a header that says what it is for, and YAML."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules(used),
    }
    return HEADER.format(what=what, row=row) + yaml.dump(role, sort_keys=False, Dumper=_Indented, width=120)


class _Indented(yaml.SafeDumper):
    """Writes lists of strings on one line. Writes other lists item by item, indented below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_list(self, data: Iterable[Any]) -> yaml.SequenceNode:
        words = all(isinstance(item, str) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=words)


_Indented.add_representer(list, _Indented.represent_list)


def differences(used: Rights, grants: Rights) -> list[str]:
    """One line for each right that was used but is not granted, or is granted but was not used."""
    lines = []
    for what in sorted(used.keys() | grants.keys(), key=str):
        name = what if isinstance(what, str) else ".".join(part for part in (what[1], what[0]) if part)
        missing = used.get(what, set()) - grants.get(what, set())
        idle = grants.get(what, set()) - used.get(what, set())
        if missing:
            lines.append(f"{name}: {', '.join(sorted(missing))} was used but is not in the file")
        if idle:
            lines.append(f"{name}: {', '.join(sorted(idle))} is in the file but was not used")
    return lines
