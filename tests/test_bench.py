"""The bench reads CPU time and requests correctly, and compares runs. It needs no cluster here."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from machine.engine import Engine
from machine.exits import CannotRun
from measure.bench import __main__ as command
from measure.bench import figures, served, usage
from measure.bench import run as runs
from measure.bench.served import Request
from measure.bench.usage import NODES, PODS, TICKS, Process

CONTAINER = "4c701e80d44a"

# --- processes


def stat(name: str, parent: int = 1, ticks: str = "100 200 30 40") -> str:
    return f"7 ({name}) S {parent} 7 7 0 -1 4194560 4769 240586 5 28 {ticks} 20 0 1 0 2318068 20594688 2939\n"


@pytest.mark.parametrize("name", ["etcd", "runc:[2:INIT]", "tmux: server", "a) S 9 (b"])
def test_a_name_may_have_spaces_and_brackets(name: str) -> None:
    assert Process.parse(stat(name, parent=5)) == Process(name, 5, 300 / TICKS, 70 / TICKS)


def test_a_run_has_its_descendants_and_no_other_processes() -> None:
    everything = {
        10: Process("verify", 1, 1, 2),
        11: Process("worker", 10, 3, 4),
        12: Process("kubectl", 11, 5, 0),
        13: Process("conmon", 1, 100, 100),
    }

    assert usage.with_children(10, everything) == 15


def test_busy_leaves_out_idle_stolen_and_waiting_for_disks() -> None:
    seen = usage.machine("cpu  100 20 300 9999 9999 4 5 60 70 80\ncpu0 1 1 1 1 1 1 1 1 1 1\n")

    assert seen == {(usage.BUSY, ""): 429 / TICKS, (usage.STOLEN, ""): 60 / TICKS}


# --- cgroups


@pytest.mark.parametrize("mounted", ["cpuacct", "cpu,cpuacct"])
def test_version_1_is_used_where_both_are_mounted(tmp_path: Path, mounted: str) -> None:
    (tmp_path / mounted).mkdir()
    listed = f"9:name=systemd:/x/init.scope\n2:{mounted}:/x/libpod-1\n0::/x/libpod-1/init.scope\n"

    assert usage.cgroup_of(listed, tmp_path) == tmp_path / mounted / "x" / "libpod-1"


def test_version_2_has_one_line(tmp_path: Path) -> None:
    listed = "0::/system.slice/docker-1.scope/init.scope\n"

    assert usage.cgroup_of(listed, tmp_path) == tmp_path / "system.slice" / "docker-1.scope" / "init.scope"


def test_cpu_time_of_both_versions_is_in_seconds(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "cpuacct.usage").write_text("2500000000\n")
    (two / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")

    assert (usage.cpu_seconds(one), usage.cpu_seconds(two)) == (2.5, 2.5)


@pytest.mark.parametrize(
    "below", ["", "/init.scope", "/container/init.scope", "/kubelet/kubepods/besteffort/pod1/79c84f"]
)
def test_a_node_is_the_cgroup_with_the_containers_id(below: str) -> None:
    node = f"/sys/fs/cgroup/cpuacct/libpod_parent/libpod-{CONTAINER}"

    assert usage.container_cgroup(Path(node + below), CONTAINER) == Path(node)


def test_a_container_on_another_machine_is_refused() -> None:
    with pytest.raises(CannotRun, match="no cgroup on this machine"):
        usage.container_cgroup(Path("/sys/fs/cgroup/init.scope"), CONTAINER)


@pytest.mark.parametrize("folder", ["kubelet/kubepods", "kubelet.slice/kubelet-kubepods.slice"])
def test_all_pods_are_below_the_topmost_kubepods(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder / "kubelet-kubepods-burstable.slice" / "pod1").mkdir(parents=True)

    assert usage.cgroup_of_all_pods(tmp_path) == tmp_path / folder


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cgroup of a node with cgroup v2, on a machine with a kubelet (101), an API server (102) and a foreign kubelet (103)."""
    proc, mounted = tmp_path / "proc", tmp_path / "cgroup"
    monkeypatch.setattr(usage, "PROC", proc)
    monkeypatch.setattr(usage.cgroup_of, "__defaults__", (mounted,))
    node = mounted / f"docker-{CONTAINER}.scope"
    container = "kubelet.slice/kubelet-kubepods.slice/pod1/c1"
    for folder, seconds in (("", 50), ("kubelet.slice/kubelet-kubepods.slice", 20), (container, 12)):
        (node / folder).mkdir(parents=True, exist_ok=True)
        (node / folder / "cpu.stat").write_text(f"usage_usec {seconds}000000\n")
    for number, name, cgroup in (
        (101, "kubelet", f"/{node.name}/kubelet.slice/kubelet.service"),
        (102, "kube-apiserver", f"/{node.name}/{container}"),
        (103, "kubelet", "/docker-another.scope/kubelet.slice"),
    ):
        (proc / str(number)).mkdir(parents=True)
        (proc / str(number) / "stat").write_text(stat(name, ticks=f"{5 * TICKS} 0 0 0"))
        (proc / str(number) / "cgroup").write_text(f"0::{cgroup}\n")
    (proc / "stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    return node


def test_a_reading_has_the_programs_of_its_nodes_only(node: Path) -> None:
    read = usage.read({"control-plane": node}, run=999)

    assert {name: seconds for (name, _), seconds in read.items() if seconds} == {
        NODES: 50,
        PODS: 20,
        "API server": 12,
        "kubelet": 5,
    }


def test_what_is_left_of_a_node_is_the_runtimes() -> None:
    before = {(NODES, "a"): 10.0, (PODS, "a"): 4.0, ("etcd", "c1"): 2.0, ("kubelet", "7"): 1.0}
    after = {
        (NODES, "a"): 60.0,
        (PODS, "a"): 34.0,
        ("etcd", "c1"): 12.0,
        ("kubelet", "7"): 6.0,
        ("containerd", "9"): 4.0,
    }

    assert usage.spent(before, after) == {
        NODES: 50,
        "etcd": 10,
        PODS: 20,
        "kubelet": 5,
        "containerd": 4,
        usage.HELPERS: 11,
    }


# --- requests

METRICS = """
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",dry_run="",group="",resource="pods",subresource="",verb="POST",version="v1"} 39
apiserver_request_total{code="201",dry_run="All",group="",resource="pods",subresource="",verb="POST",version="v1"} 2
apiserver_request_total{code="403",dry_run="",group="",resource="pods",subresource="",verb="POST",version="v1"} 1
apiserver_request_total{code="0",dry_run="",group="",resource="pods",subresource="exec",verb="CONNECT",version="v1"} 1.2e+03
apiserver_request_total{code="200",dry_run="",group="",resource="",subresource="/livez",verb="GET",version=""} 19
apiserver_request_duration_seconds_count{resource="pods",subresource="",verb="POST"} 42
"""


def test_requests_are_told_apart_by_verb_and_resource() -> None:
    requests = served.parse(METRICS)

    assert served.by_verb_and_resource(requests) == {
        "all": 1261,
        "POST pods": 42,
        "CONNECT pods/exec": 1200,
        "GET livez": 19,
    }
    assert served.pods_made(requests) == 39


def test_what_has_not_been_requested_since_is_not_listed() -> None:
    requests = Counter({Request("GET", "pods", "200", False): 5, Request("LIST", "nodes", "200", False): 3})

    assert served.by_verb_and_resource(requests - Counter({Request("GET", "pods", "200", False): 5})) == {
        "all": 3,
        "LIST nodes": 3,
    }


# --- figures


def test_ratios_are_made_pair_by_pair() -> None:
    """The machine became twice as slow in the second pair; the ratio is the same."""
    new, old = [{"seconds/tests": 8.0}, {"seconds/tests": 16.0}], [{"seconds/tests": 10.0}, {"seconds/tests": 20.0}]

    assert figures.ratios(new, old) == {"seconds/tests": {"median": 0.8, "min": 0.8, "max": 0.8}}


def test_a_figure_that_is_missing_somewhere_has_no_ratio() -> None:
    assert figures.ratios([{"a": 1, "b": 1, "c": 1}], [{"b": 0, "c": 2}]) == {
        "c": {"median": 0.5, "min": 0.5, "max": 0.5}
    }


def test_a_spread_counts_a_run_that_lacks_the_figure_as_0() -> None:
    assert figures.spreads([{"a": 1}, {"a": 5, "b": 2}, {"a": 3}]) == {
        "a": {"median": 3, "min": 1, "max": 5},
        "b": {"median": 0, "min": 0, "max": 2},
    }


def test_only_the_largest_requests_are_shown() -> None:
    many = {"cpu/etcd": 1.0, "requests/all": 1000.0, **{f"requests/GET {number}": number for number in range(1, 21)}}

    names = figures.shown(figures.spreads([many]))

    assert names == ["cpu/etcd", "requests/all", *(f"requests/GET {number}" for number in range(20, 10, -1))]


def test_the_readme_has_date_commit_and_the_ratio_to_the_specs() -> None:
    names = ("cluster", "tests", "clean-up", "whole run")
    run = {
        **{f"seconds/{name}": 40.0 for name in names},
        "cpu/nodes": 300.0,
        "cpu/the run's own processes": 90.0,
        "requests/all": 30000,
        "count/tests": 326,
        "count/Pods": 450,
        "memory/peak MiB": 1800,
    }
    result = {
        "about": {"date": "2026-11-22", "commit": "88bbcaa", "cores": 2, "memory_gib": 24, "repeats": 2},
        "figures": figures.spreads([run, {**run, "seconds/tests": 60.0}]),
        "conformance": {"specs": 150, "a_behavior_in_specs": {"seconds": 0.5, "cpu": 0.4, "requests": 0.3}},
    }

    printed = figures.readme(result)

    assert "on 2026-11-22 at commit 88bbcaa, on 2 cores with 24 GiB" in printed
    assert "| all 326 tests on it | 50 s (40 to 60 s) |" in printed
    assert "(150 specs on the same cluster) | 0.5 in time, 0.4 in CPU time of the nodes |" in printed


# --- runs

VERIFY = """#!/bin/sh
echo "kubehave: cluster kubehave-2 is ready after 40.1 s"
{python} -m pytest -p no:cacheprovider -n 1 "$@" || exit 1
mkdir -p report
echo '{report}' >report/behaviors.json
"""

REPORT = {
    "run": {"phases": {"tests": 3.5}},
    "behaviors": [{"verdict": "holds"}, {"verdict": "broken"}],
    "tests": {"a": {}, "b": {}},
}


class Meter:
    """A meter that notes what has happened when it reads."""

    seen: list[tuple[str, bool]]

    def __init__(self, tested: Path, cluster: str) -> None:
        self.tested, self.cluster = tested, cluster
        self.seen.append((cluster, tested.exists()))

    def figures(self) -> dict[str, float]:
        """One figure."""
        self.seen.append((self.cluster, self.tested.exists()))
        return {"cpu/nodes": 12.0}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a checkout whose only test has this body."""

    def make(body: str) -> Path:
        (tmp_path / "verify").write_text(VERIFY.format(python=sys.executable, report=json.dumps(REPORT)))
        (tmp_path / "verify").chmod(0o755)
        (tmp_path / "test_it.py").write_text(f"from pathlib import Path\ndef test_it():\n    {body}\n")
        return tmp_path

    Meter.seen = []
    monkeypatch.setattr(runs, "Meter", lambda engine, cluster, process: Meter(tmp_path / "tested", cluster))
    return make


def test_a_run_is_measured_before_and_after_its_tests(checkout: Callable[[str], Path]) -> None:
    code, run, printed = runs.attempt(Engine("none"), checkout("Path('tested').touch()"), [])

    assert (code, Meter.seen) == (0, [("kubehave-2", False), ("kubehave-2", True)]), printed
    assert run
    assert run.cluster == "kubehave-2"
    assert run.figures["cpu/nodes"] == 12
    assert run.figures["seconds/tests"] == 3.5
    assert (run.figures["count/tests"], run.figures["count/behaviors"]) == (2, 1)


def test_a_run_that_ends_before_its_tests_took_nothing(checkout: Callable[[str], Path]) -> None:
    code, run, printed = runs.attempt(Engine("none"), checkout("pass"), ["--no-such-option"])

    assert (code, run) == (1, None)
    assert "--no-such-option" in printed


def test_a_bench_that_cannot_read_does_not_hold_the_run(
    checkout: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CannotRun("no cgroup")

    monkeypatch.setattr(runs, "Meter", refuse)

    with pytest.raises(CannotRun, match="no cgroup"):
        runs.attempt(Engine("none"), checkout("pass"), [])


class Images:
    """An engine with node images, and what it was asked to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def images(self, repository: str) -> list[str]:
        """Two of the names that the engine finds."""
        return [f"{repository}:v1", f"{repository}-other:v1"]

    def run(self, *args: str) -> str:
        """Note it."""
        self.done.append(args)
        return ""


def test_a_run_removes_no_node_image_of_another_checkout() -> None:
    images = Images()
    name, aside = "localhost/kubehave-node:v1", "localhost/bench-keeps:v1"

    with runs.images_kept(cast(Engine, images)):
        assert images.done == [("tag", name, aside)]

    assert images.done[1:] == [("tag", aside, name), ("rmi", aside)]


def test_a_broken_run_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good = runs.Run({}, {}, "kubehave")
    outcomes = [(1, good, "kubehave: broken: a/b\n"), (0, good, "")]
    monkeypatch.setattr(runs, "attempt", lambda *_: outcomes.pop(0))
    said: list[str] = []

    assert runs.measured(cast(Engine, Images()), tmp_path, [], said.append) is good
    assert "kubehave: broken: a/b" in said[0]


def test_a_cold_run_is_of_the_commit_with_empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tmp_path / "node_image" / "versions.py"
    inputs.parent.mkdir()
    inputs.write_text("ONE = 1\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for line in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "it"]):
        subprocess.run([*git, *line], check=True)
    (tmp_path / ".venv").mkdir()

    def attempt(_: Engine, copy: Path, options: list[str], env: dict[str, str]) -> tuple[int, runs.Run, str]:
        assert (copy / "node_image" / "versions.py").read_text().startswith("ONE = 1\n# cold build ")
        assert not (copy / ".venv").exists()
        assert {Path(folder).parent for folder in env.values()} == {copy.parent}
        assert not any(Path(folder).exists() for folder in env.values())
        return 0, runs.Run({"seconds/tools": 3, "cpu/nodes": 4}, {}, "kubehave"), ""

    monkeypatch.setattr(runs, "attempt", attempt)

    assert runs.cold(cast(Engine, Images()), tmp_path, []) == {"seconds/tools": 3}


# --- the command line


def test_options_for_verify_stand_after_two_dashes(root: Path) -> None:
    asked = command.parse(["--against", str(root), "--repeats", "2", "--", "suites/test_pods.py", "--patience", "2"])

    assert (asked.against, asked.repeats) == (root, 2)
    assert asked.options == ["suites/test_pods.py", "--patience", "2"]


@pytest.mark.parametrize("arguments", [["--repeats", "0"], ["--against", "/no/such/checkout"]])
def test_a_wrong_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_two_checkouts_are_compared() -> None:
    old, new = (runs.Run({"cpu/etcd": seconds}, {}, "kubehave") for seconds in (10.0, 5.0))

    result = command.compared({"against": [old], "this": [new]})

    assert {part: result[part]["cpu/etcd"]["median"] for part in result} == {"figures": 5, "against": 10, "ratios": 0.5}
    assert json.dumps(result)
