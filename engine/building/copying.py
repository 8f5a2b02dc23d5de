"""Putting files into an image's root: COPY and ADD once their sources are known, and the folder of WORKDIR.

Everything stays below the root: links in the image are followed inside it. What is copied belongs to root, to
the owner of `--chown`, or (COPY --from) to whom it belonged.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.building.archives import is_archive, unpack
from engine.building.sources import Source, resolve_inside
from engine.errors import InvalidParameter
from engine.storage.trees import remove_tree

_KERNELS_OWN = ("trusted.overlay.", "security.selinux")


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """`owner`: (uid, gid), None keeps the source's. `mode`: None keeps it. `unpacks`: ADD and its archives."""

    owner: tuple[int, int] | None = (0, 0)
    mode: int | None = None
    unpacks: bool = False


def copy_sources(root: Path, sources: Sequence[Source], destination: str, manner: Manner) -> None:
    """`destination` is absolute, with a slash at its end when it must be a folder."""
    target = resolve_inside(root, destination)
    is_folder = destination.endswith("/") or target.is_dir()
    for source in sources:
        if source.is_directory:
            _make_folders(root, target, manner)
            _copy_contents(source.path, target, manner)
        elif manner.unpacks and is_archive(source.path):
            _make_folders(root, target, manner)
            with source.path.open("rb") as file:
                unpack(file, target, f"archive {source.name}")
        else:
            place = resolve_inside(root, f"{destination}/{source.name}") if is_folder else target
            _make_folders(root, place.parent, manner)
            if place.is_dir():
                raise InvalidParameter(f"cannot copy to directory: {destination}: {source.name} is a file")
            _copy_entry(source.path, place, manner)


def make_directory(root: Path, path: str) -> bool:
    """Of WORKDIR; False when it is there already."""
    place = resolve_inside(root, path)
    if place.is_dir():
        return False
    _make_folders(root, place, Manner())
    return True


def _make_folders(root: Path, folder: Path, manner: Manner) -> None:
    missing = []
    while folder != root and not folder.is_dir():
        if os.path.lexists(folder):
            raise InvalidParameter(f"not a directory: /{folder.relative_to(root)}")
        missing.append(folder)
        folder = folder.parent
    for place in reversed(missing):
        place.mkdir(mode=0o755)
        place.chmod(0o755)
        os.chown(place, *(manner.owner or (0, 0)))


def _copy_contents(source: Path, target: Path, manner: Manner) -> None:
    for entry in sorted(source.iterdir()):
        _copy_entry(entry, target / entry.name, manner)


def _copy_entry(source: Path, target: Path, manner: Manner) -> None:
    status = source.lstat()
    kind = stat.S_IFMT(status.st_mode)
    _clear(target, keeps_folder=kind == stat.S_IFDIR)
    if kind == stat.S_IFDIR:
        target.mkdir(exist_ok=True)
        _copy_contents(source, target, manner)
    elif kind == stat.S_IFLNK:
        target.symlink_to(source.readlink())
    elif kind == stat.S_IFREG:
        shutil.copyfile(source, target)
    elif kind != stat.S_IFSOCK:
        os.mknod(target, status.st_mode, status.st_rdev)
    else:
        return
    owner = manner.owner or (status.st_uid, status.st_gid)
    os.chown(target, *owner, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        target.chmod(stat.S_IMODE(status.st_mode) if manner.mode is None else manner.mode)
        for name in os.listxattr(source):
            if not name.startswith(_KERNELS_OWN):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _clear(target: Path, *, keeps_folder: bool) -> None:
    try:
        status = target.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        target.unlink()
    elif not keeps_folder:
        remove_tree(target)
