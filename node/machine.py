"""Whether the whole machine is shutting down, or only this daemon is stopped."""

from __future__ import annotations

import asyncio
import logging

logger = logging.getLogger(__name__)

ANSWER_S_MAX = 1.0


async def is_stopping() -> bool:
    """What systemd says; without it, or without an answer in time, only the daemon stops.

    Source: systemctl(1), `is-system-running`: "stopping" once a shutdown, reboot or halt has begun.
    """
    try:
        asking = await asyncio.create_subprocess_exec(
            "systemctl",
            "is-system-running",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            answer, _ = await asking.communicate()
    except TimeoutError:
        asking.kill()
        await asking.wait()
        logger.warning("systemd does not say within %.0f s whether the machine stops", ANSWER_S_MAX)
        return False
    return answer.strip() == b"stopping"
