"""The steps of a fault: each makes one thing of the cluster wrong, and undoes it after that.

- `objects`: creates these objects.
- `alters`: alters objects as they are stored: `resource` ("apps/v1/deployments", "v1/pods/status"), `operations` (if it is
  not only CREATE), `when` (a condition in CEL), and `patches`, a list of JSON patches with values in CEL. In a
  list, objects are maps: on typed ones (`Object.spec...{}`) the API server panics.
- `refuses`: refuses to store objects: `resource`, `operations`, `when`, and `says`, the message.
- `flags`: starts a component of the control plane with other flags: `{kube-apiserver: {flag: value}}`; null takes one away.
  If several faults give a flag whose value is a list, their values are joined.
- `patch`: changes an object of the cluster: `kind`, `namespace`, `name`, the merge patch `change`, `undo`
  if the opposite patch does not undo it, and `restart`, the workloads that read the object only when they start.
- `on-nodes`: runs a script on nodes: `nodes` (all, workers, one worker, control plane), `run`, and `undo`.
- `containers`: alters what containers are made of: `nodes`, and `change`, code in Perl that alters `$c`, the OCI runtime's
  configuration of a container. `$pod` has the annotations by which the runtime knows its Pod.
- `again`: runs a script on nodes once more and once more while the tests run: `nodes`, `run`, `every` (seconds).
- `answers`: puts a proxy before the API server, which alters answers (see `faults.proxy`).
- `kubectl`: does something else in place of some commands of kubectl: `when` (a regular expression), `run` (a shell script).
"""

from __future__ import annotations

import base64
import hashlib
import json
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
from shlex import quote
from subprocess import SubprocessError
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

#: The API server's certificate and key on its node.
CERTIFICATE = "/etc/kubernetes/pki/apiserver"

#: The components of which one at a time acts: the one that holds the Lease of this name.
LEADERS = ("kube-controller-manager", "kube-scheduler")

#: Seconds until a component of the control plane runs anew. etcd takes 50 to 75: without it the kubelet cannot report.
COMES_BACK = 150

#: Seconds for a script on a node, which may wait for that.
SCRIPT = COMES_BACK

#: The nodes' OCI runtime, and what stands in its place to alter what containers are made of. REAL stands for the runtime's
#: other name, and CHANGE for the code of a fault.
RUNTIME = "/usr/local/lib/crun/crun"
WRAPPER = r"""#!/usr/bin/perl
use strict; use warnings; use JSON::PP;
my $json = JSON::PP->new->utf8->canonical;
my ($bundle) = map { $ARGV[$_ + 1] } grep { $ARGV[$_] =~ /^(-b|--bundle)$/ } 0 .. $#ARGV;
if ($bundle && grep { $_ eq "create" } @ARGV) {
    local (@ARGV, $/) = ("$bundle/config.json");
    my $c = $json->decode(scalar <>);
    my $pod = $c->{annotations} || {};
    sub { CHANGE }->();
    open(my $out, ">", "$bundle/config.json") or die "config.json: $!";
    print $out $json->encode($c);
    close($out) or die "config.json: $!";
}
exec("REAL", @ARGV) or die "REAL: $!";
"""

#: The flags whose values are lists.
LISTS = ("controllers", "disable-admission-plugins", "feature-gates", "runtime-config")

#: The steps that make admission policies.
POLICIES = ("alters", "refuses")

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
        done = self.nodes.run(node, ["sh", "-ec", script], timeout=SCRIPT)
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
        for names, step, given in steps_of(faults):
            try:
                stack.enter_context(STEPS[step](world, given))
            except (ApiRefusal, AssertionError, HTTPError, OSError, RuntimeError, SubprocessError) as error:
                raise RuntimeError(f"the fault {names} could not be made: {error}") from error
        yield world


#: A step: the names of the faults that have it, its own name, and what is given to it.
Named = tuple[str, str, Any]


def steps_of(faults: Sequence[Fault]) -> Iterator[Named]:
    """The steps of faults, each with their names and what is given to it.

    A component starts anew once, with the flags of all; what a file has before its flags comes before that. There is one proxy,
    and one kubectl. The policies come last, and what waits for them.
    """
    of_each = [[(fault.name, *step) for part in fault.make for step in part.items()] for fault in faults]
    all_steps = [step for steps in of_each for step in steps]
    single_steps = [[step for step in steps if step[1] not in ("answers", "kubectl", *POLICIES)] for steps in of_each]
    for steps in single_steps:
        yield from steps[: _flags_at(steps)]
    yield from _merged(all_steps, "flags", _joined_flags)
    for steps in single_steps:
        yield from (step for step in steps[_flags_at(steps) :] if step[1] != "flags")
    yield from _merged(all_steps, "answers", lambda given: [rule for rules in given for rule in rules])
    yield from _merged(all_steps, "kubectl", list)
    yield from (policies := [step for step in all_steps if step[1] in POLICIES])
    if policies:
        yield _names(policies), "policies count", None


def _flags_at(steps: Sequence[Named]) -> int:
    """The number of steps before the flags; 0 without flags."""
    return next((at for at, (_, kind, _) in enumerate(steps) if kind == "flags"), 0)


def _merged(steps: Sequence[Named], kind: str, merge: Callable[[list[Any]], Any]) -> Iterator[Named]:
    """The steps of a kind as one, if there are any."""
    if found := [step for step in steps if step[1] == kind]:
        yield _names(found), kind, merge([given for _, _, given in found])


def _names(steps: Sequence[Named]) -> str:
    return ", ".join(dict.fromkeys(name for name, _, _ in steps))


def _joined_flags(given: list[Mapping[str, Mapping[str, str | None]]]) -> dict[str, dict[str, str | None]]:
    """Flags of several faults in one: if two give a flag other values, those of a list are joined. Raises ValueError."""
    flags: dict[str, dict[str, str | None]] = {}
    for component, flag, value in ((part, *it) for one in given for part, of in one.items() for it in of.items()):
        before = flags.setdefault(component, {}).setdefault(flag, value)
        if value != before:
            if flag not in LISTS:
                raise ValueError(f"two faults give --{flag} of {component} other values")
            flags[component][flag] = ",".join(dict.fromkeys(f"{before},{value}".split(",")))
    return flags


@contextmanager
def _objects(world: World, given: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    for document in given:
        _beside(world, document).apply([dict(document)])
    yield
    if not world.goes:
        for document in reversed(given):
            try:
                _beside(world, document).delete(
                    f"{document['apiVersion']}/{document['kind']}", document["metadata"]["name"]
                )
            except ApiRefusal as refusal:
                if refusal.status != 404:
                    raise


def _beside(world: World, document: Mapping[str, Any]) -> Kube:
    """Requests in an object's own namespace."""
    return Kube(world.api, document["metadata"].get("namespace", "default"))


@contextmanager
def _alters(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    patches = ", ".join(_json_patch(**patch) for patch in given["patches"])
    mutation = {"patchType": "JSONPatch", "jsonPatch": {"expression": f"[{patches}]"}}
    # An object for which the expressions fail is stored as it is. Otherwise it would be refused.
    own = {"failurePolicy": "Ignore", "reinvocationPolicy": "Never", "mutations": [mutation]}
    with _objects(world, policy("Mutating", given, own, {})):
        yield


@contextmanager
def _refuses(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    own = {"validations": [{"expression": "false", "message": given["says"]}]}
    with _objects(world, policy("Validating", given, own, {"validationActions": ["Deny"]})):
        yield


@contextmanager
def _policies_count(_world: World, _given: None) -> Iterator[None]:
    for _ in throughout(lasting=POLICIES_COUNT, every=1):
        pass
    yield


def policy(
    kind: str, given: Mapping[str, Any], own: Mapping[str, Any], binding: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """An admission policy and its binding, with what only their kind has. They do not count in the cluster's own namespaces."""
    parts = given["resource"].split("/")
    at = next(number for number, part in enumerate(parts) if re.fullmatch(r"v\d\w*", part))
    group, version, resource = parts[:at] or [""], parts[at], "/".join(parts[at + 1 :])
    digest = hashlib.sha256(repr(given).encode()).hexdigest()[:6]
    name = f"kubehave-fault-{resource.replace('/', '-')}-{digest}"
    operations = given.get("operations", ["CREATE"])
    rule = {"apiGroups": group, "apiVersions": [version], "operations": operations, "resources": [resource]}
    system = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [*SYSTEM]}
    version_of_policy = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": version_of_policy,
            "kind": f"{kind}AdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": {"matchExpressions": [system]}},
                "matchConditions": [{"name": "when", "expression": given.get("when", "true")}],
                **own,
            },
        },
        {
            "apiVersion": version_of_policy,
            "kind": f"{kind}AdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, **binding},
        },
    ]


def _json_patch(op: str, path: str, value: object = None) -> str:
    """A JSON patch in CEL."""
    values = "" if value is None else f", value: {value if isinstance(value, str) else json.dumps(value)}"
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
    for look in eventually(within=COMES_BACK, every=0.5):
        with look:
            assert world.run(node, running).split() not in ([], was), f"{component} has not restarted"
            for needed in (component, "kube-apiserver"):  # which is not healthy without etcd
                assert _is_healthy(world, node, needed), f"{needed} is not healthy"
    if component == "kube-apiserver":
        # Otherwise its Pods may take half a minute to hear of new Services again.
        _starts_anew(Kube(world.api, "kube-system"), "Deployment", "coredns")
    if component in LEADERS and "--leader-elect=true" in text:
        _leads(world, component)


def _leads(world: World, component: str) -> None:
    """Take the Lease from the component that ended, and wait until the new one has it."""
    kube = Kube(world.api, "kube-system")
    kube.delete("Lease", component)
    for look in eventually(within=patience.controller_acts, every=0.5):
        with look:
            assert component in [lease.metadata.name for lease in kube.list("Lease")], f"{component} is not the leader"


def _is_healthy(world: World, node: str, component: str) -> bool:
    return world.nodes.run(node, ["curl", "--silent", "--insecure", "--fail", HEALTH[component]]).code == 0


@contextmanager
def _patch(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    kube = Kube(world.api, given.get("namespace", "default"))
    before = plain(kube.get(given["kind"], given["name"]))
    _patched(kube, given, given["change"])
    yield
    if not world.goes:
        _patched(kube, given, given.get("undo") or inverse_patch(before, given["change"]))


def _patched(kube: Kube, given: Mapping[str, Any], change: Mapping[str, Any]) -> None:
    """Patch an object, and restart the workloads that read it only when they start: "Deployment/coredns"."""
    kube.patch(given["kind"], given["name"], change, MERGE)
    for kind, _, name in (workload.partition("/") for workload in given.get("restart", ())):
        _starts_anew(kube, kind, name)


def _starts_anew(kube: Kube, kind: str, name: str) -> None:
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
def _containers(world: World, given: Mapping[str, str]) -> Iterator[None]:
    real = f"{RUNTIME}.{secrets.token_hex(3)}"
    encoded = base64.b64encode(WRAPPER.replace("REAL", real).replace("CHANGE", given["change"]).encode()).decode()
    new = f"{RUNTIME}.new"
    wrap = f"cp -a {RUNTIME} {real} && echo {encoded} | base64 -d > {new} && chmod +x {new} && mv {new} {RUNTIME}"
    with _on_nodes(world, {"nodes": given["nodes"], "run": wrap, "undo": f"mv {real} {RUNTIME}"}):
        yield


@contextmanager
def _again(world: World, given: Mapping[str, Any]) -> Iterator[None]:
    names = world.names(given["nodes"])

    def once_more() -> None:
        for node in names:
            with suppress(RuntimeError, SubprocessError, OSError):
                world.run(node, given["run"])

    with repeatedly(once_more, given["every"]):
        yield


@contextmanager
def _answers(world: World, given: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    (node,) = world.names("control plane")
    with tempfile.TemporaryDirectory(prefix="kubehave-proxy-") as folder:
        certificate, kubeconfig = Path(folder) / "certificate", Path(folder) / "kubeconfig"
        certificate.write_text(world.run(node, f"cat {CERTIFICATE}.crt {CERTIFICATE}.key"), encoding="utf-8")
        with AnswersAltered(world.api, given, certificate) as proxy:
            kubeconfig.write_text(proxy.kubeconfig(str(world.connection.context)), encoding="utf-8")
            direct, world.connection = world.connection, Connection(str(kubeconfig), world.connection.context)
            try:
                yield
            finally:
                world.connection = direct


@contextmanager
def _kubectl(world: World, given: Sequence[Mapping[str, str]]) -> Iterator[None]:
    real, path = program(world.api), os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(prefix="kubehave-kubectl-") as folder:
        wrapper = Path(folder) / "kubectl"
        wrapper.write_text(f'#!/bin/sh\nreal={quote(real)}\n{"".join(map(_instead, given))}exec "$real" "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        os.environ["PATH"] = f"{folder}{os.pathsep}{path}"
        try:
            assert shutil.which("kubectl") == str(wrapper), f"{wrapper} cannot be run"
            yield
        finally:
            os.environ["PATH"] = path


def _instead(given: Mapping[str, str]) -> str:
    return f"if printf '%s' \"$*\" | grep -qE {quote(given['when'])}; then\n{given['run']}\nfi\n"


Step = Callable[[World, Any], AbstractContextManager[None]]

STEPS: Mapping[str, Step] = {
    "objects": _objects,
    "alters": _alters,
    "refuses": _refuses,
    "policies count": _policies_count,
    "flags": _flags,
    "patch": _patch,
    "on-nodes": _on_nodes,
    "containers": _containers,
    "again": _again,
    "answers": _answers,
    "kubectl": _kubectl,
}
