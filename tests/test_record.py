"""A watch that ends too early is an error: it does not mean that nothing happened."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fixtures.api import Api, ApiRefusal
from fixtures.record import Changes, record
from fixtures.waiting import eventually

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}
ADDED = json.dumps({"type": "ADDED", "object": POD}).encode() + b"\n"
GONE = json.dumps({"type": "ERROR", "object": {"message": "too old resource version"}}).encode() + b"\n"
PATH = "/api/v1/namespaces/default/pods"

#: Answers a watch as a simulated API server. Gets a function that sends, and an event that is set when the test is over.
Answer = Callable[[Callable[[bytes], None], threading.Event], None]


@contextmanager
def server(answer: Answer, status: int = 200) -> Iterator[str]:
    """Run a simulated API server with an empty list and this answer to a watch; yields its URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "watch=true" not in self.path:
                body = json.dumps({"metadata": {"resourceVersion": "7"}}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.close_connection = True
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            answer(self.send, over)

        def send(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        over.set()
        http.shutdown()
        http.server_close()
        thread.join()


#: Starts the recording of a watch with this answer of a simulated API server.
Recording = Callable[..., AbstractContextManager[Changes]]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """Records the Pods of a simulated API server."""

    @contextmanager
    def recording(answer: Answer, status: int = 200) -> Iterator[Changes]:
        with server(answer, status) as url:
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": url}}],
                "users": [{"name": "it", "user": {}}],
            }
            path = tmp_path / "kubeconfig"
            path.write_text(json.dumps(config))
            with record(Api(str(path)), PATH, {}) as changes:
                yield changes

    return recording


def lasts(send: Callable[[bytes], None], over: threading.Event) -> None:
    send(ADDED)
    over.wait(10)


def ends(send: Callable[[bytes], None], _: threading.Event) -> None:
    send(ADDED)
    send(b"")


def breaks_off(send: Callable[[bytes], None], _: threading.Event) -> None:
    send(ADDED)


def ends_with_an_error(send: Callable[[bytes], None], over: threading.Event) -> None:
    send(ADDED + GONE)
    over.wait(10)


def sends_nonsense(send: Callable[[bytes], None], over: threading.Event) -> None:
    send(ADDED + b"nonsense\n")
    over.wait(10)


def sends_an_unknown_object(send: Callable[[bytes], None], over: threading.Event) -> None:
    send(ADDED + b'{"type": "ADDED", "object": {}}\n')
    over.wait(10)


def refuses(send: Callable[[bytes], None], _: threading.Event) -> None:
    send(b'{"reason": "Forbidden", "message": "no"}')
    send(b"")


def wait_for(changes: Changes, number: int = 1) -> None:
    for look in eventually(within=5, every=0.01):
        with look:
            assert len(changes) == number


def wait_until_no_reader_is_left() -> None:
    for look in eventually(within=5, every=0.01):
        with look:
            assert not [thread for thread in threading.enumerate() if type(thread).__name__ == "_Reader"]


def test_changes_are_recorded_until_the_block_ends(recording: Recording) -> None:
    with recording(lasts) as changes:
        wait_for(changes)

    assert [(change.type, change.object.metadata.name) for change in changes] == [("ADDED", "web")]
    wait_until_no_reader_is_left()


@pytest.mark.parametrize("answer", [ends, breaks_off, ends_with_an_error, sends_nonsense, sends_an_unknown_object])
def test_a_watch_that_ends_before_the_block_is_an_error(recording: Recording, answer: Answer) -> None:
    with pytest.raises(ConnectionError, match="ended before the test did"), recording(answer) as changes:
        wait_for(changes)
        wait_until_no_reader_is_left()


def test_a_record_tells_within_the_block_whether_its_watch_has_ended(recording: Recording) -> None:
    with recording(lasts) as changes:
        changes.check()

    with pytest.raises(ConnectionError), recording(ends) as changes:
        wait_until_no_reader_is_left()
        with pytest.raises(ConnectionError, match="ended before the test did"):
            changes.check()


def test_the_reason_why_a_watch_ended_is_named(recording: Recording) -> None:
    with pytest.raises(ConnectionError, match="too old resource version"), recording(ends_with_an_error):
        wait_until_no_reader_is_left()


def test_a_failed_assertion_after_the_watch_has_ended_is_a_connection_error(recording: Recording) -> None:
    with pytest.raises(ConnectionError) as failure, recording(ends):
        wait_until_no_reader_is_left()
        raise AssertionError("two were expected")

    assert isinstance(failure.value.__context__, AssertionError)


def test_a_failed_assertion_while_the_watch_lasts_is_raised(recording: Recording) -> None:
    with pytest.raises(AssertionError, match="two were expected"), recording(lasts) as changes:
        wait_for(changes)
        raise AssertionError("two were expected")


def test_a_refused_watch_raises_the_refusal(recording: Recording) -> None:
    with pytest.raises(ApiRefusal, match="Forbidden"), recording(refuses, status=403):
        pass
