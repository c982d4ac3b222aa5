"""The requests that an API server has answered, from its own metrics.

Who sent them is not told apart: they are the tests', the nodes', and the control plane's own.
A watch counts when it ends.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from machine.engine import Engine


class Request(NamedTuple):
    """A kind of request; the resource has its subresource, as in `pods/exec`."""

    verb: str
    resource: str
    code: str
    dry_run: bool


def read(engine: Engine, cluster: str) -> Counter[Request]:
    """The requests that the cluster's API server has answered since it started.

    The control-plane node's own kubectl reads the metrics, so every checkout's cluster is asked in the same way. That
    takes about a second, and is one request more.
    """
    kubectl = ("kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf")
    return parse(engine.run("exec", f"{cluster}-control-plane", *kubectl, "get", "--raw", "/metrics"))


def parse(metrics: str) -> Counter[Request]:
    """The requests in an API server's metrics, which are Prometheus' text."""
    found: Counter[Request] = Counter()
    for line in metrics.splitlines():
        if line.startswith("apiserver_request_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            resource = "/".join(filter(None, (labels["resource"], labels["subresource"].lstrip("/"))))
            kind = Request(labels["verb"], resource or "other", labels["code"], bool(labels["dry_run"]))
            found[kind] += int(float(line.rpartition(" ")[2]))
    return found


def by_verb_and_resource(requests: Counter[Request]) -> dict[str, int]:
    """The sum, under the key "all", and the number of requests of each verb and resource, such as "LIST pods"."""
    found = Counter({"all": requests.total()})
    for kind, number in requests.items():
        found[f"{kind.verb} {kind.resource}"] += number
    return dict(+found)


def pods_made(requests: Counter[Request]) -> int:
    """How many of the requests stored a new Pod."""
    return requests[Request("POST", "pods", "201", False)]
