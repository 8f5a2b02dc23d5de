"""`commit`: what a container wrote, and how it is configured, as a new image.

Invariant: a container that was paused for it runs again afterwards, also when the commit failed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from engine.build_config import CommitOptions
from engine.building.images import describe_step
from engine.building.metadata import apply_changes
from engine.building.roots import Roots
from engine.completion import to_its_end
from engine.config import ContainerConfig
from engine.container import Container, Status
from engine.containers import Containers
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.events import EventBus
from engine.images.config import Image
from engine.images.made import add_child
from engine.images.reference import Reference, parse_reference
from engine.imaging import Imaging
from engine.lifecycle import Lifecycle

_FIELDS = (
    "Env",
    "Cmd",
    "Entrypoint",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "WorkingDir",
    "User",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)
_MERGED = ("Labels", "ExposedPorts", "Volumes")


class Commits:
    def __init__(
        self, imaging: Imaging, roots: Roots, containers: Containers, lifecycle: Lifecycle, events: EventBus
    ) -> None:
        self._imaging = imaging
        self._store = imaging.store
        self._roots = roots
        self._containers = containers
        self._lifecycle = lifecycle
        self._events = events

    async def commit(self, ref: str, options: CommitOptions) -> str:
        """The id of the new image. What is wrong with the request is said before anything is paused."""
        container = self._containers.find(ref)
        name = _target(options)
        config = image_config(container.config)
        if options.config is not None:
            config = merged(config, image_config(options.config))
        config = apply_changes(config, options.changes)
        parent = self._parent(container)
        describe = describe_step(
            parent, config, " ".join(container.process_args), author=options.author, comment=options.comment
        )

        def work() -> Image:
            with self._roots.written_by(container.id) as layer:
                return add_child(self._store, parent, describe, layer)

        async with self._at_rest(container, pauses=options.pause):
            image = await to_its_end(work)
        if name is not None:
            await self._imaging.tag(image.id, name.familiar_name, name.tag)
        attributes = {
            "comment": options.comment,
            "imageID": image.id,
            "imageRef": name.familiar if name else "",
        }
        self._events.publish(
            "container", "commit", container.id, {**container.event_attributes(), **attributes}
        )
        return image.id

    def _parent(self, container: Container) -> Image:
        if container.state.status in (Status.REMOVING, Status.DEAD):
            raise Conflict(
                f"You cannot commit container {container.id} which is {container.state.status.capitalize()}"
            )
        try:
            return self._store.resolve(container.image_id)
        except NotFound as error:
            raise Conflict(
                f"cannot commit container {container.name}: its image {container.image} was removed by force; "
                "load or pull that image again first"
            ) from error

    @contextlib.asynccontextmanager
    async def _at_rest(self, container: Container, *, pauses: bool) -> AsyncIterator[None]:
        if not pauses or container.state.status is not Status.RUNNING:
            yield
            return
        await self._lifecycle.pause(container)
        try:
            yield
        finally:
            with contextlib.suppress(Conflict):  # somebody else woke it, or it was killed
                await asyncio.shield(self._lifecycle.unpause(container))


def _target(options: CommitOptions) -> Reference | None:
    if not options.repo:
        if options.tag:
            raise InvalidParameter("a tag needs a repository: name both")
        return None
    name = parse_reference(f"{options.repo}:{options.tag}" if options.tag else options.repo)
    if name.digest:
        raise InvalidParameter("refusing to create a tag with a digest reference")
    return name


def image_config(config: ContainerConfig) -> dict[str, Any]:
    """Those fields of a container's configuration that an image carries, without the empty ones."""
    fields = msgspec.to_builtins(config)
    return {name: fields[name] for name in _FIELDS if fields.get(name)}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` wins; variables, labels, ports and volumes are joined."""
    result = {**below, **above}
    for name in _MERGED:
        if below.get(name) and above.get(name):
            result[name] = {**below[name], **above[name]}
    if below.get("Env") and above.get("Env"):
        entries = {entry.partition("=")[0]: entry for entry in (*below["Env"], *above["Env"])}
        result["Env"] = list(entries.values())
    return result
