"""The seam to volume drivers that are programs of somebody else (plugins). Synchronous: callers use threads.

Errors are engine errors; every call has a bound inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from engine.errors import NotFound


class DriverVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as its driver tells of it. `mountpoint` may be "" while nobody has it mounted."""

    name: str
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] = {}


class VolumeDriver(Protocol):
    @property
    def name(self) -> str: ...

    def scope(self) -> str:
        """local or global."""

    def create(self, name: str, options: Mapping[str, str]) -> None: ...

    def remove(self, name: str) -> None: ...

    def mount(self, name: str, user: str) -> str:
        """The path on this host. `user` names who wants it, the same at `unmount`."""

    def unmount(self, name: str, user: str) -> None: ...

    def get(self, name: str) -> DriverVolume | None:
        """None when the driver does not know it."""

    def volumes(self) -> Sequence[DriverVolume]: ...


class VolumeDrivers(Protocol):
    """All drivers but `local`."""

    def volume_driver(self, name: str, *, patient: bool = False) -> VolumeDriver:
        """NotFound for an unknown one; `patient`: one that is on its way is waited for."""

    def volume_drivers(self) -> tuple[list[VolumeDriver], list[str]]:
        """Those that answer now, and warnings about those that do not."""


class NoDrivers:
    """A host without plugins."""

    def volume_driver(self, name: str, *, patient: bool = False) -> VolumeDriver:
        raise NotFound(f'plugin "{name}" not found')

    def volume_drivers(self) -> tuple[list[VolumeDriver], list[str]]:
        return [], []
