"""Devices of the host in a container's options: `--device`, `--device-cgroup-rule`, `--device-read-bps` and the like."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Any

from engine.errors import InvalidParameter

_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})", re.ASCII)


# Made by the runtime itself in every container, or of no use in one.
_NOT_SHOWN = frozenset(("pts", "shm", "fd", "mqueue", "hugepages", "console", "ptmx", ".udev", ".lxc"))
_OWN_DEVICES = frozenset(("null", "zero", "full", "random", "urandom", "tty"))


def host_devices(path: str, target: str) -> list[dict[str, Any]]:
    """`host_device`, or all devices of a folder, such as /dev/snd."""
    if not Path(path).is_dir():
        return [host_device(path, target)]
    found = [
        host_device(str(node), str(Path(target or path) / node.relative_to(path)))
        for node in sorted(Path(path).rglob("*"))
        if not node.is_symlink() and (node.is_char_device() or node.is_block_device())
    ]
    if not found:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": no devices in that folder'
        )
    return found


def all_host_devices(folder: Path = Path("/dev")) -> list[dict[str, Any]]:
    """Every device of the host, for privileged containers; one that goes away meanwhile is left out."""
    found = []
    for top in sorted(folder.iterdir()):
        if top.name in _NOT_SHOWN or top.name in _OWN_DEVICES:
            continue
        nodes = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]
        for node in nodes:
            if not node.is_symlink() and (node.is_char_device() or node.is_block_device()):
                with contextlib.suppress(InvalidParameter):
                    found.append(host_device(str(node), f"/dev/{node.relative_to(folder)}"))
    return found


def host_device(path: str, target: str) -> dict[str, Any]:
    """The OCI description of a device node of the host, shown at `target` (default: the same path)."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": '
            f"{(error.strerror or str(error)).lower()}"
        ) from error
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": not a device node'
        )
    return {
        "path": target or path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def block_device(path: str) -> dict[str, int]:
    """{major, minor} of a block device. InvalidParameter when there is none at `path`."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InvalidParameter(f"cannot limit the block device {path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidParameter(f"cannot limit the block device {path}: not a block device")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def device_rule(text: str) -> dict[str, Any]:
    """`c 1:3 rwm` as an OCI device rule that allows; `*` is any number."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidParameter(f"invalid device cgroup rule format: '{text}': such as 'c 1:3 rwm'")
    kind, major, minor, access = match.groups()
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    return rule | {key: int(n) for key, n in (("major", major), ("minor", minor)) if n != "*"}
