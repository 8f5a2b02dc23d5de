"""Making a manager's folder before its life begins, for a manager that had another life before.

For restoring a backup, going on without a quorum, and joining again after the log was lost. Blocks; meant for
a folder that no running manager uses. `Consensus.resume` goes on from what is made here.
"""

from __future__ import annotations

from raft import snapshot as snapshots
from raft.config import ConsensusConfig, snapshot_dir
from raft.consensus import Consensus, open_new_log
from raft.errors import FailedPrecondition
from raft.membership import Configuration


def found(
    config: ConsensusConfig, state: bytes, index: int, term: int, removed: tuple[str, ...] = ()
) -> None:
    """Write a snapshot that holds `state` (what Store.encode gave) at `index` and `term`, with this
    node as the only member, and the log behind it; `Consensus.resume` goes on in a later term.

    `removed`: former members, which may never be members again. Raises FailedPrecondition when the folder
    holds state already, OSError.
    """
    if Consensus.exists(config.state_dir, config.files):
        raise FailedPrecondition(f"{config.state_dir} holds the state of a manager already")
    configuration = Configuration({config.node_id: config.address}, removed)
    log = open_new_log(config)
    try:
        log.reset(index, term)
        log.setCurrentTerm(term, None)
        log.sync()
    finally:
        log.close()
    # Until it is there as well, the log alone is refused: it goes on after an entry that nobody has.
    snapshot = snapshots.make(index, term, configuration, state)
    snapshots.save(snapshot_dir(config), config.key, snapshot, config.files)


def prepare_joiner(config: ConsensusConfig, term: int, leader_id: str) -> None:
    """An empty log of a node that votes in no term up to `term`, as if it had voted for `leader_id` then.

    Raises FailedPrecondition when the folder holds state already, OSError.
    """
    log = open_new_log(config)
    try:
        log.setCurrentTerm(term, leader_id)
        log.sync()
    finally:
        log.close()
