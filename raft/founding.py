"""Making a manager's folder from a state: the sole manager of a cluster that had another life before.

For restoring a backup and for going on without a quorum. Blocks; meant for a folder that no running
manager uses.
"""

from __future__ import annotations

from raft import snapshot as snapshots
from raft.consensus import Consensus, ConsensusConfig, snapshot_dir
from raft.errors import FailedPrecondition
from raft.membership import Configuration


def found(
    config: ConsensusConfig, state: bytes, index: int, term: int, removed: tuple[str, ...] = ()
) -> None:
    """Write a snapshot that holds `state` (what StateMachine.encode gave) at `index` and `term`, with this
    node as the only member; `Consensus.resume` goes on from it in a later term.

    `removed`: former members, which may never be members again. Raises FailedPrecondition when the folder
    holds state already, OSError.
    """
    if Consensus.exists(config.state_dir, config.files):
        raise FailedPrecondition(f"{config.state_dir} holds the state of a manager already")
    configuration = Configuration({config.node_id: config.address}, removed)
    snapshot = snapshots.make(index, term, configuration, state)
    snapshots.save(snapshot_dir(config), config.key, snapshot, config.files)
