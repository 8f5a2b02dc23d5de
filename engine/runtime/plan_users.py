"""Operations of a start program for a container whose users are others on the host. Pure.

The user namespace is open in USERS from the start, and stands at descriptor 0 too, because mount_setattr takes a
number inside of a structure; descriptor 0 becomes the container's standard input later. Invariants: everything that
is made in the container's root is made with the ids of its own root (an idmapped mount refuses ids that are not
mapped); the namespace is entered after the root is pivoted, when no right over the host is needed any more.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.runtime import plan_mounts
from engine.runtime.program import Op, Register, call
from engine.runtime.registers import FOLDER, ROOT, SOURCE, USERS
from engine.runtime.syscalls import (
    AT_FDCWD,
    CLONE_NEWUSER,
    PR_SET_SECUREBITS,
    SECBIT_NO_SETUID_FIXUP,
)

ALL_CAPABILITIES = (1 << 64) - 1
_AT_ZERO = 0


def become_owner(path: str, uid: int, gid: int) -> Iterator[Op]:
    """Open the namespace; from here on files are made as the container's root, with all rights kept."""
    label = "open the user namespace"
    flags = plan_mounts.O_RDONLY | plan_mounts.O_CLOEXEC
    yield call("openat", AT_FDCWD, path.encode(), flags, 0, out=USERS, label=label)
    yield call("dup3", USERS, _AT_ZERO, 0, label=label)
    yield call("prctl", PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0, label="keep rights")
    yield call("setfsgid", gid)
    yield call("setfsuid", uid)


def shifted_layers(
    mount_point: str, lower: Sequence[str], upper: str, work: str
) -> Iterator[Op | tuple[tuple[str, ...], str, str]]:
    """Clones of all layers below a tmpfs at `mount_point`; ends with (lower, upper, work) as the overlay takes them.

    By paths, because overlays take descriptors only since Linux 6.13. `upper` and `work` lie in one folder.
    """
    label = "show the layers with shifted owners"
    yield from plan_mounts.new_mount("tmpfs", "tmpfs", [("mode", "755")], 0, FOLDER, label)
    yield call(
        "move_mount", FOLDER, b"", AT_FDCWD, mount_point.encode(), plan_mounts.FROM_DESCRIPTOR, label=label
    )
    own = posixpath.dirname(upper)
    names = [(str(index), path) for index, path in enumerate(lower)] + [("own", own)]
    for name, path in names:
        yield call("mkdirat", FOLDER, name.encode(), 0o755, label=label)
        flags = plan_mounts.CLONE_TREE
        yield call("open_tree", AT_FDCWD, path.encode(), flags, out=SOURCE, label=f"{label}: {path}")
        yield plan_mounts.shift_owners(SOURCE, label=f"{label}: {path}")
        yield call("move_mount", SOURCE, b"", FOLDER, name.encode(), plan_mounts.FROM_DESCRIPTOR, label=label)
    shifted = tuple(f"{mount_point}/{index}" for index in range(len(lower)))
    inside = f"{mount_point}/own/"
    yield shifted, inside + posixpath.relpath(upper, own), inside + posixpath.relpath(work, own)


def plain_root(upper: str) -> Iterator[Op]:
    """A root that is one folder."""
    label = f"clone the root folder {upper}"
    yield call("open_tree", AT_FDCWD, upper.encode(), plan_mounts.CLONE_TREE, out=ROOT, label=label)
    yield plan_mounts.shift_owners(ROOT, label=label)


def enter(namespace: Register = USERS) -> Op:
    """`namespace`: open, or the pidfd of a process that is in it."""
    return call("setns", namespace, CLONE_NEWUSER, label="enter the user namespace")


def host_ids(linux: Mapping[str, Any]) -> tuple[int, int]:
    """The container's root on the host, of an OCI configuration's mappings; (0, 0) without any."""
    first = [(linux.get(f"{kind}Mappings") or [{}])[0].get("hostID", 0) for kind in ("uid", "gid")]
    return int(first[0]), int(first[1])
