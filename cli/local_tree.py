"""Local files to a tar stream and back, for `cp`. What comes from a container is not trusted.

Invariant of unpacking: nothing is written outside of the folder, whatever the names and links in the archive say; links
are made as they are and never followed. As docker: nothing is given to another owner here.
"""

# Path objects lose the "/" and "/." at the end, which say what is meant.

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

from cli.errors import CliError, UsageError

_BLOCK = 1 << 16


class Blocks(io.RawIOBase):
    """A readable file of blocks that come one after the other; `count` bytes were read of it."""

    def __init__(self, blocks: Iterable[bytes], seen: Callable[[int], object] = lambda count: None) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")
        self._seen = seen
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
            self.count += len(block)
            self._seen(self.count)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def pack(path: str, base: str, rename: Callable[[str], str], target: IO[bytes], *, follow: bool) -> None:
    """`path` with all below it; `base` is its name, `rename` gives each member's. `follow`: `path` itself may be a link."""
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_BLOCK) as tar:
        for local, name in _walk(path, base, follow=follow):
            shown = rename(name)
            tar.dereference = follow and local == path
            info = tar.gettarinfo(local, arcname=shown or ".")
            if info is None:  # a socket
                continue
            info.uname = info.gname = ""
            if info.isreg():
                with open(local, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
            cast("Any", tar).members.clear()  # the library would keep every header


def _walk(path: str, base: str, *, follow: bool) -> Iterator[tuple[str, str]]:
    yield path, base
    if os.path.isdir(path) and (follow or not os.path.islink(path.rstrip("/"))):
        for folder, folders, files in os.walk(path):
            folders.sort()
            inside = os.path.relpath(folder, path)
            for name in sorted(files + folders):
                yield (
                    f"{folder}/{name}",
                    os.path.normpath(f"{base}/{inside}/{name}")
                    if base != "."
                    else (os.path.normpath(f"{inside}/{name}")),
                )


def unpack(source: IO[bytes], folder: str, rename: Callable[[str], str]) -> None:
    """Below `folder`, which exists. `rename` gives each member's place; "" is the folder itself."""
    try:
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f'invalid output path: directory "{folder}" does not exist') from error
    try:
        with tarfile.open(fileobj=source, mode="r|", bufsize=_BLOCK) as tar:
            _Unpacker(top, rename).unpack(tar)
    except tarfile.TarError as error:
        raise CliError(f"the daemon's archive is damaged: {error}") from error
    except OSError as error:
        raise CliError(f"cannot write below {folder}: {error.strerror or error}") from error
    finally:
        os.close(top)


class _Unpacker:
    def __init__(self, top: int, rename: Callable[[str], str]) -> None:
        self._top = top
        self._rename = rename
        self._times: list[tuple[str, tarfile.TarInfo]] = []

    def unpack(self, tar: tarfile.TarFile) -> None:
        while (member := tar.next()) is not None:
            cast("Any", tar).members.clear()
            path = self._rename(member.name)
            if path in ("", "."):
                continue
            with self._parent(path) as (parent, name):
                self._make(tar, member, parent, name)
            if member.isdir():
                self._times.append((path, member))
        for path, member in reversed(self._times):
            with contextlib.suppress(OSError), self._parent(path) as (parent, name):
                os.chmod(name, member.mode & 0o7777, dir_fd=parent)
                os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The folder to make something in, and its name there; a link on the way is refused."""
        *above, name = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in (*above, name):
            raise CliError(f"the daemon's archive has an entry outside of its folder: {path}")
        here = os.dup(self._top)
        try:
            for part in above:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.close(here)
                here = below
            yield here, name
        finally:
            os.close(here)

    def _make(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        self._clear(member, parent, name)
        if member.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            return  # its mode comes last: it may forbid to write into it
        if member.islnk():
            with self._parent(self._rename(member.linkname)) as (other, target):
                os.link(target, name, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isreg():
            self._write(tar, member, parent, name)
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        else:
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        if not member.issym():
            os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        content = tar.extractfile(member)
        assert content is not None, "a regular member has content"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as target:
            shutil.copyfileobj(content, target, _BLOCK)

    def _clear(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder and not member.isdir():
            raise CliError(f'cannot overwrite directory "{name}" with non-directory "{member.name}"')
        if not is_folder and member.isdir():
            raise CliError(f'cannot overwrite non-directory "{name}" with directory "{member.name}"')
        if not is_folder:
            os.unlink(name, dir_fd=parent)
