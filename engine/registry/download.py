"""Layers from a registry to this host's disk: several at once, checked while they come, gone on with after a break.

Invariant: at most `max_concurrent_downloads` of all pulls of this host load at a time; a blob is loaded once,
also when several pulls want it; what a failed or cancelled pull leaves is only the part that it has got.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import aiohttp

from engine.errors import EngineError
from engine.images.incoming import Damaged, Incoming, IncomingBlob
from engine.registry.answers import FAILURES, Refusal, Unreachable, unreachable
from engine.registry.manifests import Descriptor
from engine.registry.progress import Meter, Report, step
from engine.registry.repository import Repository
from engine.registry.slots import Slots
from engine.registry.transport import AGAIN

WRITE_BYTES = 1 << 20
DAMAGED_ATTEMPTS = 2  # the second from the very start, in case it was the part from last time that was bad
_RANGE = re.compile(r"bytes (\d+)-")


class Downloads:
    """`is_here`: the store has that blob already."""

    def __init__(self, incoming: Incoming, is_here: Callable[[str], bool], slots: Slots) -> None:
        self._incoming = incoming
        self._is_here = is_here
        self._slots = slots

    async def fetch(self, source: Repository, layer: Descriptor, report: Report) -> None:
        """The blob is complete in `incoming` afterwards."""
        if self._slots.are_taken():
            report(step("Waiting", layer.digest))
        async with self._incoming.claim(layer.digest), self._slots:
            # In this order: a whole blob may be moved to the store at any moment.
            if not (self._incoming.has(layer.digest) or self._is_here(layer.digest)):
                await self._complete(source, layer, report)
        report(step("Download complete", layer.digest))

    async def _complete(self, source: Repository, layer: Descriptor, report: Report) -> None:
        blob = await asyncio.to_thread(IncomingBlob, self._incoming.part(layer.digest), layer.digest)
        try:
            await self._fill(source, layer, blob, report)
            await asyncio.to_thread(self._incoming.complete, layer.digest)
        finally:
            blob.close()

    async def _fill(self, source: Repository, layer: Descriptor, blob: IncomingBlob, report: Report) -> None:
        connection = source.connection
        attempt = 1
        await asyncio.to_thread(blob.go_on)
        while True:
            before = blob.size
            try:
                if blob.size != layer.size or not layer.size:
                    await self._load(source, layer, blob, report)
                report(step("Verifying Checksum", layer.digest))
                await asyncio.to_thread(blob.finish)
                return
            except (Refusal, Unreachable, Damaged) as error:
                limit = DAMAGED_ATTEMPTS if isinstance(error, Damaged) else connection.attempts_max
                if not _again(error) or attempt >= limit:
                    raise
                # A registry that breaks off again and again, but gives something each time, gets us there.
                attempt = 1 if blob.size > before else attempt + 1
                await self._wait(connection.delay_s(attempt, error), layer, source, report)

    async def _wait(self, seconds: float, layer: Descriptor, source: Repository, report: Report) -> None:
        left = seconds
        while left > 0:
            shown = max(1, round(left))
            report(step(f"Retrying in {shown} second{'s' if shown > 1 else ''}", layer.digest))
            await source.connection.pause(min(1.0, left))
            left -= 1.0

    async def _load(self, source: Repository, layer: Descriptor, blob: IncomingBlob, report: Report) -> None:
        """From where the file ends; from the start where the registry cannot go on."""
        if layer.size and blob.size > layer.size:
            await asyncio.to_thread(blob.restart)
        meter = Meter(report, "Downloading", layer.digest, layer.size)
        async with source.blob(layer.digest, blob.size) as response:
            if response.status == 416:
                await asyncio.to_thread(blob.restart)
                raise Damaged(f"the registry has no more of {layer.digest}, but it is not complete")
            if blob.size and not _goes_on(response, blob.size):
                await asyncio.to_thread(blob.restart)
            meter.at(blob.size)
            async for data in _pieces(response):
                if layer.size and blob.size + len(data) > layer.size:
                    await asyncio.to_thread(blob.restart)
                    raise Damaged(f"layer {layer.digest} is larger than its manifest says")
                await asyncio.to_thread(blob.write, data)
                meter.at(blob.size)
        if layer.size and blob.size < layer.size:
            raise Unreachable(f'Get "{response.url}": unexpected EOF', again=True)


def _again(error: EngineError) -> bool:
    if isinstance(error, Refusal):
        return error.status in AGAIN
    return isinstance(error, Damaged) or (isinstance(error, Unreachable) and error.again)


def _goes_on(response: aiohttp.ClientResponse, start: int) -> bool:
    match = _RANGE.match(response.headers.get("Content-Range", ""))
    return response.status == 206 and match is not None and int(match[1]) == start


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytearray]:
    """Of at least WRITE_BYTES, but for the last. What came before a break is given, then Unreachable is raised."""
    gathered = bytearray()
    broken: BaseException | None = None
    try:
        async for chunk in response.content.iter_any():
            gathered += chunk
            if len(gathered) >= WRITE_BYTES:
                yield gathered
                gathered = bytearray()
    except FAILURES as error:
        broken = error
    if gathered:
        yield gathered
    if broken is not None:
        raise unreachable("GET", str(response.url), broken) from broken
