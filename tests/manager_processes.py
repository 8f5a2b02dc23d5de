"""Managers as real processes that are killed with SIGKILL and started again; none outlives its test.

They talk over unix sockets in one folder, so no packet leaves the machine and no root is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

from tests.commands import ROOT
from tests.manager_program import asked

READY_S = 30.0
ANSWER_S = 40.0
LEADER_S = 30.0


class Managers:
    """`program` is run with the arguments folder, node id and "bootstrap", "join" or "resume"."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.program = program
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for node_id in list(self.processes):
            with contextlib.suppress(ProcessLookupError):
                await self.kill(node_id)

    async def start(self, node_id: str, how: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self.program, str(self.folder), node_id, how),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.processes[node_id] = process
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            assert await process.stdout.readline() == b"ready\n", f"{node_id} did not start"

    async def start_three(self) -> None:
        await self.start("n1", "bootstrap")
        for node_id in ("n2", "n3"):
            await self.start(node_id, "join")
            assert await self.ask("n1", verb="add", name=node_id) == {}

    async def kill(self, node_id: str) -> None:
        process = self.processes.pop(node_id)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def ask(self, node_id: str, timeout_s: float = ANSWER_S, **message: Any) -> dict[str, Any]:
        """An error of the connection is an unknown outcome."""
        line = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                line = await asked(self.folder / f"{node_id}.control", message)
        answer: dict[str, Any] = json.loads(line) if line else {"error": "Connection"}
        return answer

    async def leader(self) -> str:
        async with asyncio.timeout(LEADER_S):
            while True:
                for node_id in list(self.processes):
                    if (await self.ask(node_id, verb="status", timeout_s=2)).get("leader"):
                        return node_id
                await asyncio.sleep(0.02)
