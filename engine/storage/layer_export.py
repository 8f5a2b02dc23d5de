"""What a container wrote, as a layer's archive: changed entries whole, deletions as whiteouts.

The container may run, if it is paused: only its own upper directory is read. Times are cut to seconds and names
of owners left out, as Docker does. Source: OCI image specification, layer.md; kernel overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from engine.storage.driver import DELETED, StorageDriver
from engine.storage.layer_tree import OPAQUE_MARK, OPAQUE_XATTR, WHITEOUT_PREFIX, is_whiteout

_XATTR_PREFIX = "SCHILY.xattr."
_KERNELS_OWN = ("trusted.overlay.", "security.selinux")


def write_layer(driver: StorageDriver, container_id: str, out: IO[bytes]) -> bool:
    """An uncompressed tar archive; False when there is nothing in it."""
    held = driver.mounted(container_id) if driver.mounts_on_host else contextlib.nullcontext()
    with held, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        rootfs = driver.rootfs(container_id)
        root = Path(rootfs.upper)
        writer = _Writer(archive, root)
        # Only a union keeps a work folder: then `upper` is the difference. Else it is the whole root.
        entries = _union_entries(root) if rootfs.work else _changed_entries(driver, container_id)
        for path, is_deleted in entries:
            writer.white_out(path) if is_deleted else writer.add(path)
    return writer.count > 0


def _union_entries(root: Path) -> Iterator[tuple[str, bool]]:
    """(relative path, is deleted), folders before what is in them."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as scanned:
            names = sorted(entry.name for entry in scanned)
        for name in names:
            path = f"{folder}/{name}".lstrip("/")
            status = os.lstat(root / path)
            yield path, is_whiteout(status)
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)


def _changed_entries(driver: StorageDriver, container_id: str) -> Iterator[tuple[str, bool]]:
    deleted: set[str] = set()
    for path, kind in driver.changes(container_id):
        relative = path.lstrip("/")
        if kind == DELETED:
            deleted.add(relative)
            if any(str(parent) in deleted for parent in PurePosixPath(relative).parents):
                continue
        yield relative, kind == DELETED


class _Writer:
    def __init__(self, archive: tarfile.TarFile, root: Path) -> None:
        self._archive = archive
        self._root = root
        self._links: dict[tuple[int, int], str] = {}
        self.count = 0

    def white_out(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        info = tarfile.TarInfo(f"{folder}/{WHITEOUT_PREFIX}{name}".lstrip("/"))
        self._archive.addfile(info)
        self.count += 1

    def add(self, path: str) -> None:
        """A socket is left out: no archive can hold one."""
        source = self._root / path
        status = os.lstat(source)
        if stat.S_ISSOCK(status.st_mode):
            return
        info = self._member(path, source, status)
        if info.isreg():
            with source.open("rb") as file:
                self._archive.addfile(info, file)
        else:
            self._archive.addfile(info)
        self.count += 1
        if info.isdir() and _is_opaque(source):
            self._archive.addfile(tarfile.TarInfo(f"{path}/{OPAQUE_MARK}"))

    def _member(self, path: str, source: Path, status: os.stat_result) -> tarfile.TarInfo:
        info = tarfile.TarInfo(path)
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.mtime = int(status.st_mtime)
        key = (status.st_dev, status.st_ino)
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFDIR and status.st_nlink > 1 and key in self._links:
            info.type, info.linkname = tarfile.LNKTYPE, self._links[key]
            return info
        self._links[key] = path
        if kind == stat.S_IFREG:
            info.size = status.st_size
        elif kind == stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
        elif kind == stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, str(source.readlink())
        elif kind == stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        else:
            info.type = tarfile.CHRTYPE if kind == stat.S_IFCHR else tarfile.BLKTYPE
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        info.pax_headers = xattr_headers(source)
        return info


def xattr_headers(source: Path) -> dict[str, str]:
    """Extended attributes as an archive carries them, without those that only the kernel may set."""
    names = (
        name for name in os.listxattr(source, follow_symlinks=False) if not name.startswith(_KERNELS_OWN)
    )
    return {
        f"{_XATTR_PREFIX}{name}": os.getxattr(source, name, follow_symlinks=False).decode(
            "utf-8", "surrogateescape"
        )
        for name in sorted(names)
    }


def _is_opaque(folder: Path) -> bool:
    try:
        return os.getxattr(folder, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False
