"""A proxy on loopback before the API server, which alters some requests and answers.

It shows clients the API server's own certificate. It shows the API server the run's user's certificate if a client has shown
one, and otherwise none.

A rule has `method` and `path` (a regular expression). It says what becomes of a request that matches, and of its answer. All
rules that match count:

- `sends`: {regular expression: text} for the request's body,
- `drops`: the request does not reach the API server; a GET of the same path answers it,
- `status`: the rest counts only if the answer has this status,
- `becomes`: another status,
- `replace`: {regular expression: text} for the answer's body; for each line of it if the request is a watch.
"""

from __future__ import annotations

import http
import http.client
import http.server
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from fixtures.api import Api

#: Headers that are for one connection only.
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"}

#: The path of a request whose answer does not end.
WATCH = re.compile(r"[?&]watch=(true|True|1)")

#: The statuses of answers without a body.
BODILESS = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)

#: The first byte that a client sends if it speaks TLS.
TLS = b"\x16"

#: Bytes that are read at once.
AT_ONCE = 65536


class AnswersAltered:
    """The proxy, as long as the block lasts."""

    def __init__(self, api: Api, rules: Sequence[Mapping[str, Any]], certificate: Path) -> None:
        configuration = api.client.configuration
        server = urlsplit(configuration.host)
        self._host, self._port = server.hostname or "", server.port or 443
        self._user = configuration.cert_file, configuration.key_file
        self._authority = configuration.ssl_ca_cert
        self._rules = rules
        self._identified, self._unknown = (ssl.create_default_context(cafile=self._authority) for _ in range(2))
        self._identified.load_cert_chain(*self._user)
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(certificate)
        own.load_verify_locations(self._authority)
        own.verify_mode = ssl.CERT_OPTIONAL
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                if self.headers.get("Upgrade"):
                    proxy.tunnel(self)
                else:
                    proxy.forward(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

            def finish(self) -> None:
                super().finish()
                proxy.hang_up()

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, client_address: Any) -> None:
                if request.recv(1, socket.MSG_PEEK) != TLS:
                    with socket.create_connection((proxy._host, proxy._port)) as upstream:
                        return _both_ways(request, upstream)
                with own.wrap_socket(request, server_side=True) as secured:
                    Handler(secured, client_address, self)
                return None

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that has hung up, or that does not trust the certificate."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"https://127.0.0.1:{self._server.server_port}"
        self._local = threading.local()

    def __enter__(self) -> AnswersAltered:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, context: str) -> str:
        """A kubeconfig whose context leads through the proxy."""
        cluster = {"server": self.address, "certificate-authority": self._authority}
        user = {"client-certificate": self._user[0], "client-key": self._user[1]}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "clusters": [{"name": context, "cluster": cluster}],
                "users": [{"name": context, "user": user}],
                "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            }
        )

    def _context(self, request: http.server.BaseHTTPRequestHandler) -> ssl.SSLContext:
        """With the user's certificate if the client has shown one."""
        shown = cast("ssl.SSLSocket", request.connection).getpeercert()
        return self._identified if shown else self._unknown

    def forward(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Send a request on, and its answer back, altered if a rule says so."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        rules = self._matching(request)
        method = "GET" if any(rule.get("drops") for rule in rules) else request.command
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        for rule in rules:
            body = _replaced(body, rule.get("sends", {}))
        if method != request.command:
            body = b""
        answer = self._ask(self._context(request), method, request.path, body, headers)
        rules = [rule for rule in rules if rule.get("status") in (None, answer.status)]
        status = next((rule["becomes"] for rule in rules if "becomes" in rule), answer.status)
        if not any("replace" in rule for rule in rules):
            self._send(request, answer, status, _pieces(answer))
            return
        pieces = iter(answer) if WATCH.search(request.path) else iter([answer.read()])
        self._send(request, answer, status, (_altered(piece, rules) for piece in pieces))

    def _matching(self, request: http.server.BaseHTTPRequestHandler) -> list[Mapping[str, Any]]:
        return [
            rule for rule in self._rules if request.command == rule["method"] and re.search(rule["path"], request.path)
        ]

    def _ask(
        self, context: ssl.SSLContext, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Each thread of the server has one connection, and opens it anew if the API server has closed it.

        A write has a connection of its own, because it is never sent twice.
        """
        if method != "GET":
            self.hang_up()
        for last in (False, True) if method == "GET" else (True,):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(self._host, self._port, context=context)
                self._local.connection = connection
            try:
                connection.request(method, path, body or None, dict(headers))
                answer: http.client.HTTPResponse = connection.getresponse()
                return answer
            except (http.client.HTTPException, OSError):
                self.hang_up()
                if last:
                    raise
        raise AssertionError("unreachable")

    def hang_up(self) -> None:
        """Close this thread's connection to the API server."""
        if connection := getattr(self._local, "connection", None):
            connection.close()
        self._local.connection = None

    def _send(
        self,
        request: http.server.BaseHTTPRequestHandler,
        answer: http.client.HTTPResponse,
        status: int,
        pieces: Iterable[bytes],
    ) -> None:
        """An answer piece by piece, because a watch does not end."""
        request.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                request.send_header(name, value)
        if status in BODILESS:
            request.end_headers()
            return
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            for piece in filter(None, pieces):
                request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                request.wfile.flush()
            request.wfile.write(b"0\r\n\r\n")
        except (http.client.HTTPException, OSError):  # one of the two has enough
            self.hang_up()
            request.close_connection = True

    def tunnel(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """A connection that becomes a WebSocket or SPDY: all bytes go through, in both directions."""
        lines = [f"{request.command} {request.path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "host"]
        request.close_connection = True
        raw = socket.create_connection((self._host, self._port))
        with self._context(request).wrap_socket(raw, server_hostname=self._host) as upstream:
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            _both_ways(request.connection, upstream)


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read1(AT_ONCE):
        yield piece


def _altered(piece: bytes, rules: Sequence[Mapping[str, Any]]) -> bytes:
    for rule in rules:
        piece = _replaced(piece, rule.get("replace", {}))
    return piece


def _replaced(body: bytes, replacements: Mapping[str, str]) -> bytes:
    for pattern, new in replacements.items():
        body = re.sub(pattern.encode(), new.encode(), body)
    return body


def _both_ways(client: socket.socket, upstream: socket.socket) -> None:
    other = {client: upstream, upstream: client}
    while True:
        pending = [it for it in other if isinstance(it, ssl.SSLSocket) and it.pending()]
        ready = pending or select.select(list(other), [], [])[0]
        for source in ready:
            try:
                data = source.recv(AT_ONCE)
            except OSError:
                data = b""
            if not data:
                return
            other[source].sendall(data)
