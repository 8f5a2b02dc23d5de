"""From what the user wrote (-v, --mount, --tmpfs, the image's VOLUME) to a list of resolved mounts.

Parsing is pure; `MountResolver` creates the volumes and missing bind sources it needs. Later wishes for the
same target win in Docker's order: Binds, then Mounts, Tmpfs, then the anonymous volumes of the image for
targets that nothing else took.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from engine.config import ContainerConfig, HostConfig, MountPoint, VolumeCreate
from engine.container import Container, ResolvedMount
from engine.errors import InvalidParameter, NotFound

_VOLUME_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_LABELS_IGNORED = {"z", "Z", "nocopy", "consistent", "cached", "delegated"}


class Volumes(Protocol):
    """What is needed of the volume store."""

    def create(self, request: VolumeCreate, *, anonymous: bool = False) -> dict[str, object]: ...

    def data_path(self, name: str) -> Path: ...


def parse_bind(text: str) -> ResolvedMount:
    """`[source:]target[:options]`; an absolute source is a bind mount, anything else a volume name."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return ResolvedMount(kind="volume", source="", target=_target(parts[0]), anonymous=True, copy_up=True)
    source, target = parts[0], _target(parts[1])
    mount = ResolvedMount(kind="bind", source=posixpath.normpath(source), target=target)
    if not source.startswith("/"):
        if not _VOLUME_NAME.match(source):
            raise InvalidParameter(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
                if source.startswith(".") or "/" in source
                else f'create {source}: "{source}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        mount = ResolvedMount(kind="volume", source="", name=source, target=target, copy_up=True)
    if len(parts) == 3:
        _apply_options(mount, parts[2], text)
    return mount


def parse_mount(wish: MountPoint) -> ResolvedMount:
    """One entry of HostConfig.Mounts."""
    target = _target(wish.target)
    if wish.type == "bind":
        if not wish.source.startswith("/"):
            raise InvalidParameter(
                f"invalid mount config for type \"bind\": invalid mount path: '{wish.source}' mount path must be absolute"
            )
        propagation = wish.bind_options.propagation if wish.bind_options else ""
        if propagation and propagation not in _PROPAGATION:
            raise InvalidParameter(f'invalid mount config: invalid propagation mode: "{propagation}"')
        mount = ResolvedMount(
            kind="bind", source=wish.source, target=target, read_only=wish.read_only, propagation=propagation
        )
        if not (wish.bind_options and wish.bind_options.create_mountpoint) and not Path(wish.source).exists():
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {wish.source}'
            )
        return mount
    if wish.type == "volume":
        options = wish.volume_options
        if options and options.subpath:
            raise InvalidParameter("volume subpaths are not supported yet: mount the volume as a whole")
        return ResolvedMount(
            kind="volume",
            source="",
            name=wish.source,
            target=target,
            read_only=wish.read_only,
            copy_up=not (options and options.no_copy),
            anonymous=not wish.source,
        )
    if wish.type == "tmpfs":
        options_list = ["nosuid", "nodev", "noexec"]
        if wish.tmpfs_options and wish.tmpfs_options.size_bytes:
            options_list.append(f"size={wish.tmpfs_options.size_bytes}")
        if wish.tmpfs_options and wish.tmpfs_options.mode:
            options_list.append(f"mode={wish.tmpfs_options.mode:o}")
        return ResolvedMount(
            kind="tmpfs", source="", target=target, read_only=wish.read_only, options=options_list
        )
    raise InvalidParameter(f'invalid mount config: mount type unknown: "{wish.type}"')


def parse_tmpfs(target: str, options: str) -> ResolvedMount:
    """One entry of HostConfig.Tmpfs; Docker's defaults are noexec, nosuid, nodev."""
    given = [option for option in options.split(",") if option]
    negated = {option.removeprefix("no") for option in ("noexec", "nosuid", "nodev")}
    defaults = [f"no{name}" for name in sorted(negated) if name not in given and f"no{name}" not in given]
    return ResolvedMount(
        kind="tmpfs", source="", target=_target(target), read_only="ro" in given, options=defaults + given
    )


class MountResolver:
    """Turns the wishes of one container into mounts whose sources exist."""

    def __init__(self, volumes: Volumes, find_container: Callable[[str], Container]) -> None:
        self._volumes = volumes
        self._find_container = find_container

    def resolve(self, config: ContainerConfig, host: HostConfig) -> list[ResolvedMount]:
        """Creates volumes and missing bind sources. Errors: InvalidParameter naming the wish, NotFound."""
        mounts: dict[str, ResolvedMount] = {}
        for reference in host.volumes_from or ():
            for mount in self._from_container(reference):
                mounts[mount.target] = mount
        for wish in self._wishes(host):
            taken = mounts.get(wish.target)
            if taken is not None and not host.volumes_from:
                raise InvalidParameter(f"Duplicate mount point: {wish.target}")
            mounts[wish.target] = wish
        for target in config.volumes or {}:
            mounts.setdefault(
                _target(target),
                ResolvedMount(kind="volume", source="", target=_target(target), anonymous=True, copy_up=True),
            )
        resolved = [self._materialised(mount) for mount in mounts.values()]
        return sorted(resolved, key=lambda mount: mount.target.count("/") if mount.target != "/" else 0)

    def _wishes(self, host: HostConfig) -> Iterable[ResolvedMount]:
        for text in host.binds or ():
            yield parse_bind(text)
        for wish in host.mounts or ():
            yield parse_mount(wish)
        for target, options in (host.tmpfs or {}).items():
            yield parse_tmpfs(target, options)

    def _from_container(self, reference: str) -> Iterable[ResolvedMount]:
        name, _, mode = reference.partition(":")
        if mode not in ("", "ro", "rw"):
            raise InvalidParameter(f"invalid volumes-from mode {mode} in {reference}: use ro or rw")
        try:
            source = self._find_container(name)
        except NotFound as error:
            raise InvalidParameter(f"No such container: {name} (volumes-from)") from error
        for mount in source.mounts:
            if mount.kind != "tmpfs":
                yield ResolvedMount(
                    kind=mount.kind,
                    source=mount.source,
                    target=mount.target,
                    name=mount.name,
                    driver=mount.driver,
                    read_only=mount.read_only if not mode else mode == "ro",
                )

    def _materialised(self, mount: ResolvedMount) -> ResolvedMount:
        if mount.kind == "bind" and not Path(mount.source).exists():
            Path(mount.source).mkdir(parents=True)
        if mount.kind == "volume" and not mount.source:
            created = self._volumes.create(VolumeCreate(name=mount.name), anonymous=not mount.name)
            mount.name = str(created["Name"])
            mount.driver = str(created["Driver"])
            mount.source = str(self._volumes.data_path(mount.name))
        return mount


def _apply_options(mount: ResolvedMount, options: str, text: str) -> None:
    mount.mode = options
    for option in options.split(","):
        if option == "ro":
            mount.read_only = True
        elif option in _PROPAGATION:
            mount.propagation = option
        elif option == "nocopy":
            mount.copy_up = False
        elif option != "rw" and option not in _LABELS_IGNORED:
            raise InvalidParameter(f"invalid mode: {option} in volume specification '{text}'")


def _target(target: str) -> str:
    if not target.startswith("/"):
        raise InvalidParameter(f"invalid mount target '{target}': mount path must be absolute")
    normal = posixpath.normpath(target)
    if normal == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    return normal
