"""The files of one log as its readers see them: which there are, in order, open, and which is the same as before.

A rotated file may be packed while it is read; then it has another inode but keeps its identity, which the writer left in
the header (runtime.log_rotation). Invariant: what `open_files` returns existed together at one moment.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from engine.runtime.log_rotation import PACKED, packed_name

BLOCK_BYTES = 1 << 18
OPEN_ATTEMPTS_MAX = 200
_HEAD_BYTES = 64


class LogFile:
    """One file, open for reading. `identity` is the same for a file and for its packed form."""

    def __init__(self, name: Path) -> None:
        """FileNotFoundError when it is not there (any more)."""
        self._raw = name.open("rb", buffering=0)
        self._file = cast("BinaryIO", self._raw)
        self.is_packed = name.suffix == PACKED
        self.identity = str(os.fstat(self._raw.fileno()).st_ino)
        if self.is_packed:
            self.identity = packed_name(os.pread(self._raw.fileno(), _HEAD_BYTES, 0)) or self.identity
            self._file = cast("BinaryIO", gzip.GzipFile(fileobj=self._raw, mode="rb"))

    @property
    def inode(self) -> int:
        return os.fstat(self._raw.fileno()).st_ino

    @property
    def modified_at(self) -> float:
        return os.fstat(self._raw.fileno()).st_mtime

    def read(self, size: int) -> bytes:
        """b"" at the end, also where a packed file is damaged."""
        try:
            return self._file.read(size)
        except (EOFError, gzip.BadGzipFile):
            return b""

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> None:
        self._file.seek(offset)

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def seek_last(self, lines: int) -> int:
        """To where the last `lines` whole lines begin, or the start of a shorter file; how many follow."""
        if self.is_packed:
            total = sum(block.count(b"\n") for block in self._blocks())
            self.seek(_end_of(self._blocks(), total - lines) if total > lines else 0)
            return min(total, lines)
        offset, found = _start_of_last(self._raw.fileno(), lines)
        self.seek(offset)
        return found

    def _blocks(self) -> Iterator[bytes]:
        self.seek(0)
        while block := self.read(BLOCK_BYTES):
            yield block


def log_files(path: Path) -> list[Path]:
    """The existing files of one log, oldest first; of a file that is there in both forms the plain one."""
    rotated: dict[int, Path] = {}
    for found in path.parent.glob(f"{path.name}.*"):
        number = found.name.removeprefix(f"{path.name}.").removesuffix(PACKED)
        if number.isdecimal() and (int(number) not in rotated or found.suffix != PACKED):
            rotated[int(number)] = found
    older = [rotated[number] for number in sorted(rotated, reverse=True)]
    return [*older, path] if path.exists() else older


def open_files(path: Path) -> list[LogFile]:
    """All files, oldest first, none missing or twice although the writer may rotate them meanwhile."""
    for _ in range(OPEN_ATTEMPTS_MAX):
        files: list[LogFile] = []
        with contextlib.suppress(FileNotFoundError):
            for name in log_files(path):
                files.append(LogFile(name))
            if [file.inode for file in files] == [name.stat().st_ino for name in log_files(path)]:
                return files
        for file in files:
            file.close()
    return []


def open_successor(path: Path, current: LogFile | None) -> LogFile | None:
    """The file written after `current`; the oldest one when `current` is gone, None when it is the last."""
    files = open_files(path)
    known = [file.identity for file in files]
    position = known.index(current.identity) + 1 if current is not None and current.identity in known else 0
    for index, file in enumerate(files):
        if index != position:
            file.close()
    return files[position] if position < len(files) else None


def turned_away(path: Path, current: LogFile) -> bool:
    """Whether the writer has another file by now. One that was truncated is read again from its start."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    if status.st_ino != current.inode:
        return True
    if status.st_size < current.tell():
        current.seek(0)
    return False


def seek_tail(files: Sequence[LogFile], lines: int) -> list[LogFile]:
    """The files that hold the last `lines` lines, the first of them set to where these begin."""
    missing = lines
    for index in range(len(files) - 1, -1, -1):
        missing -= files[index].seek_last(missing)
        if missing <= 0:
            return list(files[index:])
    return list(files)


def newer_than(files: Sequence[LogFile], moment: float) -> list[LogFile]:
    """Without those whose last line was written before `moment`; the one that is being written stays."""
    return [file for file in files[:-1] if file.modified_at >= moment] + list(files[-1:])


def _start_of_last(descriptor: int, lines: int) -> tuple[int, int]:
    """(offset after which `lines` whole lines remain, `lines`), or (0, the number of lines) of a shorter one."""
    found, position = 0, os.fstat(descriptor).st_size
    while position:
        size = min(BLOCK_BYTES, position)
        position -= size
        block = os.pread(descriptor, size, position)
        here = block.count(b"\n")
        if found + here > lines:
            at = len(block)
            for _ in range(lines - found + 1):
                at = block.rfind(b"\n", 0, at)
            return position + at + 1, lines
        found += here
    return 0, found


def _end_of(blocks: Iterator[bytes], line: int) -> int:
    """The offset after so many lines, of which there are enough."""
    position = 0
    for block in blocks:
        here = block.count(b"\n")
        if here >= line:
            at = -1
            for _ in range(line):
                at = block.find(b"\n", at + 1)
            return position + at + 1
        line -= here
        position += len(block)
    return position
