"""Unpacking an archive that a user sends into a container. Neither the archive nor the container is trusted.

Every name is resolved inside the container's root while the container may be running and swapping links: the worst that a
container gets is its own files in another place of its own. Semantics of PUT /containers/{id}/archive.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from typing import IO

from engine.errors import InvalidParameter
from engine.files.inside import open_inside
from engine.runtime.syscalls import openat2
from engine.runtime.user_namespaces import Remapping
from engine.storage.tar_member import blamed, make_member, members, set_attributes
from engine.storage.trees import remove_tree

MEMBERS_MAX = 2_000_000
FOLDER_TIMES_MAX = 100_000
_OPEN = os.O_PATH | os.O_DIRECTORY
_RESOLVE_BENEATH_NO_LINKS = 0x08 | 0x04  # RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_WHAT = "archive"


class Extractor:
    """`folder`: an open folder below `root`, at `path` there. `owner`: of everything that is made, else the archive's.

    `keeps_kinds`: a folder is never replaced by something else, nor the other way round.
    """

    def __init__(
        self,
        root: int,
        folder: int,
        path: str,
        *,
        keeps_kinds: bool,
        owner: tuple[int, int] | None,
        remapping: Remapping | None = None,
    ) -> None:
        self._root = root
        self._folder = folder
        self._path = path
        self._keeps_kinds = keeps_kinds
        self._owner = owner
        self._remapping = remapping
        self._folder_times: list[tuple[str, float]] = []

    def extract(self, archive: IO[bytes]) -> None:
        """InvalidParameter names the entry that is wrong; what came before it stays, as with Docker."""
        for count, (tar, member) in enumerate(members(archive, _WHAT)):
            if count >= MEMBERS_MAX:
                raise InvalidParameter(f"archive has more than {MEMBERS_MAX} entries: send it in parts")
            with blamed(_WHAT, member):
                self._add(tar, member)
        for path, mtime in reversed(self._folder_times):
            self._set_time(path, mtime)

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._checked(member.name, member)
        above, _, name = path.rpartition("/")
        if not path:
            return
        parent = self._open_parent(above)
        try:
            self._clear(parent, name, member)
            if member.isdir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=parent)
                set_attributes(member, parent, name, self._owner_of(member.uid, member.gid))
                if len(self._folder_times) < FOLDER_TIMES_MAX:
                    self._folder_times.append((path, member.mtime))
            elif member.islnk():
                self._link(member, parent, name)
            else:
                make_member(tar, member, parent, name, self._owner_of(member.uid, member.gid))
        finally:
            os.close(parent)

    def _owner_of(self, uid: int, gid: int) -> tuple[int, int]:
        """As the host numbers the users of the container."""
        if self._owner is not None:
            uid, gid = self._owner
        known = self._remapping
        return (uid, gid) if known is None else (uid + known.uid, gid + known.gid)

    def _checked(self, name: str, member: tarfile.TarInfo) -> str:
        """Relative and normal. `..` may be in it as long as it stays inside."""
        done: list[str] = []
        for part in name.split("/"):
            if part == "..":
                if not done:
                    raise InvalidParameter(f"archive entry {member.name!r} is outside of {self._path!r}")
                done.pop()
            elif part not in ("", "."):
                done.append(part)
        return "/".join(done)

    def _clear(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """Make room, in the words of Docker where that is not allowed."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_folder = stat.S_ISDIR(status.st_mode)
        shown = f"{self._path.rstrip('/')}/{member.name}"
        if self._keeps_kinds and is_folder and not member.isdir():
            raise InvalidParameter(f'cannot overwrite directory "{shown}" with non-directory "{self._path}"')
        if self._keeps_kinds and not is_folder and member.isdir():
            raise InvalidParameter(f'cannot overwrite non-directory "{shown}" with directory "{self._path}"')
        if not is_folder:
            os.unlink(name, dir_fd=parent)
        elif not member.isdir():
            remove_tree(name, dir_fd=parent)

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        above, _, target = self._checked(member.linkname, member).rpartition("/")
        if not target:
            raise InvalidParameter(f"archive entry {member.name!r} links to {member.linkname!r}")
        source = self._open_folder(above)
        try:
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _open_parent(self, path: str) -> int:
        """The folder; what of it does not exist is made."""
        try:
            return self._open_folder(path)
        except FileNotFoundError:
            above, _, name = path.rpartition("/")
        parent = self._open_parent(above)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chown(name, *self._owner_of(0, 0), dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(parent)
        return self._open_folder(path)

    def _open_folder(self, path: str) -> int:
        """From the open folder as long as there is no link on the way; a link begins at the container's root."""
        if not path:
            return os.dup(self._folder)
        try:
            return openat2(self._folder, path, _OPEN, _RESOLVE_BENEATH_NO_LINKS)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EXDEV, errno.EAGAIN):
                raise
        return open_inside(self._root, f"{self._path}/{path}", _OPEN)

    def _set_time(self, path: str, mtime: float) -> None:
        """Folders last, for every entry in them changed their time."""
        above, _, name = path.rpartition("/")
        with contextlib.suppress(OSError):  # a later entry removed it
            parent = self._open_folder(above)
            try:
                os.utime(name, (mtime, mtime), dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
