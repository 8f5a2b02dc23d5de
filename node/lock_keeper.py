"""Keeps the secret files of a manager in the form that the cluster asks for: autolock on, off, a new key.

Runs on every manager, whoever leads. Invariant: what the store says last is on the disk, or is tried again
and said in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from node.loop import Backoff, Clock
from raft.objects.base import Kind
from raft.objects.cluster import ManagerLock
from raft.store import Store

logger = logging.getLogger(__name__)


class LockKeeper:
    """`apply`: makes the files so and says whether it changed any (CredentialFiles.apply_lock)."""

    def __init__(self, store: Store, apply: Callable[[ManagerLock], bool], clock: Clock) -> None:
        self._store = store
        self._apply = apply
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(first=0.5, most=60.0)
        with self._store.watch({Kind.CLUSTER}) as watch:
            while True:
                watch.drain()
                if self._kept():
                    backoff.reset()
                    await watch.wait()
                else:
                    await self._clock.sleep(backoff.next())

    def _kept(self) -> bool:
        cluster = self._store.view().cluster
        if cluster is None:
            return True
        try:
            if self._apply(cluster.lock):
                state = "locked with the unlock key" if cluster.lock.unlock_key else "not locked"
                logger.info("the keys of this manager are %s", state)
        except (OSError, ValueError) as error:
            logger.error("the keys of this manager are not as autolock asks, trying again: %s", error)
            return False
        return True
