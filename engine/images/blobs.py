"""Content-addressed files: a blob's name is the SHA-256 of its bytes, checked before it gets that name."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from engine.errors import InvalidParameter, NotFound

CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BlobStore:
    def __init__(self, root: Path) -> None:
        self._folder = root / "sha256"
        self._tmp = root / "tmp"
        self._folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._tmp.mkdir(mode=0o710, exist_ok=True)
        for leftover in self._tmp.iterdir():
            leftover.unlink()

    def add(self, source: IO[bytes], expected: str = "") -> tuple[str, int]:
        """Store what `source` gives; (digest, bytes). InvalidParameter when it is not `expected`."""
        path = self._tmp / secrets.token_hex(8)
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("xb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            name = f"sha256:{digest.hexdigest()}"
            if expected and name != expected:
                raise InvalidParameter(
                    f"content has digest {name}, but {expected} was announced: the archive is damaged"
                )
            path.rename(self._path(name))
            self._sync()
        finally:
            path.unlink(missing_ok=True)
        return name, size

    def take(self, path: Path, digest: str) -> None:
        """A file of this file system whose content has that digest, durable already, becomes a blob."""
        path.rename(self._path(digest))
        self._sync()

    def open(self, digest: str) -> BinaryIO:
        try:
            return self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"content {digest} is not here: load the image again") from error

    def read(self, digest: str) -> bytes:
        with self.open(digest) as file:
            return file.read()

    def size(self, digest: str) -> int:
        return self._path(digest).stat().st_size

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def remove(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def all(self) -> set[str]:
        return {f"sha256:{path.name}" for path in self._folder.iterdir()}

    def diff_id(self, digest: str) -> str:
        """The digest of a layer blob's uncompressed content. InvalidParameter when it cannot be read."""
        with self.open(digest) as file:
            return UncompressedReader(file).finish()

    def _sync(self) -> None:
        """The new name itself must survive a power cut, too."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise InvalidParameter(f"invalid digest {digest!r}")
        return self._folder / value


class WatchedFile:
    """A file that tells how much of it has been read."""

    def __init__(self, file: BinaryIO, told: Callable[[int], None]) -> None:
        self._file = file
        self._told = told

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._told(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class UncompressedReader:
    """A layer's tar stream out of its blob (gzip, zstd or plain), hashed while it is read."""

    def __init__(self, blob: BinaryIO) -> None:
        magic = blob.read(4)
        blob.seek(0)
        self._source = _uncompressed(blob, magic)
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        damages: tuple[type[BaseException], ...] = (gzip.BadGzipFile, EOFError, zlib.error, *_zstd_errors())
        try:
            data = self._source.read(size)
        except damages as error:
            raise InvalidParameter(f"layer cannot be uncompressed: {error}") from error
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """Read to the end; the digest of the whole uncompressed stream (the diff id)."""
        while self.read(CHUNK_BYTES):
            pass
        return f"sha256:{self._digest.hexdigest()}"


def compression_of(magic: bytes) -> str:
    """gzip, zstd or "" from the first four bytes of a blob."""
    if magic[:2] == _GZIP_MAGIC:
        return "gzip"
    return "zstd" if magic == _ZSTD_MAGIC else ""


def _uncompressed(blob: BinaryIO, magic: bytes) -> IO[bytes]:
    kind = compression_of(magic)
    if kind == "gzip":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=blob))
    if kind == "zstd":
        import zstandard  # few images need it

        reader = zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True)
        return cast("IO[bytes]", reader)
    return blob


def _zstd_errors() -> tuple[type[BaseException], ...]:
    """Nothing can fail in a library that is not loaded."""
    module = sys.modules.get("zstandard")
    return (module.ZstdError,) if module is not None else ()
