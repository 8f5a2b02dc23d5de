"""Taking a backup of the cluster on a running manager.

The state is one moment of this manager's, at or above an index that the leader confirmed after the call began:
every write that was acknowledged before is in it. The event loop only copies references; encoding, the key
and the encryption are a thread's work.
"""

from __future__ import annotations

import asyncio
import time

from node.config import VERSION
from node.identity import NodeIdentity
from node.manager_part import ManagerPart
from raft import backup
from raft.backup import About


async def make_backup(manager: ManagerPart, identity: NodeIdentity, passphrase: str) -> list[bytes]:
    """The file in pieces. Raises Unavailable without a leader, InvalidArgument for an empty passphrase."""
    await manager.leader_calls.confirmed_index()
    # No await from here until all is noted: it belongs to one index.
    consensus, store = manager.consensus, manager.store
    dump = store.dump()
    about = About(
        swarmctl_version=VERSION,
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        address=identity.rpc_address,
        index=consensus.applied_index,
        term=consensus.term,
        members=consensus.members(),
        removed=consensus.removed(),
        made_at=time.time(),
        counts=backup.counts_of(dump.rows),
    )
    return await asyncio.to_thread(lambda: backup.make(about, store.encode(dump), passphrase))
