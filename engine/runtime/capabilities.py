"""Linux capabilities of containers: names and numbers, Docker's default set, `--cap-add` and `--cap-drop`.

Source: include/uapi/linux/capability.h; defaults and rules as Docker's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.errors import InvalidParameter

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT_NAMES = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
KILL AUDIT_WRITE
"""
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(_NAMES.split())}
DEFAULT = tuple(f"CAP_{name}" for name in _DEFAULT_NAMES.split())


def container_capabilities(
    *,
    add: Sequence[str] = (),
    drop: Sequence[str] = (),
    privileged: bool = False,
    available: int | None = None,
) -> list[str]:
    """The names a container gets, in numeric order; what this host does not have is left out.

    `available`: mask of the host's bounding set, by default this process's. `ALL` in `add` starts from
    everything, in `drop` from nothing. InvalidParameter for an unknown name.
    """
    host = bounding_mask() if available is None else available
    added, dropped = _normalized(add, "CapAdd"), _normalized(drop, "CapDrop")
    if privileged:
        chosen = set(NUMBERS)
    elif "ALL" in added:
        chosen = set(NUMBERS) - (dropped - {"ALL"})
    elif "ALL" in dropped:
        chosen = added
    else:
        chosen = (set(DEFAULT) | added) - dropped
    return [name for name, number in NUMBERS.items() if name in chosen and host >> number & 1]


def mask_of(names: Iterable[str]) -> int:
    """Bit mask of names; names that this version does not know are left out, as they cannot be held."""
    return functools.reduce(
        lambda mask, name: mask | (1 << NUMBERS[name] if name in NUMBERS else 0), names, 0
    )


@functools.cache
def bounding_mask() -> int:
    """The bounding set of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return int(line.split()[1], 16)
    return 0


@functools.cache
def last_capability() -> int:
    """The highest capability number that this kernel knows."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _normalized(names: Iterable[str], field: str) -> set[str]:
    normalized = set()
    for name in names:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in NUMBERS:
            raise InvalidParameter(f'invalid {field}: unknown capability: "{full}"')
        normalized.add(full)
    return normalized
