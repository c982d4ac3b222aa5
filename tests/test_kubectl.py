"""A forwarded port is the requested one, or a free one. Here kubectl is replaced by a script."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures import kubectl as kubectls
from fixtures.api import Api, Connection
from fixtures.kube import Kube
from fixtures.kubectl import PortForward

#: Records the ports that it should forward, and prints the local one: 4711 if it may choose.
KUBECTL = """#!/bin/bash
ports="${@: -1}"
echo "$ports" >>"$0.asked"
[ "$ports" = refused:80 ] && { echo "error: no such Service" >&2; exit 1; }
local="${ports%%:*}"
echo "Forwarding from 127.0.0.1:${local:-4711} -> 80"
exec sleep 100
"""


@pytest.fixture
def fake_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubectl"
    path.write_text(KUBECTL)
    path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(path))
    return path


@pytest.fixture
def forward(fake_kubectl: Path) -> PortForward:
    fixture = cast("Callable[..., PortForward]", cast("Any", kubectls.port_forward)._get_wrapped_function())
    return fixture(Connection(None, None), cast("Api", None), Kube(cast("Api", None), "test"))


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asked(fake_kubectl: Path) -> str:
    return Path(f"{fake_kubectl}.asked").read_text().strip()


def test_a_free_port_is_forwarded(forward: PortForward, fake_kubectl: Path) -> None:
    port = free_port()

    with forward("svc/web", port, 80):
        pass

    assert asked(fake_kubectl) == f"{port}:80"


def test_kubectl_chooses_another_port_if_the_port_is_taken(
    forward: PortForward, fake_kubectl: Path, listener: int
) -> None:
    with forward("svc/web", listener, 80):
        pass

    assert asked(fake_kubectl) == ":80"


def test_the_error_of_kubectl_is_quoted(forward: PortForward) -> None:
    with (
        pytest.raises(AssertionError, match="error: no such Service"),
        forward("svc/web", cast("int", "refused"), 80),
    ):
        pass
