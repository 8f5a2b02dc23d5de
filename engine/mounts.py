"""From what the user wrote (-v, --mount, --tmpfs, the image's VOLUME) to a list of resolved mounts.

Parsing is pure; `MountResolver` creates the volumes and missing bind sources it needs. Targets of Binds, Mounts
and Tmpfs must differ; they win over mounts that come from other containers, and the image's anonymous volumes
fill the targets that nothing else took.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from engine.config import ContainerConfig, HostConfig, MountPoint, VolumeCreate, VolumeDriverConfig
from engine.container import Container, ResolvedMount
from engine.errors import InvalidParameter, NotFound

_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_LABELS = frozenset({"z", "Z"})  # SELinux: accepted, without effect
_MODES = (  # of each group at most one
    frozenset({"ro", "rw"}),
    _PROPAGATION,
    frozenset({"nocopy"}),
    _LABELS,
    frozenset({"consistent", "cached", "delegated"}),
)
_TMPFS_FLAGS = frozenset(
    {"defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async"}
    | {"noatime", "nodiratime", "relatime", "strictatime"}
)
_TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"})


# What lxcfs and the like show in place of the kernel's; everything else in /proc is the kernel's alone.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
    )
)


class Volumes(Protocol):
    """What is needed of the volume store."""

    def create(self, request: VolumeCreate, *, anonymous: bool = False) -> dict[str, object]: ...

    def data_path(self, name: str) -> Path: ...

    def remove(self, name: str, *, force: bool) -> object: ...


def parse_bind(text: str) -> ResolvedMount:
    """`[source:]target[:options]`; an absolute source is a bind mount, anything else a volume name."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return _volume(_target(parts[0]))
    source, target = parts[0], parts[1]
    if source.startswith("/"):
        if not target.startswith("/"):
            raise InvalidParameter(f"invalid volume specification: '{text}': {_not_absolute(target)}")
        target = _target(target)
        mount = ResolvedMount(kind="bind", source=posixpath.normpath(source), target=target)
    elif _VOLUME_NAME.fullmatch(source):
        target = _target(target)
        mount = _volume(target, source)
    else:
        raise InvalidParameter(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(parts) == 3:
        _apply_options(mount, parts[2], text)
    return mount


def parse_mount(wish: MountPoint) -> ResolvedMount:
    """One entry of HostConfig.Mounts. A bind source must exist unless CreateMountpoint is set."""
    parse = {"bind": _parse_bind_mount, "volume": _parse_volume_mount, "tmpfs": _parse_tmpfs_mount}.get(
        wish.type
    )
    if parse is None:
        raise InvalidParameter(f'invalid mount config: mount type unknown: "{wish.type}"')
    for kind, field, given in (
        ("bind", "BindOptions", wish.bind_options),
        ("volume", "VolumeOptions", wish.volume_options),
        ("tmpfs", "TmpfsOptions", wish.tmpfs_options),
    ):
        if given is not None and kind != wish.type:
            raise InvalidParameter(
                f'invalid mount config for type "{wish.type}": field {field} must not be specified'
            )
    return parse(wish)


def _parse_bind_mount(wish: MountPoint) -> ResolvedMount:
    if not wish.source.startswith("/"):
        raise InvalidParameter(_not_absolute(wish.source))
    options = wish.bind_options
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATION:
        raise InvalidParameter(f'invalid mount config: invalid propagation mode: "{propagation}"')
    if not (options and options.create_mountpoint) and not _exists(wish.source):
        raise InvalidParameter(
            f'invalid mount config for type "bind": bind source path does not exist: {wish.source}'
        )
    return ResolvedMount(
        kind="bind",
        source=posixpath.normpath(wish.source),
        target=_target(wish.target),
        read_only=wish.read_only,
        propagation=propagation,
        non_recursive=bool(options and options.non_recursive),
        read_only_top=_is_read_only_top(wish),
    )


def _is_read_only_top(wish: MountPoint) -> bool:
    """Docker's rules: read-only reaches everything below, unless it is told not to."""
    options = wish.bind_options
    if options is None:
        return False
    for name, given in (
        ("ReadOnlyNonRecursive", options.read_only_non_recursive),
        ("ReadOnlyForceRecursive", options.read_only_force_recursive),
    ):
        if given and not wish.read_only:
            raise InvalidParameter(
                f'invalid mount config for type "bind": mount is set to {name} but not ReadOnly'
            )
    if options.read_only_force_recursive:
        if options.read_only_non_recursive:
            raise InvalidParameter(
                'invalid mount config for type "bind": cannot set both ReadOnlyNonRecursive and ReadOnlyForceRecursive'
            )
        if options.propagation not in ("rprivate",):
            raise InvalidParameter(
                'invalid mount config for type "bind": ReadOnlyForceRecursive requires Propagation to be rprivate'
            )
    return options.read_only_non_recursive


def _parse_volume_mount(wish: MountPoint) -> ResolvedMount:
    options = wish.volume_options
    mount = _volume(_target(wish.target), wish.source)
    mount.read_only = wish.read_only
    mount.copy_up = not (options and (options.no_copy or options.subpath))
    if options and options.subpath:
        mount.subpath = posixpath.normpath(options.subpath)
        if not wish.source:
            raise InvalidParameter(
                'invalid mount config for type "volume": must specify Source when using Subpath'
            )
        if mount.subpath.startswith(("/", "../")) or mount.subpath == "..":
            raise InvalidParameter(
                f'invalid mount config for type "volume": subpath "{options.subpath}" must be a relative path within '
                "the volume"
            )
    return mount


def _parse_tmpfs_mount(wish: MountPoint) -> ResolvedMount:
    if wish.source:
        raise InvalidParameter('invalid mount config for type "tmpfs": field Source must not be specified')
    options = ["nosuid", "nodev", "noexec"]
    if wish.tmpfs_options and wish.tmpfs_options.size_bytes:
        options.append(f"size={wish.tmpfs_options.size_bytes}")
    if wish.tmpfs_options and wish.tmpfs_options.mode:
        options.append(f"mode={wish.tmpfs_options.mode:o}")
    for words in (wish.tmpfs_options.options if wish.tmpfs_options else None) or ():
        options = _with_tmpfs_option(options, words, wish.target)
    return ResolvedMount(
        kind="tmpfs", source="", target=_target(wish.target), read_only=wish.read_only, options=options
    )


def _with_tmpfs_option(options: list[str], words: list[str], target: str) -> list[str]:
    """One of TmpfsOptions.Options: ["noexec"] or ["uid", "1000"]; exec takes the default noexec away."""
    if len(words) not in (1, 2):
        raise InvalidParameter(
            f"invalid option {words} for the tmpfs at {target}: it is [name] or [name, value]"
        )
    if words[0] not in (_TMPFS_VALUES if len(words) == 2 else _TMPFS_FLAGS):
        raise InvalidParameter(f"invalid tmpfs option {words} for {target}")
    opposite = f"no{words[0]}" if not words[0].startswith("no") else words[0][2:]
    return [option for option in options if option != opposite] + ["=".join(words)]


def parse_tmpfs(target: str, options: str) -> ResolvedMount:
    """One entry of HostConfig.Tmpfs; Docker's defaults are noexec, nosuid, nodev."""
    given = [option for option in options.split(",") if option]
    for option in given:
        name, separator, _ = option.partition("=")
        if name not in (_TMPFS_VALUES if separator else _TMPFS_FLAGS):
            raise InvalidParameter(f'invalid tmpfs option "{option}" for {target}')
    defaults = [
        f"no{name}" for name in ("dev", "exec", "suid") if name not in given and f"no{name}" not in given
    ]
    return ResolvedMount(
        kind="tmpfs", source="", target=_target(target), read_only="ro" in given, options=defaults + given
    )


class MountResolver:
    """Turns the wishes of one container into mounts whose sources exist."""

    def __init__(self, volumes: Volumes, find_container: Callable[[str], Container]) -> None:
        self._volumes = volumes
        self._find_container = find_container

    def resolve(self, config: ContainerConfig, host: HostConfig) -> list[ResolvedMount]:
        """Creates volumes and missing bind sources. Errors: InvalidParameter naming the wish, NotFound.

        Anonymous volumes made for a request that then fails are removed again.
        """
        mounts: dict[str, ResolvedMount] = {}
        for reference in host.volumes_from or ():
            for mount in self._from_container(reference):
                mounts[mount.target] = mount
        wishes = _wishes(host)
        mounts |= wishes
        for path in config.volumes or {}:
            target = _target(path)
            mounts.setdefault(target, _volume(target))
        requests = {_target(wish.target): _volume_request(wish) for wish in host.mounts or ()}
        resolved: list[ResolvedMount] = []
        try:
            for mount in mounts.values():
                self._make_source(mount, requests.get(mount.target) or _plain_request(mount, host))
                resolved.append(mount)
        except BaseException:
            for mount in resolved:
                if mount.anonymous:
                    self._volumes.remove(mount.name, force=True)
            raise
        return sorted(resolved, key=lambda mount: mount.target.count("/"))

    def _from_container(self, reference: str) -> Iterable[ResolvedMount]:
        """What another container mounts; a mount that is read-only there stays so."""
        name, _, mode = reference.partition(":")
        words = mode.split(",") if mode else []
        if not set(words) <= {"ro", "rw", *_LABELS} or {"ro", "rw"} <= set(words):
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
                    read_only=mount.read_only or "ro" in words,
                    propagation=mount.propagation,
                    non_recursive=mount.non_recursive,
                    read_only_top=mount.read_only_top,
                    subpath=mount.subpath,
                )

    def _make_source(self, mount: ResolvedMount, request: VolumeCreate) -> None:
        if mount.kind == "bind" and not _exists(mount.source):
            try:
                Path(mount.source).mkdir(parents=True)
            except (OSError, ValueError) as error:
                raise InvalidParameter(
                    f"error while creating mount source path '{mount.source}': {error}"
                ) from error
        if mount.kind == "volume" and not mount.source:
            created = self._volumes.create(request, anonymous=mount.anonymous)
            mount.name = str(created["Name"])
            mount.driver = str(created["Driver"])
            mount.source = str(self._volumes.data_path(mount.name))


def _wishes(host: HostConfig) -> dict[str, ResolvedMount]:
    """Binds, Mounts and Tmpfs by target. InvalidParameter when two want the same one."""
    wishes = [parse_bind(text) for text in host.binds or ()]
    wishes += [parse_mount(wish) for wish in host.mounts or ()]
    wishes += [parse_tmpfs(target, options) for target, options in (host.tmpfs or {}).items()]
    by_target: dict[str, ResolvedMount] = {}
    for mount in wishes:
        if mount.target in by_target:
            raise InvalidParameter(f"Duplicate mount point: {mount.target}")
        by_target[mount.target] = mount
    return by_target


def _volume_request(wish: MountPoint) -> VolumeCreate:
    """The volume as an entry of HostConfig.Mounts describes it, for the case that it must be made."""
    options = wish.volume_options
    driver = (options.driver_config if options else None) or VolumeDriverConfig()
    return VolumeCreate(
        name=wish.source,
        driver=driver.name,
        driver_opts=driver.options,
        labels=options.labels if options else None,
    )


def _plain_request(mount: ResolvedMount, host: HostConfig) -> VolumeCreate:
    """Of -v and of the image's VOLUME: --volume-driver makes the volumes that are not there yet."""
    return VolumeCreate(name=mount.name, driver=host.volume_driver)


def _volume(target: str, name: str = "") -> ResolvedMount:
    return ResolvedMount(kind="volume", source="", name=name, target=target, copy_up=True, anonymous=not name)


def _apply_options(mount: ResolvedMount, options: str, text: str) -> None:
    mount.mode = options
    given = options.split(",")
    for option in given:
        group = next((group for group in _MODES if option in group), None)
        if group is None or sum(other in group for other in given) > 1:
            raise InvalidParameter(f"invalid mode: {option} in volume specification '{text}'")
    propagation = next((option for option in given if option in _PROPAGATION), "")
    if propagation and mount.kind == "volume":
        raise InvalidParameter(f"invalid volume specification: '{text}': a volume has no propagation mode")
    if "nocopy" in given and mount.kind == "bind":
        raise InvalidParameter(f"invalid volume specification: '{text}': nocopy is for volumes only")
    mount.read_only = "ro" in given
    mount.propagation = propagation
    mount.copy_up = mount.copy_up and "nocopy" not in given


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a name too long for any file system
        return False


def _not_absolute(source: str) -> str:
    return (
        f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
    )


def _target(target: str) -> str:
    if not target.startswith("/"):
        raise InvalidParameter(f"invalid mount target '{target}': mount path must be absolute")
    normal = posixpath.normpath(target)
    if normal == "/":
        raise InvalidParameter("invalid specification: destination can't be '/'")
    if normal.startswith("/proc/") and normal not in _PROC_FILES:
        raise InvalidParameter(f'"{normal}" cannot be mounted because it is inside /proc')
    return normal
