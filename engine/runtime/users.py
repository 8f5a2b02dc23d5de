"""Which numeric ids a container's process gets: "user[:group]" looked up in the container's own files.

The image is not trusted: its passwd and group files are read without leaving its root, only regular files
of a bounded size, and never through the C library (which would read the host's).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

import msgspec

from engine.runtime import syscalls
from engine.runtime.plan import RootfsLike
from engine.runtime.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS

FILE_BYTES_MAX = 4 * 1024 * 1024
ID_MAX = 2**31 - 1


class ResolvedUser(msgspec.Struct, frozen=True):
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def resolve_user(text: str, rootfs: RootfsLike, *, extra_groups: Sequence[str] = ()) -> ResolvedUser:
    """Ids for `text` ("" is root) in a container's root. LookupError in Docker's words."""
    return resolve(
        text,
        read_inside(rootfs, "etc/passwd"),
        read_inside(rootfs, "etc/group"),
        extra_groups=extra_groups,
    )


def resolve(text: str, passwd: str, group: str, *, extra_groups: Sequence[str] = ()) -> ResolvedUser:
    """Docker's rules: a name must be in the file, a number need not be; without a group the user's own one
    and all groups that list the user's name; a given group replaces those. Pure."""
    user_text, _, group_text = text.partition(":")
    user_text = user_text or "0"
    entry = _user_entry(user_text, passwd)
    if entry is None:
        uid = _number(user_text)
        if uid is None:
            raise LookupError(f"unable to find user {user_text}: no matching entries in passwd file")
        name, gid, home = "", 0, ""
    else:
        name, uid, gid, home = entry
    groups: list[int] = []
    if group_text:
        gid = _group_id(group_text, group)
    elif name:
        groups = [number for _, number, members in _group_entries(group) if name in members]
    for extra in extra_groups:
        groups.append(_group_id(extra, group))
    return ResolvedUser(uid, gid, tuple(dict.fromkeys(groups)), home)


def read_inside(rootfs: RootfsLike, path: str) -> str:
    """A text file of the container: the topmost layer that has it; "" when none has.

    The layers are looked at one by one, because the root may not be mounted. A whiteout ends the search.
    """
    for layer in (rootfs.upper, *rootfs.lower):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            root = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
                descriptor = syscalls.openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
            except OSError as error:
                if isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise
                return ""  # a whiteout cannot be opened, nor can a loop of links
            finally:
                os.close(root)
            return _read_regular(descriptor)
    return ""


def _read_regular(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        return file.read(FILE_BYTES_MAX).decode("utf-8", "replace")


def _user_entry(text: str, passwd: str) -> tuple[str, int, int, str] | None:
    """(name, uid, gid, home) of the first line that matches by name, or by number."""
    wanted = _number(text)
    for line in passwd.splitlines():
        fields = line.strip().split(":")
        if len(fields) < 4 or line.startswith("#"):
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (fields[0] == text or uid == wanted):
            return fields[0], uid, gid, fields[5] if len(fields) > 5 else ""
    return None


def _group_id(text: str, group: str) -> int:
    wanted = _number(text)
    for name, number, _ in _group_entries(group):
        if name == text or number == wanted:
            return number
    if wanted is None:
        raise LookupError(f"unable to find group {text}: no matching entries in group file")
    return wanted


def _group_entries(group: str) -> list[tuple[str, int, list[str]]]:
    entries = []
    for line in group.splitlines():
        fields = line.strip().split(":")
        number = _number(fields[2]) if len(fields) >= 3 else None
        if number is not None and not line.startswith("#"):
            members = fields[3].split(",") if len(fields) > 3 else []
            entries.append((fields[0], number, members))
    return entries


def _number(text: str) -> int | None:
    """A valid id, else None."""
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= ID_MAX else None
