"""Build the node image from package registries: `python -m node_image.build [--list]`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from machine import debian
from machine import engine as engines
from machine.cache import cache_folder
from machine.engine import Engine
from machine.exits import CannotRun
from machine.packages import install_packages
from machine.progress import Say
from machine.steps import Runner, Step, duration, lock, perform_lanes, prune
from node_image import versions
from node_image.assemble import assemble
from node_image.components import all_steps, compiled_steps, fetched_steps

HERE = Path(__file__).parent
REPOSITORY = "localhost/kubehave-node"

DISK_CACHE, DISK_ENGINE = 12, 4
"""GB that a build without caches needs in the user's cache folder (mostly Go's caches), and in the engine's storage."""

BUILD_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "/usr/include/stdlib.h": "libc6-dev",
    "patchelf": "patchelf",
}
"""The programs and files that a build needs, and the Debian packages that have them."""

IMAGE_FILES = ("assemble.py", "images.py", "layers.py", "oci.py", "tars.py", "versions.py", "node", "layers")


def build(engine: Engine, say: Say, install: bool = True) -> str:
    """Return the name of the node image for the present inputs. Builds what is missing."""
    name = image_name()
    if engine.has_image(name):
        return name
    cache = cache_folder() / "node-image"
    with lock(cache, say):
        if engine.has_image(name):
            return name
        started = time.monotonic()
        _check_space(engine.storage(), DISK_ENGINE)
        outputs = _outputs(cache, install, say)
        runner = Runner("image", cache / "logs" / "image.log", say)
        with runner.reported():
            assemble(engine, name, outputs, cache, runner)
        for other in engine.images(REPOSITORY):
            if other.startswith(f"{REPOSITORY}:") and other != name:
                engine.run("rmi", other, check=False)  # refused if a cluster still uses it
        say(f"node image {name}: {duration(time.monotonic() - started)}")
    return name


def fetch_and_compile(say: Say, install: bool) -> None:
    """Do all of a build that needs the network. After that an engine without a network can have its image."""
    cache = cache_folder() / "node-image"
    with lock(cache, say):
        _outputs(cache, install, say)


def image_name(steps: Mapping[str, Step] | None = None) -> str:
    """The image's name for these inputs: repository, Kubernetes version, digest of all inputs."""
    needs = list((steps or all_steps()).values())
    image = Step(
        "image", lambda out, runner: None, [debian.architecture()], [HERE / file for file in IMAGE_FILES], needs
    )
    return f"{REPOSITORY}:v{versions.KUBERNETES}-{image.digest()[:12]}"


def _outputs(cache: Path, install: bool, say: Say) -> dict[str, Path]:
    """The outputs of all steps, by the steps' names. Makes what is missing, and removes what other inputs have made."""
    lacking = {package for tool, package in BUILD_TOOLS.items() if not (shutil.which(tool) or Path(tool).exists())}
    if not debian.KEYRING.exists():
        lacking.add("debian-archive-keyring")
    if lacking:
        install_packages(lacking, "building a node image needs more packages", install, say)
    if not all(step.done(cache) for step in all_steps().values()):
        _check_space(cache, DISK_CACHE)
    outputs = perform_lanes((compiled_steps(), fetched_steps()), cache, say)
    prune(all_steps().values(), cache)
    return outputs


def _check_space(folder: Path, needed: int) -> None:
    """Check disk space (GB) before the build, so that it does not fail halfway."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise CannotRun(f"building a node image needs {needed} GB in {folder}, but only {free:.1f} GB are free")


def main() -> int:
    """Build the image, or list the steps and their state."""
    parser = argparse.ArgumentParser(prog="python -m node_image.build", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the steps, their state and output, and build nothing")
    options = parser.parse_args()
    if options.list:
        steps, cache = all_steps(), cache_folder() / "node-image"
        for step in steps.values():
            print(f"{'done ' if step.done(cache) else 'to do'}  {step.name:12} {step.output(cache)}")
        print(f"image  {image_name(steps)}")
        return 0

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        print(build(engines.find(install=True, say=say), say))
    except CannotRun as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
