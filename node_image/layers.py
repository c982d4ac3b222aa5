"""What is in the node image, file by file: the layers of the container images, and the node itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from node_image import images, versions
from node_image.components import CRUN_FOLDER, CRUN_LIBRARIES

HERE = Path(__file__).parent
LAYERS_FOLDER = "kind/layers"


@dataclass(frozen=True)
class Root:
    """A whole root file system, made by this step; its /dev is left out, because a container has its own."""

    step: str


@dataclass(frozen=True)
class Made:
    """A file made by a step; `made` is its name in the step's output."""

    path: str
    step: str
    made: str


@dataclass(frozen=True)
class Package:
    """Files of a .deb that a step downloads: those whose path begins with one of `paths`."""

    step: str
    package: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Text:
    """A file of this folder (`source`) or a text given here; `@NAME@` in it is replaced by a version."""

    path: str
    source: str = ""
    text: str = ""
    mode: int = 0o644

    def content(self) -> str:
        """The whole text, with its placeholders replaced."""
        return filled((HERE / self.source).read_text() if self.source else self.text)


@dataclass(frozen=True)
class Link:
    """A symbolic link, or a hard link (`hard`; then `target` is a path from the root)."""

    path: str
    target: str
    hard: bool = False


@dataclass(frozen=True)
class Folder:
    """An empty folder."""

    path: str
    mode: int = 0o755
    owner: int = 0


Part = Root | Made | Package | Text | Link | Folder

_BASE_USERS = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/nonexistent:/sbin/nologin\n" + (
    "nonroot:x:65532:65532::/home/nonroot:/sbin/nologin\n"
)
_BASE_GROUPS = "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"
_BUSYBOX_USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"

KUBERNETES_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl")

CONTAINER_LAYERS: Mapping[str, Sequence[Part]] = {
    # what a statically linked program may expect
    "base": [
        Text("etc/passwd", text=_BASE_USERS),
        Text("etc/group", text=_BASE_GROUPS),
        Folder("home/nonroot", 0o700, 65532),
        Folder("root", 0o700),
        Folder("tmp", 0o1777),
        Folder("var/tmp", 0o1777),
    ],
    "debian": [Root("debian")],
    "debian-next": [Root("debian-next")],
    "kubernetes": [
        Made("usr/local/bin/kube", "kubernetes", "kube"),
        *(Link(f"usr/local/bin/{name}", "kube") for name in KUBERNETES_PROGRAMS),
    ],
    "etcd": [Made(f"usr/local/bin/{name}", "etcd", name) for name in ("etcd", "etcdctl", "etcdutl")],
    "coredns": [Made("coredns", "coredns", "coredns")],
    "pause": [Made("pause", "pause", "pause")],
    "flannel": [Made("opt/bin/flanneld", "flannel", "flanneld")],
    "local-path": [Made("usr/bin/local-path-provisioner", "local-path", "local-path-provisioner")],
    "contour": [Made("bin/contour", "contour", "contour")],
    "envoy": [Made("usr/local/bin/envoy", "envoy", "envoy")],
    "agnhost": [
        Made("agnhost", "agnhost", "agnhost"),
        Link("agnhost-2", "agnhost"),
        Made("localhost.crt", "agnhost", "localhost.crt"),
        Made("localhost.key", "agnhost", "localhost.key"),
        Folder("uploads"),
    ],
    "nginx": [
        Text("docker-entrypoint.sh", "layers/nginx/docker-entrypoint.sh", mode=0o755),
        Text("etc/nginx/nginx.conf", "layers/nginx/nginx.conf"),
        Text("etc/nginx/conf.d/default.conf", "layers/nginx/default.conf"),
        Link("var/log/nginx/access.log", "/dev/stdout"),
        Link("var/log/nginx/error.log", "/dev/stderr"),
    ],
    "redis": [
        Text("usr/local/bin/docker-entrypoint.sh", "layers/redis/docker-entrypoint.sh", mode=0o755),
        Text("usr/local/bin/redis-server", "layers/redis/redis-server", mode=0o755),
        Link("usr/local/bin/redis-cli", "/usr/bin/redis-cli"),
        Folder("data", 0o755, 999),
    ],
    "python": [
        Link("usr/local/bin/python3", "/usr/bin/python3"),
        Link("usr/local/bin/python", "/usr/bin/python3"),
    ],
    "busybox": [
        Text("etc/passwd", text=_BUSYBOX_USERS),
        Text("etc/group", text="root:x:0:\nnobody:x:65534:\n"),
        Folder("home", 0o755, 65534),
        Folder("root", 0o700),
        Folder("tmp", 0o1777),
        Folder("usr/bin"),
        Folder("var/www"),
        Folder("var/spool/mail"),
        Made("bin/busybox", "packages-next", "busybox"),
    ],
}
"""The layers, by the names that images.py uses."""

_KUBE = f"{LAYERS_FOLDER}/kubernetes/usr/local/bin/kube"

NODE: Sequence[Part] = [
    Root("node"),
    Package("packages", "containerd", ("usr/bin/containerd", "usr/bin/ctr")),
    Package("packages", "containernetworking-plugins", ("usr/lib/cni/",)),
    *(Made(f"{CRUN_FOLDER[1:]}/{file}", "packages-next", file) for file in ("crun", "ld.so", *CRUN_LIBRARIES)),
    # one file for all Kubernetes programs, on the node and in its images, so that it is in memory only once
    Link("usr/bin/kubelet", _KUBE, hard=True),
    Link("usr/bin/kubectl", _KUBE, hard=True),
    Link("usr/local/lib/node/kubeadm", _KUBE, hard=True),
    Text("usr/bin/kubeadm", "node/kubeadm", mode=0o755),
    Text("usr/local/bin/entrypoint", "node/entrypoint", mode=0o755),
    Text("usr/local/lib/node/cgroups", "node/cgroups", mode=0o755),
    *(Text(f"usr/local/lib/node/cni/{plugin}", "node/cni-once", mode=0o755) for plugin in ("ptp", "portmap")),
    Text("usr/local/lib/node/confine", "node/confine", mode=0o755),
    Text("usr/local/lib/node/import-images", "node/import-images", mode=0o755),
    Text("etc/containerd/config.toml", "node/containerd.toml"),
    Text("etc/systemd/system/containerd.service", "node/containerd.service"),
    Text("etc/systemd/system/kubelet.service", "node/kubelet.service"),
    Text("etc/systemd/system/kubelet.slice", "node/kubelet.slice"),
    Link("etc/systemd/system/multi-user.target.wants/containerd.service", "../containerd.service"),
    Link("etc/systemd/system/multi-user.target.wants/kubelet.service", "../kubelet.service"),
    Text("kind/version", text=f"v{versions.KUBERNETES}\n"),
    Text("kind/manifests/default-cni.yaml", "node/default-cni.yaml"),
    Text("kind/manifests/default-storage.yaml", "node/default-storage.yaml"),
    Folder("etc/cni/net.d"),
    Folder("etc/kubernetes/manifests"),
]
"""The node's own root file system."""


def steps_of(parts: Iterable[Part]) -> Iterator[str]:
    """The names of the steps whose output these parts use."""
    for part in parts:
        if isinstance(part, Root | Made | Package):
            yield part.step


def filled(text: str) -> str:
    """The text with `@NAME@` replaced by versions, `@PAUSE_IMAGE@` by the sandbox image, `@CRUN_FOLDER@` by crun's folder."""
    values = {name: value for name, value in vars(versions).items() if isinstance(value, str)}
    for name, value in {**values, "PAUSE_IMAGE": images.PAUSE.name, "CRUN_FOLDER": CRUN_FOLDER}.items():
        text = text.replace(f"@{name}@", value)
    return text
