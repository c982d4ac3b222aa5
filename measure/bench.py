"""Times of whole runs, as JSON: `tox run -e bench` (or `python -m measure.bench --repeats 3`).

Each repeat creates a cluster, runs the suites on it (`./verify --keep`) and runs them again. Then it measures the cost
of a Pod: 100 Pods start and are deleted. At last it removes the cluster. The wall time of the tests is also given as a
multiple of a lower limit, the "floor": the number of Pods that the run made, times the cost of a Pod. On the last
cluster Kubernetes' own conformance specs run, too, for comparison (not with --no-conformance). All times are in
seconds, memory in MiB.

The slowest tests are those of the second runs of all repeats, with the budgets of `fixtures.patience` that they waited for.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.api import Api
from fixtures.kube import Kube, is_ready
from fixtures.waiting import eventually
from measure import conformance
from runner.cluster import kept_folder

ROOT = Path(__file__).parent.parent
PODS, DEPLOYMENTS = 100, 20

#: The labels of the API server's metric that counts requests that stored a Pod.
STORED_PODS = ('resource="pods"', 'subresource=""', 'verb="POST"', 'code="201"', 'dry_run=""')


class Memory:
    """The peak of the whole machine's memory, compared with the start."""

    def __init__(self) -> None:
        self._start = self._used()
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @staticmethod
    def _used() -> int:
        found = dict(re.findall(r"(\w+):\s+(\d+)", Path("/proc/meminfo").read_text()))
        return (int(found["MemTotal"]) - int(found["MemAvailable"])) // 1024

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.peak = max(self.peak, self._used() - self._start)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def verify(*args: str) -> tuple[float, dict[str, Any]]:
    """Run `./verify`. Returns its wall time and its behaviors.json. Raises SystemExit if its exit code is not 0."""
    began = time.monotonic()
    done = subprocess.run([ROOT / "verify", *args], cwd=ROOT, capture_output=True, text=True)
    wall = time.monotonic() - began
    if done.returncode:
        raise SystemExit(
            f"./verify {' '.join(args)} ended with {done.returncode}:\n{done.stdout[-8000:]}{done.stderr[-2000:]}"
        )
    return wall, json.loads((ROOT / "report" / "behaviors.json").read_text())


def pods_made(api: Api) -> int:
    """How many Pods the API server has stored since it started."""
    made = 0
    for line in str(api.call("GET", "/metrics")).splitlines():
        labels, _, count = line.rpartition(" ")
        if labels.startswith("apiserver_request_total{") and all(label in labels for label in STORED_PODS):
            made += int(float(count))
    return made


def cost_of_a_pod(api: Api) -> float:
    """Seconds of wall time for one Pod, from 100 Pods that start and are deleted together."""
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
    return (time.monotonic() - began) / PODS


@dataclass
class Repeat:
    """The results of one repeat: its figures by name, its tests' times, and the specs' figures if they ran."""

    figures: dict[str, float]
    tests: dict[str, dict[str, Any]]
    comparison: dict[str, float]


def repeat(options: list[str], specs: bool) -> Repeat:
    """Do one repeat: create a cluster, measure, remove the cluster."""
    try:
        with Memory() as memory:
            from_nothing, first = verify("--keep", *options)
        folder = kept_folder()
        api = Api(str(folder / "kubeconfig"), None)
        before = pods_made(api)
        again, second = verify("--keep", *options)
        pods = pods_made(api) - before
        cost = cost_of_a_pod(api)
        behaviors = sum(row["verdict"] == "holds" for row in second["behaviors"])
        tests = second["run"]["phases"]["tests"]
        comparison = compared(folder, tests / behaviors) if specs else {}
    finally:
        began = time.monotonic()
        subprocess.run([ROOT / "verify", "--remove"], cwd=ROOT, check=True, capture_output=True)
        gone = time.monotonic() - began
    figures = {
        "run_from_nothing": from_nothing,
        "cluster_ready": first["run"]["phases"]["cluster"],
        "tests_on_a_new_cluster": first["run"]["phases"]["tests"],
        "run_on_a_kept_cluster": again,
        "tests_on_a_kept_cluster": tests,
        "pods": pods,
        "cost_of_a_pod": cost,
        "multiple_of_the_floor": tests / (pods * cost),
        "cluster_gone": gone,
        "peak_memory": memory.peak,
        "behaviors": behaviors,
    }
    return Repeat(figures, second["tests"], comparison)


def compared(folder: Path, seconds_for_a_behavior: float) -> dict[str, float]:
    """The time of Kubernetes' own specs on the same cluster."""
    specs = conformance.run_specs(folder, say)
    number = specs.passed + len(specs.failed)
    return {
        "specs": number,
        "failed": len(specs.failed),
        "wall": round(specs.seconds, 1),
        "seconds_for_a_spec": round(specs.seconds / number, 2),
        "seconds_for_a_behavior": round(seconds_for_a_behavior, 2),
        "a_behavior_in_specs": round(seconds_for_a_behavior * number / specs.seconds, 2),
    }


def slowest(repeats: list[Repeat], number: int = 10) -> list[dict[str, Any]]:
    """The slowest tests, the slowest first, each with what it waited for."""
    worst: dict[str, dict[str, Any]] = {}
    for one in repeats:
        for test, times in one.tests.items():
            if times["seconds"] > worst.get(test, {"seconds": 0})["seconds"]:
                worst[test] = {"test": test.removeprefix("suites/"), **times}
    return sorted(worst.values(), key=lambda times: -times["seconds"])[:number]


def say(line: str) -> None:
    """Print one line of progress to stderr, because stdout is for the JSON."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Print as JSON: each figure's median, minimum and maximum, the slowest tests, the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-conformance", action="store_true", help="do not run Kubernetes' own specs")
    parser.add_argument("options", nargs="*", help="passed to ./verify, e.g. suites/test_pods.py")
    asked = parser.parse_args()
    repeats = []
    for number in range(1, asked.repeats + 1):
        say(f"repeat {number} of {asked.repeats}")
        specs = number == asked.repeats and not asked.no_conformance
        repeats.append(repeat(asked.options, specs))
        say(", ".join(f"{name} {value:.1f}" for name, value in repeats[-1].figures.items()))
    figures = {}
    for name in repeats[0].figures:
        values = [one.figures[name] for one in repeats]
        spread = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        figures[name] = {key: round(value, 3) for key, value in spread.items()}
    result = {
        "repeats": len(repeats),
        "figures": figures,
        "conformance": repeats[-1].comparison,
        "slowest": slowest(repeats),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
