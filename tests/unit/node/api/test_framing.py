"""The ends of requests, found in streams that are cut anywhere."""

from __future__ import annotations

import random

import pytest

from node.api.framing import HEAD_BYTES_MAX, RequestFraming

STOP = b"POST /stop HTTP/1.1\r\nHost: d\r\n\r\n"
REQUESTS = {
    "no body": b"GET / HTTP/1.1\r\nHost: d\r\n\r\n",
    "empty lines in front": b"\r\n\r\nGET / HTTP/1.1\r\nHost: d\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\ncontent-LENGTH: 10 \r\n\r\nPOST /stop",
    "length 0": b"POST / HTTP/1.1\r\nContent-Length:0\r\n\r\n",
    "chunks": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA;x=1\r\nPOST /stop\r\n2\r\n\r\n\r\n0\r\n\r\n",
    "trailer": b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
}
STOPPING = {
    "no body": STOP,
    "length": STOP.replace(b"Host: d", b"Content-Length: 3") + b"abc",
    "chunks": STOP.replace(b"Host: d", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n",
}


def framing() -> RequestFraming:
    return RequestFraming(lambda head: head.startswith(b"POST /stop "))


def split(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pieces = []
    while data:
        length = chance.choice((1, 2, 3, 7, 50))
        pieces.append(data[:length])
        data = data[length:]
    return pieces


@pytest.mark.parametrize("stopping", STOPPING.values(), ids=STOPPING)
@pytest.mark.parametrize("before", REQUESTS.values(), ids=REQUESTS)
def test_stops_exactly_behind_the_request_however_the_bytes_come(before: bytes, stopping: bytes) -> None:
    stream = before * 2 + stopping
    for seed in range(50):
        frames, taken = framing(), 0
        for piece in split(stream + b"input", seed):
            assert not frames.stopped
            end = frames.feed(piece)
            taken += end
            if end < len(piece) or frames.stopped:
                break
        assert (taken, frames.stopped) == (len(stream), True)


def test_whole_stream_in_one_piece_and_a_second_round() -> None:
    stream = b"".join(REQUESTS.values()) + STOP
    frames = framing()
    assert frames.feed(stream + b"input") == len(stream)
    frames.restart()
    assert not frames.stopped
    assert frames.feed(stream) == len(stream)
    assert frames.stopped


def test_endless_head_passes_without_being_kept() -> None:
    frames = framing()
    piece = b"x" * (HEAD_BYTES_MAX // 2)
    for _ in range(3):
        assert frames.feed(piece) == len(piece)
    assert frames.feed(b"\r\n\r\n" + STOP) == 4 + len(STOP)
    assert not frames.stopped


def test_bad_chunk_size_passes() -> None:
    frames = framing()
    bad = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + STOP
    assert frames.feed(bad + b"x") == len(bad) + 1
