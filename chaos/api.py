"""A manager's API as a client under faults sees it: every request ends with an `Answer`, whatever happens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from chaos.history import Outcome

OUTCOME_HEADER = "Swarmctl-Outcome"  # "unknown": the refused write may have been made all the same
OUT_OF_SEQUENCE = "update out of sequence"


@dataclass(frozen=True)
class Answer:
    """`status` 0: none came. `outcome`: what it says of a write; for a read REFUSED means that there is no
    such object."""

    status: int
    body: Any
    outcome: Outcome
    detail: str = ""


class Api:
    """One manager's socket. `close` once."""

    def __init__(self, socket: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        connector = aiohttp.UnixConnector(path=str(socket), limit=0)
        self._session = aiohttp.ClientSession("http://localhost", connector=connector)

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: object = None, *, timeout_s: float | None = None
    ) -> Answer:
        limits = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        try:
            async with self._session.request(method, path, json=body, timeout=limits) as response:
                raw = await response.read()
                return judged(response.status, response.headers.get(OUTCOME_HEADER, ""), raw)
        except aiohttp.ClientConnectorError as error:
            return Answer(0, None, Outcome.FAIL, f"not reached: {error}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Answer(0, None, Outcome.UNKNOWN, f"no answer: {type(error).__name__} {error}".strip())


def judged(status: int, outcome: str, raw: bytes) -> Answer:
    """What the answer says of the request's effect."""
    try:
        body = json.loads(raw) if raw.strip() else None
    except ValueError:
        return Answer(status, None, Outcome.UNKNOWN, f"{status}: unreadable body")
    if status < 400:
        return Answer(status, body, Outcome.OK)
    message = str(body.get("message", "")) if isinstance(body, dict) else ""
    detail = f"{status}: {message}"
    if status in (404, 409) or OUT_OF_SEQUENCE in message:
        return Answer(status, body, Outcome.REFUSED, detail)
    certain = status < 500 or (status == 503 and outcome != "unknown")
    return Answer(status, body, Outcome.FAIL if certain else Outcome.UNKNOWN, detail)
