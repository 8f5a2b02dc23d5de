"""A cluster's records on a local store, and a clock that stands until it is moved."""

from __future__ import annotations

import pytest
from control_world import ControlWorld

from node.loop import ManualClock


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def world(clock: ManualClock) -> ControlWorld:
    world = ControlWorld(clock.now)
    await world.bootstrap()
    return world
