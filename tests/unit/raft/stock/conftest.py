"""`world` is either side; a test that takes it is run on both, with what is expected of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.raft.stock.engine import EngineWorld
from tests.unit.raft.stock.library import LibraryWorld
from tests.unit.raft.stock.world import World


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> LibraryWorld:
    """PySyncObj with the default settings."""
    made = LibraryWorld()
    made.patch_clock(monkeypatch)
    return made


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineWorld]:
    made = EngineWorld(tmp_path)
    made.patch_clock(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The side that the test's parameter names."""
    made: World = request.getfixturevalue(request.param)
    return made
