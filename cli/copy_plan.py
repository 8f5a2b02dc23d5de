"""Where a copy goes: what `cp SOURCE DESTINATION` means, for both directions. Pure.

As cp(1) and docker do it: into a folder that exists, over a file, or under a new name. `dir/.` means the contents.
"""

from __future__ import annotations

import posixpath
from typing import NamedTuple

from cli.errors import UsageError


class Side(NamedTuple):
    """One end. `path` keeps a `/` or `/.` at its end."""

    path: str
    exists: bool
    is_folder: bool

    @property
    def says_folder(self) -> bool:
        return self.path.endswith(("/", "/."))


class Plan(NamedTuple):
    """Unpack into `folder`; members are called `name` instead of `base` (equal: as they are)."""

    folder: str
    base: str
    name: str

    def renamed(self, member: str) -> str:
        """A member's name there; "" for the folder itself."""
        if self.base == ".":
            rest = "" if member == "." else member.removeprefix("./")
        else:
            rest = member if self.base == "/" else member.removeprefix(self.base)
        rest = rest.strip("/")
        return rest if self.name == "." else posixpath.join(self.name, rest).rstrip("/")


def base_of(path: str) -> str:
    """The last part, as archives of it are named: `/a/b/` is b, `/a/.` is `.`, the root is `/`."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def plan(source: Side, target: Side, kept: str = "") -> Plan:
    """UsageError when it cannot be. `kept`: the name in a folder that exists, when it is not the source's own."""
    base = base_of(source.path)
    if target.exists and target.is_folder:
        return Plan(target.path, base, "." if base in (".", "/") else kept or base)
    if target.exists and source.is_folder:
        raise UsageError("cannot copy directory")
    if not source.is_folder and target.says_folder:
        raise UsageError(
            f"no such directory: {target.path}" if not target.exists else f"not a directory: {target.path}"
        )
    path = target.path.removesuffix("/.").rstrip("/") or "/"
    return Plan(posixpath.dirname(path) or ".", base, posixpath.basename(path))


def split_argument(argument: str) -> tuple[str, str]:
    """(container, path); the container is "" for a local path or `-`."""
    if argument.startswith("/"):
        return "", argument
    container, colon, path = argument.partition(":")
    if not colon or container.startswith("."):
        return "", argument
    return container, path
