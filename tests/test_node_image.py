"""The node image, without an engine: when it is built, what is in it, and what a node does when it starts."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from machine import debian
from machine.engine import Engine
from machine.exits import CannotRun
from machine.steps import Runner, Step, duration, lock, perform, perform_lanes, prune
from measure import conformance
from node_image import assemble as assembling
from node_image import choose as choosing
from node_image import components, images, layers, oci, tars, versions
from node_image.build import image_name

HERE = layers.HERE


@pytest.fixture
def said() -> list[str]:
    """The lines that a build has printed so far."""
    return []


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A step that writes one file, with a file and a folder among its inputs."""
    folder = tmp_path / "module"
    folder.mkdir()
    (folder / "main.go").write_text("package main")
    return Step("compiled", lambda out, runner: _touch(out / "made"), ["go build"], [folder])


def _touch(path: Path) -> None:
    path.touch()


def _ignore(result: object) -> None:
    """A step returns nothing."""


# --- a step runs once for the same inputs


def test_a_step_runs_only_once(step: Step, tmp_path: Path, said: list[str]) -> None:
    output = perform(step, tmp_path, said.append)
    (output / "made").write_text("once")
    said.clear()

    assert (perform(step, tmp_path, said.append) / "made").read_text() == "once"
    assert said == []


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "main.go").write_text("package other"),
        lambda folder: (folder / "go.sum").touch(),
        lambda folder: (folder / "main.go").rename(folder / "other.go"),
    ],
    ids=["content", "new file", "name"],
)
def test_a_changed_input_file_changes_the_digest(step: Step, change: Callable[[Path], object]) -> None:
    before = step.digest()

    change(Path(step.files[0]))

    assert step.digest() != before


def test_a_changed_command_changes_the_digest_of_dependent_steps(step: Step) -> None:
    other = Step(step.name, step.make, ["go build -race"], step.files)

    assert Step("image", step.make, needs=[step]).digest() != Step("image", step.make, needs=[other]).digest()


def test_a_touched_file_does_not_change_the_digest(step: Step) -> None:
    before = step.digest()

    (Path(step.files[0]) / "main.go").touch()

    assert step.digest() == before


def test_a_broken_step_leaves_no_output_and_names_its_log(tmp_path: Path, said: list[str]) -> None:
    def make(out: Path, runner: Runner) -> None:
        _touch(out / "half")
        runner.run(["sh", "-c", "echo the disk is on fire; exit 3"])

    broken = Step("broken", make)

    with pytest.raises(CannotRun, match=r"broken: the disk is on fire; log: .*broken\.log") as stop:
        perform(broken, tmp_path, said.append)

    assert stop.value.exit_code == 12
    assert not broken.done(tmp_path)


def test_lanes_run_side_by_side(tmp_path: Path, said: list[str]) -> None:
    meet = threading.Barrier(2, timeout=10)
    left, right = (Step(name, lambda out, runner: _ignore(meet.wait())) for name in ("left", "right"))
    last = Step("last", lambda out, runner: _touch(out / "made"))

    outputs = perform_lanes(([left, last], [right]), tmp_path, said.append)

    assert outputs == {step.name: step.output(tmp_path) for step in (left, last, right)}


def test_a_failure_in_one_lane_stops_the_other_and_is_what_the_build_says(tmp_path: Path, said: list[str]) -> None:
    runs = threading.Event()

    def wait(out: Path, runner: Runner) -> None:
        runs.set()
        runner.run(["sleep", "60"])

    def fail(out: Path, runner: Runner) -> None:
        assert runs.wait(10)
        runner.run(["sh", "-c", "echo no such package; exit 100"])

    waiting, after = Step("waiting", wait), Step("after", lambda out, runner: None)
    started = time.monotonic()

    with pytest.raises(CannotRun, match="failing: no such package"):
        perform_lanes(([waiting, after], [Step("failing", fail)]), tmp_path, said.append)

    assert time.monotonic() - started < 30
    assert not any(step.done(tmp_path) for step in (waiting, after))


def test_pruning_removes_only_outputs_for_other_inputs(step: Step, tmp_path: Path, said: list[str]) -> None:
    current = perform(step, tmp_path, said.append)
    older = tmp_path / "compiled-0123456789abcdef"
    neighbor = tmp_path / "compiled-next-0123456789abcdef"
    older.mkdir()
    neighbor.mkdir()

    prune([step], tmp_path)

    assert [path.exists() for path in (current, older, neighbor)] == [True, False, True]


def test_a_second_build_waits_and_says_so(tmp_path: Path, said: list[str]) -> None:
    entered = threading.Event()

    def second() -> None:
        with lock(tmp_path, said.append):
            entered.set()

    with (tmp_path / "lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
        assert said == ["waiting for another build of the node image on this machine"]
    thread.join(5)
    assert entered.is_set()


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (75.3, "1 min 15 s"), (1200, "20 min 0 s")])
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- the table of images is consistent, and its tags are true


@pytest.mark.parametrize("image", images.TABLE, ids=lambda image: image.name)
def test_a_tag_is_pinned_and_names_what_is_inside(image: images.Image) -> None:
    tag = image.name.rpartition(":")[2]
    version = image.inside.rpartition(" ")[2]

    assert re.search(r"\d+\.\d+", tag), "the tag does not name a version"
    assert (version in tag) != (image.name in images.STAND_INS)


def test_image_names_are_unique() -> None:
    names = [image.name for image in images.TABLE]

    assert len(names) == len(set(names))


def test_the_table_has_the_images_that_kubeadm_needs() -> None:
    wanted = [
        f"kube-{part}:v{versions.KUBERNETES}" for part in ("apiserver", "controller-manager", "scheduler", "proxy")
    ]
    wanted += [f"etcd:{versions.ETCD}-0", f"pause:{versions.PAUSE}"]

    assert {f"registry.k8s.io/{name}" for name in wanted} <= set(images.SYSTEM_IMAGES)


def test_every_layer_and_every_step_is_used() -> None:
    used = {layer for image in images.TABLE for layer in image.layers}
    parts = [part for layer in layers.CONTAINER_LAYERS.values() for part in layer]

    assert used == set(layers.CONTAINER_LAYERS)
    assert {*layers.steps_of(parts), *layers.steps_of(layers.NODE)} == set(components.all_steps()) - {"modules"}


@pytest.mark.parametrize("manifest", ["default-cni.yaml", "default-storage.yaml"])
def test_the_nodes_own_manifests_use_images_of_the_table(manifest: str) -> None:
    text = layers.filled((HERE / "node" / manifest).read_text())
    documents = list(yaml.safe_load_all(text))
    named = set(re.findall(r"[\w.-]+/[\w/.-]+:v?\d[\w.-]*", text)) - {"rbac.authorization.k8s.io/v1"}

    assert documents
    assert named
    assert named <= {image.name for image in images.TABLE}


@pytest.mark.parametrize(
    ("component", "module", "version"),
    [
        ("kubernetes", "k8s.io/kubernetes", versions.KUBERNETES),
        ("etcd", "go.etcd.io/etcd/server/v3", versions.ETCD),
        ("etcd", "go.etcd.io/etcd/etcdctl/v3", versions.ETCD),
        ("etcd", "go.etcd.io/etcd/etcdutl/v3", versions.ETCD),
        ("coredns", "github.com/coredns/coredns", versions.COREDNS),
        ("flannel", "github.com/flannel-io/flannel", versions.FLANNEL),
        ("local-path", "github.com/rancher/local-path-provisioner", versions.LOCAL_PATH),
        ("contour", "github.com/projectcontour/contour", versions.CONTOUR),
    ],
)
def test_versions_are_those_of_go_mod(component: str, module: str, version: str) -> None:
    pinned = (HERE / component / "go.mod").read_text()

    assert re.search(rf"(^|\s){re.escape(module)} v{re.escape(version)}($|\s)", pinned)
    assert (HERE / component / "go.sum").stat().st_size


def test_the_staging_modules_are_those_of_this_kubernetes() -> None:
    pinned = (HERE / "kubernetes" / "go.mod").read_text()
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", pinned, re.MULTILINE)

    assert len(replaced) > 30
    assert {version for _, _, version in replaced} == {versions.KUBERNETES.replace("1.", "v0.", 1)}
    assert all(name == by for name, by, _ in replaced)


def test_components_share_what_they_compile() -> None:
    """What several components use of a module is compiled once if they use the same version of it."""
    versions_of: dict[str, set[str]] = defaultdict(set)
    # not contour, which needs an older client-go
    for component in ("kubernetes", "etcd", "coredns", "flannel", "local-path"):
        text = (HERE / component / "go.mod").read_text()
        replaced: dict[str, str] = dict(re.findall(r"^\t(\S+) => \S+ (\S+)$", text, re.MULTILINE))
        required = re.findall(r"^(?:require )?\t?(\S+) (v\S+)(?: // indirect)?$", text, re.MULTILINE)
        assert "golang.org/x/net" in dict(required), f"{component}/go.mod was not understood"
        for module, version in required:
            versions_of[module].add(replaced.get(module, version))

    differ = {module for module, versions in versions_of.items() if len(versions) > 1}

    # flannel asks for newer clients of etcd, and uses none here
    assert differ == {f"go.etcd.io/etcd/{client}/v3" for client in ("api", "client", "client/pkg")}


@pytest.mark.parametrize(
    ("command", "namespace", "started"),
    [("ADD", "/run/netns/1", True), ("DEL", "/run/netns/1", True), ("DEL", "", False)],
    ids=["a new Pod", "an ended Pod", "asked again"],
)
def test_a_plugin_deletes_only_once(tmp_path: Path, command: str, namespace: str, started: bool) -> None:
    script = (HERE / "node" / "cni-once").read_text()
    assert "/usr/lib/cni/" in script
    (tmp_path / "once").mkdir()
    for file, text in (
        (tmp_path / "once" / "ptp", script.replace("/usr/lib/cni/", f"{tmp_path}/")),
        (tmp_path / "ptp", "#!/bin/sh\ncat"),
    ):
        file.write_text(text)
        file.chmod(0o755)
    environment = {"CNI_COMMAND": command, "CNI_NETNS": namespace}

    done = subprocess.run([tmp_path / "once" / "ptp"], env=environment, input="{}", capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "{}" if started else "")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ("unable to apply caps: operation not permitted", "CAP_SYS_RESOURCE"),
        ("no space left on device", "no space left"),
    ],
)
def test_an_engine_that_refuses_a_privileged_container_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str, said: str
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\ncat >/dev/null\n[ "$1" != run ] || {{ echo "{refusal}" >&2; exit 125; }}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(assembling, "_write", lambda *_: None)
    outputs = {name: tmp_path / name for name in components.all_steps()}
    runner = Runner("image", tmp_path / "log", lambda line: None)

    with pytest.raises(CannotRun, match=f"image: .*{said}.*; log: "):
        assembling.assemble(Engine("docker"), "localhost/node:1", outputs, tmp_path, runner)


def test_no_placeholder_is_left_in_the_image() -> None:
    parts = [*layers.NODE, *(part for layer in layers.CONTAINER_LAYERS.values() for part in layer)]
    texts = [part.content() for part in parts if isinstance(part, layers.Text)]

    assert texts
    assert not [found for text in texts for found in re.findall(r"@[A-Z_]+@", text)]


def test_a_layout_has_every_image_with_stand_ins_for_its_layers(tmp_path: Path) -> None:
    digests = dict.fromkeys(layers.CONTAINER_LAYERS, "of something")
    oci.write_layout(images.TABLE, digests, tmp_path / "images.tar")
    with tarfile.open(tmp_path / "images.tar") as tar:
        blobs = {member.name: _read(tar, member) for member in tar}

    for name, data in blobs.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    manifests = json.loads(blobs["index.json"])["manifests"]
    assert [found["annotations"]["io.containerd.image.name"] for found in manifests] == [
        image.name for image in images.TABLE
    ]
    for found, image in zip(manifests, images.TABLE, strict=True):
        manifest = json.loads(blobs["blobs/" + found["digest"].replace(":", "/")])
        config = json.loads(blobs["blobs/" + manifest["config"]["digest"].replace(":", "/")])
        assert config["config"].get("Cmd", []) == list(image.cmd)
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
        assert len(manifest["layers"]) == len(image.layers)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def test_a_part_replaces_a_file_of_the_root_and_devices_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("etc/nginx/nginx.conf", "etc/hosts", "dev/console", "packages.txt", "var/lib/apt/lists/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("Debian's")
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(root, ".")
    parts: list[layers.Part] = [layers.Root("debian"), layers.Text("etc/nginx/nginx.conf", text="ours")]

    with tarfile.open(tmp_path / "out.tar", "w") as out:
        tars.write(parts, "kind/layers/debian", {"debian": tmp_path}, out)

    with tarfile.open(tmp_path / "out.tar") as out:
        files = {member.name: _read(out, member) for member in out if member.isfile()}
    assert files == {
        "kind/layers/debian/etc/hosts": b"Debian's",
        "kind/layers/debian/etc/nginx/nginx.conf": b"ours",
    }


# --- which node image is chosen, and why


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The images that the engine has. No registry answers, and a build makes an image named `new`."""
    here: set[str] = set()
    monkeypatch.setattr(Engine, "has_image", lambda self, name: name in here)
    monkeypatch.setattr(choosing, "_registry_answers", lambda engine: False)
    monkeypatch.setattr(choosing, "build", lambda engine, say, install: "new")
    return here


def test_the_requested_image_comes_first(present: set[str], said: list[str]) -> None:
    present.add(image_name())

    assert choosing.choose(Engine("podman"), "mine:1", said.append, True)[0] == "mine:1"


def test_an_image_built_from_these_inputs_comes_second(
    present: set[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    present.add(image_name())
    monkeypatch.setattr(choosing, "_registry_answers", lambda engine: True)

    assert choosing.choose(Engine("podman"), None, said.append, True) == (image_name(), "built here before")


@pytest.mark.usefixtures("present")
def test_kinds_own_image_is_used_if_the_registry_answers(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_registry_answers", lambda engine: True)

    assert choosing.choose(Engine("podman"), None, said.append, True)[0] == choosing.PUBLIC_NODE_IMAGE


@pytest.mark.usefixtures("present")
def test_otherwise_an_image_is_built(said: list[str]) -> None:
    assert choosing.choose(Engine("podman"), None, said.append, True)[0] == "new"
    assert said


# --- the node's script makes the cgroups that the kubelet needs, on cgroup v1 and v2; here in a tree of files


def test_on_v1_every_mounted_hierarchy_gets_the_groups(tmp_path: Path) -> None:
    for name in ("memory", "cpuset", "systemd"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cpuset" / "cpuset.cpus").touch()
    (tmp_path / "cpu,cpuacct").mkdir()

    _run_cgroups(tmp_path)

    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/kubelet*")) == [
        f"{tree}/{group}" for tree in ("cpuset", "memory", "systemd") for group in ("kubelet", "kubelet.slice")
    ]
    assert (tmp_path / "cpuset" / "cgroup.clone_children").read_text() == "1\n"


def test_on_v2_controllers_are_enabled_and_processes_leave_the_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("1\n17\n")
    for group in (tmp_path, tmp_path / "kubelet", tmp_path / "kubelet.slice"):
        group.mkdir(exist_ok=True)
        (group / "cgroup.controllers").write_text("cpuset cpu memory pids\n")

    _run_cgroups(tmp_path)

    assert (tmp_path / "init.scope" / "cgroup.procs").read_text() == "17\n", "the last process that was moved"
    for group in (tmp_path, tmp_path / "kubelet", tmp_path / "kubelet.slice"):
        assert (group / "cgroup.subtree_control").read_text().split() == ["+cpuset", "+cpu", "+memory", "+pids"]


def _run_cgroups(tree: Path) -> None:
    subprocess.run([HERE / "node" / "cgroups", tree], check=True, timeout=10)


# --- the node's script refuses packets that would follow a default route; here `ip` and `nft` are replaced by scripts


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """`rules(routes, resolver)`: what the script gives to nft if `ip route show default` prints `routes`."""

    def given(routes: str, resolver: str) -> str:
        _script(tmp_path / "ip", f"[ $1 = -4 ] || exit 0; echo '{routes}'")
        _script(tmp_path / "nft", f"cat > {tmp_path}/rules")
        (tmp_path / "resolv.conf").write_text(resolver)
        command = [HERE / "node" / "confine", tmp_path / "resolv.conf"]
        subprocess.run(command, check=True, timeout=10)
        return (tmp_path / "rules").read_text()

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return given


def test_packets_through_the_gateway_are_refused_and_counted(rules: Callable[[str, str], str]) -> None:
    table = rules("default via 10.89.0.1 dev eth0 proto static metric 100", "")

    refused = "rt ip nexthop 10.89.0.1 ip daddr != 10.89.0.1 counter name strayed goto refuse"
    assert table.count(refused) == 2, "once for the node's own packets, once for its Pods'"


def test_pods_may_not_query_the_engines_name_server(rules: Callable[[str, str], str]) -> None:
    table = rules("default via 10.89.0.1 dev eth0", "search dns.podman\nnameserver 10.89.0.1\nnameserver fd00::1\n")

    assert table.count("counter name asked_outside goto refuse") == 2
    assert "ip6 daddr fd00::1 meta l4proto { tcp, udp } th dport 53" in table


def test_without_a_default_route_nothing_is_refused(rules: Callable[[str, str], str]) -> None:
    assert "nexthop" not in rules("", "")


# --- Kubernetes' own specs


def _spec(state: str, group: str, name: str, kind: str = "It") -> dict[str, object]:
    names = {"ContainerHierarchyTexts": [group], "LeafNodeText": name, "LeafNodeType": kind}
    return names | {"State": state, "Failure": {"Message": f"{name} did not\n"}}


def _report(*specs: dict[str, object], succeeded: bool = True) -> list[dict[str, object]]:
    how = {"SuiteSucceeded": succeeded, "SpecialSuiteFailureReasons": None if succeeded else ["a process vanished"]}
    return [{"SpecReports": specs, "RunTime": 2_500_000_000} | how]


@pytest.fixture
def one_of_each() -> list[dict[str, object]]:
    """A spec of every chosen group, passed."""
    return [
        _spec("passed", f"[{owner}] {name}", "does") for owner, names in conformance.TOPICS.items() for name in names
    ]


def test_the_specs_report_has_passed_and_failed_specs(one_of_each: list[dict[str, object]]) -> None:
    group = "[sig-apps] Deployment"
    others = [_spec("passed", "", "", "BeforeSuite"), _spec("skipped", group, "two"), _spec("timedout", group, "three")]

    read = conformance.read(_report(*one_of_each, *others, succeeded=False))

    assert (read.seconds, read.passed) == (2.5, len(one_of_each))
    assert read.failed == {"[sig-apps] Deployment three": "three did not"}


def test_a_group_without_a_spec_that_ran_has_failed(one_of_each: list[dict[str, object]]) -> None:
    assert conformance.read(_report(*one_of_each)).failed == {}
    assert conformance.read(_report(*one_of_each[1:])).failed == {"[sig-apps] Deployment": "no spec of this group ran"}


def test_a_failure_of_the_whole_suite_of_specs_is_reported(one_of_each: list[dict[str, object]]) -> None:
    failed = conformance.read(_report(*one_of_each, succeeded=False)).failed

    assert failed == {"the specs as a whole": "a process vanished"}


def test_specs_of_groups_with_similar_names_are_not_chosen() -> None:
    (focus,) = [word for word in conformance.command() if word.startswith("--focus=")]
    pattern = re.compile(focus.removeprefix("--focus=").strip("'"))

    assert pattern.search("Kubernetes e2e suite [sig-network] Services should serve endpoints on same port")
    assert not pattern.search("Kubernetes e2e suite [sig-network] Service endpoints latency should not be very high")
    assert not pattern.search("Kubernetes e2e suite [sig-node] ConfigMap should be consumable, in Pods ")


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_mirror_in_the_environment_is_used_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "http://mirror.example/debian/")

    assert all("http://mirror.example/debian " in line for line in debian.sources("bookworm"))
