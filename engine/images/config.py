"""The configuration inside an image: what it runs, and from which layers. Strict where we rely on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.config import HealthConfig
from engine.errors import InvalidParameter


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part that containers inherit."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None


class Image(msgspec.Struct, kw_only=True):
    """One image of this host. `raw` is its configuration as JSON objects, `blobs` its layers' digests."""

    id: str
    raw: dict[str, Any]
    config: ImageConfig
    diff_ids: tuple[str, ...]
    blobs: tuple[str, ...]
    size: int
    loaded_at: float
    parent: str = ""  # the image that it was made from here
    step: str = ""  # see engine.building.cache
    repo_tags: list[str] = []
    repo_digests: list[str] = []

    @property
    def chain_ids(self) -> tuple[str, ...]:
        return chain_ids(self.diff_ids)

    @property
    def architecture(self) -> str:
        return str(self.raw.get("architecture", ""))

    @property
    def os(self) -> str:
        return str(self.raw.get("os", ""))

    @property
    def created(self) -> str:
        return str(self.raw.get("created") or "0001-01-01T00:00:00Z")


class _RawContainerConfig(msgspec.Struct, rename="pascal"):
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: HealthConfig | None = None


class _RawRootfs(msgspec.Struct):
    diff_ids: list[str] | None = None
    type: str = "layers"


class _RawImage(msgspec.Struct):
    rootfs: _RawRootfs
    architecture: str = ""
    os: str = ""
    config: _RawContainerConfig | None = None


def parse_image_config(data: bytes) -> tuple[dict[str, Any], ImageConfig, tuple[str, ...]]:
    """(raw, typed, diff ids). InvalidParameter names the field that is wrong."""
    try:
        raw: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        typed = msgspec.convert(raw, _RawImage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(f"invalid image configuration: {error}") from error
    config = typed.config or _RawContainerConfig()
    return (
        raw,
        ImageConfig(
            entrypoint=_words(config.entrypoint),
            cmd=_words(config.cmd),
            env=tuple(config.env or ()),
            working_dir=config.working_dir or "",
            user=config.user or "",
            exposed_ports=tuple(config.exposed_ports or ()),
            volumes=tuple(config.volumes or ()),
            labels=config.labels or {},
            stop_signal=config.stop_signal or "",
            healthcheck=config.healthcheck,
        ),
        tuple(typed.rootfs.diff_ids or ()),
    )


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The name of each layer together with all below it (OCI image specification, config.md)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id)
        else:
            joined = hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest()
            chain.append(f"sha256:{joined}")
    return tuple(chain)


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
