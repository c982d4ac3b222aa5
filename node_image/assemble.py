"""Assemble the node image: import one tar into the engine, then import the container images into containerd."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from machine.engine import Engine
from machine.exits import CannotRun
from machine.steps import Runner
from node_image import images, layers, oci, tars

CONTAINER = "kubehave-node-build"
LACKS_CAPABILITIES = (
    "docker's privileged containers, such as nodes, need all capabilities, and this machine lacks one (CAP_SYS_RESOURCE?): "
    "use podman, or `tox run -e docker`"
)
STOP_SIGNAL = "SIGRTMIN+3"
"""The signal on which systemd shuts down. docker takes it from the container, and podman from the change."""
SETTINGS = (
    'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]',
    "CMD []",
    # this tells systemd that it runs in a container
    "ENV container=kind",
)


def assemble(engine: Engine, name: str, outputs: Mapping[str, Path], work: Path, runner: Runner) -> None:
    """Make the image `name` from the outputs of all steps; `work` is a folder for temporary files."""
    base = f"{name}-base"
    archive = work / "images.tar"
    used = sorted({layer for image in images.TABLE for layer in image.layers})
    oci.write_layout(images.TABLE, {layer: _origin(layer, outputs) for layer in used}, archive)
    engine.remove_containers(CONTAINER)

    def run(*arguments: str) -> None:
        runner.run([engine.name, *arguments], env=engine.env)

    try:
        _import(engine, base, lambda out: _write(used, outputs, out), runner)
        # containerd unpacks with overlayfs, which does not work on top of the container's own overlay: hence the tmpfs
        options = ["--privileged", "--stop-signal", STOP_SIGNAL, "--network", "none", "--tmpfs", "/scratch"]
        options += ["--volume", f"{archive}:/images.tar:ro"]
        run("run", "--detach", "--name", CONTAINER, *options, "--entrypoint", "sleep", base, "infinity")
        run("exec", CONTAINER, "/usr/local/lib/node/import-images", "/images.tar")
        settings = [*SETTINGS, f"STOPSIGNAL {STOP_SIGNAL}"] if engine.name == "podman" else SETTINGS
        run("commit", *(word for setting in settings for word in ("--change", setting)), CONTAINER, name)
    except CannotRun:
        if "unable to apply caps" in runner.log.read_text():
            raise runner.failure(LACKS_CAPABILITIES) from None
        raise
    finally:
        engine.remove_containers(CONTAINER)
        engine.run("rmi", base, check=False)
        archive.unlink()


def _origin(layer: str, outputs: Mapping[str, Path]) -> str:
    """What a layer is made from: the names of its steps' outputs, which contain the digests of their inputs."""
    steps = set(layers.steps_of(layers.CONTAINER_LAYERS[layer]))
    return ",".join(sorted(outputs[step].name for step in steps)) or "texts"


def _write(used: Sequence[str], outputs: Mapping[str, Path], out: tarfile.TarFile) -> None:
    """Write all files. The layers come first, because the node has hard links into one of them."""
    for layer in used:
        parts = [*layers.CONTAINER_LAYERS[layer]]
        if layer == "busybox":
            names = (outputs["packages-next"] / "applets").read_text().split()
            parts += [layers.Link(f"bin/{name}", "busybox") for name in names if name != "busybox"]
        tars.write(parts, f"{layers.LAYERS_FOLDER}/{layer}", outputs, out)
    tars.write([*layers.NODE, layers.Text("kind/packages.txt", text=_packages(outputs))], "", outputs, out)


def _packages(outputs: Mapping[str, Path]) -> str:
    """All Debian packages in the image, with versions, grouped by the step that installed them."""
    lists = {step: folder / "packages.txt" for step, folder in outputs.items()}
    return "".join(f"# {step}\n{file.read_text()}" for step, file in lists.items() if file.exists())


def _import(engine: Engine, name: str, write: Callable[[tarfile.TarFile], None], runner: Runner) -> None:
    """Stream a tar into the engine as an image."""
    with runner.log.open("a") as log:
        process = subprocess.Popen(
            [engine.name, "import", "-", name],
            env={**os.environ, **engine.env},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    assert process.stdin is not None, "a pipe was asked for"
    try:
        with process.stdin, tarfile.open(fileobj=process.stdin, mode="w|", format=tarfile.GNU_FORMAT) as out:
            write(out)
    except BrokenPipeError:
        pass  # the engine has ended, and its log says why
    except BaseException:
        process.kill()
        process.wait()
        raise
    runner.wait(process)
