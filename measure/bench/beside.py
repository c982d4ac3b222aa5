"""What a run is compared with, on one cluster that is kept for it: the cost of a Pod, and Kubernetes' own specs."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from fixtures.api import Api
from fixtures.kube import Kube, is_ready
from fixtures.waiting import eventually
from machine.engine import Engine
from machine.progress import Say
from measure import conformance
from measure.bench.run import Meter, measured
from runner.cluster import kept_folder

PODS, DEPLOYMENTS = 100, 20


def compare(engine: Engine, checkout: Path, options: list[str], say: Say) -> tuple[dict[str, float], dict[str, Any]]:
    """The cost of a Pod, and the comparison with the specs, which run after the tests. Raises CannotRun."""
    try:
        ours = measured(engine, checkout, ["--keep", *options], say).figures
        folder = kept_folder()
        meter = Meter(engine, folder.name, os.getpid())
        seconds = cost_of_pods(Api(str(folder / "kubeconfig"), None)) / PODS
        cpu = meter.figures()["cpu/nodes"] / PODS
        meter = Meter(engine, folder.name, os.getpid())
        specs = conformance.run_specs(folder, say)
        theirs = {**meter.figures(), "seconds/tests": specs.seconds}
    finally:
        subprocess.run([checkout / "verify", "--remove"], cwd=checkout, check=True, capture_output=True)
    number = specs.passed + len(specs.failed)
    each = {"seconds": "seconds/tests", "cpu": "cpu/nodes", "requests": "requests/all"}
    a_spec = {name: theirs[figure] / number for name, figure in each.items()}
    a_behavior = {name: ours[figure] / ours["count/behaviors"] for name, figure in each.items()}
    pod = {
        "seconds": seconds,
        "cpu": cpu,
        # The lower limit of the tests' time, the "floor": so many Pods at this cost.
        "tests as a multiple of the floor": ours["seconds/tests"] / (ours["count/Pods"] * seconds),
    }
    return _rounded(pod), {
        "specs": number,
        "failed": len(specs.failed),
        "a_spec": _rounded(a_spec),
        "a_behavior": _rounded(a_behavior),
        "a_behavior_in_specs": _rounded({name: a_behavior[name] / a_spec[name] for name in each}),
    }


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in figures.items()}


def cost_of_pods(api: Api) -> float:
    """Seconds in which 100 Pods start and are deleted together."""
    kube = Kube(api, "default")
    pod = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0", "args": ["pause"]}],
    }
    began = time.monotonic()
    for number in range(DEPLOYMENTS):
        kube.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"bench-{number}"},
                "spec": {
                    "replicas": PODS // DEPLOYMENTS,
                    "selector": {"matchLabels": {"bench": str(number)}},
                    "template": {"metadata": {"labels": {"bench": str(number)}}, "spec": pod},
                },
            }
        )
    for look in eventually(within=300):
        with look:
            assert sum(is_ready(pod) for pod in kube.list("Pod")) == PODS
    for number in range(DEPLOYMENTS):
        kube.delete("Deployment", f"bench-{number}")
    for look in eventually(within=300):
        with look:
            assert not kube.list("Pod")
    return time.monotonic() - began
