"""GET /containers/{id}/stats: a container's figures once, or every second until it is removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from engine.container import Container, Status
from engine.errors import InvalidParameter, NotFound
from engine.stats import empty_sample, read_network_counters, stats_sample, system_cpu_ns

INTERVAL_S = 1.0
Counters = Callable[[str], Awaitable[Mapping[str, Any]]]


def stats_stream(
    container: Container, counters: Counters, *, stream: bool, one_shot: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """Samples INTERVAL_S apart; without `stream` a single one, whose CPU delta `one_shot` leaves out.

    `counters` of a container that has ended raise NotFound. InvalidParameter for what cannot be both.
    """
    if stream and one_shot:
        raise InvalidParameter("cannot have stream=true and one-shot=true")
    return _samples(container, counters, stream=stream, one_shot=one_shot)


async def _samples(
    container: Container, counters: Counters, *, stream: bool, one_shot: bool
) -> AsyncGenerator[dict[str, Any], None]:
    if not stream and not container.is_running:
        yield empty_sample(container)
        return
    previous = None if one_shot else await _sample(container, counters, None)
    while container.state.status is not Status.REMOVING:
        if not one_shot:
            await asyncio.sleep(INTERVAL_S)
        previous = await _sample(container, counters, previous)
        yield previous
        if not stream:
            return


async def _sample(
    container: Container, counters: Counters, previous: Mapping[str, Any] | None
) -> dict[str, Any]:
    if not container.is_running:
        return empty_sample(container)
    try:
        raw = await counters(container.id)
    except NotFound:
        return empty_sample(container)
    networks = {} if container.network_mode == "host" else read_network_counters(container.state.pid)
    system_ns = system_cpu_ns(Path("/proc/stat").read_text())
    return stats_sample(container, raw, networks, system_ns, time.time(), previous)
