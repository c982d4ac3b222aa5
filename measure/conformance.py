"""Runs Kubernetes' own conformance specs on the suites' topics, on the kept cluster: `tox run -e conformance`.

They show whether the node image works as Kubernetes should. They are not part of the suites' verdicts. The specs run in
a container on the nodes' network without a default route, so their packets stay in the cluster.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.nodes import SPARE
from machine.cache import cache_folder
from machine.engine import REMOVE_DEFAULT_ROUTES, engine_named
from machine.exits import BROKEN, HOLDS, INTERRUPTED, CannotRun
from machine.progress import Say
from machine.signals import interrupted_by_signals
from machine.steps import Runner, duration, lock, perform, prune
from node_image.components import conformance_step
from runner import cluster as clusters

TOPICS: Mapping[str, tuple[str, ...]] = {
    "sig-apps": ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet"),
    "sig-cli": ("Kubectl client", "Kubectl logs"),
    "sig-network": (
        *("DNS", "Endpoints", "EndpointsController", "EndpointSlice", "EndpointSliceMirroring", "HostPort"),
        *("Ingress API", "IngressClass API", "Networking", "Proxy", "ServiceCIDR and IPAddress API", "Services"),
    ),
    "sig-node": (
        *("Container Lifecycle Hook", "Containers", "InitContainer", "Pods", "PodTemplates", "PreStop"),
        "Probing container",
    ),
    "sig-storage": ("EmptyDir volumes", "PersistentVolumes", "StorageClasses", "Subpath"),
}
"""The groups of specs on the suites' topics, by the special interest group (SIG) that owns them."""

LEFT_OUT: Mapping[str, str] = {
    "Update Demo": "its Pods need the image e2e-test-images/nautilus, a web page with a picture, which only a registry has",
}
"""Specs that cannot run here: a part of their names, and the reason."""

LABELS = "Conformance && !Serial && !Disruptive"
PROCESSES = 8
PATIENCE = "40m"


@dataclass(frozen=True)
class Specs:
    """The result of the specs: their wall time in seconds, how many passed, and the failed ones with their messages."""

    seconds: float
    passed: int
    failed: Mapping[str, str]


def run_specs(folder: Path, say: Say) -> Specs:
    """Build the specs if they are missing, and run them on the cluster of this folder. Raises CannotRun if they do not run."""
    engine = engine_named((folder / "engine").read_text())
    cache = cache_folder() / "node-image"
    step = conformance_step()
    with lock(cache, say):
        programs = perform(step, cache, say)
        prune([step], cache)
    report = cache_folder() / "conformance"
    report.mkdir(exist_ok=True)
    results = report / "report.json"
    results.unlink(missing_ok=True)
    node = f"{folder.name}-control-plane"
    kubeconfig = report / "kubeconfig"
    kubeconfig.write_text(engine.run("exec", node, "cat", "/etc/kubernetes/admin.conf"))
    runner = Runner("conformance specs", cache / "logs" / "specs.log", say)
    container = f"{folder.name}-conformance"
    try:
        with runner.reported():
            runner.run(
                [
                    *(engine.name, "run", "--rm", "--name", container, "--network", folder.name),
                    *("--cap-add", "NET_ADMIN", "--tmpfs", "/var", "--entrypoint", "/bin/sh"),
                    *("--volume", f"{programs}:/programs:ro", "--volume", f"{report}:/report"),
                    (folder / "image").read_text().strip(),
                    "-c",
                    f"{REMOVE_DEFAULT_ROUTES}; exec {' '.join(command())}",
                ],
                env=engine.env,
            )
    except CannotRun:
        if not results.exists():
            raise
    finally:
        engine.remove_containers(container)
        kubeconfig.unlink()
    say(f"report: {results}")
    return read(json.loads(results.read_text()))


def command() -> list[str]:
    """The arguments, quoted for a shell, that run the specs in the container."""
    groups = (f"{re.escape(f'[{owner}]')} ({'|'.join(names)}) " for owner, names in TOPICS.items())
    focus = "|".join(groups)
    choice = [f"--label-filter='{LABELS}'", f"--focus='{focus}'"]
    choice += [f"--skip='{re.escape(name)}'" for name in LEFT_OUT]
    how = [f"--procs={PROCESSES}", "--no-color", "--silence-skips", f"--timeout={PATIENCE}"]
    how += ["--output-dir=/report", "--json-report=report.json"]
    cluster = ["--kubeconfig=/report/kubeconfig", "--provider=local", "--kubectl-path=/usr/bin/kubectl"]
    # The specs begin when every node takes Pods. The spare worker has a taint, as the control plane has.
    cluster += [f"--non-blocking-taints=node-role.kubernetes.io/control-plane,{SPARE}"]
    return ["/programs/ginkgo", *choice, *how, "/programs/e2e.test", "--", *cluster]


def read(suites: list[dict[str, Any]]) -> Specs:
    """Read ginkgo's JSON report, in which durations are in nanoseconds.

    If no spec of a group ran, that is a failure, too: its name is misspelled, or this Kubernetes has renamed it.
    """
    passed: list[str] = []
    failed = {}
    for suite in suites:
        for spec in suite["SpecReports"] or []:
            name = " ".join([*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]])
            if spec["State"] == "passed" and spec["LeafNodeType"] == "It":
                passed.append(name)
            elif spec["State"] not in ("passed", "skipped", "pending"):
                failed[name] = spec["Failure"]["Message"].strip()
        if not suite["SuiteSucceeded"] and not failed:
            failed["the specs as a whole"] = "; ".join(suite["SpecialSuiteFailureReasons"] or ["no reason given"])
    ran = [*passed, *failed]
    for owner, names in TOPICS.items():
        for group in (f"[{owner}] {name}" for name in names):
            if not any(name.startswith(f"{group} ") for name in ran):
                failed[group] = "no spec of this group ran"
    return Specs(sum(suite["RunTime"] for suite in suites) / 1e9, len(passed), failed)


def main() -> int:
    """Run the specs on the kept cluster, and print the result."""
    argparse.ArgumentParser(prog="python -m measure.conformance", description=__doc__).parse_args()

    def say(line: str) -> None:
        print(line, flush=True)

    interrupted_by_signals()
    try:
        folder = clusters.kept_folder()
        clusters.find_context(f"kind-{folder.name}")  # locks it, so that no other run removes it
        specs = run_specs(folder, say)
    except CannotRun as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print(
            "interrupted; the container of the specs is removed, but what they made on the cluster may still exist",
            file=sys.stderr,
        )
        return INTERRUPTED
    for name, message in specs.failed.items():
        say(f"failed: {name}: {message.splitlines()[0] if message else 'no message'}")
    say(f"{specs.passed} specs passed, {len(specs.failed)} failed, in {duration(specs.seconds)}")
    return BROKEN if specs.failed else HOLDS


if __name__ == "__main__":
    sys.exit(main())
