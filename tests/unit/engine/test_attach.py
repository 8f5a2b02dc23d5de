from __future__ import annotations

import asyncio
import os

import pytest

from engine import attach
from engine.attach import PipeSession


async def test_the_output_ends_when_the_exit_code_is_known() -> None:
    reading, writing = os.pipe()
    ended = asyncio.Event()
    session = PipeSession(tty=False, stdin_fd=None, outputs=[(1, reading)], ended=ended)
    os.write(writing, b"last")
    os.close(writing)
    assert await session.read() == (1, b"last")
    end = asyncio.ensure_future(session.read())
    await asyncio.sleep(0.05)
    assert not end.done()
    ended.set()
    assert await end is None
    await session.close()


async def test_a_process_that_closed_its_output_and_runs_on_holds_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attach, "EXIT_WAIT_S", 0.01)
    reading, writing = os.pipe()
    os.close(writing)
    session = PipeSession(tty=False, stdin_fd=None, outputs=[(1, reading)], ended=asyncio.Event())
    assert await session.read() is None
    await session.close()
