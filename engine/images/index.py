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

    Of images that were made here: `parent`, the id of the one below, and `step`, the build step that made it.
    """

    blobs: list[str]
    loaded_at: float
    parent: str = ""
    step: str = ""


class Index(msgspec.Struct):
    """`names`: docker.io/library/hello:latest -> image id; `layer_bytes`: chain id -> size unpacked."""

    images: dict[str, Entry] = {}
    names: dict[str, str] = {}
    layer_bytes: dict[str, int] = {}


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
