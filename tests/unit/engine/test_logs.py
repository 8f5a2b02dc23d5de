"""Reading logs that somebody else writes, rotates, truncates and tears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.config import LogOptions, LogRecord
from engine.log_files import log_files
from engine.logs import parse_time, read_batches, read_logs
from engine.runtime.json_log import JsonLog

NOW = 1_767_323_045_123_456_789
SECOND = 1_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c-json.log"


def write(log: JsonLog, first: int, last: int) -> None:
    """Lines `first`..`last`, one a second, odd ones on stderr."""
    for number in range(first, last + 1):
        log.write(1 + number % 2, b"%d\n" % number, NOW + number * SECOND)


async def numbers(path: Path, **options: object) -> list[int]:
    return [int(r.data) async for r in read_logs(path, LogOptions(**options), lambda: True)]  # type: ignore[arg-type]


class Follower:
    """A reader that is stepped by its test: `finished` is what the test says, and waiting lets it act."""

    def __init__(self, path: Path, on_idle: Callable[[int], bool], options: LogOptions) -> None:
        self._on_idle = on_idle
        self._rounds = 0
        self.records: AsyncIterator[LogRecord] = read_logs(path, options, self._finished, poll_s=0)

    def _finished(self) -> bool:
        assert self._rounds < 1000, "the reader never ends"
        self._rounds += 1
        return self._on_idle(self._rounds)

    async def numbers(self) -> list[int]:
        return [int(record.data) async for record in self.records]


async def follow(path: Path, on_idle: Callable[[int], bool], *, tail: int = -1) -> list[int]:
    """What a follower sees; `on_idle(round)` runs before each of its looks and says if the end has come."""
    return await Follower(path, on_idle, LogOptions(follow=True, tail=tail)).numbers()


async def test_a_record_has_stream_time_and_exact_bytes(path: Path) -> None:
    log = JsonLog(str(path), 0, 1)
    log.write(2, 'a "quoted" \x1b[1m täg\r\n'.encode(), NOW)
    log.close()
    records = [r async for r in read_logs(path, LogOptions(), lambda: True)]
    assert records == [LogRecord(2, NOW, 'a "quoted" \x1b[1m täg\r\n'.encode())]


async def test_rotated_files_are_read_oldest_first(path: Path) -> None:
    log = JsonLog(str(path), 200, 50)
    write(log, 1, 30)
    assert len(log_files(path)) > 10, "the numbers of the files must have two digits for this test"
    assert await numbers(path) == list(range(1, 31))


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 7, 29, 30, 31, 1000])
async def test_tail_counts_over_files(path: Path, tail: int) -> None:
    write(JsonLog(str(path), 200, 50), 1, 30)
    assert await numbers(path, tail=tail) == list(range(1, 31))[max(0, 30 - tail) :]


async def test_tail_goes_back_over_many_blocks(path: Path) -> None:
    log = JsonLog(str(path), 0, 1)
    for number in range(1, 101):
        log.write(1, b"%d" % number + b" " * 10_000 + b"\n", NOW)
    assert await numbers(path, tail=60) == list(range(41, 101))


async def test_tail_leaves_a_torn_last_line_out(path: Path) -> None:
    write(JsonLog(str(path), 0, 1), 1, 5)
    with path.open("ab") as file:
        file.write(b'{"log":"6\\n","stre')
    assert await numbers(path, tail=2) == [4, 5]
    assert await numbers(path, tail=0) == []


async def test_streams_since_and_until(path: Path) -> None:
    write(JsonLog(str(path), 0, 1), 1, 10)
    assert await numbers(path, stderr=False) == [2, 4, 6, 8, 10]
    assert await numbers(path, stdout=False) == [1, 3, 5, 7, 9]
    start = NOW / SECOND
    assert await numbers(path, since=start + 6.5) == [7, 8, 9, 10]
    assert await numbers(path, until=start + 3.5) == [1, 2, 3]
    assert await numbers(path, since=start + 2.5, until=start + 4.5, stdout=False) == [3]


async def test_no_log_is_an_empty_log(path: Path) -> None:
    assert await numbers(path) == []
    assert await numbers(path, tail=5, follow=True) == []


async def test_follow_waits_for_the_file_and_drains_it_at_the_end(path: Path) -> None:
    def idle(turn: int) -> bool:
        if turn == 3:
            write(JsonLog(str(path), 0, 1), 1, 3)
        return turn >= 3

    assert await follow(path, idle) == [1, 2, 3]


async def test_follow_after_a_tail(path: Path) -> None:
    log = JsonLog(str(path), 0, 1)
    write(log, 1, 5)

    def idle(turn: int) -> bool:
        if turn == 2:
            write(log, 6, 7)
        return turn >= 4

    assert await follow(path, idle, tail=1) == [5, 6, 7]


async def test_follow_over_several_rotations_between_two_looks(path: Path) -> None:
    log = JsonLog(str(path), 200, 50)
    write(log, 1, 2)

    def idle(turn: int) -> bool:
        if turn == 2:
            write(log, 3, 20)
        return turn >= 3

    assert await follow(path, idle) == list(range(1, 21))


async def test_lines_after_a_last_rotation_are_not_lost_when_the_container_ends(path: Path) -> None:
    log = JsonLog(str(path), 200, 50)
    write(log, 1, 2)

    def idle(turn: int) -> bool:
        if turn == 2:
            write(log, 3, 20)
        return turn >= 2

    assert await follow(path, idle) == list(range(1, 21))


async def test_follow_goes_on_after_the_only_file_was_truncated(path: Path) -> None:
    log = JsonLog(str(path), 310, 1)
    write(log, 1, 4)

    def idle(turn: int) -> bool:
        if turn == 2:
            write(log, 5, 6)
        return turn >= 4

    assert await follow(path, idle) == [1, 2, 3, 4, 5, 6]


async def test_a_follower_that_fell_behind_goes_on_with_the_oldest_file(path: Path) -> None:
    log = JsonLog(str(path), 200, 3)
    write(log, 1, 2)

    def idle(turn: int) -> bool:
        if turn == 2:
            write(log, 3, 20)
        return turn >= 3

    seen = await follow(path, idle)
    assert seen[:2] == [1, 2]
    assert seen[2:] == list(range(seen[2], 21)), "no gap within what is still on disk"


async def test_follow_ends_at_until_though_the_container_runs_on(path: Path) -> None:
    write(JsonLog(str(path), 0, 1), 1, 3)
    options = LogOptions(follow=True, until=time.time() - 1)
    assert await Follower(path, lambda turn: False, options).numbers() == [1, 2, 3]


async def test_a_line_that_arrives_in_pieces_is_one_line(path: Path) -> None:
    line = b'{"log":"1\\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}\n'

    def idle(turn: int) -> bool:
        if turn <= len(line):
            with path.open("ab") as file:
                file.write(line[turn - 1 : turn])
        return turn >= len(line)

    assert await follow(path, idle) == [1]


async def test_damage_costs_only_the_damaged_line(path: Path) -> None:
    log = JsonLog(str(path), 0, 1)
    write(log, 1, 1)
    with path.open("ab") as file:
        file.write(b'{"log":"2\\n","stream":"std')  # torn by a power cut; the next writer appends to it
    write(log, 3, 3)
    with path.open("ab") as file:
        file.write(b"\0" * 512 + b"\n" + b'{"log":"\xff\n' + b'{"log":"4\\n","stream":"stdout","time":"x"}\n')
    write(log, 5, 5)
    assert await numbers(path) == [1, 3, 4, 5]


async def test_the_torn_end_of_a_file_does_not_spoil_the_next_one(path: Path) -> None:
    write(JsonLog(str(path), 0, 1), 1, 1)
    with path.open("ab") as file:
        file.write(b'{"log":"2\\n"')
    path.rename(f"{path}.1")
    write(JsonLog(str(path), 0, 1), 3, 4)
    assert await numbers(path) == [1, 3, 4]


async def test_files_are_closed_when_the_reader_is_dropped_half_way(path: Path) -> None:
    write(JsonLog(str(path), 200, 50), 1, 30)
    before = open_logs(path)
    batches = read_batches(path, LogOptions(follow=True), lambda: False)
    await anext(batches)
    assert open_logs(path) > before
    await batches.aclose()
    assert open_logs(path) == before


async def test_rotation_while_reading_neither_skips_nor_repeats(path: Path) -> None:
    """A writer that rotates all the time beside a reader in its own tasks: every line once, in order."""
    log = JsonLog(str(path), 8000, 100)
    done = False

    def produce() -> None:
        nonlocal done
        write(log, 1, 5000)
        done = True

    producer = asyncio.create_task(asyncio.to_thread(produce))
    seen = [int(r.data) async for r in read_logs(path, LogOptions(follow=True), lambda: done, poll_s=0.001)]
    await producer
    assert seen == list(range(1, 5001))


def open_logs(path: Path) -> int:
    links = (entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(str(link.readlink()).startswith(str(path)) for link in links if link.is_symlink())


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-02T03:04:05.123456789Z", NOW),
        ("2026-01-02T03:04:05.1Z", NOW // SECOND * SECOND + 100_000_000),
    ],
)
def test_parse_time(text: str, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds


def test_parse_time_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match="yesterday"):
        parse_time("yesterday")
