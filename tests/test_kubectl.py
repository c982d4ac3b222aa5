"""A forwarded port is the one that was asked for, or a free one; kubectl is a stand-in here."""

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

#: Says what it was asked to forward, and on which port it does: 4711 if any will do.
KUBECTL = """#!/bin/bash
ports="${@: -1}"
echo "$ports" >>"$0.asked"
[ "$ports" = refused:80 ] && { echo "error: no such Service" >&2; exit 1; }
local="${ports%%:*}"
echo "Forwarding from 127.0.0.1:${local:-4711} -> 80"
exec sleep 100
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubectl"
    path.write_text(KUBECTL)
    path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(path))
    return path


@pytest.fixture
def forward(stand_in: Path) -> PortForward:
    fixture = cast("Callable[..., PortForward]", cast("Any", kubectls.port_forward)._get_wrapped_function())
    return fixture(Connection(None, None), cast("Api", None), Kube(cast("Api", None), "test"))


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asked(stand_in: Path) -> str:
    return Path(f"{stand_in}.asked").read_text().strip()


def test_a_free_port_is_the_one_that_is_forwarded(forward: PortForward, stand_in: Path) -> None:
    port = free_port()

    with forward("svc/web", port, 80):
        pass

    assert asked(stand_in) == f"{port}:80"


def test_a_port_that_is_taken_leaves_the_choice_to_kubectl(forward: PortForward, stand_in: Path, listener: int) -> None:
    with forward("svc/web", listener, 80):
        pass

    assert asked(stand_in) == ":80"


def test_a_kubectl_that_forwards_nothing_is_quoted(forward: PortForward) -> None:
    with (
        pytest.raises(AssertionError, match="error: no such Service"),
        forward("svc/web", cast("int", "refused"), 80),
    ):
        pass
