"""The mounts of a container's root: file systems, bind mounts, devices, masked and read-only paths. Pure.

Each mount is made detached (fsopen or open_tree), gets its attributes while nobody can see it, and is then
moved to a target that was opened inside the root, so links in an image never lead out of it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.runtime.host import HostFacts
from engine.runtime.program import (
    TARGET_DIRECTORY,
    TARGET_FILE,
    TARGET_LIKE,
    Op,
    Register,
    call,
    target,
)
from engine.runtime.registers import (
    CONTEXT,
    DEVICES,
    FOLDER,
    ROOT,
    SHARED_FIRST,
    SOURCE,
    TARGET,
    TERMINALS,
)
from engine.runtime.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    MOUNT_ATTR_ATIME_MASK,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
    OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
)

O_RDONLY, O_WRONLY, O_PATH = os.O_RDONLY, os.O_WRONLY, os.O_PATH
O_DIRECTORY, O_CLOEXEC = os.O_DIRECTORY, os.O_CLOEXEC
CLONE_TREE = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
FROM_DESCRIPTOR = MOVE_MOUNT_F_EMPTY_PATH
BETWEEN_DESCRIPTORS = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH

_ATTRIBUTES = {
    "ro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
    "noatime": MOUNT_ATTR_NOATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
}
_CLEARED = {
    "rw": MOUNT_ATTR_RDONLY,
    "suid": MOUNT_ATTR_NOSUID,
    "dev": MOUNT_ATTR_NODEV,
    "exec": MOUNT_ATTR_NOEXEC,
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "slave": MS_SLAVE,
    "shared": MS_SHARED,
    "unbindable": MS_UNBINDABLE,
}
_IGNORED = {"bind", "rbind", "relatime", "defaults", "tmpcopyup", "sync", "async"}
OPTION_NAMES = (
    frozenset(_ATTRIBUTES) | set(_CLEARED) | set(_PROPAGATION) | {f"r{p}" for p in _PROPAGATION} | _IGNORED
)
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
)


class MountOptions:
    """The options of one OCI mount, sorted into attributes, propagation and data of the file system."""

    def __init__(self, options: Iterable[str]) -> None:
        self.attributes = 0
        self.below = 0  # attributes also of what is mounted below
        self.cleared = 0
        self.propagation = 0
        self.recursive = False
        self.shifted = False  # owners as the container's user namespace has them
        self.data: list[tuple[str, str | None]] = []
        for option in options:
            self._add(option)

    def _add(self, option: str) -> None:
        if option == "rro":
            self.attributes |= MOUNT_ATTR_RDONLY
            self.below |= MOUNT_ATTR_RDONLY
        elif option == "idmap":
            self.shifted = True
        elif option in _ATTRIBUTES:
            self.attributes |= _ATTRIBUTES[option]
        elif option in _CLEARED:
            self.cleared |= _CLEARED[option]
        elif option in _PROPAGATION or option.removeprefix("r") in _PROPAGATION:
            self.propagation = _PROPAGATION.get(option) or _PROPAGATION[option[1:]]
        elif option in _IGNORED:
            self.recursive = self.recursive or option == "rbind"
        else:
            key, separator, value = option.partition("=")
            self.data.append((key, value if separator else None))


class MountPlanner:
    """All mounts of one container, in the order of the configuration."""

    def __init__(
        self, spec: Mapping[str, Any], host: HostFacts, *, cgroup: str, cgroup_namespace: bool
    ) -> None:
        self._mounts: Sequence[Mapping[str, Any]] = spec.get("mounts") or ()
        self._devices: Sequence[Mapping[str, Any]] = (spec.get("linux") or {}).get("devices") or ()
        self._host = host
        self._cgroup = cgroup
        self._cgroup_namespace = cgroup_namespace
        self._shared: dict[str, Register] = {}

    def shared_sources(self) -> Iterator[Op]:
        """Sources whose later mounts must travel both ways are cloned while they are still peers."""
        for mount in self._mounts:
            options = MountOptions(mount.get("options") or ())
            if options.propagation == MS_SHARED and _is_bind(mount):
                register = Register(SHARED_FIRST + len(self._shared), f"shared{len(self._shared)}")
                self._shared[mount["destination"]] = register
                yield _clone(mount["source"], options, register, _label(mount))

    def all_mounts(self, *, terminal: bool) -> Iterator[Op]:
        for mount in self._mounts:
            options = MountOptions(mount.get("options") or ())
            if _is_bind(mount):
                yield from self._bind(mount, options)
            elif mount["type"] == "cgroup":
                yield from self._cgroups(mount, options)
            elif mount["type"] == "devpts" and terminal:
                yield from _attach(TERMINALS, mount["destination"], _label(mount))
            else:
                kept = DEVICES if mount["destination"] == "/dev" else SOURCE
                source = str(mount.get("source") or mount["type"])
                yield from new_mount(
                    mount["type"], source, options.data, options.attributes, kept, _label(mount)
                )
                yield from _attach(kept, mount["destination"], _label(mount))

    def devices(self, *, terminal: bool) -> Iterator[Op]:
        """Nodes and links below /dev, unless the user mounted something there."""
        kinds = {mount["destination"]: mount for mount in self._mounts}
        own = kinds.get("/dev")
        if own is not None and _is_bind(own):
            return
        if own is None:
            yield target(ROOT, "/dev", TARGET_DIRECTORY, None, DEVICES, label='make "/dev"')
        for name, major, minor in DEFAULT_DEVICES:
            yield call(
                "mknodat",
                DEVICES,
                name.encode(),
                stat.S_IFCHR | 0o666,
                os.makedev(major, minor),
                tolerated=(errno.EEXIST,),
                label=f"make /dev/{name}",
            )
        for link, name in _LINKS:
            yield call("symlinkat", link.encode(), DEVICES, name.encode(), tolerated=(errno.EEXIST,))
        for device in self._devices:
            yield from _device(device)
        if terminal and "/dev/pts" in kinds:
            label = "mount the terminal at /dev/console"
            yield call("open_tree", TERMINALS, b"0", CLONE_TREE, out=SOURCE, label=label)
            yield target(ROOT, "/dev/console", TARGET_FILE, None, TARGET, label=label)
            yield _move(SOURCE, label)

    def _bind(self, mount: Mapping[str, Any], options: MountOptions) -> Iterator[Op]:
        label = _label(mount)
        source = self._shared.get(mount["destination"])
        if source is None:
            source = SOURCE
            yield from _bind_source(mount, options, label)
        if options.shifted:
            yield shift_owners(source, label=label)
        yield set_attributes(
            source,
            options.attributes if not options.recursive else options.below,
            cleared=options.cleared & ~options.attributes,
            propagation=options.propagation or MS_PRIVATE,
            recursive=options.recursive,
            label=label,
        )
        if options.recursive and options.attributes != options.below:
            yield set_attributes(source, options.attributes, label=label)
        yield target(ROOT, mount["destination"], TARGET_LIKE, source, TARGET, label=label)
        yield _move(source, label)

    def _cgroups(self, mount: Mapping[str, Any], options: MountOptions) -> Iterator[Op]:
        hierarchies, label = self._host.cgroup_mounts, _label(mount)
        if len(hierarchies) == 1 and not hierarchies[0].folder:
            if self._cgroup_namespace:
                yield from new_mount("cgroup2", "cgroup", (), options.attributes, SOURCE, label)
            else:
                # A new mount from the host's own namespace would reset the options of all of them (nsdelegate).
                yield _clone(hierarchies[0].host_path, options, SOURCE, label)
                yield set_attributes(SOURCE, options.attributes, propagation=MS_PRIVATE, label=label)
            yield from _attach(SOURCE, mount["destination"], label)
            return
        attributes = options.attributes & ~MOUNT_ATTR_RDONLY
        yield from new_mount("tmpfs", "tmpfs", [("mode", "755")], attributes, FOLDER, label)
        # Attached first: mounting on a detached tree works only in young kernels.
        yield from _attach(FOLDER, mount["destination"], label)
        for hierarchy in hierarchies:
            folder = hierarchy.folder.encode()
            yield call("mkdirat", FOLDER, folder, 0o755, label=label)
            if self._cgroup_namespace:
                yield from new_mount(
                    hierarchy.kind, "cgroup", hierarchy.options, options.attributes, SOURCE, label
                )
            else:
                path = posixpath.join(hierarchy.host_path, self._cgroup)
                yield _clone(path, options, SOURCE, label)
                yield set_attributes(SOURCE, options.attributes, propagation=MS_PRIVATE, label=label)
            yield call("move_mount", SOURCE, b"", FOLDER, folder, FROM_DESCRIPTOR, label=label)
        if options.attributes & MOUNT_ATTR_RDONLY:
            yield set_attributes(FOLDER, MOUNT_ATTR_RDONLY, label=label)


def new_mount(
    kind: str,
    source: str,
    options: Iterable[tuple[str, str | None]],
    attributes: int,
    out: Register,
    label: str,
) -> Iterator[Op]:
    """A detached mount of a new file system in `out`."""
    yield call("fsopen", kind.encode(), FSOPEN_CLOEXEC, out=CONTEXT, label=label)
    yield call("fsconfig", CONTEXT, FSCONFIG_SET_STRING, b"source", source.encode(), 0, label=label)
    for key, value in options:
        command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
        encoded = None if value is None else value.encode()
        yield call("fsconfig", CONTEXT, command, key.encode(), encoded, 0, label=label)
    yield call("fsconfig", CONTEXT, FSCONFIG_CMD_CREATE, None, None, 0, label=label)
    yield call("fsmount", CONTEXT, FSMOUNT_CLOEXEC, attributes, out=out, label=label)


def set_attributes(
    mount: Register,
    attributes: int,
    *,
    cleared: int = 0,
    propagation: int = 0,
    recursive: bool = False,
    label: str = "",
) -> Op:
    """mount_setattr on an open mount."""
    if attributes & MOUNT_ATTR_ATIME_MASK:
        cleared |= MOUNT_ATTR_ATIME_MASK
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    packed = struct.pack("<4Q", attributes, cleared, propagation, 0)
    return call("mount_setattr", mount, b"", flags, packed, len(packed), label=label)


def shift_owners(mount: Register, *, label: str) -> Op:
    """Owners on a detached mount are shown as the user namespace at descriptor 0 maps them, and written back so."""
    packed = struct.pack("<4Q", MOUNT_ATTR_IDMAP, 0, MS_PRIVATE, 0)
    label = f"{label}: shift its owners"
    return call("mount_setattr", mount, b"", AT_EMPTY_PATH, packed, len(packed), label=label)


def open_inside(
    path: str, flags: int, out: Register, *, tolerated: tuple[int, ...] = (), skip: int = 0, label: str = ""
) -> Op:
    """Open a path of the container inside its root."""
    how = struct.pack("<3Q", flags | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    relative = path.lstrip("/").encode() or b"."
    return call(
        "openat2", ROOT, relative, how, len(how), out=out, tolerated=tolerated, skip=skip, label=label
    )


def readonly_paths(paths: Iterable[str]) -> Iterator[Op]:
    for path in paths:
        label = f'make "{path}" read-only'
        yield open_inside(path, O_PATH, TARGET, tolerated=_ABSENT, skip=3, label=label)
        flags = CLONE_TREE | AT_EMPTY_PATH | AT_RECURSIVE
        yield call("open_tree", TARGET, b"", flags, out=SOURCE, label=label)
        yield set_attributes(SOURCE, MOUNT_ATTR_RDONLY, recursive=True, label=label)
        yield _move(SOURCE, label)


def masked_paths(paths: Iterable[str], empty_dir: str) -> Iterator[Op]:
    """A folder is covered by an empty one, a file by /dev/null; what is missing needs nothing."""
    for path in paths:
        label = f'mask "{path}"'
        yield open_inside(path, O_PATH | O_DIRECTORY, TARGET, tolerated=_ABSENT, skip=4, label=label)
        yield call("open_tree", AT_FDCWD, empty_dir.encode(), CLONE_TREE, out=SOURCE, label=label)
        yield set_attributes(SOURCE, MOUNT_ATTR_RDONLY, propagation=MS_PRIVATE, label=label)
        yield _move(SOURCE, label)
        yield _jump(3)
        yield open_inside(path, O_PATH, TARGET, tolerated=_ABSENT, skip=2, label=label)
        yield call("open_tree", AT_FDCWD, b"/dev/null", CLONE_TREE, out=SOURCE, label=label)
        yield _move(SOURCE, label)


def _jump(count: int) -> Op:
    """Leave out the next operations: a call that always fails, and may."""
    return call("close", -1, tolerated=(errno.EBADF,), skip=count)


def _bind_source(mount: Mapping[str, Any], options: MountOptions, label: str) -> Iterator[Op]:
    """The source in SOURCE; a part of a volume is looked for inside of it, whatever links are there."""
    if not mount.get("subpath"):
        yield _clone(mount["source"], options, SOURCE, label)
        return
    flags = O_PATH | O_CLOEXEC
    yield call("openat", AT_FDCWD, mount["source"].encode(), flags | O_DIRECTORY, 0, out=SOURCE, label=label)
    how = struct.pack("<3Q", flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    inside = str(mount["subpath"]).encode()
    yield call(
        "openat2", SOURCE, inside, how, len(how), out=TARGET, label=f"{label}: open {mount['subpath']}"
    )
    flags = CLONE_TREE | AT_EMPTY_PATH | (AT_RECURSIVE if options.recursive else 0)
    yield call("open_tree", TARGET, b"", flags, out=SOURCE, label=label)


def _clone(source: str, options: MountOptions, out: Register, label: str) -> Op:
    flags = CLONE_TREE | (AT_RECURSIVE if options.recursive else 0)
    return call("open_tree", AT_FDCWD, source.encode(), flags, out=out, label=label)


def _attach(mount: Register, destination: str, label: str) -> Iterator[Op]:
    yield target(ROOT, destination, TARGET_DIRECTORY, None, TARGET, label=label)
    yield _move(mount, label)


def _move(mount: Register, label: str) -> Op:
    return call("move_mount", mount, b"", TARGET, b"", BETWEEN_DESCRIPTORS, label=label)


def _device(device: Mapping[str, Any]) -> Iterator[Op]:
    path = str(device["path"])
    kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}[device["type"]]
    number = os.makedev(device.get("major", 0), device.get("minor", 0))
    mode = kind | device.get("fileMode", 0o666)
    label, name = f"make the device {path}", posixpath.basename(path).encode()
    yield target(ROOT, posixpath.dirname(path), TARGET_DIRECTORY, None, TARGET, label=label)
    yield call("mknodat", TARGET, name, mode, number, tolerated=(errno.EEXIST,), label=label)
    owner = (device.get("uid", 0), device.get("gid", 0))
    if owner != (0, 0):
        yield call("fchownat", TARGET, name, *owner, 0x100, label=label)


def _is_bind(mount: Mapping[str, Any]) -> bool:
    return mount.get("type") in ("bind", "rbind") or any(
        option in ("bind", "rbind") for option in mount.get("options") or ()
    )


def _label(mount: Mapping[str, Any]) -> str:
    source = mount.get("source") or mount.get("type")
    return f'error mounting "{source}" to rootfs at "{mount["destination"]}"'
