"""RUN: a container over the image so far, its output, its exit code. It obeys the build's limits and network.

Invariant: a container that was made here is gone when the build is cancelled; otherwise as the caller asked.
"""

from __future__ import annotations

import asyncio
import codecs
import secrets
from collections.abc import Awaitable, Callable, Sequence

from engine.attach import AttachSession
from engine.building.journal import Journal
from engine.completion import carried
from engine.config import ContainerCreate, HealthConfig, HostConfig
from engine.container import Container
from engine.containers import Containers
from engine.creation import Creation
from engine.errors import NotFound
from engine.images.config import Image
from engine.lifecycle import Lifecycle

Say = Callable[[str], Awaitable[None]]


class CommandRunner:
    def __init__(self, containers: Containers, creation: Creation, lifecycle: Lifecycle) -> None:
        self._containers = containers
        self._creation = creation
        self._lifecycle = lifecycle

    async def create(
        self,
        journal: Journal,
        image: Image,
        command: Sequence[str],
        environment: Sequence[str],
        host: HostConfig,
    ) -> Container:
        name = f"build_{secrets.token_hex(8)}"
        journal.note(name)
        body = ContainerCreate(
            image=image.id,
            entrypoint=[""],
            cmd=list(command),
            env=list(environment),
            healthcheck=HealthConfig(test=["NONE"]),
            host_config=host,
        )
        try:
            container_id, _ = await carried(self._creation.create(name, body))
        except asyncio.CancelledError:
            await self.remove_left(name)
            raise
        return self._containers.find(container_id)

    async def run(self, container: Container, say: Say) -> int:
        """Starts it, passes its output on, and returns its exit code."""
        session = await self._lifecycle.attach(container, stdin=False, streams=frozenset((1, 2)))
        try:
            ended = self._lifecycle.wait(container, "next-exit")
            await carried(self._lifecycle.start(container))
            await _pass_on(session, say)
            return (await ended).exit_code
        finally:
            await session.close()

    async def remove(self, container: Container) -> None:
        """With its anonymous volumes; nothing happens when it is gone."""
        try:
            await self._lifecycle.remove(container, force=True, volumes=True)
        except NotFound:
            return

    async def remove_left(self, name: str) -> None:
        """Of a build that was cut off: the container may exist or not."""
        try:
            container = self._containers.find(name)
        except NotFound:
            return
        await self.remove(container)


async def _pass_on(session: AttachSession, say: Say) -> None:
    """Bytes may be cut anywhere, also inside a character."""
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}
    while (item := await session.read()) is not None:
        stream, data = item
        if text := decoders[stream].decode(data):
            await say(text)
