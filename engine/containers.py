"""The containers of this host: looking them up, and one lock for each so that verbs do not interleave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from engine.container import Container, Status
from engine.errors import InvalidParameter, NotFound
from engine.state import StateStore

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")


class Containers:
    """The set of containers, backed by the state store."""

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self._locks: dict[str, asyncio.Lock] = {}

    def all(self) -> Iterable[Container]:
        return self.state.containers.values()

    def find(self, ref: str) -> Container:
        """By full id, name (with or without a slash) or unique id prefix, in this order."""
        container = self.state.containers.get(ref) or self.state.by_name(ref.removeprefix("/"))
        if container is not None:
            return container
        matches = [c for c in self.all() if c.id.startswith(ref)] if ref else []
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        if not matches:
            raise NotFound(f"No such container: {ref}")
        return matches[0]

    def users_of_volume(self, name: str) -> list[str]:
        """Ids of the containers that need a volume; one that is being removed needs it no more. Thread-safe."""
        return [
            container.id
            for container in tuple(self.all())
            if container.state.status is not Status.REMOVING
            and any(mount.name == name for mount in container.mounts)
        ]

    def lock(self, container: Container) -> asyncio.Lock:
        """Held while a verb changes the container's state."""
        return self._locks.setdefault(container.id, asyncio.Lock())

    def save(self, container: Container) -> None:
        self.state.save(container)

    def forget(self, container: Container) -> None:
        self.state.remove(container)
        self._locks.pop(container.id, None)


def checked_name(name: str) -> str:
    """A container's name without its slash, or InvalidParameter in Docker's words."""
    plain = name.removeprefix("/")
    if not _NAME.match(plain):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain
