"""A proxy on loopback before the API server, which alters some answers.

A rule has `method`, `path` (a regular expression), and for a request that matches `status` (the status that it must have
had, for the rule to count), and then what it becomes: `becomes` (another status), and `replace` ({regular expression: text})
for the answer's body. With `drops` the request itself does not reach the API server: a GET of the same path answers it.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from fixtures.api import Api

#: Headers that are for one connection only.
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding"}

#: Bytes that are read at once.
AT_ONCE = 65536


class AnswersAltered:
    """The proxy, as long as the block lasts."""

    def __init__(self, api: Api, rules: Sequence[Mapping[str, Any]]) -> None:
        configuration = api.client.configuration
        server = urlsplit(configuration.host)
        self._host, self._port = server.hostname or "", server.port or 443
        self._context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        self._context.load_cert_chain(configuration.cert_file, configuration.key_file)
        self._rules = rules
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                if self.headers.get("Upgrade"):
                    proxy.tunnel(self)
                else:
                    proxy.forward(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

            def finish(self) -> None:
                super().finish()
                proxy.hang_up()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._local = threading.local()

    def __enter__(self) -> AnswersAltered:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, context: str) -> str:
        """A kubeconfig whose context leads through the proxy."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "clusters": [{"name": context, "cluster": {"server": self.address}}],
                "users": [{"name": context, "user": {}}],
                "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            }
        )

    def forward(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Send a request on, and its answer back, altered if a rule says so."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        rule = self._rule(request)
        method = "GET" if rule and rule.get("drops") else request.command
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        answer = self._ask(method, request.path, body if method == request.command else b"", headers)
        if rule and rule.get("status") in (None, answer.status):
            self._send_altered(request, answer, rule)
        else:
            self._send(request, answer)

    def _rule(self, request: http.server.BaseHTTPRequestHandler) -> Mapping[str, Any] | None:
        for rule in self._rules:
            if request.command == rule["method"] and re.search(rule["path"], request.path):
                return rule
        return None

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Each thread of the server has one connection, and opens it anew if the API server has closed it.

        A write has a connection of its own, because it is never sent twice.
        """
        if method != "GET":
            self.hang_up()
        for last in (False, True) if method == "GET" else (True,):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._context)
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

    def _head(self, request: http.server.BaseHTTPRequestHandler, status: int, answer: http.client.HTTPResponse) -> None:
        request.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                request.send_header(name, value)

    def _send_altered(
        self, request: http.server.BaseHTTPRequestHandler, answer: http.client.HTTPResponse, rule: Mapping[str, Any]
    ) -> None:
        text = answer.read().decode()
        for pattern, new in rule.get("replace", {}).items():
            text = re.sub(pattern, new, text)
        self._head(request, rule.get("becomes", answer.status), answer)
        request.send_header("Content-Length", str(len(text.encode())))
        request.end_headers()
        request.wfile.write(text.encode())

    def _send(self, request: http.server.BaseHTTPRequestHandler, answer: http.client.HTTPResponse) -> None:
        """An answer as it comes; a watch arrives in pieces."""
        self._head(request, answer.status, answer)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            while piece := answer.read1(AT_ONCE):
                request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                request.wfile.flush()
            request.wfile.write(b"0\r\n\r\n")
        except OSError:  # the caller has enough
            self.hang_up()
            request.close_connection = True

    def tunnel(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """A connection that becomes a WebSocket or SPDY: all bytes go through, in both directions."""
        lines = [f"{request.command} {request.path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name.lower() != "host"]
        request.close_connection = True
        raw = socket.create_connection((self._host, self._port))
        with self._context.wrap_socket(raw, server_hostname=self._host) as upstream:
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            _both_ways(request.connection, upstream)


def _both_ways(client: socket.socket, upstream: ssl.SSLSocket) -> None:
    other: dict[socket.socket, socket.socket] = {client: upstream, upstream: client}
    while True:
        ready = [upstream] if upstream.pending() else select.select(list(other), [], [])[0]
        for source in ready:
            try:
                data = source.recv(AT_ONCE)
            except OSError:
                data = b""
            if not data:
                return
            other[source].sendall(data)
