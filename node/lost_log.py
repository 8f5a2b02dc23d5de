"""A manager whose log is damaged or gone: it must not vote or acknowledge as the member that it was.

Recognizes the damage, has the other managers take this node out of their configuration, and only then makes a
fresh, empty log for the node's next life (docs/adr/0010-lost-log.md). The damaged folder is left as it is until
they have agreed, so that nothing is lost when they never do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
from collections.abc import Callable, Sequence

import msgspec

from node.identity import SwarmFolder
from node.loop import Backoff, SystemClock
from node.manager.manager import JOIN_METHOD, Expelled, JoinRequest
from node.raft_folder import DAMAGED, begin, put_in_place
from node.rpc import RpcClient, RpcError
from raft.consensus import ConsensusConfig
from raft.founding import prepare_joiner
from raft.framing import Damaged
from raft.wal import WalDamaged

logger = logging.getLogger(__name__)

ASK_TIMEOUT_S = 30.0
WAYS_OUT = (
    "there is no other manager to get the state from: go on with what can be read "
    "(swarmctl swarm init --force-new-cluster, --dry-run shows what that would be), "
    "or restore a backup (swarmctl cluster restore FILE)"
)


def is_loss(error: Exception) -> bool:
    """Was a part of the log or the snapshot lost? A wrong key or a refusal of the disk is none."""
    if isinstance(error, OSError):
        return error.errno == errno.EIO
    return isinstance(error, WalDamaged | Damaged)


class LostLog:
    """Asks until the others have agreed. `candidates`: where they are, asked for anew in every round.

    `problem` says in words what is wrong and how far it is, for `info`.
    """

    def __init__(
        self, reason: str, address: str, client: RpcClient, candidates: Callable[[], Sequence[str]]
    ) -> None:
        self._reason = reason
        self._address = address
        self._client = client
        self._candidates = candidates
        self._last_answer = "asking the other managers"

    @property
    def problem(self) -> str:
        return f"{self._reason}: it takes part when the other managers have taken it in; {self._last_answer}"

    def say(self, answer: str) -> None:
        """How far it is."""
        self._last_answer = answer
        logger.info("not taken in again yet: %s", answer)

    async def be_expelled(self) -> Expelled:
        """Returns once a quorum of the others has this node out of the configuration."""
        request = msgspec.json.encode(JoinRequest(address=self._address, lost_log=True))
        backoff = Backoff()
        while True:
            for address in self._candidates():
                answer = await self._ask(address, request)
                if answer is not None:
                    return answer
            await SystemClock().sleep(backoff.next())

    async def _ask(self, address: str, request: bytes, redirected: bool = False) -> Expelled | None:
        try:
            answer = await self._client.call(address, JOIN_METHOD, request, timeout=ASK_TIMEOUT_S)
            return msgspec.json.decode(answer, type=Expelled)
        except RpcError as error:
            if error.code == "not_leader" and error.detail and not redirected:
                return await self._ask(error.detail, request, redirected=True)
            self.say(f"{address} says: {error.message}")
        except msgspec.MsgspecError as error:
            self.say(f"{address} gave an answer that cannot be read: {error}")
        return None


async def begin_anew(folder: SwarmFolder, config: ConsensusConfig, answer: Expelled) -> None:
    """Put a fresh log in the place of the lost one. Raises OSError."""

    def work() -> None:
        fresh = begin(folder)
        prepare_joiner(dataclasses.replace(config, state_dir=fresh), answer.term, answer.leader_id)
        put_in_place(folder, DAMAGED, SystemClock().now())

    await asyncio.to_thread(work)
