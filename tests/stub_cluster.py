"""A simulated API server for runs of sample tests: it stores namespaces, and everything else is empty."""

from __future__ import annotations

import http.server
import json
import re
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CORE = {
    "Namespace": False,
    "Node": False,
    "PersistentVolume": False,
    "Pod": True,
    "Service": True,
    "ServiceAccount": True,
    "Event": True,
    "ReplicaSet": True,
    "Secret": True,
}
GROUPS = {
    "storage.k8s.io": {"StorageClass": False},
    "networking.k8s.io": {"IngressClass": False, "Ingress": True},
    "rbac.authorization.k8s.io": {"ClusterRole": False, "ClusterRoleBinding": False},
    "apps": {"ReplicaSet": True, "Deployment": True, "StatefulSet": True, "DaemonSet": True},
}


def plural(kind: str) -> str:
    """The plural name of a kind, as in paths."""
    return re.sub("s$", "se", kind.lower()) + "s" if kind.endswith("ss") else kind.lower() + "s"


class StubCluster:
    """A server on a loopback port. It returns `nodes`. If `keeps_namespaces`, it never deletes a namespace, and says why."""

    def __init__(
        self,
        nodes: list[dict[str, Any]] | None = None,
        keeps_namespaces: bool = False,
        certificate: Path | None = None,
    ) -> None:
        self.nodes, self.keeps_namespaces = nodes or [], keeps_namespaces
        remain = {"type": "NamespaceContentRemaining", "status": "True", "message": "pods. has 1 resource instances"}
        fails = {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "all content deleted"}
        self._conditions = [remain, fails] if keeps_namespaces else []
        self.version = {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
        #: The Pods of every namespace.
        self.pods: list[dict[str, Any]] = []
        #: The Secrets of every namespace.
        self.secrets: list[dict[str, Any]] = []
        #: HTTP status and body of the answer to the creation of an object of a kind.
        self.creates: dict[str, tuple[int, dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        #: Whether each request's client has shown a certificate.
        self.identified: list[bool] = []
        #: Answers that replace the usual ones: (method, path) to HTTP status and body.
        self.answers: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        #: The HTTP statuses of the first answers: (method, path) to those statuses. The usual answers follow them.
        self.refusals: dict[tuple[str, str], list[int]] = {}
        self.namespaces: dict[str, dict[str, Any]] = {}
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each answer waits 40 ms for the caller to acknowledge its headers

            def _serve(self) -> None:
                stub.identified.append(
                    isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
                )
                text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = urlsplit(self.path)
                body = json.loads(text) if text else {}
                status, answer = stub.answer(self.command, parts.path, parse_qs(parts.query), body)
                sent = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            secured = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            secured.load_cert_chain(certificate)
            secured.load_verify_locations(certificate)
            secured.verify_mode = ssl.CERT_OPTIONAL
            self._server.socket = secured.wrap_socket(self._server.socket, server_side=True)
        self.address = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, dict[str, Any]]:
        """Status and body for a request."""
        self.requests.append((method, path))
        self.bodies.append(body)
        if refusals := self.refusals.get((method, path)):
            return refusals.pop(0), {}
        if (method, path) in self.answers:
            return self.answers[method, path]
        if path == "/version":
            return 200, self.version
        if path.endswith("selfsubjectaccessreviews"):
            return 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}}
        if (found := self._discovery(path)) is not None:
            return 200, found
        if path.startswith("/api/v1/namespaces") and path.count("/") <= 4:
            return self._namespace(method, path.removeprefix("/api/v1/namespaces").strip("/"), query, body)
        kinds = [kind for kinds in (CORE, *GROUPS.values()) for kind in kinds]
        kind = max(kinds, key=lambda kind: path.rfind(f"/{plural(kind)}"))
        if method == "POST" and kind in self.creates:
            return self.creates[kind]
        if kind == "Secret" and method == "GET":
            return 200, self.secrets[0]
        if method == "GET" and not path.endswith(plural(kind)):
            return 200, {"apiVersion": "v1", "kind": kind, "metadata": {"name": path.rpartition("/")[2]}}
        items = {"Node": self.nodes, "Pod": self.pods}.get(kind, [])
        return 200, {"apiVersion": "v1", "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}, "items": items}

    def _namespace(self, method: str, name: str, query: dict[str, list[str]], body: Any) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            self.namespaces[body["metadata"]["name"]] = body | {"status": {"conditions": self._conditions}}
            return 201, body
        if not name:
            wanted = dict(pair.split("=") for part in query.get("labelSelector", []) for pair in part.split(","))
            items = [
                item | {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"} | item["metadata"]}
                for item in self.namespaces.values()
                if wanted.items() <= item["metadata"]["labels"].items()
            ]
            return 200, {"apiVersion": "v1", "kind": "NamespaceList", "metadata": {}, "items": items}
        if method == "DELETE" and not self.keeps_namespaces:
            self.namespaces.pop(name, None)
        return 200, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}

    @staticmethod
    def _discovery(path: str) -> dict[str, Any] | None:
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = {name: {"groupVersion": f"{name}/v1", "version": "v1"} for name in GROUPS}
            groups = [{"name": n, "versions": [v], "preferredVersion": v} for n, v in versions.items()]
            return {"kind": "APIGroupList", "groups": groups}
        served = {"/api/v1": ("v1", CORE)} | {
            f"/apis/{name}/v1": (f"{name}/v1", kinds) for name, kinds in GROUPS.items()
        }
        if path not in served:
            return None
        version, kinds = served[path]
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        return {
            "kind": "APIResourceList",
            "groupVersion": version,
            "resources": [
                {"name": plural(k), "singularName": k.lower(), "namespaced": n, "kind": k, "verbs": verbs}
                for k, n in kinds.items()
            ],
        }

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def kubeconfig(path: Path, server: str, context: str = "there") -> None:
    """Write a kubeconfig with one context."""
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "wrong"}}],
                "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
