"""From an OCI runtime configuration to the program that makes the container around its first process. Pure.

Owns the order of things: join or make namespaces, build the root file system and its mounts while the
host's files are still visible, pivot into it, then give up rights one after the other, then execute.
Invariants: no descriptor above 2 is open when the working directory is entered; the capabilities needed to
load the seccomp filter are dropped after it; every path of the container is resolved inside its root.
Sources: OCI runtime specification 1.1 (config.md, config-linux.md), mount_setattr(2), move_mount(2).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec

from engine.runtime import plan_mounts, plan_process, plan_users
from engine.runtime.host import HostFacts
from engine.runtime.program import (
    TARGET_DIRECTORY,
    Op,
    call,
    execute,
    target,
)
from engine.runtime.registers import ROOT, SCRATCH, SOURCE, STDERR, STDIN, STDOUT, TARGET
from engine.runtime.syscalls import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    IFF_UP,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    SIOCSIFFLAGS,
    TIOCSCTTY,
)

_FLAGS = {
    "pid": CLONE_NEWPID,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "network": CLONE_NEWNET,
    "cgroup": CLONE_NEWCGROUP,
    "mount": CLONE_NEWNS,
}
# Signals that a daemon or Python itself may have set to "ignored", which execve would keep.
_SIGNALS_RESET = (1, 2, 3, 13, 15, 17, 20, 21, 22, 25)
_DESCRIPTOR_MAX = 0xFFFFFFFF


class RootfsLike(Protocol):
    """`engine.storage.driver.Rootfs`: `lower` topmost first; empty means that `upper` is a plain folder."""

    @property
    def lower(self) -> tuple[str, ...]: ...

    @property
    def upper(self) -> str: ...

    @property
    def work(self) -> str: ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`pid_namespace`: path of a pid namespace to be born in ("" none). Registers are filled by the caller."""

    ops: tuple[Op, ...]
    clone_flags: int
    pid_namespace: str = ""


class StreamWishes(msgspec.Struct, frozen=True, kw_only=True):
    """`terminal`: the three streams are a terminal; `stdin`: standard input is a pipe of our own."""

    terminal: bool = False
    stdin: bool = False


def plan_container(
    spec: Mapping[str, Any],
    rootfs: RootfsLike,
    host: HostFacts,
    *,
    netns: str,
    cgroup: str,
    streams: StreamWishes,
    seccomp: bytes = b"",
) -> Plan:
    """The program for a container's first process. `seccomp` is the compiled filter, b"" for none."""
    linux = spec.get("linux") or {}
    namespaces = _wished_namespaces(linux, netns)
    process = spec["process"]
    users = namespaces.pop("user", "")
    owner = plan_users.host_ids(linux) if users else (0, 0)
    ops: list[Op] = [
        *_fresh_process(process),
        *_enter_namespaces(namespaces),
        *_loopback(namespaces),
    ]
    if users:
        ops += plan_users.become_owner(users, *owner)
    mounts = plan_mounts.MountPlanner(spec, host, cgroup=cgroup, cgroup_namespace="cgroup" in namespaces)
    ops += mounts.shared_sources()
    ops.append(
        call("mount", b"none", b"/", None, MS_REC | MS_SLAVE, None, label="detach mounts from the host's")
    )
    ops += _shifted_root(rootfs, host) if users else _root(rootfs, host)
    ops += mounts.all_mounts(terminal=streams.terminal)
    ops += mounts.devices(terminal=streams.terminal)
    ops += _sysctls(linux)
    ops += _working_directory(process)
    ops += plan_mounts.readonly_paths(linux.get("readonlyPaths") or ())
    ops += plan_mounts.masked_paths(linux.get("maskedPaths") or (), host.empty_dir)
    if (spec.get("root") or {}).get("readonly"):
        ops.append(plan_mounts.set_attributes(ROOT, MOUNT_ATTR_RDONLY, label="make the root read-only"))
    ops += _names(spec, namespaces)
    ops += _streams(process, streams, owner[0])
    ops += _pivot()
    if users:
        ops += [*plan_process.limits(process), plan_users.enter()]
    ops.append(_close_all())
    ops += _final(process, host, seccomp, remapped=bool(users))
    flags = CLONE_NEWNS
    for kind, path in namespaces.items():
        if not path and kind != "cgroup":
            flags |= _FLAGS[kind]
    return Plan(ops=tuple(ops), clone_flags=flags, pid_namespace=namespaces.get("pid", ""))


def plan_exec(
    process: Mapping[str, Any], host: HostFacts, *, pid: int, streams: StreamWishes, seccomp: bytes = b""
) -> Plan:
    """The program for a further process; SOURCE holds the pidfd of the container's first one, `pid` is its number.

    The process is made in the container's pid namespace by the caller of clone3 and joins the rest itself. Joining
    a mount namespace leads to the root of that namespace, which is not the container's root when the supervisor
    itself runs in a chroot: so the container's own root is opened before, and entered afterwards. (Should the
    number belong to somebody else by now, then joining by the pidfd fails.) `process.user.hostID` is the container's
    root on the host, when it has a user namespace, which is joined last.
    """
    owner = int((process.get("user") or {}).get("hostID", 0))
    root = f"/proc/{pid}/root".encode()
    flags = plan_mounts.O_PATH | plan_mounts.O_DIRECTORY | plan_mounts.O_CLOEXEC
    everything = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP
    ops: list[Op] = [
        *_fresh_process(process),
        call("openat", AT_FDCWD, root, flags, 0, out=SCRATCH, label="open the container's root"),
        call("setns", SOURCE, everything, label="join the container's namespaces"),
        call("fchdir", SCRATCH),
        call("chroot", b".", label="enter the container's root"),
        *_streams(process, streams, owner),
        *([*plan_process.limits(process), plan_users.enter(SOURCE)] if owner else ()),
        _close_all(),
        *_final(process, host, seccomp, remapped=owner > 0),
    ]
    return Plan(ops=tuple(ops), clone_flags=0)


def _wished_namespaces(linux: Mapping[str, Any], netns: str) -> dict[str, str]:
    """kind -> path to join, "" for a new one; kinds that are shared with the host are left out."""
    wished = {entry["type"]: entry.get("path", "") for entry in linux.get("namespaces") or ()}
    wished.pop("network", None)
    wished.pop("mount", None)
    if netns != "host":
        wished["network"] = netns
    unknown = set(wished) - set(_FLAGS) - {"user"}
    if unknown:
        raise ValueError(f"unsupported namespace {', '.join(sorted(unknown))}: use {', '.join(_FLAGS)}")
    return wished


def _fresh_process(process: Mapping[str, Any]) -> Iterator[Op]:
    """Nothing of the supervisor's own settings reaches the container."""
    yield call("umask", 0)
    yield call("setsid", tolerated=(errno.EPERM,))
    default_action = bytes(32)
    for number in _SIGNALS_RESET:
        yield call("rt_sigaction", number, default_action, None, 8)
    adjustment = process.get("oomScoreAdj")
    if adjustment is not None:
        flags = plan_mounts.O_WRONLY | plan_mounts.O_CLOEXEC
        yield call("openat", AT_FDCWD, b"/proc/self/oom_score_adj", flags, 0, out=SCRATCH)
        text = str(adjustment).encode()
        # Without CAP_SYS_RESOURCE the value cannot be lowered: the inherited one stays.
        yield call("write", SCRATCH, text, len(text), tolerated=(errno.EACCES,))


def _enter_namespaces(namespaces: Mapping[str, str]) -> Iterator[Op]:
    for kind, path in namespaces.items():
        if path and kind != "pid":
            label = f"join the {kind} namespace {path}"
            flags = plan_mounts.O_RDONLY | plan_mounts.O_CLOEXEC
            yield call("openat", AT_FDCWD, path.encode(), flags, 0, out=SCRATCH, label=label)
            yield call("setns", SCRATCH, _FLAGS[kind], label=label)
    # After the process is in its cgroup, because the namespace's root is the cgroup of its maker.
    if namespaces.get("cgroup") == "":
        yield call("unshare", CLONE_NEWCGROUP, label="make a cgroup namespace")


def _loopback(namespaces: Mapping[str, str]) -> Iterator[Op]:
    if namespaces.get("network") == "":
        request = struct.pack("16sH22x", b"lo", IFF_UP)
        yield call("socket", 2, 2 | plan_mounts.O_CLOEXEC, 0, out=SCRATCH, label="open a socket")
        yield call("ioctl", SCRATCH, SIOCSIFFLAGS, request, label="bring up the loopback interface")


def _root(rootfs: RootfsLike, host: HostFacts) -> Iterator[Op]:
    mount_point = host.mount_point.encode()
    if rootfs.lower and not host.overlay_append:
        options = f"lowerdir={':'.join(rootfs.lower)},upperdir={rootfs.upper},workdir={rootfs.work}"
        label = "mount the overlay root"
        yield call("mount", b"overlay", mount_point, b"overlay", 0, options.encode(), label=label)
        flags = plan_mounts.O_PATH | plan_mounts.O_DIRECTORY | plan_mounts.O_CLOEXEC
        yield call("openat", AT_FDCWD, mount_point, flags, 0, out=ROOT)
        return
    if rootfs.lower:
        options_list: list[tuple[str, str | None]] = [("lowerdir+", path) for path in rootfs.lower]
        options_list += [("upperdir", rootfs.upper), ("workdir", rootfs.work)]
        yield from plan_mounts.new_mount(
            "overlay", "overlay", options_list, 0, ROOT, "mount the overlay root"
        )
    else:
        label = f"clone the root folder {rootfs.upper}"
        flags = plan_mounts.CLONE_TREE
        yield call("open_tree", AT_FDCWD, rootfs.upper.encode(), flags, out=ROOT, label=label)
        yield plan_mounts.set_attributes(ROOT, 0, propagation=MS_PRIVATE)
    yield from _attach_root(host)


def _attach_root(host: HostFacts) -> Iterator[Op]:
    yield call(
        "move_mount",
        ROOT,
        b"",
        AT_FDCWD,
        host.mount_point.encode(),
        plan_mounts.FROM_DESCRIPTOR,
        label=f"attach the root at {host.mount_point}",
    )


def _shifted_root(rootfs: RootfsLike, host: HostFacts) -> Iterator[Op]:
    """The root of a container whose users are others on the host."""
    if not rootfs.lower:
        yield from plan_users.plain_root(rootfs.upper)
        yield from _attach_root(host)
        return
    layers = plan_users.shifted_layers(host.mount_point, rootfs.lower, rootfs.upper, rootfs.work)
    for item in layers:
        if isinstance(item, Op):
            yield item
        else:
            lower, upper, work = item
            yield from _root(_Layers(lower=lower, upper=upper, work=work), host)


class _Layers(msgspec.Struct, frozen=True, kw_only=True):
    lower: tuple[str, ...]
    upper: str
    work: str


def _sysctls(linux: Mapping[str, Any]) -> Iterator[Op]:
    """Through a /proc of our own that is nowhere attached: what the container shows at /proc may be somebody's volume."""
    settings = linux.get("sysctl") or {}
    if settings:
        yield from plan_mounts.new_mount("proc", "proc", (), 0, SOURCE, "open the kernel's settings")
    flags = plan_mounts.O_WRONLY | plan_mounts.O_CLOEXEC
    how = struct.pack("<3Q", flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    for name, value in settings.items():
        path = "sys/" + name.replace(".", "/")
        label = f"set the sysctl {name}"
        yield call("openat2", SOURCE, path.encode(), how, len(how), out=SCRATCH, label=label)
        text = str(value).encode()
        yield call("write", SCRATCH, text, len(text), label=label)


def _working_directory(process: Mapping[str, Any]) -> Iterator[Op]:
    cwd = process.get("cwd") or "/"
    if cwd != "/":
        yield target(ROOT, cwd, TARGET_DIRECTORY, None, TARGET, label=f'mkdir of the cwd "{cwd}"')


def _names(spec: Mapping[str, Any], namespaces: Mapping[str, str]) -> Iterator[Op]:
    if namespaces.get("uts") != "":
        return
    for key, name in (("hostname", "sethostname"), ("domainname", "setdomainname")):
        value = str(spec.get(key) or "").encode()
        if value:
            yield call(name, value, len(value), label=f"set the {key}")


def _streams(process: Mapping[str, Any], streams: StreamWishes, owner: int = 0) -> Iterator[Op]:
    """`owner`: the container's root on the host."""
    for number, register in enumerate((STDIN, STDOUT, STDERR)):
        yield call("dup3", register, number, 0)
    if streams.terminal:
        yield call("ioctl", 0, TIOCSCTTY, 0, label="take the controlling terminal")
    uid = owner + (process.get("user") or {}).get("uid", 0)
    if uid == 0:
        return
    # So that a process of another user can open /dev/stdout. /dev/null belongs to the host: not that one.
    own = (0, 1, 2) if streams.stdin or streams.terminal else (1, 2)
    for number in own:
        flags = AT_EMPTY_PATH
        yield call("fchownat", number, b"", uid, -1, flags, tolerated=(errno.EPERM, errno.EINVAL))


def _close_all() -> Op:
    return call("close_range", 3, _DESCRIPTOR_MAX, 0)


def _pivot() -> Iterator[Op]:
    """The old root is stacked below the new one and detached, so that no folder for it is needed."""
    yield call("fchdir", ROOT)
    yield call("pivot_root", b".", b".", label="pivot_root")
    yield call("umount2", b".", MNT_DETACH, label="detach the host's root")


def _final(process: Mapping[str, Any], host: HostFacts, seccomp: bytes, *, remapped: bool) -> Iterator[Op]:
    # In a new user namespace the bounding set is full, whatever ours is.
    bounding = plan_users.ALL_CAPABILITIES if remapped else host.capabilities
    cwd = process.get("cwd") or "/"
    yield call("chdir", cwd.encode(), label=f'chdir to cwd ("{cwd}") set in config.json failed')
    if not remapped:
        yield from plan_process.limits(process)
    yield from plan_process.rights(process, bounding, host.last_capability, seccomp)
    yield call("umask", process.get("user", {}).get("umask", 0o022))
    args = [str(item) for item in process.get("args") or ()]
    if not args:
        raise ValueError("process.args is empty: there is nothing to execute")
    env = [str(item) for item in process.get("env") or ()]
    yield execute(plan_process.candidates(args[0], env), args, env, label=args[0])
