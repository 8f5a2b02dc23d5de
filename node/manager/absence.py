"""Nodes without a session: is their machine still there?

A daemon that crashed or is being restarted takes its connections with it, and so does a machine that dies in an
orderly way. The difference is in the machine: a living kernel accepts or refuses a connection at once, a dead
one answers nothing. As long as it answers, the containers most likely run on, and a restart of the daemon
moves nothing; when it does not, the node has the short grace that it had before anybody asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable

from node.loop import Clock
from node.manager.liveness import CLOSED_GRACE_S

PROBE_S_MAX = 0.5
PROBE_EVERY_S = 0.5
# The bound of all waiting for a daemon on a machine that answers, without and with an announced restart.
CRASHED_S_MAX = 20.0
RESTARTING_S_MAX = 60.0


async def machine_answers(host: str, port: int) -> bool:
    """Whether a kernel at this IP address accepts or refuses a connection; any port tells that firewalls let pass."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            _, writer = await asyncio.open_connection(str(ipaddress.ip_address(host)), port)
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    except (OSError, ValueError):  # a timeout, or a node that says what it likes about itself
        return False
    writer.close()
    return True


class Absences:
    """Moves the deadlines of absent nodes. `expect(node id, monotonic time)`: when a node counts as down."""

    def __init__(
        self, clock: Clock, answers: Callable[[str], Awaitable[bool]], expect: Callable[[str, float], None]
    ) -> None:
        self._clock = clock
        self._answers = answers
        self._expect = expect
        self._watching: dict[str, asyncio.Task[None]] = {}

    def begin(self, node_id: str, address: str, *, silent_s: float, answering_s: float) -> None:
        """From now on the node is absent. It has `silent_s` in any case, as long as its machine answers up to
        `answering_s`; `address` is empty when it is not known."""
        self.end(node_id)
        now = self._clock.monotonic()
        self._expect(node_id, now + silent_s)
        if address:
            watching = self._watch(node_id, address, now + silent_s, now + answering_s)
            self._watching[node_id] = asyncio.create_task(watching)

    def end(self, node_id: str) -> None:
        """The node is back, or down."""
        if (watching := self._watching.pop(node_id, None)) is not None:
            watching.cancel()

    def end_all(self) -> None:
        for node_id in list(self._watching):
            self.end(node_id)

    async def _watch(self, node_id: str, address: str, silent_until: float, until: float) -> None:
        while (now := self._clock.monotonic()) < until:
            if await self._answers(address):
                self._expect(node_id, min(until, max(silent_until, now + CLOSED_GRACE_S)))
            await self._clock.sleep(PROBE_EVERY_S)
