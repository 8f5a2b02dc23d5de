"""The local volume driver's options: a volume that is a mount of its own (type, device, o), as mount(8) has it.

Owns the reading of options and the mounting; which containers use a volume is engine.volumes' business.
Invariant: a mount is either there whole (flags, propagation) or not at all.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from engine.errors import EngineFailure, InvalidParameter
from engine.runtime import syscalls
from engine.runtime.syscalls import MNT_DETACH, MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE, MS_UNBINDABLE

KNOWN = ("type", "o", "device", "size")
_NEEDED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
MS_RDONLY, MS_REMOUNT, MS_BIND = 0x1, 0x20, 0x1000
# Numbers of linux/mount.h: (name, number, whether the word sets the flag or clears it).
_FLAGS = {
    "defaults": (0, True),
    "ro": (MS_RDONLY, True),
    "rw": (MS_RDONLY, False),
    "nosuid": (0x2, True),
    "suid": (0x2, False),
    "nodev": (0x4, True),
    "dev": (0x4, False),
    "noexec": (0x8, True),
    "exec": (0x8, False),
    "sync": (0x10, True),
    "async": (0x10, False),
    "mand": (0x40, True),
    "nomand": (0x40, False),
    "dirsync": (0x80, True),
    "noatime": (0x400, True),
    "atime": (0x400, False),
    "nodiratime": (0x800, True),
    "diratime": (0x800, False),
    "bind": (MS_BIND, True),
    "rbind": (MS_BIND | MS_REC, True),
    "relatime": (0x200000, True),
    "norelatime": (0x200000, False),
    "strictatime": (0x1000000, True),
    "nostrictatime": (0x1000000, False),
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
_OF_BIND_ALONE = MS_BIND | MS_REC  # a bind mount takes other flags only when it is mounted again
_NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3")
_ADDRESS = re.compile(r"(?:^|,)addr=([^,]+)")

logger = logging.getLogger(__name__)


def checked_options(name: str, options: Mapping[str, str]) -> None:
    """InvalidParameter names an option that is not known, or one that is missing."""
    for option in options:
        if option not in KNOWN:
            raise InvalidParameter(f'create {name}: invalid option: "{option}"')
    for option in options:
        for needed in _NEEDED.get(option, ()):
            if not options.get(needed):
                raise InvalidParameter(f'create {name}: missing required option: "{needed}"')
    if options.get("size") not in (None, "", "0"):
        raise InvalidParameter(
            f"create {name}: quota size requested but no quota support: leave the option size out"
        )


def is_mount(options: Mapping[str, str]) -> bool:
    """Whether the volume is more than a folder."""
    return bool(options.get("device") or options.get("type"))


def mount(options: Mapping[str, str], target: Path) -> None:
    """EngineFailure in Docker's words when the kernel refuses."""
    kind, device, text = options["type"], options["device"], options.get("o", "")
    try:
        if kind in _NETWORK_TYPES:
            text = _with_address(text)
        flags, propagation, data = parsed_flags(text)
        _mount(device, str(target), kind, flags, propagation, data)
    except OSError as error:
        raise EngineFailure(
            f"error while mounting volume '{target}': failed to mount local volume: mount {device}:{target}, "
            f"{'data: ' + text + ': ' if text else ''}{(error.strerror or str(error)).lower()}"
        ) from error


def _mount(device: str, target: str, kind: str, flags: int, propagation: int, data: str) -> None:
    syscalls.mount(device, target, kind, flags, data)
    try:
        if flags & MS_BIND and flags & ~_OF_BIND_ALONE:
            syscalls.mount("", target, "", flags | MS_REMOUNT, "")
        if propagation:
            syscalls.mount("", target, "", propagation, "")
    except OSError:
        syscalls.umount(target, MNT_DETACH)
        raise


def unmount(target: Path) -> None:
    """Nothing happens when nothing is mounted there."""
    try:
        syscalls.umount(str(target))
    except OSError as error:
        if error.errno == errno.EBUSY:
            logger.warning("%s is busy: it goes when nobody uses it any more", target)
            syscalls.umount(str(target), MNT_DETACH)
        elif error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def is_mounted(target: Path) -> bool:
    return str(target) in mount_points()


def mount_points() -> set[str]:
    """All of this process's, as paths."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return {os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1")) for line in lines}


def parsed_flags(text: str) -> tuple[int, int, str]:
    """`o` as flags of mount(2), propagation, and what is for the file system. Pure."""
    flags, propagation, data = 0, 0, []
    for word in text.split(","):
        if word in _FLAGS:
            number, is_set = _FLAGS[word]
            flags = flags | number if is_set else flags & ~number
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word:
            data.append(word)
    return flags, propagation, ",".join(data)


def _with_address(text: str) -> str:
    """The kernel knows no names: `addr=` becomes an address, as mount.nfs does it."""
    found = _ADDRESS.search(text)
    if found is None or _is_address(found[1]):
        return text
    try:
        answers = socket.getaddrinfo(found[1], None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise EngineFailure(
            f"error resolving passed in network volume address {found[1]}: {error}"
        ) from error
    address = next((a for a in answers if a[0] == socket.AF_INET), answers[0])[4][0]
    return text[: found.start(1)] + str(address) + text[found.end(1) :]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
