"""Verifying the files of a running manager: what is whole passes while it grows, any damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft import snapshot, verify
from raft.errors import InvalidArgument
from raft.framing import PREAMBLE_BYTES
from raft.membership import Configuration
from raft.verify import Moved
from raft.wal import Entry, Wal

KEY = b"k" * 32
OWNER = "c1/n1"


def nothing_to_check(data: bytes) -> None:
    assert data.startswith(b"state")


class Running:
    """A log with a snapshot, written as a manager does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wal, _ = Wal.open(folder / "wal", KEY, OWNER)
        self.last = 0

    def write(self, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            self.last += 1
            self.wal.append(Entry(self.last, 1, b"x" * size))
        self.wal.sync()

    def snapshot(self, index: int) -> Path:
        made = snapshot.make(index, 1, Configuration({"n1": "a:1"}), b"state" * 1000)
        return snapshot.save(self.folder / "snapshots", KEY, made)

    def reopen(self) -> None:
        self.wal.close()
        self.wal, _ = Wal.open(self.folder / "wal", KEY, OWNER)

    def problems(self, key: bytes = KEY, owner: str = OWNER) -> list[str]:
        reports = verify.verify(verify.take(self.folder), key, owner, nothing_to_check)
        return [f"{report.name}: {report.problem}" for report in reports if report.problem]

    def segments(self) -> list[Path]:
        return sorted((self.folder / "wal").iterdir())


@pytest.fixture
def running(tmp_path: Path) -> Running:
    made = Running(tmp_path)
    made.write(3)
    made.reopen()
    made.write(5)
    made.snapshot(4)
    made.write(2)
    return made


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(bytes(data))


def test_whole_files_pass_and_are_not_changed(running: Running) -> None:
    before = {path: path.read_bytes() for path in running.folder.rglob("*.*")}
    assert running.problems() == []
    assert {path: path.read_bytes() for path in running.folder.rglob("*.*")} == before
    names = [r.name for r in verify.verify(verify.take(running.folder), KEY, OWNER, nothing_to_check)]
    assert names == ["wal-0000000000000001.log", "wal-0000000000000002.log", f"snapshot-{4:020d}.snap"]


def test_what_is_written_after_the_files_were_noted_is_no_damage(running: Running) -> None:
    inventory = verify.take(running.folder)
    running.write(3)
    with running.segments()[-1].open("ab") as file:
        file.write(b"\xf5swF half a fra")
    reports = verify.verify(inventory, KEY, OWNER, nothing_to_check)
    assert not any(report.problem for report in reports)


def test_a_torn_end_that_was_there_when_noted_is_found_and_left_alone(running: Running) -> None:
    last = running.segments()[-1]
    size = last.stat().st_size
    with last.open("ab") as file:
        file.write(b"\xf5swF half a fra")
    assert running.problems() == [f"{last.name}: damaged frame at byte {size}"]
    assert last.stat().st_size > size


def test_every_damaged_byte_of_the_log_is_found(running: Running) -> None:
    for path in running.segments():
        for position in range(path.stat().st_size):
            flip(path, position)
            (problem,) = running.problems()
            assert problem.startswith(path.name)
            flip(path, position)
    assert running.problems() == []


def test_a_damaged_snapshot_is_found(running: Running) -> None:
    path = running.snapshot(5)
    for position in (0, 20, 60, 200, path.stat().st_size - 1):
        flip(path, position)
        (problem,) = running.problems()
        assert problem.startswith(path.name)
        flip(path, position)
    assert running.problems() == []


def test_a_snapshot_whose_state_cannot_be_read_is_found(running: Running) -> None:
    def refuse(data: bytes) -> None:
        raise InvalidArgument("state dump is of an unknown version")

    reports = verify.verify(verify.take(running.folder), KEY, OWNER, refuse)
    assert [r.problem for r in reports if r.problem] == ["state dump is of an unknown version"]


def test_another_key_owner_or_a_missing_segment_is_found(running: Running) -> None:
    assert any("wrong data key" in problem for problem in running.problems(key=b"x" * 32))
    assert running.problems(owner="c1/n2") == ["log: the log belongs to c1/n1, not to c1/n2"]
    running.reopen()
    running.segments()[1].unlink()
    (problem,) = running.problems()
    assert "a segment is missing" in problem


def test_a_log_that_does_not_reach_its_snapshot_is_found(running: Running) -> None:
    (running.folder / "snapshots").joinpath(f"snapshot-{4:020d}.snap").unlink()
    running.segments()[0].unlink()
    assert running.problems() == ["log: the log begins after entry 3, the newest snapshot ends at 0"]


def test_a_segment_without_a_record_is_found(running: Running) -> None:
    last = running.segments()[-1]
    last.write_bytes(last.read_bytes()[:PREAMBLE_BYTES])
    assert running.problems() == [f"log: {last.name} was never begun"]


def test_files_that_go_meanwhile_ask_for_another_look(running: Running) -> None:
    inventory = verify.take(running.folder)
    running.segments()[0].unlink()
    with pytest.raises(Moved):
        verify.verify(inventory, KEY, OWNER, nothing_to_check)


def test_a_manager_without_a_log_is_found(tmp_path: Path) -> None:
    reports = verify.verify(verify.take(tmp_path), KEY, OWNER, nothing_to_check)
    assert [report.problem for report in reports] == ["there is no log"]
