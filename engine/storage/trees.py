"""Walking and removing file trees however deep they are: what is in them comes from containers, and is not trusted.

One folder is open at a time, and each is reached from the one before by its descriptor: no path can become too long,
and no call nests. Links are never followed. Invariant: a folder that is moved away meanwhile is left alone, and
the walk goes on in those above it that are still where they were.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

PATH_MAX = 4096
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level:
    def __init__(self, name: str, descriptor: int, path_length: int) -> None:
        self.name = name
        self.path_length = path_length
        self.waiting: list[str] = []  # folders in it that are still to be entered
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)

    def is_behind(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return self._identity == (status.st_dev, status.st_ino)


class Folder:
    """Where a walk stands. Valid until the next step."""

    def __init__(self, levels: list[_Level], descriptor: int, folders: list[str], others: list[str]) -> None:
        self._levels = levels
        self.descriptor = descriptor
        self.folders = folders
        self.others = others

    @property
    def path(self) -> str:
        """Below the root, beginning with a slash; "" is the root itself."""
        return "".join(f"/{level.name}" for level in self._levels[1:])

    def status(self, name: str) -> os.stat_result | None:
        """Of what has that name in it, not of what a link leads to; None when it is gone."""
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None


class _Cursor:
    """The folder that is open, and the way back from it to the root."""

    def __init__(self, root: Path | str, dir_fd: int | None = None) -> None:
        self._root = os.open(root, _FLAGS, dir_fd=dir_fd)
        self.descriptor = os.dup(self._root)
        self.levels = [_Level("", self._root, 0)]

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)
        os.close(self._root)

    def names(self) -> tuple[list[str], list[str]]:
        """(folders, everything else) in the open folder."""
        folders: list[str] = []
        others: list[str] = []
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        return folders, others

    def down(self, name: str) -> None:
        """OSError when it cannot be entered: the cursor stays."""
        child = os.open(name, _FLAGS, dir_fd=self.descriptor)
        self._move(child)
        self.levels.append(_Level(name, child, self.levels[-1].path_length + len(os.fsencode(name)) + 1))

    def up(self) -> str:
        """The name of what was left. When it was moved away, the cursor is in what is still in place above."""
        left = self.levels.pop()
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        if self.levels[-1].is_behind(above):
            self._move(above)
        else:
            os.close(above)
            self._descend_again()
        return left.name

    def _descend_again(self) -> None:
        self._move(os.dup(self._root))
        for depth, level in enumerate(self.levels[1:], 1):
            try:
                self._move(os.open(level.name, _FLAGS, dir_fd=self.descriptor))
            except OSError:
                del self.levels[depth:]
                return

    def _move(self, descriptor: int) -> None:
        os.close(self.descriptor)
        self.descriptor = descriptor


def walk(root: Path, *, longest: int = 0) -> Iterator[Folder]:
    """Every folder once, those above first. `longest`: folders with a longer path are not entered (0: all are).

    What cannot be entered, or goes meanwhile, is left out.
    """
    with _Cursor(root) as cursor:
        while True:
            folders, others = cursor.names()
            yield Folder(cursor.levels, cursor.descriptor, folders, others)
            level = cursor.levels[-1]
            if not longest or level.path_length <= longest:
                level.waiting = folders[::-1]
            if not _next(cursor):
                return


def _next(cursor: _Cursor) -> bool:
    """To the next folder that was not entered yet; False when there is none."""
    while True:
        while cursor.levels[-1].waiting:
            with contextlib.suppress(OSError):
                cursor.down(cursor.levels[-1].waiting.pop())
                return True
        if len(cursor.levels) == 1:
            return False
        cursor.up()


def remove_tree(root: Path | str, *, dir_fd: int | None = None, ignore_errors: bool = False) -> None:
    """The folder and everything below. `ignore_errors`: what cannot be removed stays, and nothing is raised."""
    forgiven = (OSError,) if ignore_errors else (FileNotFoundError,)
    with contextlib.suppress(*forgiven if ignore_errors else ()):
        with _Cursor(root, dir_fd) as cursor:
            _remove_files(cursor, forgiven)
            while cursor.levels[-1].waiting or len(cursor.levels) > 1:
                with contextlib.suppress(*forgiven):
                    if cursor.levels[-1].waiting:
                        cursor.down(cursor.levels[-1].waiting.pop())
                        _remove_files(cursor, forgiven)
                    else:
                        name = cursor.up()
                        os.rmdir(name, dir_fd=cursor.descriptor)
        os.rmdir(root, dir_fd=dir_fd)


def _remove_files(cursor: _Cursor, forgiven: tuple[type[OSError], ...]) -> None:
    """All but folders, which are to be entered next."""
    folders, others = cursor.names()
    cursor.levels[-1].waiting = folders
    for name in others:
        with contextlib.suppress(*forgiven):
            os.unlink(name, dir_fd=cursor.descriptor)


def tree_bytes(root: Path) -> int:
    """Of all files below; one with several names counts once. What vanishes meanwhile counts as nothing."""
    total = 0
    seen: set[tuple[int, int]] = set()
    with contextlib.suppress(FileNotFoundError):
        for folder in walk(root):
            for name in folder.others:
                status = folder.status(name)
                if status is None or (status.st_dev, status.st_ino) in seen:
                    continue
                if status.st_nlink > 1:
                    seen.add((status.st_dev, status.st_ino))
                total += status.st_size
    return total
