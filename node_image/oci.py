"""An OCI image layout in a tar, for `ctr images import`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import debian
from node_image.images import Image

MARK = "layer"
"""The only file in a layer's stand-in. It holds the layer's name, a space, and a digest of what it is made from."""


def write_layout(images: Sequence[Image], layer_digests: Mapping[str, str], out: Path) -> None:
    """Write the images as an OCI layout whose layers are stand-ins: each has one file, which names the real layer.

    containerd unpacks the stand-ins, and the node replaces them with the real layers when it starts. So no layer is
    packed, hashed, copied or unpacked while the node image is built.
    """
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}

    platform = {"architecture": debian.architecture(), "os": "linux"}
    layers = {name: _stand_in(f"{name} {digest}") for name, digest in layer_digests.items()}
    manifests = []
    for image in images:
        stack = [blob(layers[name], "layer.v1.tar") for name in image.layers]
        config = {
            **platform,
            "config": _settings(image),
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in stack]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": stack,
        }
        manifests.append(
            {
                **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
                "annotations": {"io.containerd.image.name": image.name},
                "platform": platform,
            }
        )
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    with tarfile.open(out, "w") as tar:
        for name, data in files.items():
            _add(tar, name, data)


def _settings(image: Image) -> dict[str, Any]:
    settings = {
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.cmd),
        "Env": list(image.env),
        "User": image.user,
        "WorkingDir": image.workdir,
        "StopSignal": image.stop_signal,
        "ExposedPorts": {f"{port}/tcp": {} for port in image.ports},
        "Labels": {"org.opencontainers.image.description": image.inside},
    }
    return {key: value for key, value in settings.items() if value}


def _stand_in(mark: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, MARK, f"{mark}\n".encode())
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
