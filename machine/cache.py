"""The folders for everything that is downloaded, built or created."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder in the user's cache: `$XDG_CACHE_HOME/kubehave`."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubehave"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clusters_folder() -> Path:
    """The folder with a subfolder for each cluster that a run has made, named after the cluster."""
    return cache_folder() / "clusters"
