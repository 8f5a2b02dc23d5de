"""A plugin as a driver of volumes: VolumeDriver.* of the plugin protocol.

Source: docs.docker.com/engine/extend/plugins_volume. The plugin counts its mounts itself; every container that uses a
volume is one Mount with an ID of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import EngineFailure
from engine.plugins.client import LONG_S, SHORT_S, PluginClient, PluginError
from engine.volume_drivers import DriverVolume

NOT_FOUND_WORDS = ("no such volume", "not found", "doesn't exist", "does not exist", "no volume")


class PluginVolumeDriver:
    """Implements engine.volume_drivers.VolumeDriver."""

    def __init__(self, client: PluginClient, scoped: Callable[[str], str] = str) -> None:
        """`scoped`: where this host finds a path that the plugin names."""
        self._client = client
        self._scoped = scoped
        self._scope = ""

    @property
    def name(self) -> str:
        return self._client.name

    def scope(self) -> str:
        """A plugin that cannot tell is local, as Docker has it."""
        if not self._scope:
            try:
                told = self._client.call("VolumeDriver.Capabilities", timeout_s=SHORT_S)
                wish = (told.get("Capabilities") or {}).get("Scope")
            except PluginError:
                wish = ""
            self._scope = wish.lower() if isinstance(wish, str) and wish.lower() == "global" else "local"
        return self._scope

    def create(self, name: str, options: Mapping[str, str]) -> None:
        self._client.call("VolumeDriver.Create", {"Name": name, "Opts": dict(options)}, timeout_s=LONG_S)

    def remove(self, name: str) -> None:
        self._client.call("VolumeDriver.Remove", {"Name": name}, timeout_s=SHORT_S)

    def mount(self, name: str, user: str) -> str:
        told = self._client.call("VolumeDriver.Mount", {"Name": name, "ID": user}, timeout_s=LONG_S)
        path = told.get("Mountpoint")
        if not isinstance(path, str) or not path.startswith("/"):
            raise EngineFailure(f'VolumeDriver.Mount: plugin "{self.name}" names no absolute path: {path!r}')
        return self._scoped(path)

    def unmount(self, name: str, user: str) -> None:
        self._client.call("VolumeDriver.Unmount", {"Name": name, "ID": user}, timeout_s=LONG_S)

    def get(self, name: str) -> DriverVolume | None:
        try:
            told = self._client.call("VolumeDriver.Get", {"Name": name}, timeout_s=SHORT_S)
        except PluginError as error:
            if error.status == 404 or any(words in str(error).lower() for words in NOT_FOUND_WORDS):
                return None
            raise
        volume = told.get("Volume")
        return self._volume(volume) if isinstance(volume, dict) and volume.get("Name") == name else None

    def volumes(self) -> Sequence[DriverVolume]:
        told = self._client.call("VolumeDriver.List", timeout_s=SHORT_S)
        return [self._volume(volume) for volume in told.get("Volumes") or () if volume.get("Name")]

    def _volume(self, told: Mapping[str, Any]) -> DriverVolume:
        status, path = told.get("Status"), str(told.get("Mountpoint") or "")
        return DriverVolume(
            name=str(told["Name"]),
            mountpoint=self._scoped(path) if path else "",
            created_at=str(told.get("CreatedAt") or ""),
            status=status if isinstance(status, dict) else {},
        )
