"""The steps of a fault: each makes one thing of the cluster wrong, and undoes it after that.

- `objects`: creates these objects.
- `alters`: alters objects as they are stored: `resource` ("apps/v1/deployments"), `on` (if it is not only CREATE), `when` (a
  condition in CEL), and `patches`, a list of JSON patches with values in CEL.
- `flags`: starts a component of the control plane with other flags: `{kube-apiserver: {flag: value}}`; null takes one away.
- `patch`: changes an object of the cluster: `kind`, `namespace`, `name`, the merge patch `change`, and `restart`, the
  workloads that read the object only when they start.
- `on-nodes`: runs a script on nodes: `nodes` (all, workers, one worker, control plane), `run`, and `undo`.
- `again`: runs a script on nodes once more and once more while the tests run: `nodes`, `run`, `every` (seconds).
- `answers`: puts a proxy before the API server, which alters answers (see `faults.proxy`).
- `kubectl`: does something else in place of some commands of kubectl: `when` (a regular expression), `run` (a shell script).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from urllib3.exceptions import HTTPError

from faults.files import Fault
from faults.proxy import AnswersAltered
from fixtures.api import Api, ApiRefusal, Connection
from fixtures.fields import plain
from fixtures.kube import MERGE, Kube
from fixtures.kubectl import program
from fixtures.namespaces import inverse_patch
from fixtures.nodes import KindNodes, all_nodes, is_control_plane, is_spare, kind_nodes
from fixtures.patience import patience
from fixtures.waiting import eventually, throughout
from machine.background import repeatedly

#: Where the kubelet finds the control plane's static Pods on their node.
MANIFESTS = "/etc/kubernetes/manifests"

#: Where the control plane's programs tell, on their node, whether they are healthy.
HEALTH = {
    "etcd": "http://127.0.0.1:2381/readyz",
    "kube-apiserver": "https://127.0.0.1:6443/readyz",
    "kube-controller-manager": "https://127.0.0.1:10257/healthz",
    "kube-scheduler": "https://127.0.0.1:10259/healthz",
}

#: Seconds until every admission policy is in the API server's cache. No status says when it is.
POLICIES_COUNT = 3

#: The cluster's own namespaces, in which no object is altered.
SYSTEM = ("kube-system", "local-path-storage", "kube-flannel", "projectcontour")


@dataclass
class World:
    """The cluster that is made wrong. If it `goes` with the run, nothing on it has to be undone."""

    api: Api
    nodes: KindNodes
    #: How tests reach the cluster. A step may replace it.
    connection: Connection
    goes: bool = False

    def names(self, which: str) -> list[str]:
        """The nodes that a step names."""
        found = [node for node in all_nodes(self.api) if not is_spare(node)]
        planes = [str(node.metadata.name) for node in found if is_control_plane(node)]
        workers = [str(node.metadata.name) for node in found if not is_control_plane(node)]
        chosen = {"all": planes + workers, "workers": workers, "one worker": workers[-1:], "control plane": planes}
        return chosen[which]

    def run(self, node: str, script: str) -> str:
        """Run a script on a node, and return what it prints. Raises RuntimeError if it fails."""
        done = self.nodes.run(node, ["sh", "-c", script])
        if done.code:
            raise RuntimeError(f"{node}: exit code {done.code}: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def wrong(faults: Sequence[Fault], connection: Connection) -> Iterator[World]:
    """Make the cluster wrong in these ways, and after the block right again. The tests use the world's `connection`.

    Raises RuntimeError if the cluster cannot be made so.
    """
    api = connection.api()
    nodes = kind_nodes(api)
    if nodes is None:
        raise RuntimeError("the cluster's nodes are no containers of this machine's engine")
    world = World(api, nodes, connection)
    with ExitStack() as stack:
        for fault in faults:
            try:
                for step in fault.make:
                    for name, given in step.items():
                        stack.enter_context(STEPS[name](world, given))
            except (ApiRefusal, AssertionError, HTTPError, OSError) as error:
                raise RuntimeError(f"the fault {fault.name} could not be made: {error}") from error
        yield world


@contextmanager
def _objects(world: World, given: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    kube = Kube(world.api, "default")
    kube.apply([dict(document) for document in given])
    yield
    if not world.goes:
        for document in reversed(given):
            with suppress(ApiRefusal):
                kube.delete(f"{document['apiVersion']}/{document['kind']}", document["metadata"]["name"])


@contextmanager
def _alters(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    with _objects(world, policy(given)):
        for _ in throughout(lasting=POLICIES_COUNT, every=1):
            pass
        yield


def policy(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The admission policy of a step `alters`, and its binding. They do not count in the cluster's own namespaces."""
    *group, version, resource = given["resource"].split("/")
    name = f"kubehave-fault-{resource}-{hashlib.sha256(repr(given).encode()).hexdigest()[:6]}"
    operations = given.get("on", ["CREATE"])
    rule = {"apiGroups": group or [""], "apiVersions": [version], "operations": operations, "resources": [resource]}
    patches = ", ".join(_json_patch(**patch) for patch in given["patches"])
    own = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [*SYSTEM]}
    version_of_policy = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": version_of_policy,
            "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": {"matchExpressions": [own]}},
                "matchConditions": [{"name": "when", "expression": given.get("when", "true")}],
                "reinvocationPolicy": "Never",
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": f"[{patches}]"}}],
            },
        },
        {
            "apiVersion": version_of_policy,
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name},
        },
    ]


def _json_patch(op: str, path: str, value: object = None) -> str:
    """A JSON patch in CEL."""
    values = "" if value is None else f", value: {value}"
    return f'JSONPatch{{op: "{op}", path: "{path}"{values}}}'


@contextmanager
def _flags(world: World, given: Mapping[str, Mapping[str, str | None]]) -> Iterator[None]:
    (node,) = world.names("control plane")
    before = {component: world.run(node, f"cat {MANIFESTS}/{component}.yaml") for component in given}
    for component, flags in given.items():
        _replace(world, node, component, with_flags(before[component], flags))
    yield
    if not world.goes:
        for component, text in before.items():
            _replace(world, node, component, text)


def with_flags(manifest: str, flags: Mapping[str, str | None]) -> str:
    """A static Pod's manifest whose program has these flags; None takes a flag away."""
    pod = yaml.safe_load(manifest)
    container = pod["spec"]["containers"][0]
    name = re.compile("|".join(rf"--{re.escape(flag)}(=.*)?$" for flag in flags))
    kept = [word for word in container["command"] if not name.match(word)]
    container["command"] = kept + [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
    return str(yaml.safe_dump(pod, sort_keys=False))


def _replace(world: World, node: str, component: str, text: str) -> None:
    """Replace the manifest of a static Pod, and wait until its program runs anew and is healthy."""
    running = f"pgrep --full '^{component} ' || :"
    was = world.run(node, running).split()
    encoded, new = base64.b64encode(text.encode()).decode(), "/etc/kubernetes/new"
    world.run(node, f"echo {encoded} | base64 -d > {new} && mv {new} {MANIFESTS}/{component}.yaml")
    for look in eventually(within=patience.pod_starts, every=0.5):
        with look:
            assert world.run(node, running).split() not in ([], was), f"{component} has not restarted"
            assert _is_healthy(world, node, component), f"{component} is not healthy"


def _is_healthy(world: World, node: str, component: str) -> bool:
    return world.nodes.run(node, ["curl", "--silent", "--insecure", "--fail", HEALTH[component]]).code == 0


@contextmanager
def _patch(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    kube = Kube(world.api, given.get("namespace", "default"))
    before = plain(kube.get(given["kind"], given["name"]))
    _patched(kube, given, given["change"])
    yield
    if not world.goes:
        _patched(kube, given, inverse_patch(before, given["change"]))


def _patched(kube: Kube, given: Mapping[str, Any], change: Mapping[str, Any]) -> None:
    """Patch an object, and restart the workloads that read it only when they start: "Deployment/coredns"."""
    kube.patch(given["kind"], given["name"], change, MERGE)
    for kind, _, name in (workload.partition("/") for workload in given.get("restart", ())):
        again = {"metadata": {"annotations": {"kubehave/restarted": secrets.token_hex(4)}}}
        kube.patch(kind, name, {"spec": {"template": again}}, MERGE)
        kube.rolled_out(kind, name)


@contextmanager
def _on_nodes(world: World, given: Mapping[str, str]) -> Iterator[None]:
    names = world.names(given["nodes"])
    for node in names:
        world.run(node, given["run"])
    yield
    if not world.goes:
        for node in names:
            world.run(node, given["undo"])


@contextmanager
def _again(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    names = world.names(given["nodes"])

    def once_more() -> None:
        for node in names:
            with suppress(RuntimeError):
                world.run(node, given["run"])

    with repeatedly(once_more, given["every"]):
        yield


@contextmanager
def _answers(world: World, given: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="kubehave-proxy-") as folder, AnswersAltered(world.api, given) as proxy:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(proxy.kubeconfig(str(world.connection.context)), encoding="utf-8")
        direct, world.connection = world.connection, Connection(str(kubeconfig), world.connection.context)
        try:
            yield
        finally:
            world.connection = direct


@contextmanager
def _kubectl(world: World, given: Mapping[str, str]) -> Iterator[None]:
    real, path = program(world.api), os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(prefix="kubehave-kubectl-") as folder:
        wrapper = Path(folder) / "kubectl"
        condition = f"printf '%s' \"$*\" | grep -qE {_quoted(given['when'])}"
        wrapper.write_text(f'#!/bin/sh\nreal={real}\nif {condition}; then\n{given["run"]}\nfi\nexec $real "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
        try:
            assert shutil.which("kubectl") == str(wrapper)
            yield
        finally:
            os.environ["PATH"] = path


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


Step = Callable[[World, Any], AbstractContextManager[None]]

STEPS: Mapping[str, Step] = {
    "objects": _objects,
    "alters": _alters,
    "flags": _flags,
    "patch": _patch,
    "on-nodes": _on_nodes,
    "again": _again,
    "answers": _answers,
    "kubectl": _kubectl,
}
