"""A cluster of kind that is not the suite's own: it has no folder among the suite's clusters in the cache."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fixtures.api import Api, Connection
from fixtures.kube import Kube
from machine import kind as kinds
from machine.engine import Engine
from machine.progress import Say
from runner.cluster import run_kind, wait_until_ready

#: The prefix of every cluster's name, and of its folder's name.
PREFIX, FOLDER_PREFIX = "foreign-", "kubehave-foreign-"

#: The folder of the API server's files on the control-plane node, and the file of its audit log.
FILES, AUDIT_LOGS = "/etc/kubernetes/foreign", "/var/log/kubernetes/audit"

#: The namespace of the ServiceAccounts that runs use.
USERS = "kube-system"

#: Seconds for which a ServiceAccount's token is valid: longer than any row takes.
TOKEN_LASTS = 7200


@dataclass(frozen=True)
class ApiServer:
    """What an API server gets in addition to kind's defaults: flags, and files in the folder `FILES`."""

    flags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def config(workers: int, server: ApiServer, folder: Path) -> dict[str, Any]:
    """The configuration of the suite's own clusters, with these workers and this API server; its files go into `folder`."""
    whole: dict[str, Any] = yaml.safe_load(kinds.CONFIG.read_text(encoding="utf-8"))
    control_plane: dict[str, Any] = {"role": "control-plane"}
    if server.flags:
        for name, content in server.files.items():
            (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        control_plane["extraMounts"] = [{"hostPath": str(folder), "containerPath": FILES, "readOnly": True}]
        volumes = [
            {"name": "foreign", "hostPath": FILES, "mountPath": FILES, "readOnly": True, "pathType": "Directory"},
            {"name": "audit", "hostPath": AUDIT_LOGS, "mountPath": AUDIT_LOGS, "pathType": "DirectoryOrCreate"},
        ]
        flags = [{"name": name, "value": value} for name, value in server.flags.items()]
        patch = {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "apiServer": {"extraArgs": flags, "extraVolumes": volumes},
        }
        whole["kubeadmConfigPatches"].append(yaml.safe_dump(patch))
    whole["nodes"] = [control_plane, *({"role": "worker"} for _ in range(workers))]
    return whole


class Foreign:
    """A foreign cluster: its name, and a folder for its kubeconfigs."""

    def __init__(self, row: str, engine: Engine) -> None:
        self.name, self.engine = f"{PREFIX}{row}", engine
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{row}-"))

    @property
    def context(self) -> str:
        """The name of its context in all its kubeconfigs."""
        return f"kind-{self.name}"

    def kubeconfig(self, user: str | None = None) -> Path:
        """The kubeconfig of kind's administrator, or of a ServiceAccount (see `add_user`)."""
        return self.folder / (f"kubeconfig-{user}" if user else "kubeconfig")

    def api(self) -> Api:
        """A new connection as the administrator."""
        return Connection(str(self.kubeconfig()), self.context).api()

    def make(self, kind: Path, image: str, workers: int, server: ApiServer, say: Say) -> None:
        """Make it, and wait until it is ready. Raises CannotRun."""
        mounted = self.folder / "api-server"
        mounted.mkdir()
        file = self.folder / "kind.yaml"
        file.write_text(yaml.safe_dump(config(workers, server, mounted)), encoding="utf-8")
        run_kind(kind, self.engine, self.name, image, file, self.kubeconfig(), say)
        wait_until_ready(self.api())

    def remove(self) -> None:
        """Remove its nodes, its network, all containers on that network, and its folder."""
        self.engine.remove_cluster(self.name)
        shutil.rmtree(self.folder)

    def on_node(self, node: str, *command: str) -> str:
        """Run a command on a node, and return its output; `node` is a role such as "worker2"."""
        return self.engine.run("exec", f"{self.name}-{node}", *command)

    def take_kubectl(self) -> Path | None:
        """A folder with the kubectl of the cluster's version; None if this machine cannot run it."""
        if not sys.platform.startswith("linux"):
            return None
        folder = self.folder / "bin"
        folder.mkdir()
        self.engine.run("cp", f"{self.name}-control-plane:/usr/bin/kubectl", str(folder / "kubectl"))
        return folder

    def add_user(self, user: str, *roles: Mapping[str, Any] | str) -> None:
        """Create a ServiceAccount with these ClusterRoles in the whole cluster, and a kubeconfig for it.

        A role is a manifest, which is applied, or the name of an existing role.
        """
        kube = Kube(self.api(), USERS)
        kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": user}})
        for role in roles:
            if not isinstance(role, str):
                kube.apply(dict(role))
            name = role if isinstance(role, str) else role["metadata"]["name"]
            kube.apply(_binding(user, name))
        path = f"/api/v1/namespaces/{USERS}/serviceaccounts/{user}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_LASTS},
        }
        token = kube.api.call("POST", path, request)["status"]["token"]
        known = yaml.safe_load(self.kubeconfig().read_text(encoding="utf-8"))
        for entry in known["users"]:
            entry["user"] = {"token": token}
        self.kubeconfig(user).touch(mode=0o600)
        self.kubeconfig(user).write_text(yaml.safe_dump(known), encoding="utf-8")


def username(user: str) -> str:
    """The user name of such a ServiceAccount."""
    return f"system:serviceaccount:{USERS}:{user}"


def _binding(user: str, role: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{user}-{role}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": user, "namespace": USERS}],
    }


def remove_left(engine: Engine, rows: Sequence[str], say: Say) -> None:
    """Remove the clusters that an earlier run has kept, or has left because it was killed."""
    networks = set(engine.run("network", "ls", "--format", "{{.Name}}").split())
    containers = set(engine.run("ps", "--all", "--format", "{{.Names}}").split())
    for name in (f"{PREFIX}{row}" for row in rows):
        if name in networks or any(f"{name}-{role}" in containers for role in ("control-plane", "worker")):
            say(f"removing cluster {name}, left by an earlier run")
            engine.remove_cluster(name)
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
