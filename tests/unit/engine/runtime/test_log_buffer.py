"""A log that does not hold its container up, on a disk that the test stops and lets go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.runtime import log_buffer
from engine.runtime.json_log import JsonLog
from engine.runtime.log_buffer import FINISH_S_MAX, BufferedLog
from engine.runtime.wire import LogStyle


class SlowDisk(JsonLog):
    """Writes only while `may_write` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), 0, 1, style=LogStyle())
        self.may_write = threading.Event()
        self.entered = threading.Event()

    def write(self, stream: int, data: bytes, now_ns: int | None = None) -> None:
        self.entered.set()
        assert self.may_write.wait(30)
        super().write(stream, data, now_ns)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    made = SlowDisk(tmp_path / "log")
    yield made
    made.may_write.set()


def settle(log: BufferedLog) -> None:
    until(lambda: log.is_written(0.0))


def until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("not within 30 s")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_lines_are_written_and_the_last_gets_its_end(tmp_path: Path, disk: SlowDisk) -> None:
    disk.may_write.set()
    log = BufferedLog(disk, 1000)
    log.write(1, b"one\ntwo")
    log.finish(1)
    settle(log)
    log.close()
    text = (tmp_path / "log").read_text()
    assert '"one\\n"' in text and '"two\\n"' in text and log.lost_bytes == 0


def test_a_slow_disk_holds_nobody_up_and_what_is_too_much_is_counted(tmp_path: Path, disk: SlowDisk) -> None:
    log = BufferedLog(disk, 100)
    log.write(1, b"0123456789\n")
    assert disk.entered.wait(30)
    for _ in range(20):
        log.write(1, b"0123456789\n")
    assert log.lost_bytes == 11 * 11
    assert not log.is_written(0.0)
    disk.may_write.set()
    settle(log)
    log.close()
    assert lines(tmp_path / "log") == 1 + 9


def test_one_portion_goes_in_whatever_its_size(tmp_path: Path, disk: SlowDisk) -> None:
    disk.may_write.set()
    log = BufferedLog(disk, 1)
    log.write(1, b"longer than the buffer\n")
    settle(log)
    log.close()
    assert lines(tmp_path / "log") == 1


def test_a_disk_that_hangs_does_not_hold_the_end_up_for_ever(disk: SlowDisk) -> None:
    log = BufferedLog(disk, 100)
    log.write(1, b"x\n")
    assert disk.entered.wait(30)
    log.write(1, b"yy\n")
    assert not log.is_written(1000.0)
    assert not log.is_written(1000.0 + FINISH_S_MAX)
    assert log.is_written(1000.1 + FINISH_S_MAX)
    log.close()
    assert log.lost_bytes == 3


def test_what_waits_is_handed_over_and_written_by_the_next(
    tmp_path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_buffer, "HANDED_OVER_S_MAX", 0.01)
    log = BufferedLog(disk, 100)
    log.write(1, b"one\n")
    assert disk.entered.wait(30)
    log.write(2, b"two\n")
    log.finish(2)
    state = log.hand_over()
    assert [(stream, data) for stream, _, data in state.waiting] == [
        (1, b"one\n"),
        (2, b"two\n"),
        (2, None),
    ]
    following = BufferedLog(JsonLog(str(tmp_path / "log"), 0, 1, state), 100, state)
    assert lines(tmp_path / "log") == 0, "a trial writes nothing"
    following.let_go()
    settle(following)
    assert lines(tmp_path / "log") == 2


def test_a_hand_over_stops_the_writing_however_long_it_takes(
    tmp_path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a starved machine the new code may come late: lines that are written meanwhile would come twice."""
    monkeypatch.setattr(log_buffer, "HANDED_OVER_S_MAX", 0.01)
    disk.may_write.set()
    log = BufferedLog(disk, 100)
    assert log.hand_over().waiting == []
    log.write(1, b"x\n")
    assert not disk.entered.wait(0.1)
    assert lines(tmp_path / "log") == 0
    log.let_go()
    settle(log)
    assert lines(tmp_path / "log") == 1
    log.close()
