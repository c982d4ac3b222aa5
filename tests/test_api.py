"""The connection to an API server: how kinds are looked up, and which requests are sent again."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from urllib3.exceptions import HTTPError

from fixtures import api as apis
from fixtures.api import Api, ApiRefusal
from fixtures.patience import patience
from tests.stub_cluster import StubCluster, kubeconfig


@pytest.fixture
def stub() -> Iterator[StubCluster]:
    cluster = StubCluster()
    yield cluster
    cluster.close()


def connect(tmp_path: Path, server: str) -> Api:
    """A connection to this server."""
    kubeconfig(tmp_path / "kubeconfig", server)
    return Api(str(tmp_path / "kubeconfig"))


def test_the_limits_of_a_call_scale_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = apis._timeouts()
    monkeypatch.setattr(patience, "factor", 3.0)

    assert apis._timeouts() == (3 * usual[0], 3 * usual[1])


def test_the_kinds_of_an_api_version_are_read_once(stub: StubCluster, tmp_path: Path) -> None:
    api = connect(tmp_path, stub.address)

    found = [api.resource(kind) for kind in ("Deployment", "apps/v1/Deployment", "DaemonSet", "Node")]

    assert [resource.path("web", "shop") for resource in found] == [
        "/apis/apps/v1/namespaces/shop/deployments/web",
        "/apis/apps/v1/namespaces/shop/deployments/web",
        "/apis/apps/v1/namespaces/shop/daemonsets/web",
        "/api/v1/nodes/web",
    ]
    assert [resource.path() for resource in found[-2:]] == ["/apis/apps/v1/daemonsets", "/api/v1/nodes"]
    assert stub.requests == [("GET", "/apis/apps/v1"), ("GET", "/api/v1")]


def test_a_kind_that_came_later_is_found(stub: StubCluster, tmp_path: Path) -> None:
    api = connect(tmp_path, stub.address)
    widgets = {"name": "widgets", "kind": "Widget", "namespaced": True, "verbs": ["get"]}
    scale = {"name": "widgets/scale", "kind": "Scale", "namespaced": True, "verbs": ["get"]}
    for resources in ([], [widgets, scale]):
        stub.answers["GET", "/apis/example.com/v1"] = 200, {"resources": resources}
        if not resources:
            with pytest.raises(ApiRefusal, match="has no such kind") as refusal:
                api.resource("example.com/v1/Widget")
            assert refusal.value.status == 404

    assert api.resource("example.com/v1/Widget").name == "widgets"
    with pytest.raises(ApiRefusal, match="has no such kind"):
        api.resource("example.com/v1/Scale")


@pytest.fixture
def silent() -> Iterator[tuple[str, list[str]]]:
    """A server that closes each connection instead of an answer: its address, and the methods of its requests."""
    methods: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def _hang_up(self) -> None:
            methods.append(self.command)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _hang_up  # noqa: N815

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", methods
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("method", "tries"), [("GET", 2), ("DELETE", 1), ("PUT", 1), ("POST", 1), ("PATCH", 1)])
def test_only_a_get_is_sent_again_after_a_lost_connection(
    silent: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, tries: int
) -> None:
    """A DELETE may have been done: sent again, it would get 404, and the cluster would be blamed for that."""
    monkeypatch.setattr(apis, "BEFORE_RETRY", 0)
    address, methods = silent

    with pytest.raises(HTTPError):
        connect(tmp_path, address).call(method, "/api/v1/namespaces/shop/pods/web")

    assert methods == [method] * tries


@pytest.mark.parametrize(
    ("method", "refusals", "tries", "raised"),
    [
        ("GET", [429], 2, None),
        ("GET", [500], 2, None),
        ("GET", [503], 2, None),
        ("GET", [503, 500], 2, 500),
        ("GET", [404], 1, 404),
        ("DELETE", [429], 2, None),
        ("DELETE", [429, 429], 2, 429),
        ("DELETE", [500], 1, 500),
        ("PATCH", [503], 1, 503),
    ],
)
def test_a_request_that_was_not_done_is_sent_again_once(
    stub: StubCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    refusals: list[int],
    tries: int,
    raised: int | None,
) -> None:
    """429 says that the API server has not begun with it. After 5xx only a GET is sent again."""
    monkeypatch.setattr(apis, "BEFORE_RETRY", 0)
    call = method, "/api/v1/namespaces/shop/pods/web"
    stub.refusals[call] = refusals

    with nullcontext() if raised is None else pytest.raises(ApiRefusal) as refusal:
        connect(tmp_path, stub.address).call(*call)

    assert stub.requests == [call] * tries
    assert raised is None or (refusal and refusal.value.status == raised)
