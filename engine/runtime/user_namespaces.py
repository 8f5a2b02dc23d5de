"""Which users of the host the users of remapped containers are (`--userns-remap`), and the namespace that says so.

`Remapping` is parsed from the setting and /etc/subuid, /etc/subgid; `NamespaceKeeper` holds one user namespace with
that mapping for as long as the daemon runs (containers that are in it keep it). Nothing on disk is changed: owners are
shifted by idmapped mounts (docs/adr/0019).
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.errors import EngineFailure, InvalidParameter

DEFAULT_USER = "dockremap"
SIZE_MINIMUM = 65_536  # an image may use every id of 16 bits
KERNEL_MINIMUM = (5, 19)  # overlays of idmapped layers
_CHILD = (
    "import ctypes, sys; sys.exit(1) if ctypes.CDLL(None).unshare(0x10000000) else print(flush=True); input()"
)


class Remapping(msgspec.Struct, frozen=True, kw_only=True):
    """Users 0 to `uids`-1 of a container are `uid`, `uid`+1, ... on the host; groups likewise."""

    uid: int
    gid: int
    uids: int = SIZE_MINIMUM
    gids: int = SIZE_MINIMUM

    @property
    def uid_map(self) -> str:
        return f"0 {self.uid} {self.uids}\n"

    @property
    def gid_map(self) -> str:
        return f"0 {self.gid} {self.gids}\n"


def parse_remapping(setting: str, etc: Path = Path("/etc")) -> Remapping | None:
    """`default`, `USER` or `USER:GROUP` (names or numbers); "" is None. InvalidParameter says what is missing."""
    if not setting:
        return None
    user, separator, group = setting.partition(":")
    if not user or (separator and not group):
        raise InvalidParameter(f'invalid userns-remap "{setting}": use default, USER or USER:GROUP')
    user = DEFAULT_USER if user == "default" else user
    group = group or user
    uid, uids = _range(etc / "subuid", _names(user, _user_name, _user_id))
    gid, gids = _range(etc / "subgid", _names(group, _group_name, _group_id))
    return Remapping(uid=uid, gid=gid, uids=uids, gids=gids)


def _names(text: str, name_of: Callable[[int], str], id_of: Callable[[str], int]) -> tuple[str, ...]:
    """What a line of /etc/subuid may call them: the name and the number."""
    try:
        other = name_of(int(text)) if text.isdecimal() else str(id_of(text))
    except KeyError:
        return (text,)
    return (text, other)


def _range(path: Path, names: tuple[str, ...]) -> tuple[int, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, *numbers = line.split(":")
        if name in names and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            first, size = (int(number) for number in numbers)
            if size < SIZE_MINIMUM or first == 0:
                raise InvalidParameter(f"{path}: {line}: {SIZE_MINIMUM} ids from above 0 are needed at least")
            return first, size
    raise InvalidParameter(
        f"can't find subordinate ids for {names[0]}: add a line such as {names[0]}:100000:{SIZE_MINIMUM} to {path}"
    )


def running_remapping(pid: int) -> Remapping | None:
    """That of a running process, None when its users are the host's."""
    try:
        maps = [Path(f"/proc/{pid}/{kind}_map").read_text().split() for kind in ("uid", "gid")]
    except OSError:
        return None
    (_, uid, uids), (_, gid, gids) = ([int(number) for number in line[:3]] for line in maps)
    return Remapping(uid=uid, gid=gid, uids=uids, gids=gids) if uid else None


class NamespaceKeeper:
    """One user namespace, made when it is first asked for."""

    def __init__(self, remapping: Remapping) -> None:
        self._remapping = remapping
        self._descriptor = -1

    def path(self) -> str:
        """A path that other processes of root can open. Blocking, some 20 ms, the first time."""
        if self._descriptor < 0:
            self._descriptor = _make(self._remapping)
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def check_kernel(release: str) -> None:
    """InvalidParameter when this kernel cannot shift the owners of layers."""
    major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    if (major, minor) < KERNEL_MINIMUM:
        needed = ".".join(map(str, KERNEL_MINIMUM))
        raise InvalidParameter(
            f"userns-remap needs Linux {needed} (idmapped layers of overlays), this is {release}"
        )


def _make(remapping: Remapping) -> int:
    """A descriptor of a new user namespace: a child makes it, and we, who may, write its maps."""
    command = [sys.executable, "-I", "-S", "-c", _CHILD]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            if child.stdout.readline() != b"\n":
                raise EngineFailure(
                    "cannot make a user namespace for userns-remap: see user.max_user_namespaces of sysctl"
                )
            Path(f"/proc/{child.pid}/uid_map").write_text(remapping.uid_map)
            Path(f"/proc/{child.pid}/gid_map").write_text(remapping.gid_map)
            return os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise EngineFailure(f"cannot map users for userns-remap: {error}") from error
        finally:
            child.kill()


def _user_name(number: int) -> str:
    return pwd.getpwuid(number).pw_name


def _user_id(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group_name(number: int) -> str:
    return grp.getgrgid(number).gr_name


def _group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid
