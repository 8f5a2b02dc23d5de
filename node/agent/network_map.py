"""The node's network map on its way into the kernel.

Owns which version is programmed. Maps that arrive while one is being programmed replace each other: only
the newest counts. Invariant: `version` is only ever that of a map that was programmed without an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from node.loop import Backoff, Clock
from overlay_net import records
from raft.objects.assignment import NetworkMap

log = logging.getLogger(__name__)


class Networks(Protocol):
    """The data plane of this host."""

    async def apply_map(self, map: records.NetworkMap) -> None: ...


class MapProgrammer:
    """`run` programs what `offer` brings; acknowledged: called with every version that was programmed."""

    def __init__(self, networks: Networks, acknowledged: Callable[[int], None], clock: Clock) -> None:
        self._networks = networks
        self._acknowledged = acknowledged
        self._clock = clock
        self._wanted: NetworkMap | None = None
        self._offered = asyncio.Event()
        self._programmed = asyncio.Condition()
        self.version = 0

    @property
    def wanted_version(self) -> int:
        return self._wanted.version if self._wanted is not None else 0

    def offer(self, network_map: NetworkMap) -> None:
        self._wanted = network_map
        self._offered.set()

    async def wait_for(self, version: int) -> None:
        """Until that version or a newer one is programmed."""
        async with self._programmed:
            await self._programmed.wait_for(lambda: self.version >= version)

    async def run(self) -> None:
        backoff = Backoff(first=0.2, most=8.0)
        while True:
            await self._offered.wait()
            self._offered.clear()
            wanted = self._wanted
            assert wanted is not None, "an offer sets it"
            try:
                await self._networks.apply_map(
                    msgspec.convert(wanted, records.NetworkMap, from_attributes=True)
                )
            except Exception as error:  # noqa: BLE001 - a refusal by the kernel must not end the networking
                log.warning("network map %d cannot be programmed, trying again: %s", wanted.version, error)
                await self._clock.wait(self._offered, backoff.next())
                self._offered.set()
                continue
            backoff.reset()
            async with self._programmed:
                self.version = wanted.version
                self._programmed.notify_all()
            self._acknowledged(wanted.version)
