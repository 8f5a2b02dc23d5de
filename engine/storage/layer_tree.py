"""Unpacking one layer's archive into a directory, and walking such directories. Archives are not trusted.

Every path is resolved inside the target (openat2 RESOLVE_IN_ROOT), so neither `..`, absolute names nor
links planted by earlier members lead outside. Whiteouts become overlayfs' own form (`overlay`), are applied
to the tree on the spot (`apply`), or are files like any other (`none`: an archive that is no layer).
Source: OCI image specification, layer.md; kernel overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from engine.errors import InvalidParameter
from engine.runtime.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, syncfs
from engine.storage.tar_member import blamed, make_member, members, set_attributes
from engine.storage.trees import remove_tree

WHITEOUT_PREFIX = ".wh."
OPAQUE_MARK = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"
MEMBERS_MAX = 2_000_000
_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


class LayerUnpacker:
    """Writes the members of one archive below `root`.

    `lowers`: the layers below, topmost first. A folder that the archive leaves out, but has entries in, gets
    its owner and mode from there: otherwise one file in /tmp would take its sticky bit away.
    """

    def __init__(
        self, root: Path, whiteouts: Literal["overlay", "apply", "none"], lowers: Sequence[Path] = ()
    ) -> None:
        self._root = root
        self._whiteouts = whiteouts
        self._lowers = lowers
        self._root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        self._parents: dict[str, int] = {}
        self._directory_times: list[tuple[str, float]] = []
        self._written: set[str] = set()
        self.bytes_written = 0
        self.data_end = 0  # where in the archive the content of the last file ends

    def unpack(self, archive: BinaryIO) -> int:
        """All members; returns the bytes of file content. InvalidParameter names a bad member."""
        try:
            for count, (tar, member) in enumerate(members(archive, "layer")):
                if count >= MEMBERS_MAX:
                    raise InvalidParameter(f"layer has more than {MEMBERS_MAX} entries")
                with blamed("layer", member):
                    self._add(tar, member)
                if member.isreg():
                    self.data_end = member.offset_data + member.size
        finally:
            self._finish()
        return self.bytes_written

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = checked_path(member.name)
        if not path:
            return
        folder, _, name = path.rpartition("/")
        parent = self._parent(folder)
        if self._whiteouts != "none" and name == OPAQUE_MARK:
            self._make_opaque(folder, parent)
        elif self._whiteouts != "none" and name.startswith(WHITEOUT_PREFIX):
            self._white_out(folder, parent, name.removeprefix(WHITEOUT_PREFIX), member.name)
        else:
            self._written.add(path)
            self._write(tar, member, parent, name, path)

    def _write(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str, path: str
    ) -> None:
        self._clear(parent, name, path, keep_directory=member.isdir())
        if member.isdir():
            self._make_directory(parent, name)
            set_attributes(member, parent, name)
            self._directory_times.append((path, member.mtime))
            return
        if member.islnk():
            self._link(member, parent, name)
            return
        make_member(tar, member, parent, name)
        if member.isreg():
            self.bytes_written += member.size

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        folder, _, target = checked_path(member.linkname).rpartition("/")
        held = os.dup(parent)  # looking up the other folder may close cached ones
        try:
            os.link(target, name, src_dir_fd=self._parent(folder), dst_dir_fd=held, follow_symlinks=False)
        except FileNotFoundError as error:
            raise InvalidParameter(
                f"layer entry {member.name!r} links to {member.linkname!r}, which is not in the layer"
            ) from error
        finally:
            os.close(held)

    def _make_directory(self, parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            return

    def _clear(self, parent: int, name: str, path: str, *, keep_directory: bool) -> None:
        """Remove what an earlier member left at this name."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            if not keep_directory:
                self._forget_below(path)
                remove_tree(name, dir_fd=parent)
            return
        self._forget_below(path)  # a link that was followed to a folder
        os.unlink(name, dir_fd=parent)
        if keep_directory and self._whiteouts == "overlay" and is_whiteout(status):
            # Whited out and made again: what the layers below have in it must not show through.
            os.mkdir(name, 0o755, dir_fd=parent)
            os.setxattr(f"/proc/self/fd/{parent}/{name}", OPAQUE_XATTR, b"y", follow_symlinks=False)

    def _make_opaque(self, folder: str, parent: int) -> None:
        if self._whiteouts == "overlay":
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE_XATTR, b"y")
            return
        for entry in Path(f"/proc/self/fd/{parent}").iterdir():
            path = f"{folder}/{entry.name}".lstrip("/")
            if path not in self._written:  # the mark hides the layers below, not this one
                self._clear(parent, entry.name, path, keep_directory=False)

    def _white_out(self, folder: str, parent: int, name: str, member_name: str) -> None:
        if name in ("", ".", ".."):
            raise InvalidParameter(f"layer entry {member_name!r} is not a valid whiteout")
        self._clear(parent, name, f"{folder}/{name}".lstrip("/"), keep_directory=False)
        if self._whiteouts == "overlay":
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _parent(self, folder: str) -> int:
        """A descriptor of the folder inside the root; missing ones are made. Cached."""
        known = self._parents.get(folder)
        if known is not None:
            return known
        if len(self._parents) > 256:
            self._close_parents()
        descriptor = self._open_folder(folder)
        self._parents[folder] = descriptor
        return descriptor

    def _open_folder(self, folder: str) -> int:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        if not folder:
            return os.dup(self._root_fd)
        try:
            return openat2(self._root_fd, folder, flags, _RESOLVE)
        except FileNotFoundError:
            self._make_left_out(folder)
        except OSError as error:
            raise InvalidParameter(
                f"layer has entries below {folder!r}, which is not a directory: {error.strerror}"
            ) from error
        try:
            return openat2(self._root_fd, folder, flags, _RESOLVE)
        except OSError as error:
            raise InvalidParameter(f"layer folder {folder!r} cannot be opened: {error.strerror}") from error

    def _make_left_out(self, folder: str) -> None:
        above, _, name = folder.rpartition("/")
        parent = self._parent(above)
        self._make_directory(parent, name)
        for lower in self._lowers:
            status = folder_status(lower, folder)
            if status is not None:
                os.chown(name, status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False)
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)
                self._directory_times.append((folder, status.st_mtime))
                return

    def _forget_below(self, path: str) -> None:
        for folder in [f for f in self._parents if f == path or f.startswith(f"{path}/")]:
            os.close(self._parents.pop(folder))

    def _close_parents(self) -> None:
        for descriptor in self._parents.values():
            os.close(descriptor)
        self._parents.clear()

    def _finish(self) -> None:
        for path, mtime in reversed(self._directory_times):
            folder, _, name = path.rpartition("/")
            try:
                parent = openat2(
                    self._root_fd, folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, _RESOLVE
                )
            except OSError:
                continue  # a later member removed it
            with contextlib.suppress(FileNotFoundError):
                os.utime(name, (mtime, mtime), dir_fd=parent, follow_symlinks=False)
            os.close(parent)
        self._close_parents()
        os.close(self._root_fd)


def checked_path(name: str) -> str:
    """A member's path, relative and normal; "" is the root itself. InvalidParameter when it climbs out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidParameter(f"layer entry {name!r} points outside of the root file system")
    return "/".join(parts)


def is_whiteout(status: os.stat_result) -> bool:
    """Overlay's mark of something deleted: a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def folder_status(root: Path, folder: str) -> os.stat_result | None:
    """The status of a folder below `root`, links resolved inside it; None when there is no such folder."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        descriptor = openat2(root_fd, folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, _RESOLVE)
    except OSError:
        return None
    finally:
        os.close(root_fd)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """One syncfs for a whole layer: cheaper than an fsync per file, and as safe before its rename."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs(descriptor)
    finally:
        os.close(descriptor)
