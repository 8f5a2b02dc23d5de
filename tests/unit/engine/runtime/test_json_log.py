from __future__ import annotations

import json
from pathlib import Path

from engine.runtime.json_log import LINE_BYTES_MAX, JsonLog, timestamp

NOW = 1_767_323_045_123_456_789


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def texts(path: Path) -> list[str]:
    return [line["log"] for line in lines(path)]


def test_form_of_a_line(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write(1, b'say "hi"\n', NOW)
    log.write(2, b"\x1b[1m\xff<&>\n", NOW)
    log.close()
    raw = (tmp_path / "log").read_text().splitlines()
    assert raw[0] == '{"log":"say \\"hi\\"\\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}'
    assert lines(tmp_path / "log")[1] == {
        "log": "\x1b[1m\ufffd<&>\n",
        "stream": "stderr",
        "time": "2026-01-02T03:04:05.123456789Z",
    }


def test_lines_arrive_in_pieces(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write(1, "eins zw\u00e4".encode()[:-1], NOW)
    log.write(2, b"other\n", NOW)
    log.write(1, "\u00e4".encode()[1:] + b"\n\nlast", NOW)
    assert texts(tmp_path / "log") == ["other\n", "eins zw\u00e4\n", "\n"]
    log.finish(1)
    log.close()
    assert texts(tmp_path / "log")[-1] == "last\n"


def test_other_line_separators_are_ordinary_characters(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write(1, "a\rb\x0bc\u2028d\r\n".encode(), NOW)
    log.close()
    assert texts(tmp_path / "log") == ["a\rb\x0bc\u2028d\r\n"]


def test_long_lines_are_split_into_parts(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    long = b"x" * (2 * LINE_BYTES_MAX + 10)
    log.write(1, b"short\n" + long + b"\nend\n", NOW)
    log.write(1, long, NOW)
    log.write(1, b"\n", NOW)
    log.close()
    sizes = [len(text) for text in texts(tmp_path / "log")]
    assert sizes == [6, LINE_BYTES_MAX, LINE_BYTES_MAX, 11, 4, LINE_BYTES_MAX, LINE_BYTES_MAX, 11]
    assert [text.endswith("\n") for text in texts(tmp_path / "log")] == [
        True,
        False,
        False,
        True,
        True,
        False,
        False,
        True,
    ]


def test_splitting_counts_bytes_not_characters(tmp_path: Path) -> None:
    log = JsonLog(str(tmp_path / "log"), 0, 1)
    log.write(1, "\u20ac".encode() * (LINE_BYTES_MAX // 3 + 100) + b"\n", NOW)
    log.close()
    assert len(texts(tmp_path / "log")) == 2


def test_rotation_keeps_so_many_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(str(path), 200, 3)
    for number in range(12):
        log.write(1, f"line {number}\n".encode(), NOW)
    log.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    kept = texts(tmp_path / "log.2") + texts(tmp_path / "log.1") + texts(path)
    assert kept == [f"line {number}\n" for number in range(12 - len(kept), 12)]
    assert all(file.stat().st_size <= 200 for file in tmp_path.iterdir())


def test_rotation_with_one_file_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JsonLog(str(path), 200, 1)
    for number in range(5):
        log.write(1, f"line {number}\n".encode(), NOW)
    log.close()
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
    assert texts(path)[-1] == "line 4\n"


def test_an_existing_log_is_continued(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = JsonLog(str(tmp_path / "log"), 0, 1)
        log.write(1, text, NOW)
        log.close()
    assert texts(tmp_path / "log") == ["first\n", "second\n"]


def test_a_full_disk_loses_lines_but_does_not_raise() -> None:
    log = JsonLog("/dev/full", 0, 1)
    log.write(1, b"lost\n", NOW)
    assert log.lost_bytes > 0
    log.close()


def test_timestamp_has_nine_digits() -> None:
    assert timestamp(1_000_000_000) == "1970-01-01T00:00:01.000000000Z"
    assert timestamp(1_000_000_007) == "1970-01-01T00:00:01.000000007Z"
