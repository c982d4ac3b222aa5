"""Chooses the node image of a cluster, with the reason."""

from __future__ import annotations

import os
import subprocess

from machine.engine import Engine
from machine.progress import Say
from node_image.build import build, image_name

PUBLIC_NODE_IMAGE = (
    "docker.io/kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)
"""kind's own image: the default of the kind version that `machine.kind` gets from Debian."""

REGISTRY_PATIENCE = 8.0
"""Seconds within which a container registry must answer."""


def choose(engine: Engine, name: str | None, say: Say, install: bool) -> tuple[str, str]:
    """The node image and the reason: the requested one, else one built earlier, else kind's own, else a new one."""
    if name:
        return name, "requested"
    built = image_name()
    if engine.has_image(built):
        return built, "built here before"
    if engine.has_image(_by_digest(PUBLIC_NODE_IMAGE)):
        return PUBLIC_NODE_IMAGE, "kind's own, already on this machine"
    if _registry_answers(engine):
        return PUBLIC_NODE_IMAGE, "kind's own: its registry answers"
    say("no container registry answers: building a node image from source, which takes 5 to 12 minutes the first time")
    return build(engine, say, install), "built from source: no container registry answers"


def _registry_answers(engine: Engine) -> bool:
    """Whether the manifest of the public image can be read."""
    try:
        asked = subprocess.run(
            [engine.name, "manifest", "inspect", _by_digest(PUBLIC_NODE_IMAGE)],
            env={**os.environ, **engine.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=REGISTRY_PATIENCE * engine.patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


def _by_digest(name: str) -> str:
    """The name as `repository@digest`, because engines accept a tag or a digest, but not both."""
    tagged, _, digest = name.partition("@")
    return f"{tagged.rpartition(':')[0]}@{digest}"
