"""Archives that a build is given: telling what they are by their first bytes, and unpacking them safely."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from engine.errors import InvalidParameter
from engine.storage.layer_tree import LayerUnpacker

_COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_BLOCK_BYTES = 512
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def uncompressed(file: IO[bytes]) -> BinaryIO:
    """A reader of the plain content: gzip, bzip2 and xz are taken off."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(_ZSTD_MAGIC):
        raise InvalidParameter(
            "archives compressed with zstd are not supported here: use gzip, bzip2, xz or none"
        )
    opened = next((opener for prefix, opener in _COMPRESSIONS.items() if magic.startswith(prefix)), None)
    return cast("BinaryIO", opened(file, "rb") if opened else file)


def is_archive(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=uncompressed(file), mode="r|") as archive:
            archive.next()
    except (*DAMAGED, OSError, InvalidParameter):
        return False
    return True


class _Completed:
    """A reader that completes the last block: Docker's client ends its archives right after the last file."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._padding: bytes | None = None
        self.length = 0

    def read(self, size: int) -> bytes:
        if self._padding is None:
            data = self._source.read(size)
            self.length += len(data)
            if data:
                return data
            self._padding = bytes(-self.length % _BLOCK_BYTES + 2 * _BLOCK_BYTES)
        data, self._padding = self._padding[:size], self._padding[size:]
        return data


def unpack(file: IO[bytes], target: Path, what: str) -> None:
    """Everything in the archive below `target`, nothing outside. InvalidParameter speaks of `what`."""
    try:
        source = _Completed(uncompressed(file))
        unpacker = LayerUnpacker(target, "none")
        unpacker.unpack(cast("BinaryIO", source))
        if unpacker.data_end > source.length:
            raise InvalidParameter("it was cut off")
    except (InvalidParameter, *DAMAGED) as error:
        raise InvalidParameter(f"{what} cannot be unpacked: {error}") from error
