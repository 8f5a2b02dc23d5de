"""The API against JSON of any shape and HTTP of any kind: no 500, no crash, nothing left over.

A round is drawn from its seed: SWARMCTL_FUZZ_SEED=n repeats round n alone. SWARMCTL_FUZZ_SECONDS is how long new
rounds begin (45), SWARMCTL_FUZZ_FIRST the first seed (0).
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE
from tests.conftest import HostDaemon
from tests.fuzz.rounds import Round
from tests.fuzz.world import World

logger = logging.getLogger(__name__)
SECONDS = float(os.environ.get("SWARMCTL_FUZZ_SECONDS", "45"))
ONLY = os.environ.get("SWARMCTL_FUZZ_SEED")
FIRST = int(ONLY or os.environ.get("SWARMCTL_FUZZ_FIRST", "0"))
GROWTH_MAX = {"descriptors": 6, "tasks": 4, "descriptors of the supervisor": 4}

pytestmark = [pytest.mark.root, pytest.mark.timeout(SECONDS + 240 * PATIENCE)]


@pytest.fixture
def world(tmp_path: Path, hello_archive: Path) -> Iterator[World]:
    daemon = HostDaemon(tmp_path)
    try:
        daemon.start()
        daemon.ok("load", "-i", str(hello_archive))
        yield World(daemon, hello_archive)
    finally:
        daemon.run("swarm", "leave", "--force")
        daemon.close()


def test_whatever_is_asked_is_answered(world: World) -> None:
    _at_rest(world)
    before = world.held()
    told: dict[str, str] = {}
    answers: Counter[tuple[str, int]] = Counter()
    rounds = 0
    deadline = time.monotonic() + SECONDS
    while rounds == 0 or (ONLY is None and time.monotonic() < deadline and len(told) < 100):
        turn = Round(world, FIRST + rounds)
        turn.run()
        for short, whole in turn.found:
            told.setdefault(short, whole)
        answers += turn.answers
        rounds += 1
    logger.info("%d requests in %d rounds from %d", answers.total(), rounds, FIRST)
    for (operation, status), count in sorted(answers.items()):
        logger.debug("%s: %d: %d times", operation, status, count)
    assert not told, "\n".join((f"{len(told)} kinds of failures:", *told.values()))
    _at_rest(world)
    _wait_for_rest(world, before)
    assert world.daemon.ok("run", "--rm", "hello", "echo", "still here") == "still here"


def _at_rest(world: World) -> None:
    """The same objects in the same state as whenever this is called: no swarm, one container that runs."""
    world.tidy()
    world.call("POST", "/swarm/leave?force=1")
    for name in ("fuzz-run", "fuzz-idle"):
        world.call("DELETE", f"/containers/{name}?force=1&v=1")
    world.ensure()


def _wait_for_rest(world: World, before: dict[str, int]) -> None:
    deadline = time.monotonic() + 15 * PATIENCE
    while True:
        held = world.held()
        grown = {
            name: held[name] - before[name] for name in held if held[name] - before[name] > GROWTH_MAX[name]
        }
        if not grown:
            return
        assert time.monotonic() < deadline, f"the daemon holds more than before: {grown} ({before} -> {held})"
        time.sleep(0.3)
