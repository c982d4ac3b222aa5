"""The folder of the user's cache in which everything is kept that is downloaded, built or made."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for everything that is downloaded or built: `$XDG_CACHE_HOME/kubehave`."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubehave"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def clusters_folder() -> Path:
    """The folder of the clusters that runs have made, a folder each, named after the cluster."""
    return cache_folder() / "clusters"
