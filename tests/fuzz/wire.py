"""One request's bytes to the daemon's socket, and what comes back. No client in between that would mend either."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ANSWER_BYTES_MAX = 8 << 20


@dataclasses.dataclass
class Answer:
    """`status` 0: the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    late: bool = False
    whole: bool = False  # it came to its end

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")

    def json(self) -> Any:
        return json.loads(self.body)


def written(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> bytes:
    """The request as one piece."""
    lines = [f"{method} {target} HTTP/1.1", "Host: fuzz", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape") + (body or b"")


def send(path: Path, data: bytes, method: str, bound: float, *, stream_s: float | None = None) -> Answer:
    """Everything of the answer within `bound` seconds; of a stream only what comes within `stream_s`."""
    begun = time.monotonic()
    answer = Answer(0, {}, b"", 0.0)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(bound)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            connection.sendall(data)  # the daemon may refuse before it has read everything
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
        except TimeoutError:
            answer.late = True
        except (http.client.HTTPException, OSError):
            pass
        else:
            answer.status = response.status
            answer.headers = {name.lower(): value for name, value in response.getheaders()}
            if stream_s is not None:
                connection.settimeout(stream_s)
            try:
                answer.body = _read(response, begun + bound)
                answer.whole = True
            except TimeoutError:
                answer.late = stream_s is None
            except (http.client.HTTPException, OSError):
                pass
        response.close()
    answer.seconds = time.monotonic() - begun
    return answer


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    read = b""
    while len(read) < ANSWER_BYTES_MAX and (piece := response.read1(65536)):
        read += piece
        if time.monotonic() > deadline:
            raise TimeoutError
    return read
