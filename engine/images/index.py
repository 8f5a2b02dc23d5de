"""The table of images and their names on disk: one small file, replaced as a whole and durably.

Invariant: what `write` returned from is what the next `read` gives, also after a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.errors import EngineFailure


class Entry(msgspec.Struct):
    """`blobs`: digests of the layers as they came, lowest first; `loaded_at` in Unix seconds.

    `manifest`: the one that a registry gave for exactly these blobs, itself a blob; "" for other images.
    """

    blobs: list[str]
    loaded_at: float
    manifest: str = ""


class Packed(msgspec.Struct):
    """A layer as it was compressed for a registry."""

    digest: str
    size: int


class Index(msgspec.Struct):
    """`names`: docker.io/library/hello:latest -> image id; `layer_bytes`: chain id -> size unpacked.

    `digests`: docker.io/library/hello@sha256:... -> image id; `packed`: digest of a plain layer blob -> what it
    becomes when it is pushed.
    """

    images: dict[str, Entry] = {}
    names: dict[str, str] = {}
    layer_bytes: dict[str, int] = {}
    digests: dict[str, str] = {}
    packed: dict[str, Packed] = {}


class IndexFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Index:
        """An empty one when there is no file. EngineFailure when it is damaged."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Index)
        except FileNotFoundError:
            return Index()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineFailure(
                f"{self._path} is damaged ({error}): move it away, start again and load the images anew"
            ) from error

    def write(self, index: Index) -> None:
        temporary = self._path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(index))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
