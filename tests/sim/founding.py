"""All disks but one are lost: a new cluster is founded from what the last one holds, and must hold all of it."""

from __future__ import annotations

from raft.founding import found
from raft.replication import REGULAR
from raft.salvage import salvage
from raft.store import Store
from raft.syncobj import PROPOSAL_ID_BYTES
from tests.sim.cluster import Cluster
from tests.sim.invariants import Oracle, Violation
from tests.sim.manager import Manager

FOUNDER = "f1"


def found_anew(cluster: Cluster, survivor: Manager) -> Manager:
    """Ends all of the old nodes and starts the founder, under the eyes of a new oracle."""
    former = tuple(cluster.managers)
    for node_id in former:
        cluster.manager(node_id).crash()
    state, index, term = _read(cluster.oracle, survivor)
    founder = cluster.manager(FOUNDER)
    found(founder.config, state, index, term, removed=former)
    cluster.oracle = Oracle(founded_at=index)
    founder.start()
    if founder.store.encode(founder.store.dump()) != state:
        raise Violation("founding", f"{FOUNDER} does not hold what {survivor.id} held at entry {index}")
    for config in founder.store.view().configs.values():
        cluster.oracle.on_known(config.id, config.meta.version)
    return founder


def _read(oracle: Oracle, survivor: Manager) -> tuple[bytes, int, int]:
    """The state after the last entry of a disk, its index, and the term. Whether an entry was committed is not
    on any disk, so all of them count."""
    store, left = Store(), salvage(survivor.config)
    if left.snapshot is not None:
        store.adopt(store.prepare(left.snapshot.pieces))
    agrees = True
    for entry in left.entries:
        if entry.command[:1] == REGULAR:
            store.apply(entry.command[1 + PROPOSAL_ID_BYTES :], entry.index)
        agrees = agrees and oracle.is_committed(entry.index, entry.term, entry.command)
        if agrees:
            oracle.compare_state(survivor.id, store, entry.index)
    return store.encode(store.dump()), left.last_index, left.term
