"""Blobs on their way from a registry: one file each, named by the digest it is to have, kept for going on.

Owns the folder `images/incoming`. NAME.part is written by one download at a time (`claim`); complete, durable and
with the right digest it becomes NAME, which nobody writes to any more, and which moves to the store with its
image. Invariant: what no pull wants goes after KEPT_S, or when images are pruned.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Container
from pathlib import Path

from engine.errors import EngineFailure, InvalidParameter
from engine.images.blobs import BlobStore

KEPT_S = 24 * 3600.0
CHUNK_BYTES = 1 << 20
PART = ".part"


class Damaged(EngineFailure):
    """The content is not what was promised."""


class IncomingBlob:
    """One file that is being filled. Not for two threads at once."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest
        self.size = 0
        self._sha = hashlib.sha256()
        self._file = path.open("ab")

    def go_on(self) -> int:
        """Read what is there already; its size."""
        self._sha, self.size = hashlib.sha256(), 0
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                self._sha.update(chunk)
                self.size += len(chunk)
        return self.size

    def write(self, data: bytes | bytearray) -> None:
        self._sha.update(data)
        self._file.write(data)
        self.size += len(data)

    def restart(self) -> None:
        self._file.truncate(0)
        self._sha, self.size = hashlib.sha256(), 0

    def finish(self) -> None:
        """Durable and right; Damaged, and the file is emptied, when it is not the blob of that digest."""
        self._file.flush()
        if f"sha256:{self._sha.hexdigest()}" != self.digest:
            self.restart()
            raise Damaged(f"filesystem layer verification failed for digest {self.digest}")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Incoming:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._claims: dict[str, tuple[asyncio.Lock, int]] = {}
        self.collect(KEPT_S)

    def part(self, digest: str) -> Path:
        return self.path(digest).with_suffix(PART)

    def path(self, digest: str) -> Path:
        """Of the whole blob."""
        value = digest.removeprefix("sha256:")
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise InvalidParameter(f"invalid digest {digest!r}")
        return self._folder / value

    def has(self, digest: str) -> bool:
        """It is here as a whole, and not in the store yet."""
        return self.path(digest).exists()

    def complete(self, digest: str) -> None:
        """The part is all of it now."""
        self.part(digest).rename(self.path(digest))

    def move_to(self, blobs: BlobStore, digest: str) -> None:
        """A blob that is complete and has its digest."""
        blobs.take(self.path(digest), digest)

    @contextlib.asynccontextmanager
    async def claim(self, digest: str) -> AsyncIterator[None]:
        """Nobody else downloads that blob meanwhile, and it is not collected."""
        lock, users = self._claims.get(digest, (asyncio.Lock(), 0))
        self._claims[digest] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._claims[digest]
            if users > 1:
                self._claims[digest] = (lock, users - 1)
            else:
                del self._claims[digest]

    def collect(self, older_s: float, keep: Container[str] = ()) -> int:
        """Remove what was not written to for so long, and is neither claimed nor in `keep`; the bytes."""
        freed, limit = 0, time.time() - older_s
        for path in self._folder.iterdir():
            digest = f"sha256:{path.name.removesuffix(PART)}"
            if digest in self._claims or digest in keep:
                continue
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if found.st_mtime <= limit:
                    path.unlink()
                    freed += found.st_size
        return freed
