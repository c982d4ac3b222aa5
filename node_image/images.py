"""The images on every node: name, layers, the version that is really inside, and the public image's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from node_image import versions

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """A container image: its layers from the bottom up (see layers.py) and the settings of the public image.

    `inside` is the program and version that is really in it. Where the tag says another version, `inside` is true,
    and the README says why the tag is needed.
    """

    name: str
    layers: tuple[str, ...]
    inside: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = (PATH,)
    user: str = ""
    workdir: str = "/"
    stop_signal: str = ""
    ports: tuple[int, ...] = field(default=())


def _kubernetes(program: str, layers: tuple[str, ...], entrypoint: tuple[str, ...] = ()) -> Image:
    name = f"registry.k8s.io/{program}:v{versions.KUBERNETES}"
    return Image(name, layers, f"{program} {versions.KUBERNETES}", entrypoint or (program,))


def _coredns(tag: str) -> Image:
    name = f"registry.k8s.io/coredns/coredns:v{tag}"
    return Image(name, ("base", "coredns"), f"coredns {versions.COREDNS}", ("/coredns",), ports=(53,))


def _nginx(name: str, version: str) -> Image:
    system = {versions.NGINX: "debian", versions.NGINX_NEXT: "debian-next"}[version]
    return Image(
        name,
        (system, "nginx"),
        f"nginx {version}",
        ("/docker-entrypoint.sh",),
        ("nginx", "-g", "daemon off;"),
        env=(PATH, f"NGINX_VERSION={version}"),
        stop_signal="SIGQUIT",
        ports=(80,),
    )


def _busybox(name: str) -> Image:
    return Image(name, ("busybox",), f"busybox {versions.BUSYBOX}", cmd=("sh",))


def _agnhost(tag: str) -> Image:
    return Image(
        f"registry.k8s.io/e2e-test-images/agnhost:{tag}",
        ("debian", "agnhost"),
        f"agnhost {versions.AGNHOST}",
        ("/agnhost",),
        ("pause",),
        ports=(80, 8080, 8081, 9376, 5000),
    )


PAUSE = Image(
    f"registry.k8s.io/pause:{versions.PAUSE}", ("pause",), f"pause {versions.PAUSE}", ("/pause",), user="65535:65535"
)

_SYSTEM = (
    _kubernetes("kube-apiserver", ("base", "kubernetes")),
    _kubernetes("kube-controller-manager", ("base", "kubernetes")),
    _kubernetes("kube-scheduler", ("base", "kubernetes")),
    # kube-proxy calls iptables
    _kubernetes("kube-proxy", ("debian", "kubernetes"), ("/usr/local/bin/kube-proxy",)),
    Image(f"registry.k8s.io/etcd:{versions.ETCD}-0", ("base", "etcd"), f"etcd {versions.ETCD}", ("etcd",)),
    _coredns("1.14.2"),
    _coredns(versions.COREDNS),
    PAUSE,
    Image(
        f"ghcr.io/flannel-io/flannel:v{versions.FLANNEL}",
        ("debian", "flannel"),
        f"flannel {versions.FLANNEL}",
        ("/opt/bin/flanneld",),
    ),
    Image(
        f"docker.io/rancher/local-path-provisioner:v{versions.LOCAL_PATH}",
        ("base", "local-path"),
        f"local-path-provisioner {versions.LOCAL_PATH}",
        cmd=("local-path-provisioner",),
    ),
)

_FOR_MANIFESTS = (
    _nginx(f"docker.io/library/nginx:{versions.NGINX}", versions.NGINX),
    _nginx(f"docker.io/library/nginx:{versions.NGINX_NEXT}", versions.NGINX_NEXT),
    Image(
        f"docker.io/library/redis:{versions.REDIS}",
        ("debian", "redis"),
        f"redis {versions.REDIS}",
        ("docker-entrypoint.sh",),
        ("redis-server",),
        env=(PATH, f"REDIS_VERSION={versions.REDIS}"),
        workdir="/data",
        ports=(6379,),
    ),
    _busybox(f"docker.io/library/busybox:{versions.BUSYBOX}"),
    Image(
        f"docker.io/library/python:{versions.PYTHON}-slim",
        ("debian", "python"),
        f"python {versions.PYTHON}",
        cmd=("python3",),
        env=(PATH, f"PYTHON_VERSION={versions.PYTHON}", "LANG=C.UTF-8"),
    ),
    _agnhost(versions.AGNHOST),
    Image(
        f"ghcr.io/projectcontour/contour:v{versions.CONTOUR}",
        ("base", "contour"),
        f"contour {versions.CONTOUR}",
        user="65532:65532",
    ),
    Image(
        f"docker.io/envoyproxy/envoy:distroless-v{versions.ENVOY}",
        ("debian", "envoy"),
        f"envoy {versions.ENVOY}",
        ("/usr/local/bin/envoy",),
        ("-c", "/etc/envoy/envoy.yaml"),
        user="65532:65532",
        ports=(10000,),
    ),
)

_CONFORMANCE = (
    _agnhost("2.55"),
    _busybox("registry.k8s.io/e2e-test-images/busybox:1.37.0-1"),
    _nginx("registry.k8s.io/e2e-test-images/nginx:1.15-4", versions.NGINX),
    _nginx("registry.k8s.io/e2e-test-images/nginx:1.27-0", versions.NGINX_NEXT),
    Image(
        "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0", ("debian",), "dig of Debian bookworm", cmd=("bash",)
    ),
)

TABLE = (*_SYSTEM, *_FOR_MANIFESTS, *_CONFORMANCE)
"""Every image on a node."""

SYSTEM_IMAGES = tuple(image.name for image in _SYSTEM)
"""Names of the images that the cluster itself needs."""

IMAGES = (*(image.name for image in _FOR_MANIFESTS), PAUSE.name)
"""Names of the images that manifests may use."""

CONFORMANCE_IMAGES = tuple(image.name for image in _CONFORMANCE)
"""Names of the images that only Kubernetes' conformance specs use."""

STAND_INS = {
    "registry.k8s.io/coredns/coredns:v1.14.2": "kubeadm asks for this tag; the Go module proxy begins at 1.14.3",
    "registry.k8s.io/e2e-test-images/agnhost:2.55": "the specs only need an agnhost that is another image",
    "registry.k8s.io/e2e-test-images/nginx:1.15-4": "the specs only need two different nginx",
    "registry.k8s.io/e2e-test-images/nginx:1.27-0": "the specs only need two different nginx",
    "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0": "the specs only need dig and glibc",
}
"""The images whose tag is not the version inside, and why they are needed."""
