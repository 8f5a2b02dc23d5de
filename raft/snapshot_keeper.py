"""A running manager's snapshots: made, installed and read in threads, beside the event loop.

Owns which snapshot is at hand for followers. Invariants: the engine hears of a snapshot when it is durable; a
leader's snapshot that cannot be decoded is neither stored nor acknowledged; one that a newer one has replaced is
not sent any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from raft import snapshot as snapshots
from raft.config import ConsensusConfig, snapshot_dir
from raft.errors import RaftError
from raft.framing import Damaged, WrongKey
from raft.log import Log
from raft.membership import Configuration
from raft.snapshot import Snapshot
from raft.state_machine import PreparedState, StateMachine
from raft.syncobj import Engine

logger = logging.getLogger(__name__)

KEPT_S = 30.0
STEP_PAUSE_S = 0.0005

T = TypeVar("T")


class SnapshotKeeper:
    """`tell`: has the engine do something, on the event loop. `keep_older`: snapshots kept beside the newest."""

    def __init__(
        self,
        config: ConsensusConfig,
        machine: StateMachine,
        log: Log,
        tell: Callable[[Callable[[Engine], object]], None],
    ) -> None:
        self._config = config
        self._machine = machine
        self._log = log
        self._tell = tell
        self._at_hand: Snapshot | None = None
        self._used_at = 0.0
        self._reading = False
        self._stored = 0
        self._prepared: PreparedState | None = None
        self.keep_older = config.keep_snapshots

    # ---- one that is at hand ----

    def latest(self, now: float) -> Snapshot | None:
        """None while it has to be read. `now`: of the event loop, in seconds."""
        self._used_at = now
        return self._at_hand

    def forget_unused(self, now: float) -> None:
        """Nobody has asked for it for a while: its memory is free again."""
        if self._at_hand is not None and now - self._used_at > KEPT_S:
            self._at_hand = None

    def must_be_read(self) -> bool:
        """True at most once until `read` has ended."""
        wanted = self._at_hand is None and not self._reading
        self._reading = self._reading or wanted
        return wanted

    async def read(self) -> None:
        """The latest one from the disk."""
        config, stored = self._config, self._stored
        try:
            latest = await asyncio.to_thread(
                snapshots.load_latest, snapshot_dir(config), config.key, config.files
            )
        except (OSError, Damaged, WrongKey) as err:
            logger.error("the latest snapshot cannot be read, a new one is made: %s", err)
            self._tell(Engine.snapshot_lost)
        else:
            # While it was read a newer one may have replaced it, and the log in between may be gone.
            if stored == self._stored:
                self._at_hand = latest
            self._tell(Engine.send_soon)
        finally:
            self._reading = False

    # ---- a new one ----

    async def take(self, index: int, term: int, configuration: Configuration, dump: object) -> None:
        """Encode and store what the machine's `dump` gave at that index."""

        def work() -> None:
            pieces = _in_steps(self._machine.pieces(dump))
            self._save(snapshots.make_of_pieces(index, term, configuration, pieces))

        try:
            await asyncio.to_thread(work)
        except Exception:
            # Whatever it was, the log goes on growing until a later attempt succeeds.
            logger.exception("snapshot at entry %d could not be made", index)
            self._tell(lambda engine: engine.snapshot_stored(None))
        else:
            self._replaced()
            self._tell(lambda engine: engine.snapshot_stored(index))
            await self._remove_dropped()

    async def install(self, snapshot: Snapshot) -> None:
        """Decode and store the leader's snapshot, then have the engine take it over."""

        def work() -> PreparedState:
            prepared = self._machine.prepare(_in_steps(snapshot.pieces))
            self._save(snapshot)
            return prepared

        try:
            prepared = await asyncio.to_thread(work)
        except (OSError, RaftError) as err:
            logger.error("snapshot of the leader at entry %d cannot be used: %s", snapshot.meta.index, err)
            self._tell(lambda engine: engine.install(None))
            return
        self._replaced()
        self._prepared = prepared
        self._tell(lambda engine: engine.install(snapshot))
        self._prepared = None
        await self._remove_dropped()
        await asyncio.to_thread(lambda: deque(_in_steps(prepared.release()), maxlen=0))

    def adopt(self) -> None:
        """Called by the engine while it installs: the state becomes that of the snapshot."""
        assert self._prepared is not None, "only a snapshot that is being installed is loaded"
        self._machine.adopt(self._prepared)

    def _save(self, snapshot: Snapshot) -> None:
        config = self._config
        snapshots.save(snapshot_dir(config), config.key, snapshot, config.files, keep_older=self.keep_older)

    def _replaced(self) -> None:
        self._at_hand = None
        self._stored += 1

    async def _remove_dropped(self) -> None:
        try:
            await asyncio.to_thread(self._log.remove_dropped)
        except OSError as err:
            logger.warning("a part of the raft log that is no longer needed cannot be deleted: %s", err)


def _in_steps(work: Iterable[T]) -> Iterator[T]:
    """A thread's long work, with the interpreter left to the event loop after each step.

    Without the pause the loop would get it only when the interpreter takes it away, after 5 ms, each time.
    """
    for step in work:
        yield step
        time.sleep(STEP_PAUSE_S)
