"""Network namespaces: made, pinned, entered; settings of the one that the calling thread is in.

Everything here blocks: call it in worker threads (`Workers`). A thread that enters another namespace always
returns to its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from overlay_net.errors import KernelRefused

_T = TypeVar("_T")
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_SIOCSIFFLAGS = 0x8914
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


class Workers:
    """Threads for blocking work; `run` from the event loop."""

    def __init__(self, count: int = 8) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="network")

    async def run(self, function: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*arguments))

    def close(self) -> None:
        self._pool.shutdown(wait=True)


def create(path: Path) -> None:
    """A new network namespace with its loopback up, pinned at `path`."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    home = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "cannot make a network namespace")
        try:
            source, target = _own().encode(), os.fsencode(path)
            _check(_libc.mount(source, target, None, _MS_BIND, None), f"cannot pin a namespace at {path}")
            _loopback_up()
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "cannot return from a network namespace")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(home)


def remove(path: Path) -> None:
    """Unpin: the namespace goes, with all its links, when nothing uses it any more."""
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def is_pinned(path: Path) -> bool:
    """Whether there is a namespace at `path`; a pin that was unmounted leaves an empty file."""
    try:
        with inside(path):
            return True
    except (OSError, KernelRefused):
        return False


@contextlib.contextmanager
def inside(path: str | Path | None) -> Iterator[None]:
    """The calling thread is in that namespace for the duration; None stays where it is."""
    if path is None:
        yield
        return
    home = os.open(_own(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(target, _CLONE_NEWNET), f"cannot enter the network namespace {path}")
        finally:
            os.close(target)
        try:
            yield
        finally:
            _check(_libc.setns(home, _CLONE_NEWNET), "cannot return from a network namespace")
    finally:
        os.close(home)


@contextlib.contextmanager
def descriptor(path: str | Path) -> Iterator[int]:
    """An open descriptor of that namespace."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)


def set_sysctl(name: str, value: str, *, required: bool = True) -> None:
    """net.* of the calling thread's namespace. KernelRefused names it."""
    path = Path("/proc/sys") / name.replace("/", "\0").replace(".", "/").replace("\0", ".")
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        if required:
            raise KernelRefused(f"cannot set {name}={value}: {error.strerror}") from error


def set_device_sysctl(device: str, name: str, value: str, family: str = "ipv4") -> None:
    """net.<family>.conf.<device>.<name>; device names may contain dots."""
    path = Path(f"/proc/sys/net/{family}/conf") / device / name
    try:
        path.write_text(value)
    except OSError as error:
        raise KernelRefused(f"cannot set {path}: {error.strerror}") from error


def forward_ipv6() -> None:
    """Between all devices, as the kernel has no other way. A host that forwards forgets what routers told it
    unless it is asked to go on listening (accept_ra 2): its own addresses and routes stay."""
    folder = Path("/proc/sys/net/ipv6/conf")
    try:
        if (folder / "all/forwarding").read_text().strip() == "1":
            return
        for setting in folder.glob("*/accept_ra"):
            if setting.read_text().strip() == "1":
                setting.write_text("2")
        (folder / "all/forwarding").write_text("1")
    except OSError as error:
        raise KernelRefused(f"cannot forward IPv6 on this host: {error.strerror}") from error


def _check(result: int, what: str) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise KernelRefused(f"{what}: {os.strerror(code)}")


def _own() -> str:
    return f"/proc/self/task/{threading.get_native_id()}/ns/net"


def _loopback_up() -> None:
    """ioctl instead of netlink: it costs a twentieth."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP | _IFF_RUNNING))
