"""The way back of a node without a log, step by step as node.parts takes it.

It runs no consensus, asks to be expelled, puts a fresh log in the place of the lost one, goes on from that, and
asks to be added. Its disk says where it stands: a crash at any point leads back to the right step.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from node.identity import NodeIdentity
from node.lost_log import LostLog
from node.manager.manager import Expelled
from node.membership_keeper import MembershipKeeper
from raft import founding
from raft.errors import RaftError
from raft.framing import WrongKey
from raft.wal import WalDamaged
from tests.sim.calls import Caller
from tests.sim.rot import Rot

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.manager import Manager

RETRY_S = 0.2

_BUILDING = cast(Path, PurePosixPath("/raft.building"))


async def come_back(manager: Manager, cluster: Cluster) -> None:
    """Until a consensus runs on the fresh log."""
    client = cast(Any, Caller(manager, cluster))
    answer = await LostLog(manager.damage, manager.address, client, _others(manager, cluster)).be_expelled()
    begun = False
    while True:
        try:
            if not begun:
                await asyncio.to_thread(_begin_anew, manager, cluster, answer)
                begun = True
            await manager.begin_again()
        except (RaftError, WalDamaged, WrongKey, OSError):
            await asyncio.sleep(RETRY_S)
        else:
            return


def _begin_anew(manager: Manager, cluster: Cluster, answer: Expelled) -> None:
    """As node.lost_log.begin_anew: the fresh folder is built beside and takes the old one's place at once."""
    config, disk = manager.config, manager.disk
    disk.erase(_BUILDING)
    fresh = dataclasses.replace(config, state_dir=_BUILDING)
    founding.prepare_joiner(fresh, answer.term, answer.leader_id)
    manager.rot = Rot.REPLACED
    manager.era += 1
    disk.replace_folder(config.state_dir, _BUILDING)


def _others(manager: Manager, cluster: Cluster) -> Any:
    """Where the other managers are known to be, in another order each time."""

    def others() -> Sequence[str]:
        known = [m.address for m in cluster.managers.values() if m is not manager and m.life]
        return manager.dice.sample(known, len(known))

    return others


def keeper(manager: Manager, cluster: Cluster) -> MembershipKeeper:
    """Asks until the node is counted at its address."""
    host, _, port = manager.address.partition(":")
    identity = NodeIdentity(node_id=manager.id, cluster_id="", address=host, port=int(port))
    client = cast(Any, Caller(manager, cluster))
    others = _others(manager, cluster)
    return MembershipKeeper(identity, manager.consensus, client, others, manager.host.count_member)
