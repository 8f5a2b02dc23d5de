from __future__ import annotations

import asyncio
import logging

import pytest

from node.loop import ManualClock
from node.network_audit import INTERVAL_S, NetworkAudit
from overlay_net.records import Finding


class Networks:
    def __init__(self) -> None:
        self.audits = 0

    async def audit(self) -> list[Finding]:
        self.audits += 1
        if self.audits == 1:
            raise OSError("the kernel said no")
        return [Finding(subject="network front", problem="its bridge was missing", repaired=True)]


async def test_an_audit_that_fails_is_said_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    networks, clock = Networks(), ManualClock()
    audit = NetworkAudit(networks, clock)
    audit.start()
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(0)
        await clock.advance(INTERVAL_S)
        assert networks.audits == 1
        await clock.advance(INTERVAL_S)
    await audit.stop()
    assert networks.audits == 2
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "the audit of the networks failed, trying again: the kernel said no",
        "network front: its bridge was missing (repaired)",
    ]
