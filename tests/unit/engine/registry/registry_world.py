"""A store over a driver in memory, and the service on it, with pauses that only count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from engine.events import EventBus
from engine.images.store import ImageStore
from engine.registry.access import RegistryAccess
from engine.registry.service import RegistryService
from engine.registry.settings import RegistrySettings
from tests.memory_driver import MemoryDriver


class World:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.driver = MemoryDriver()
        self.store = ImageStore(folder / "images", self.driver)
        self.pauses: list[float] = []
        (folder / "tmp").mkdir(exist_ok=True)
        chosen = RegistrySettings(certs_dir=folder / "certs", **settings)
        access = RegistryAccess(lambda: chosen, self._pause)
        self.service = RegistryService(lambda: chosen, self.store, EventBus(), folder / "tmp", access)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def pull(self, ref: str, auth: str = "", **options: Any) -> list[dict[str, Any]]:
        return await collected(self.service.pull(ref, auth, **options))

    async def push(self, repository: str, tag: str, auth: str = "") -> list[dict[str, Any]]:
        return await collected(self.service.push(repository, tag, auth))

    def incoming(self) -> dict[str, int]:
        """Digest -> bytes of what is not complete, or not taken."""
        folder = self.folder / "images/incoming"
        return {f"sha256:{path.name.removesuffix('.part')}": path.stat().st_size for path in folder.iterdir()}

    def blobs(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.folder / "images/sha256").iterdir()}


async def collected(messages: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message async for message in messages]


def words(messages: list[dict[str, Any]]) -> list[str]:
    """What is said of each layer and of the whole, without the bars."""
    return [
        f"{message.get('id', '')}: {message['status']}".removeprefix(": ")
        for message in messages
        if "status" in message and "progress" not in message
    ]
