"""Members of an archive that nobody vouches for: read one at a time in bounded memory, and made below a folder.

Knows nothing of layers or containers: the caller opens the folder (a descriptor) and has cleared the name in it.
Sparse files stay sparse, so that a small archive cannot fill a disk with zeros.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from engine.errors import InvalidParameter

COPY_BYTES = 1 << 20
STREAM_BYTES = 1 << 16  # the library copies what is left of its buffer at every read and write
HEADER_BYTES_MAX = 1 << 20  # of a long name or of extended headers, which are read into memory
XATTR_PREFIX = "SCHILY.xattr."
_ARCHIVE_ERRORS = (  # what the kernel says when the archive is to blame, not the host
    errno.EPERM,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EINVAL,
)


class _Member(tarfile.TarInfo):
    """A header whose extensions fit into memory, and which is either valid or an error."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            # The library takes it for the end of the archive, unless it is the first one.
            raise tarfile.ReadError(f"bad header at offset {tar.offset}: {error}") from error

    def _proc_pax(self, tar: tarfile.TarFile) -> Any:
        self._check_size()
        return super()._proc_pax(tar)  # type: ignore[misc]

    def _proc_gnulong(self, tar: tarfile.TarFile) -> Any:
        self._check_size()
        return super()._proc_gnulong(tar)  # type: ignore[misc]

    def _check_size(self) -> None:
        if not 0 <= self.size <= HEADER_BYTES_MAX:
            raise tarfile.ReadError(f"an extended header of {self.size} bytes")


def members(archive: BinaryIO | IO[bytes], what: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """One after the other, none is kept. InvalidParameter calls the archive `what`."""
    try:
        with tarfile.open(fileobj=archive, mode="r|", tarinfo=_Member, bufsize=STREAM_BYTES) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                yield tar, member
    except (tarfile.TarError, EOFError, RecursionError) as error:
        raise InvalidParameter(f"{what} is not a valid tar archive: {error}") from error


@contextlib.contextmanager
def blamed(what: str, member: tarfile.TarInfo) -> Iterator[None]:
    """While a member is made: what the archive is to blame for is the archive's error, not the host's."""
    try:
        yield
    except (tarfile.TarError, EOFError, RecursionError) as error:
        raise InvalidParameter(f"{what} is not a valid tar archive: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InvalidParameter(f"{what} entry {member.name!r} cannot be made: {error}") from error
    except OSError as error:
        if error.errno not in _ARCHIVE_ERRORS:
            raise
        raise InvalidParameter(f"{what} entry {member.name!r} cannot be made: {error.strerror}") from error


def make_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    parent: int,
    name: str,
    owner: tuple[int, int] | None = None,
) -> None:
    """Anything but folders and hard links, at a name that is free. `owner`: instead of the archive's."""
    if member.isreg():
        _write_file(tar, member, parent, name)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        device = os.makedev(member.devmajor, member.devminor)
        os.mknod(name, kind | member.mode & 0o7777, device, dir_fd=parent)
    elif member.isfifo():
        os.mkfifo(name, member.mode & 0o7777, dir_fd=parent)
    else:
        raise InvalidParameter(f"archive entry {member.name!r} has an unknown type {member.type!r}")
    set_attributes(member, parent, name, owner)


def set_attributes(
    member: tarfile.TarInfo, parent: int, name: str, owner: tuple[int, int] | None = None
) -> None:
    """Owner, mode, extended attributes, and the time of anything but a folder (which changes with its entries)."""
    uid, gid = owner or (member.uid, member.gid)
    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    if not member.issym():
        os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        for key, value in member.pax_headers.items():
            if key.startswith(XATTR_PREFIX):
                _set_xattr(parent, name, key.removeprefix(XATTR_PREFIX), value)
    if not member.isdir():
        os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def _write_file(tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
    buffered: Any = tar.extractfile(member)
    assert buffered is not None, "a regular member has content"
    source: IO[bytes] = (
        buffered.raw
    )  # which can go over a hole; its buffer asks the stream for what it cannot do
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb", buffering=0) as target:
        # The type stubs know of no sparse files: [(offset, size), ...], or None.
        sparse: list[tuple[int, int]] | None = getattr(member, "sparse", None)
        for offset, size in [(0, member.size)] if sparse is None else sparse:
            source.seek(offset)
            target.seek(offset)
            _copy(source, target, size, member)
        if sparse is not None:
            target.truncate(member.size)


def _copy(source: IO[bytes], target: IO[bytes], size: int, member: tarfile.TarInfo) -> None:
    while size > 0:
        data = source.read(min(COPY_BYTES, size))
        if not data:
            raise tarfile.ReadError(f"the content of {member.name!r} ends early")
        view = memoryview(data)
        while view:
            view = view[target.write(view) :]
        size -= len(data)


def _set_xattr(parent: int, name: str, key: str, value: str) -> None:
    if key.startswith("trusted.overlay."):
        raise InvalidParameter(f"archive entry {name!r} carries {key}, which only the kernel may set")
    try:
        os.setxattr(
            f"/proc/self/fd/{parent}/{name}",
            key,
            value.encode("utf-8", "surrogateescape"),
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
