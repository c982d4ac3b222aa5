"""Write the parts of layers.py into a tar."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from machine import debian
from node_image.layers import Folder, Link, Made, Package, Part, Root, Text

LEFT_OUT = ("dev/", "etc/apt/", "var/lib/apt/", "var/log/apt/")
"""Left out of a root file system: device files, because a container gets its own, and apt's settings and lists."""


def write(parts: Iterable[Part], prefix: str, outputs: Mapping[str, Path], out: tarfile.TarFile) -> None:
    """Add parts to a tar, below `prefix`; `outputs` are the folders of the steps that made them.

    If a root file system has a file with the same path as another part, the part replaces it.
    """
    parts = list(parts)
    own = {part.path for part in parts if isinstance(part, Made | Text | Link)}
    for part in parts:
        match part:
            case Root():
                with tarfile.open(outputs[part.step] / "root.tar") as root:
                    _copy(root, prefix, out, lambda name: name not in own and not name.startswith(LEFT_OUT))
            case Package():
                with _unpacked(next(outputs[part.step].glob(f"{part.package}_*.deb"))) as package:
                    _copy(package, prefix, out, _begins_with(part.paths))
            case Made():
                file = outputs[part.step] / part.made
                with file.open("rb") as data:
                    member = _member(prefix, part.path, tarfile.REGTYPE, file.stat().st_mode & 0o777)
                    member.size = file.stat().st_size
                    out.addfile(member, data)
            case Text():
                text = part.content().encode()
                member = _member(prefix, part.path, tarfile.REGTYPE, part.mode)
                member.size = len(text)
                out.addfile(member, io.BytesIO(text))
            case Link():
                member = _member(prefix, part.path, tarfile.LNKTYPE if part.hard else tarfile.SYMTYPE, 0o777)
                member.linkname = part.target
                out.addfile(member)
            case Folder():
                member = _member(prefix, part.path, tarfile.DIRTYPE, part.mode)
                member.uid = member.gid = part.owner
                out.addfile(member)


def _member(prefix: str, path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(str(PurePosixPath(prefix, path)))
    member.type, member.mode = kind, mode
    return member


def _unpacked(package: Path) -> tarfile.TarFile:
    """The files of a .deb, as a tar."""
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    return tarfile.open(fileobj=io.BytesIO(files))


def _begins_with(paths: Sequence[str]) -> Callable[[str], bool]:
    return lambda name: name.startswith(tuple(paths))


def _copy(source: tarfile.TarFile, prefix: str, out: tarfile.TarFile, wanted: Callable[[str], bool]) -> None:
    """Add the wanted members of another tar, below `prefix`."""
    for member in source:
        name = member.name.removeprefix("./").rstrip("/")
        if name in ("", debian.PACKAGE_LIST) or not wanted(name):
            continue
        data = source.extractfile(member) if member.isreg() else None
        member.name = str(PurePosixPath(prefix, name))
        if member.islnk():
            member.linkname = str(PurePosixPath(prefix, member.linkname.removeprefix("./")))
        out.addfile(member, data)
