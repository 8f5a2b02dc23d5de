"""Volumes for the API: the synchronous volume store behind asynchronous verbs, with their events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.config import VolumeCreate
from engine.events import EventBus
from engine.volumes import VolumeStore


class VolumeService:
    """What can be slow (deleting files, counting bytes, a plugin) runs in a thread."""

    def __init__(self, store: VolumeStore, events: EventBus, users: Callable[[str], Sequence[str]]) -> None:
        """`users`: the containers that have a volume."""
        self._store = store
        self._events = events
        self._users = users
        self._loop = asyncio.get_running_loop()
        store.changed = self._changed

    async def summaries(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        return await asyncio.to_thread(self._store.summaries, filters)

    async def create(self, request: VolumeCreate) -> dict[str, Any]:
        return await asyncio.to_thread(self._store.create, request)

    async def inspect(self, name: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._store.inspect, name)

    async def remove(self, name: str, *, force: bool) -> None:
        await asyncio.to_thread(self._store.remove, name, force=force)

    async def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        pruned = await asyncio.to_thread(self._store.prune, filters)
        self._events.publish("volume", "prune", "", {"reclaimed": str(pruned["SpaceReclaimed"])})
        return pruned

    async def usage(self) -> list[dict[str, Any]]:
        """Every volume with its UsageData: bytes (-1: not countable), containers that have it."""
        return await asyncio.to_thread(self._usage)

    def _changed(self, action: str, name: str, driver: str) -> None:
        """The store's word, in its thread: volumes also come and go with containers."""
        with contextlib.suppress(RuntimeError):  # the daemon ends
            self._loop.call_soon_threadsafe(self._events.publish, "volume", action, name, {"driver": driver})

    def _usage(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._store.summaries({})["Volumes"]
        for row in rows:
            row["UsageData"] = {
                "Size": self._store.size_of(row["Name"]),
                "RefCount": len(self._users(row["Name"])),
            }
        return rows
