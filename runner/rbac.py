"""The rights that a run needs, as ClusterRole manifests: `./verify --print-rbac`.

The files in `rbac/` are made from the API server's audit log of such runs and compared with it again (`measure.foreign`).
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "rbac"


def file(agreed: bool) -> Path:
    """The file of a run in namespaces of its own; `agreed`: of one that may also change what is cluster-scoped."""
    return FOLDER / ("cluster-scoped-changes.yaml" if agreed else "own-namespaces.yaml")


def rules(agreed: bool) -> str:
    """A ClusterRole with just the rights that a run needs, as YAML; `agreed`: with agreed cluster-scoped changes."""
    return file(agreed).read_text(encoding="utf-8")
