"""The last steps before execve: limits, filter, ids, capabilities, and which file is executed. Pure.

Order matters: the seccomp filter is loaded while CAP_SYS_ADMIN is still there (with no_new_privs it is
loaded last, as it then needs no right); the bounding set shrinks while CAP_SETPCAP is there; groups before
user; capabilities after the user, kept over the change where some are wished.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.runtime.capabilities import mask_of
from engine.runtime.program import FilterCode, Op, call, rlimit
from engine.runtime.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    SECCOMP_SET_MODE_FILTER,
)

_RLIMITS = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMIT_NUMBERS = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMITS.split())}
_CAPABILITY_VERSION = 0x20080522
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def rights(
    process: Mapping[str, Any], bounding_of_host: int, last_capability: int, seccomp: bytes
) -> Iterator[Op]:
    """From root with everything to what the process may have; `limits` have been set."""
    no_new_privileges = bool(process.get("noNewPrivileges"))
    filter_op = call(
        "seccomp", SECCOMP_SET_MODE_FILTER, 0, FilterCode(seccomp), label="load the seccomp filter"
    )
    if seccomp and not no_new_privileges:
        yield filter_op
    yield from _identity(process, bounding_of_host, last_capability)
    if no_new_privileges:
        yield call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, label="set no_new_privs")
        if seccomp:
            yield filter_op


def candidates(name: str, env: Sequence[str]) -> list[str]:
    """The files to try for a command: itself when it has a slash, else one per folder of PATH."""
    if "/" in name:
        return [name]
    path = next((item[5:] for item in reversed(env) if item.startswith("PATH=")), DEFAULT_PATH)
    return [f"{folder.rstrip('/')}/{name}" for folder in path.split(":") if folder.startswith("/")]


def limits(process: Mapping[str, Any]) -> Iterator[Op]:
    """Resource limits, while this is the host's root, who may raise them."""
    for limit in process.get("rlimits") or ():
        name = str(limit["type"]).upper()
        if name not in RLIMIT_NUMBERS:
            raise ValueError(f"invalid rlimit type {name}: use one of {', '.join(RLIMIT_NUMBERS)}")
        soft, hard = (int(limit[key]) for key in ("soft", "hard"))
        # Some clients send "unlimited" as the largest unsigned number instead of -1.
        soft, hard = (-1 if value < 0 or value >= 2**63 else value for value in (soft, hard))
        yield rlimit(RLIMIT_NUMBERS[name], soft, hard, label=f"set {name}")


def _identity(process: Mapping[str, Any], bounding_of_host: int, last_capability: int) -> Iterator[Op]:
    user = process.get("user") or {}
    uid, gid = int(user.get("uid", 0)), int(user.get("gid", 0))
    groups = [int(group) for group in user.get("additionalGids") or ()]
    capabilities = process.get("capabilities")
    sets = {name: mask_of(names or ()) & bounding_of_host for name, names in (capabilities or {}).items()}
    if capabilities is not None:
        bounding = sets.get("bounding", 0)
        for number in range(last_capability + 1):
            if bounding_of_host >> number & 1 and not bounding >> number & 1:
                yield call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0, label="drop from the bounding set")
    if sets.get("permitted") and uid != 0:
        yield call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0)
    packed = struct.pack(f"<{len(groups)}I", *groups)
    yield call("setgroups", len(groups), packed, label="set the supplementary groups")
    yield call("setresgid", gid, gid, gid, label=f"set the group {gid}")
    yield call("setresuid", uid, uid, uid, label=f"set the user {uid}")
    if capabilities is not None:
        yield from _capability_sets(sets)


def _capability_sets(sets: Mapping[str, int]) -> Iterator[Op]:
    effective, permitted = sets.get("effective", 0), sets.get("permitted", 0)
    inheritable = sets.get("inheritable", 0)
    low = [value & 0xFFFFFFFF for value in (effective, permitted, inheritable)]
    high = [value >> 32 for value in (effective, permitted, inheritable)]
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    yield call("capset", header, struct.pack("<6I", *low, *high), label="set the capabilities")
    yield call("prctl", PR_SET_KEEPCAPS, 0, 0, 0, 0)
    yield call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    ambient = sets.get("ambient", 0) & permitted & inheritable
    for number in range(ambient.bit_length()):
        if ambient >> number & 1:
            yield call(
                "prctl",
                PR_CAP_AMBIENT,
                PR_CAP_AMBIENT_RAISE,
                number,
                0,
                0,
                label="raise an ambient capability",
            )
