"""The rights that a run needs, as ClusterRole manifests: `./verify --print-rbac`.

`measure.foreign` makes the files in `rbac/` from the API server's audit log of such runs, and compares them again later.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "rbac"


def file(agreed: bool) -> Path:
    """The file for a run in namespaces of its own; `agreed`: for a run that may also make cluster-scoped changes."""
    return FOLDER / ("cluster-scoped-changes.yaml" if agreed else "own-namespaces.yaml")


def rules(agreed: bool) -> str:
    """A ClusterRole with exactly the rights that a run needs, as YAML; `agreed`: with cluster-scoped changes."""
    return file(agreed).read_text(encoding="utf-8")
