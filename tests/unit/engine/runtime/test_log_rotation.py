"""Older files of a log: shifted, packed, and still the same to whoever reads them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from engine.config import LogOptions
from engine.log_files import LogFile, log_files, open_files, open_successor
from engine.logs import read_logs
from engine.runtime import log_rotation
from engine.runtime.json_log import JsonLog
from engine.runtime.log_numbers import last_number, mark_name, write_mark
from engine.runtime.log_rotation import Rotation, packed_name
from engine.runtime.wire import LogStyle

NOW = 1_767_323_045_123_456_789
PACKING = LogStyle(compress=True, numbered=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def filled(path: Path, lines: int, max_file: int = 50, style: LogStyle = PACKING) -> JsonLog:
    """Two or three lines to a file; each rotation is packed before the next begins."""
    log = JsonLog(str(path), 250, max_file, style=style)
    for number in range(1, lines + 1):
        log.write(1, b"%d\n" % number, NOW)
        log._rotation.wait()
    return log


async def numbers(path: Path, tail: int = -1) -> list[int]:
    return [int(r.data) async for r in read_logs(path, LogOptions(tail=tail), lambda: True)]


async def test_rotated_files_are_packed_and_read_as_one(path: Path) -> None:
    filled(path, 20)
    names = [found.name for found in log_files(path)]
    assert names[-1] == path.name and names[0].endswith(".gz") and len(names) > 5
    assert all(name.endswith(".gz") for name in names[:-1])
    assert await numbers(path) == list(range(1, 21))
    for tail in (0, 1, 2, 3, 7, 19, 20, 100):
        assert await numbers(path, tail) == list(range(1, 21))[max(20 - tail, 0) :], tail


async def test_the_oldest_goes(path: Path) -> None:
    filled(path, 20, max_file=3)
    assert len(log_files(path)) == 3
    seen = await numbers(path)
    assert seen == list(range(seen[0], 21)) and seen[0] > 10


def test_a_packed_file_is_gzip_and_tells_what_it_was(path: Path) -> None:
    path.write_bytes(b"line\n" * 1000)
    inode = path.stat().st_ino
    rotation = Rotation(str(path), 3, compress=True)
    rotation.shift()
    rotation.wait()
    packed = path.with_name(f"{path.name}.1.gz")
    assert gzip.decompress(packed.read_bytes()) == b"line\n" * 1000
    assert packed_name(packed.read_bytes()) == str(inode)
    assert sorted(found.name for found in path.parent.iterdir()) == [packed.name]


def test_a_reader_knows_its_file_again_when_it_was_packed(path: Path) -> None:
    path.write_bytes(b"old\n")
    reading = LogFile(path)
    rotation = Rotation(str(path), 3, compress=True)
    rotation.shift()
    rotation.wait()
    path.write_bytes(b"new\n")
    successor = open_successor(path, reading)
    assert successor is not None and successor.read(100) == b"new\n"
    for file in (reading, successor):
        file.close()


def test_what_could_not_be_packed_stays_and_is_packed_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path.write_bytes(b"one\n")
    rotation = Rotation(str(path), 4, compress=True)
    with monkeypatch.context() as disk:
        disk.setattr(log_rotation, "pack", full)
        rotation.shift()
        rotation.wait()
    assert [found.name for found in path.parent.iterdir()] == [f"{path.name}.1"]
    path.write_bytes(b"two\n")
    rotation.shift()
    rotation.wait()
    assert sorted(found.name for found in path.parent.iterdir()) == [
        f"{path.name}.1.gz",
        f"{path.name}.2.gz",
    ]


def test_of_a_file_in_both_forms_the_plain_one_is_read(path: Path) -> None:
    path.write_bytes(b"new\n")
    path.with_name(f"{path.name}.1").write_bytes(b"old\n")
    path.with_name(f"{path.name}.1.gz").write_bytes(gzip.compress(b"old\n"))
    files = open_files(path)
    assert [file.read(10) for file in files] == [b"old\n", b"new\n"]
    for file in files:
        file.close()


def test_a_damaged_packed_file_ends_where_it_is_damaged(path: Path) -> None:
    packed = gzip.compress(os.urandom(4096))
    name = path.with_name(f"{path.name}.1.gz")
    name.write_bytes(packed[:2000])
    file = LogFile(name)
    assert file.read(1 << 20) == b""
    file.close()


def test_numbers_go_on_after_a_restart_and_after_a_rotation(path: Path) -> None:
    filled(path, 5).close()
    assert last_number(str(path)) == 5
    log = JsonLog(str(path), 250, 50, style=PACKING)
    log.write(1, b"6\n", NOW)
    assert last_number(str(path)) == 6
    path.write_bytes(b"")  # as if the machine had died in the middle of a rotation
    assert last_number(str(path)) == 3  # in the packed file


def test_no_number_is_given_twice_when_all_files_are_gone(path: Path) -> None:
    descriptor = os.open(mark_name(str(path)), os.O_WRONLY | os.O_CREAT)
    write_mark(descriptor, 41)
    os.close(descriptor)
    log = JsonLog(str(path), 250, 1, style=PACKING)
    log.write(1, b"x\n", NOW)
    assert last_number(str(path)) == 42


def test_the_number_of_a_torn_line_is_given_again(path: Path) -> None:
    filled(path, 2).close()
    with path.open("ab") as file:
        file.write(b'{"log":"3\\n","stream":"stdo')  # its writer was killed
    log = JsonLog(str(path), 0, 1, style=PACKING)
    log.mend()
    log.write(1, b"3 again\n", NOW)
    assert last_number(str(path)) == 3


def test_a_burst_does_not_make_a_file_larger_than_it_may_be(path: Path) -> None:
    log = JsonLog(str(path), 1000, 100, style=LogStyle())
    log.write(1, b"".join(b"%d\n" % number for number in range(200)), NOW)
    log.write(1, b"x" * 2000 + b"\n", NOW)
    sizes = [name.stat().st_size for name in log_files(path)]
    assert len(sizes) > 10 and max(sizes[:-1]) <= 1000 < sizes[-1]
