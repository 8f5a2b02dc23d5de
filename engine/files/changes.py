"""What of a container's changes its user made: without the places that the engine makes to mount its own things on. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from engine.storage.driver import ADDED, MODIFIED

OWN_PLACES = frozenset(
    [
        *("/.dockerenv", "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys"),
        *("/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"),
    ]
)


def users_changes(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(path, kind) as a storage driver tells them -> those to be shown, in the same order.

    A folder that is there only because of an own place is left out as well.
    """
    found = list(found)
    own = {path for path, kind in found if path in OWN_PLACES and kind == ADDED}
    rest = [(path, kind) for path, kind in found if path not in own]
    needed = {above for path, _ in rest for above in _folders_above(path)}
    because = {above for path in own for above in _folders_above(path)} - needed
    return [(path, kind) for path, kind in rest if path not in because or kind not in (MODIFIED, ADDED)]


def _folders_above(path: str) -> Iterable[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path
