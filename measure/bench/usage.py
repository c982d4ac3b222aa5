"""CPU-seconds of a cluster's nodes by program, of a run's own processes, and of this machine.

All of it is read from /proc and from cgroups of this machine. A reading takes 30 ms, and puts no load on the nodes.
The nodes must be containers on this machine itself.

- A node: the cgroup of its container. It also counts processes that have ended.
- A program in a Pod (`IN_PODS`): the cgroup of its container, with the commands that tests run in it.
  A program that restarts while it is measured loses what the ended container took to "Pods of tests".
- A program beside the Pods (`ON_NODES`): user and system time of the process itself, from /proc/PID/stat.
- "Pods of tests": the cgroup above all Pods, less the programs in Pods. So it has everything else that runs in a Pod:
  the tests' own containers, their probes and commands, client Pods, the Ingress controller, and all `pause` processes.
- "runtime and its helpers": the node less all of the above. These are the shims of containerd, runc or crun, the
  plugins for networks (CNI), and commands that tests run on a node itself. They live too briefly to be told apart.
  A command in a container is prepared by runc outside of the Pod's cgroup, and counts as the Pod's as soon as it is in.
- The run: its processes and their children that have ended: pytest, its workers, kubectl, the engine's command. The
  containers beside the cluster are not among them, nor is the engine's own daemon.
- The machine: all processors together, busy, and stolen (given to other machines of the same host).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

from machine.engine import CLUSTER, Engine
from machine.exits import CannotRun

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
TICKS = sysconf("SC_CLK_TCK")

#: The programs in Pods, by the names of their processes, which the kernel cuts after 15 characters.
IN_PODS = {
    "kube-apiserver": "API server",
    "etcd": "etcd",
    "kube-controller": "controller manager",
    "kube-scheduler": "scheduler",
    "kube-proxy": "kube-proxy",
    "flanneld": "flannel",
    "kindnetd": "kindnet",
    "coredns": "CoreDNS",
    "local-path-prov": "local-path provisioner",
}

#: The programs that run on the nodes beside the Pods.
ON_NODES = {
    "kubelet": "kubelet",
    "containerd": "containerd",
    "systemd": "systemd, journald, D-Bus",
    "systemd-journal": "systemd, journald, D-Bus",
    "dbus-daemon": "systemd, journald, D-Bus",
}

NODES, PODS, HELPERS = "nodes", "Pods of tests", "runtime and its helpers"
RUN, BUSY, STOLEN = "the run's own processes", "machine, busy", "machine, stolen"

#: What has been counted so far, in CPU-seconds: by the name of the figure, and by what it was read from.
Reading = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Process:
    """A process: its name, its parent, and CPU-seconds of its own and of its children that have ended."""

    name: str
    parent: int
    seconds: float
    of_children: float

    @classmethod
    def parse(cls, stat: str) -> Process:
        """From /proc/PID/stat, in which the name stands in brackets and may contain spaces and brackets."""
        _, _, rest = stat.partition("(")
        name, _, rest = rest.rpartition(")")
        fields = rest.split()
        user, system, children_user, children_system = map(int, fields[11:15])
        return cls(name, int(fields[1]), (user + system) / TICKS, (children_user + children_system) / TICKS)


def processes() -> dict[int, Process]:
    """All processes of this machine, by their ids."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                found[int(folder.name)] = Process.parse((folder / "stat").read_text(errors="replace"))
    return found


def with_children(root: int, everything: Mapping[int, Process]) -> float:
    """CPU-seconds of a process, of its descendants, and of those that have ended."""
    children: dict[int, list[int]] = {}
    for number, process in everything.items():
        children.setdefault(process.parent, []).append(number)
    total, open_ends = 0.0, [root]
    for number in open_ends:
        if number in everything:
            total += everything[number].seconds + everything[number].of_children
            open_ends += children.get(number, [])
    return total


def cgroup_of(listed: str, mounted: Path = CGROUPS) -> Path:
    """The folder of a cgroup that counts CPU time, from /proc/PID/cgroup; cgroup v1 goes first where both are mounted."""
    paths = {}
    for line in listed.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    if "cpuacct" not in paths:
        return mounted / paths[""]
    apart = mounted / "cpuacct"
    return (apart if apart.is_dir() else mounted / "cpu,cpuacct") / paths["cpuacct"]


def cpu_seconds(cgroup: Path) -> float:
    """CPU-seconds of all processes that are, or have been, in this cgroup or below it. Raises OSError if it is gone."""
    version1 = cgroup / "cpuacct.usage"
    if version1.exists():
        return int(version1.read_text()) / 1e9
    found = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    return int(found["usage_usec"]) / 1e6


def container_cgroup(cgroup: Path, container: str) -> Path:
    """The cgroup of a whole container. Its first process may be deeper, in a cgroup of the container's own systemd.

    Raises CannotRun if no part of the path has the container's id.
    """
    for folder in reversed([cgroup, *cgroup.parents]):
        if container in folder.name:
            return folder
    raise CannotRun(f"CPU time cannot be read: container {container[:12]} has no cgroup on this machine")


def node_cgroups(engine: Engine, cluster: str) -> dict[str, Path]:
    """The nodes of a kind cluster, and their cgroups. Raises CannotRun if they cannot be found."""
    label = f"label={CLUSTER}={cluster}"
    names = engine.run("ps", "--filter", label, "--format", "{{.Names}}").split()
    if not names:
        raise CannotRun(f"cluster {cluster} has no nodes on this machine")
    found = {}
    for line in engine.run("inspect", "--format", "{{.Id}} {{.State.Pid}} {{.Name}}", *names).splitlines():
        container, process, name = line.split()
        try:
            listed = (PROC / process / "cgroup").read_text()
        except OSError as error:
            raise CannotRun(f"CPU time cannot be read: node {name} does not run on this machine: {error}") from None
        found[name.lstrip("/")] = container_cgroup(cgroup_of(listed), container)
    return found


def cgroup_of_all_pods(node: Path) -> Path:
    """The cgroup above all Pods of a node: `kubepods`, or a slice of this name. Raises CannotRun if there is none."""
    found = sorted(node.glob("**/*kubepods*"), key=lambda folder: len(folder.parts))
    if not found:
        raise CannotRun(f"CPU time of Pods cannot be read: no cgroup kubepods below {node}")
    return found[0]


def read(nodes: Mapping[str, Path], run: int) -> Reading:
    """Read everything once: these nodes, by their cgroups, and the run with this process id."""
    everything = processes()
    seen = machine((PROC / "stat").read_text())
    seen[RUN, ""] = with_children(run, everything)
    for name, cgroup in nodes.items():
        seen[NODES, name] = cpu_seconds(cgroup)
        seen[PODS, name] = cpu_seconds(cgroup_of_all_pods(cgroup))
    for number, process in everything.items():
        if process.name not in IN_PODS and process.name not in ON_NODES:
            continue
        with suppress(OSError):  # it has ended meanwhile
            own = cgroup_of((PROC / str(number) / "cgroup").read_text())
            if not any(own.is_relative_to(cgroup) for cgroup in nodes.values()):
                continue
            if "kubepods" not in str(own) and process.name in ON_NODES:
                seen[ON_NODES[process.name], str(number)] = process.seconds
            elif "kubepods" in str(own) and process.name in IN_PODS:
                seen[IN_PODS[process.name], str(own)] = cpu_seconds(own)
    return seen


def machine(stat: str) -> dict[tuple[str, str], float]:
    """The machine's busy and stolen CPU-seconds, from /proc/stat."""
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, stat.splitlines()[0].split()[1:9])
    return {
        (BUSY, ""): (user + nice + system + interrupts + soft_interrupts) / TICKS,
        (STOLEN, ""): stolen / TICKS,
    }


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """CPU-seconds between two readings, by program. All programs of the nodes together give "nodes"."""
    total: defaultdict[str, float] = defaultdict(float)
    for (figure, source), seconds in after.items():
        total[figure] += seconds - before.get((figure, source), 0)
    total[PODS] -= sum(total[program] for program in set(IN_PODS.values()))
    total[HELPERS] = total[NODES] - total[PODS] - sum(total[it] for it in {*IN_PODS.values(), *ON_NODES.values()})
    return {figure: round(seconds, 2) for figure, seconds in total.items() if seconds}
