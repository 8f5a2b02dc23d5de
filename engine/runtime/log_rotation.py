"""The older files of one log: path.1, path.2, ... (the higher the older), packed as path.N.gz if wanted.

Packing is done by a thread, for the supervisor must not wait for it; only renaming happens under the lock. A packed
file carries in its gzip header, as the name, the inode of the file that it was: a reader that holds that one knows it
again. Invariants: a rotated file is there in one form or the other at any moment; what a packing that was cut off (by a
crash, or when other code goes on) left is packed with the next rotation.
"""

# Plain strings: Path objects cost too much in the supervisor.
# ruff: noqa: PTH105, PTH108, PTH116

from __future__ import annotations

import contextlib
import os
import struct
import threading

PACKED = ".gz"
_TEMPORARY = ".packing"
_CHUNK_BYTES = 256 * 1024
_LEVEL = 1
_HEADER = struct.Struct("<BBBBIBB")  # magic, method, flags, time, extra flags, system
_HAS_NAME, _UNIX = 8, 3


class Rotation:
    """Of the files beside `path`; `max_file` counts `path` as well. `shift` is called by one thread only."""

    __slots__ = ("_compress", "_lock", "_max_file", "_packer", "_path")

    def __init__(self, path: str, max_file: int, *, compress: bool) -> None:
        self._path = path
        self._max_file = max_file
        self._compress = compress
        self._lock = threading.Lock()
        self._packer: threading.Thread | None = None

    def shift(self) -> None:
        """`path` becomes path.1 and so on; the oldest goes. OSError leaves what was not moved yet."""
        with self._lock:
            last = self._count()
            if last == self._max_file - 1:
                for form in ("", PACKED):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{self._path}.{last}{form}")
                last -= 1
            for number in range(last + 1, 0, -1):
                newer = f"{self._path}.{number - 1}" if number > 1 else self._path
                for form in ("", PACKED) if number > 1 else ("",):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(newer + form, f"{self._path}.{number}{form}")
        if self._compress:
            self._start_packing()

    def _count(self) -> int:
        """How many there are; their numbers have no gap."""
        for number in range(1, self._max_file):
            name = f"{self._path}.{number}"
            if not os.path.lexists(name) and not os.path.lexists(name + PACKED):
                return number - 1
        return self._max_file - 1

    def _start_packing(self) -> None:
        if self._packer is None or not self._packer.is_alive():
            self._packer = threading.Thread(target=self._pack_all, name="log packer", daemon=True)
            self._packer.start()

    def wait(self) -> None:
        """Until nothing is being packed."""
        if self._packer is not None:
            self._packer.join()

    def _pack_all(self) -> None:
        failed: set[int] = set()
        while (found := self._unpacked(failed)) is not None:
            descriptor, inode = found
            try:
                self._pack(descriptor, inode)
            except OSError:
                failed.add(inode)  # a full disk, most likely: the plain file stays, and is tried again later
            finally:
                os.close(descriptor)

    def _unpacked(self, failed: set[int]) -> tuple[int, int] | None:
        """The oldest rotated file that is not packed: (a descriptor, its inode)."""
        with self._lock:
            for number in range(self._count(), 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    descriptor = os.open(f"{self._path}.{number}", os.O_RDONLY | os.O_CLOEXEC)
                    inode = os.fstat(descriptor).st_ino
                    if inode not in failed:
                        return descriptor, inode
                    os.close(descriptor)
        return None

    def _pack(self, descriptor: int, inode: int) -> None:
        temporary = self._path + _TEMPORARY
        try:
            written = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            try:
                pack(descriptor, written, str(inode))
            finally:
                os.close(written)
            status = os.fstat(descriptor)
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
            with self._lock:
                plain = self._name_of(inode)
                if plain is not None:
                    os.replace(temporary, plain + PACKED)
                    os.unlink(plain)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _name_of(self, inode: int) -> str | None:
        for number in range(1, self._max_file):
            with contextlib.suppress(FileNotFoundError):
                name = f"{self._path}.{number}"
                if os.stat(name).st_ino == inode:
                    return name
        return None


def pack(source: int, target: int, name: str) -> None:
    """A gzip file of `source`, whose header tells `name`."""
    import zlib

    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    checksum = size = 0
    _write(target, _HEADER.pack(0x1F, 0x8B, 8, _HAS_NAME, 0, 0, _UNIX) + name.encode() + b"\0")
    while chunk := os.read(source, _CHUNK_BYTES):
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
        _write(target, packer.compress(chunk))
    _write(target, packer.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))


def packed_name(head: bytes) -> str:
    """What `pack` put into the header; "" when it is somebody else's file."""
    if len(head) < _HEADER.size or head[:2] != b"\x1f\x8b" or head[3] != _HAS_NAME:
        return ""
    return head[_HEADER.size :].split(b"\0", 1)[0].decode("ascii", "replace")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
