"""Volumes for the API: the synchronous volume store behind asynchronous verbs, with their events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.config import VolumeCreate
from engine.events import EventBus
from engine.volumes import VolumeStore


class VolumeService:
    """What can be slow (deleting files, counting bytes) runs in a thread."""

    def __init__(self, store: VolumeStore, events: EventBus) -> None:
        self._store = store
        self._events = events

    async def summaries(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        return self._store.summaries(filters)

    async def create(self, request: VolumeCreate) -> dict[str, Any]:
        created = self._store.create(request)
        self._events.publish("volume", "create", str(created["Name"]), {"driver": str(created["Driver"])})
        return created

    async def inspect(self, name: str) -> dict[str, Any]:
        return self._store.inspect(name)

    async def remove(self, name: str, *, force: bool) -> None:
        await asyncio.to_thread(self._store.remove, name, force=force)
        self._events.publish("volume", "destroy", name, {"driver": "local"})

    async def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        return await asyncio.to_thread(self._store.prune, filters)
