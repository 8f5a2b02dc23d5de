"""From time to time: is the kernel's network still what it should be? Repairs are logged, never silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Protocol

from node.loop import Clock
from overlay_net.records import Finding

log = logging.getLogger(__name__)

INTERVAL_S = 30.0


class Audited(Protocol):
    async def audit(self) -> Sequence[Finding]: ...


class NetworkAudit:
    """`start`, then `stop`."""

    def __init__(self, networks: Audited, clock: Clock, interval_s: float = INTERVAL_S) -> None:
        self._networks = networks
        self._clock = clock
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="network audit")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._interval_s)
            try:
                findings = await self._networks.audit()
            except Exception as error:  # noqa: BLE001 - the next audit is another chance
                log.warning("the audit of the networks failed, trying again: %s", error)
                continue
            for found in findings:
                outcome = "repaired" if found.repaired else "NOT repaired"
                log.warning("%s: %s (%s)", found.subject, found.problem, outcome)
