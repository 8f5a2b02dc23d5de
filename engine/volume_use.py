"""The volumes of a container while it runs: mounted before its start, given back after its end.

`acquire` is undone by `release`; both may be called again. Synchronous: a plugin may be slow.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from engine.container import Container
from engine.errors import EngineError
from engine.volumes import VolumeStore

logger = logging.getLogger(__name__)


class VolumeUse:
    def __init__(self, volumes: VolumeStore) -> None:
        self._volumes = volumes

    def is_quick(self, container: Container) -> bool:
        """Whether nothing of it can take long: no plugin, no server of files."""
        return all(not mount.name or self._volumes.is_plain(mount.name) for mount in container.mounts)

    def acquire(self, container: Container) -> None:
        """Sets where each mount's content is. What was mounted before a failure is given back."""
        try:
            for mount in container.mounts:
                if mount.kind == "volume" and mount.name:
                    mount.source = self._volumes.mount(mount.name, container.id)
        except BaseException:
            self.release(container)
            raise

    def release(self, container: Container) -> None:
        """A driver that fails is logged: the container has ended all the same."""
        for name in {mount.name for mount in container.mounts if mount.kind == "volume" and mount.name}:
            try:
                self._volumes.unmount(name, container.id)
            except (EngineError, OSError) as error:
                logger.error("volume %s of container %s is not unmounted: %s", name, container.name, error)

    def recover(self, running: Iterable[Container]) -> None:
        """After a restart of the daemon. `running`: also those that ended meanwhile, which are released later."""
        in_use: dict[str, dict[str, str]] = {}
        for container in running:
            for mount in container.mounts:
                if mount.kind == "volume" and mount.name:
                    in_use.setdefault(mount.name, {})[container.id] = mount.source
        self._volumes.recover(in_use)
