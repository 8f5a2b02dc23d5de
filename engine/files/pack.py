"""A part of a container's files as a tar archive, written while it is read: memory does not depend on its size.

Folders are walked by descriptors and links are never followed, so that what is moved or swapped meanwhile can be missed,
but nothing else is read in its place. Only regular files are opened. As Docker: names in PAX form, whole seconds,
no user names, `security.capability` as the only extended attribute, sockets left out.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO

from engine.files.inside import open_inside, split
from engine.runtime.user_namespaces import Remapping
from engine.storage.tar_member import STREAM_BYTES, XATTR_PREFIX

DEPTH_MAX = 4096
_CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def pack_path(root: int, path: str, target: IO[bytes], remapping: Remapping | None = None) -> None:
    """`path` (absolute) with everything below it, named after its last part as Docker does."""
    folder, name = split(path)
    base = path.rstrip("/").rpartition("/")[2]
    parent = open_inside(root, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with _writer(target) as tar:
            packer = _Packer(tar, remapping)
            below = packer.add(parent, name, base)
            if below is not None:
                packer.add_below(below, f"{base}/")
    finally:
        os.close(parent)


def pack_tree(root: int, target: IO[bytes], remapping: Remapping | None = None) -> None:
    """Everything below `root`, without an entry for `root` itself."""
    with _writer(target) as tar:
        below = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        _Packer(tar, remapping).add_below(below, "")


def _writer(target: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=STREAM_BYTES)


class _Packer:
    def __init__(self, tar: tarfile.TarFile, remapping: Remapping | None) -> None:
        self._tar = tar
        self._remapping = remapping
        self._linked: dict[tuple[int, int], str] = {}  # files with several names: the one that was packed

    def add_below(self, folder: int, prefix: str) -> None:
        """What is in `folder`, which is closed here. A loop, for a tree may be deeper than our stack."""
        waiting = [(folder, prefix, _names(folder))]
        try:
            while waiting:
                here, before, names = waiting[-1]
                if not names:
                    os.close(here)
                    waiting.pop()
                    continue
                name = names.pop()
                below = self.add(here, name, before + name)
                if below is None:
                    continue
                waiting.append((below, f"{before}{name}/", _names(below)))
                if len(waiting) > DEPTH_MAX:
                    raise OSError(f"more than {DEPTH_MAX} folders inside each other at {before[:200]}...")
        finally:
            for descriptor, _, _ in waiting:
                os.close(descriptor)

    def add(self, parent: int, name: str, shown: str) -> int | None:
        """One entry; a folder's descriptor is returned. What has just gone is left out."""
        try:
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(found)
            info = self._header(found, status, shown)
            if info is None:
                return None
            if info.isreg():
                self._add_file(found, info)
                return None
            self._tar.addfile(info)
            self._forget()
            if not info.isdir():
                return None
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found)
        finally:
            os.close(found)

    def _header(self, found: int, status: os.stat_result, shown: str) -> tarfile.TarInfo | None:
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        info = tarfile.TarInfo(shown + "/" if kind == tarfile.DIRTYPE else shown)
        info.type, info.mode = kind, stat.S_IMODE(status.st_mode)
        info.uid, info.gid, info.mtime = *self._owner(status), int(status.st_mtime)
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif kind == tarfile.SYMTYPE:
            info.linkname = os.readlink("", dir_fd=found)
        elif kind == tarfile.REGTYPE:
            self._describe_file(found, status, info)
        return info

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        """As the container numbers its users; others keep the host's numbers."""
        uid, gid, known = status.st_uid, status.st_gid, self._remapping
        if known is not None:
            uid -= known.uid if 0 <= uid - known.uid < known.uids else 0
            gid -= known.gid if 0 <= gid - known.gid < known.gids else 0
        return uid, gid

    def _describe_file(self, found: int, status: os.stat_result, info: tarfile.TarInfo) -> None:
        inode = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and inode in self._linked:
            info.type, info.linkname = tarfile.LNKTYPE, self._linked[inode]
            return
        if status.st_nlink > 1:
            self._linked[inode] = info.name
        info.size = status.st_size
        try:
            value = os.getxattr(f"/proc/self/fd/{found}", _CAPABILITY)
        except OSError:
            return
        info.pax_headers = {XATTR_PREFIX + _CAPABILITY: value.decode("utf-8", "surrogateescape")}

    def _add_file(self, found: int, info: tarfile.TarInfo) -> None:
        # By the descriptor: the name may belong to something else by now.
        reader = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(reader, "rb", buffering=0) as file:
            self._tar.addfile(info, _Exactly(file, info.size))  # type: ignore[arg-type]
        self._forget()

    def _forget(self) -> None:
        """The library would keep every header."""
        self._tar.members.clear()  # type: ignore[attr-defined]


class _Exactly:
    """A file of the size that its header says, whatever its owner does to it meanwhile: cut off, or filled with zeros."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = bytearray()
        while len(data) < wanted:
            piece = self._file.read(wanted - len(data))
            if not piece:
                data += bytes(wanted - len(data))
            data += piece
        self._left -= wanted
        return bytes(data)


def _names(folder: int) -> list[str]:
    """Last one first."""
    return sorted(os.listdir(folder), reverse=True)
