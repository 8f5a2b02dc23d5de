"""What comes with a container's start and end: its networks are connected, its volumes mounted, and the other way round.

Docker tells of them apart: before `start`, and after `die`. Nothing is done here; the bus asks what else to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.container import Container
from engine.networks import NetworkProvider

Told = tuple[str, str, str, dict[str, str]]  # kind, action, id, attributes


class AttachmentEvents:
    """Remembers who is attached to what: at the end of a container its sandbox may be gone already."""

    def __init__(self, find: Callable[[str], Container], provider: NetworkProvider) -> None:
        self._find = find
        self._provider = provider
        self._networks: dict[str, list[tuple[str, dict[str, str]]]] = {}

    def before(self, kind: str, action: str, actor_id: str) -> Sequence[Told]:
        if (kind, action) != ("container", "start"):
            return ()
        container = self._find(actor_id)
        connected = self._networks[actor_id] = self._connected(container)
        mounted = [
            (name, {**attributes, "destination": target, "propagation": propagation, "read/write": writable})
            for name, attributes, target, propagation, writable in _volumes(container)
        ]
        networks: list[Told] = [
            ("network", "connect", network, attributes) for network, attributes in connected
        ]
        return [*networks, *(("volume", "mount", name, attributes) for name, attributes in mounted)]

    def after(self, kind: str, action: str, actor_id: str) -> Sequence[Told]:
        if (kind, action) != ("container", "die"):
            return ()
        container = self._find(actor_id)
        connected = self._networks.pop(actor_id, None) or self._connected(container)
        networks: list[Told] = [
            ("network", "disconnect", network, attributes) for network, attributes in connected
        ]
        return [
            *networks,
            *(("volume", "unmount", name, attributes) for name, attributes, *_ in _volumes(container)),
        ]

    def _connected(self, container: Container) -> list[tuple[str, dict[str, str]]]:
        sandbox = self._provider.sandbox(container.id)
        types = {network.id: network.spec.driver for network in self._provider.networks()}
        return [
            (
                endpoint.network,
                {
                    "container": container.id,
                    "name": endpoint.network_name,
                    "type": types.get(endpoint.network, "bridge"),
                },
            )
            for endpoint in (sandbox.endpoints if sandbox is not None else ())
        ]


def _volumes(container: Container) -> list[tuple[str, dict[str, str], str, str, str]]:
    """(name, attributes, target, propagation, writable) of each."""
    return [
        (
            mount.name,
            {"container": container.id, "driver": mount.driver},
            mount.target,
            mount.propagation,
            str(not mount.read_only).lower(),
        )
        for mount in container.mounts
        if mount.kind == "volume" and mount.name
    ]
