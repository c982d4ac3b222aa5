"""What a failed test leaves in the report's folder: the objects of its namespace, Events, logs, and the nodes' conditions.

Everything is bounded, and nothing has the data of Secrets.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from urllib3.exceptions import HTTPError

from fixtures.api import Api, ApiRefusal, connected
from fixtures.fields import Fields, plain
from fixtures.hidden import hide
from fixtures.in_brief import is_ready
from fixtures.kube import Kube
from lessons.catalogue import test_id

#: The folder of the run's report. The runner sets it.
REPORT: pytest.StashKey[Path] = pytest.StashKey()

#: The folder in it.
EVIDENCE = "evidence"

#: The most bytes of a file, Pods whose logs are kept, and lines of a log.
BYTES, LOGS, LOG_LINES = 256 * 1024, 8, 200

#: The kinds whose objects are kept. Secrets are not among them.
KINDS = (
    *("Pod", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job", "CronJob"),
    *("Service", "EndpointSlice", "PersistentVolumeClaim", "Ingress", "ConfigMap"),
)

#: For how many seconds a kubelet that has not answered is asked for no log: each one would take half a minute.
SILENT = 300

#: The nodes whose kubelets have not answered, and when (monotonic). A node may be lost without anybody's notice.
_silent: dict[str, float] = {}

#: What must not end the run: trouble while evidence is collected, and the end of the test's time just then.
TROUBLE = (Exception, pytest.fail.Exception)


def folder_of(nodeid: str) -> str:
    """The folder of a test's evidence, relative to the report: the test's name, and a digest because names may be alike."""
    name = re.sub(r"[^\w-]+", "-", nodeid.rpartition("::")[2]).strip("-")[:80]
    return f"{EVIDENCE}/{name}-{hashlib.sha256(nodeid.encode()).hexdigest()[:6]}"


def keep(item: pytest.Item, kubes: Sequence[Kube]) -> str | None:
    """Keep what there is now about a failed test. Returns its folder, relative to the report; None if nothing could be kept."""
    if REPORT not in item.config.stash:
        return None
    nodeid = test_id(item.nodeid)
    folder = item.config.stash[REPORT] / folder_of(nodeid)
    kept = False
    for name, text in _files(connected(item.config), kubes):
        with suppress(*TROUBLE):
            content = hide(text()).encode()[:BYTES]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            kept = True
    return folder_of(nodeid) if kept else None


def _files(api: Api, kubes: Sequence[Kube]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name of each file, and what returns its text."""
    cluster = Kube(api, "default").aside()
    lost = {node.metadata.name for node in _list(cluster, "Node") if not is_ready(node)}
    yield "nodes.yaml", lambda: _yaml([_node(plain(node)) for node in cluster.list("Node")])
    for kube in (kube.aside() for kube in kubes):
        yield "objects.yaml", partial(_objects, kube)
        yield "events.txt", partial(_events, kube)
        for pod in [pod for pod in _list(kube, "Pod") if pod.spec.nodeName][:LOGS]:
            for container in pod.spec.containers:
                if pod.spec.nodeName not in lost and not _is_silent(pod.spec.nodeName):
                    name = f"logs/{pod.metadata.name}-{container.name}.log"
                    yield name, partial(_log, kube, pod, container.name)


def _objects(kube: Kube) -> str:
    return _yaml([bare(plain(thing)) for kind in KINDS for thing in _list(kube, kind)])


def _list(kube: Kube, kind: str) -> list[Fields]:
    """The objects of a kind; none if they cannot be read."""
    with suppress(*TROUBLE):
        return list(kube.list(kind))
    return []


def _is_silent(node: str) -> bool:
    return time.monotonic() - _silent.get(node, -SILENT) < SILENT


def _log(kube: Kube, pod: Fields, container: str) -> str:
    try:
        return "\n".join([*kube.logs(pod.metadata.name, container).splitlines()[-LOG_LINES:], ""])
    except (ApiRefusal, HTTPError, OSError) as trouble:
        if not isinstance(trouble, ApiRefusal) or trouble.status >= 500:
            _silent[pod.spec.nodeName] = time.monotonic()
        raise


def bare(thing: dict[str, Any]) -> dict[str, Any]:
    """An object without what only programs read: who manages which field, and the file that was applied."""
    meta = {key: value for key, value in thing.get("metadata", {}).items() if key != "managedFields"}
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    meta["annotations"] = {key: value for key, value in meta.get("annotations", {}).items() if key != applied}
    return {**thing, "metadata": {key: value for key, value in meta.items() if value}}


def _node(node: dict[str, Any]) -> dict[str, Any]:
    """A node's name, labels, taints and conditions."""
    spec, status = node.get("spec", {}), node.get("status", {})
    return {
        "name": node["metadata"]["name"],
        "labels": node["metadata"].get("labels", {}),
        "unschedulable": spec.get("unschedulable", False),
        "taints": spec.get("taints", []),
        "conditions": status.get("conditions", []),
        "allocatable": status.get("allocatable", {}),
    }


def _events(kube: Kube) -> str:
    lines = []
    for event in by_time(kube.list("Event")):
        about = f"{event.involvedObject.kind} {event.involvedObject.name}"
        when = event.lastTimestamp or event.eventTime or ""
        lines.append(f"{when} {event.type} {event.reason} {about}: {event.message}")
    return "\n".join([*lines, ""])


def by_time(events: Iterable[Fields]) -> list[Fields]:
    """Events, the latest last."""
    return sorted(events, key=lambda event: str(event.lastTimestamp or event.eventTime or ""))


def _yaml(things: list[Any]) -> str:
    return yaml.safe_dump_all(things, sort_keys=False, allow_unicode=True, width=120)
