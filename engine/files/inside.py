"""Finding things below a root that is not ours: the kernel resolves every path inside it, links and `..` included.

What is opened never lies outside, also while somebody swaps links (openat2 RESOLVE_IN_ROOT), and links of /proc that
jump anywhere are not followed. Errors are the kernel's OSError.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from engine.runtime.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

RACES_MAX = 128  # openat2 gives up (EAGAIN) when something on its way was moved meanwhile
LINKS_MAX = 255

_GO_MODES = (  # of Go's os.FileMode, as clients know them
    (stat.S_IFDIR, 1 << 31),
    (stat.S_IFLNK, 1 << 27),
    (stat.S_IFBLK, 1 << 26),
    (stat.S_IFCHR, 1 << 26 | 1 << 21),
    (stat.S_IFIFO, 1 << 25),
    (stat.S_IFSOCK, 1 << 24),
)
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def open_inside(root: int, path: str, flags: int) -> int:
    """A descriptor of `path` below `root`; absolute paths and links begin at `root` again."""
    for _ in range(RACES_MAX):
        try:
            return openat2(root, path or ".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
    raise OSError(errno.EAGAIN, "the path changes all the time", path)


def split(path: str) -> tuple[str, str]:
    """(folder, name) of an absolute path; the name is "." where only the folder itself can be meant."""
    folder, _, name = path.rpartition("/")
    return (path, ".") if name in ("", ".", "..") else (folder or "/", name)


def status_inside(root: int, path: str) -> os.stat_result:
    """Of `path` itself: a link at its end is not followed, unless a slash stands behind it."""
    folder, name = split(path)
    parent = open_inside(root, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def go_mode(mode: int) -> int:
    """st_mode as Go's os.FileMode."""
    kind = next((bit for form, bit in _GO_MODES if stat.S_IFMT(mode) == form), 0)
    return mode & 0o777 | kind | sum(bit for ours, bit in _GO_BITS if mode & ours)


def final_target(root: int, path: str) -> str:
    """Where a link leads in the end, or as far as it can be followed; only told, never opened by us."""
    done, waiting, links = "/", _parts(path), 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            done = posixpath.dirname(done)
            continue
        here = posixpath.join(done, part)
        target = _link(root, here)
        if target is None:
            done = here
            continue
        links += 1
        if links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        waiting = _parts(target) + waiting
        if target.startswith("/"):
            done = "/"
    return done


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _link(root: int, path: str) -> str | None:
    """What a link says; None when there is no link."""
    folder, name = split(path)
    try:
        parent = open_inside(root, folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None
    finally:
        os.close(parent)
