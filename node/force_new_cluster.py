"""Going on without the other managers, when their quorum is gone for good (`swarm init --force-new-cluster`).

Takes what is readable on this disk, committed or not, and founds a cluster on it whose only manager is this node:
services, tasks, secrets, networks, nodes, tokens and certificates stay. The other managers can never be members
again; their nodes become workers that are down until they come back. `survey` only looks, and says what may be
lost. The exchange of the folder is all or nothing (node.raft_folder).
"""

from __future__ import annotations

import asyncio
import dataclasses
import math

import msgspec

from node import raft_folder
from node.identity import NodeIdentity, SwarmFolder
from node.manager_part import consensus_config
from raft.consensus import Consensus
from raft.errors import FailedPrecondition
from raft.founding import found
from raft.framing import WrongKey
from raft.objects.base import Kind
from raft.objects.node import ManagerStatus, Node, NodeRole, NodeState
from raft.salvage import Salvage, salvage
from raft.store import Dump, LocalProposer, Store, Transaction

# More entries than the lost managers can have been ahead: versions that the agents know must stay older.
INDEX_GAP = 100_000
SECONDS_UNKNOWN = -1.0


class ShutOut(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A manager that will be none any more."""

    node_id: str = msgspec.field(name="NodeID")
    hostname: str
    addr: str


class Survey(msgspec.Struct, frozen=True, rename="pascal"):
    """What the new cluster would be made of. Indexes are those of log entries.

    `committed_index`: up to here it is certain; the `not_known_committed` entries behind it may have been refused
    to whoever wrote them, and are taken all the same. `leader_heard_seconds_ago`: -1 when unknown.
    """

    last_index: int
    snapshot_index: int
    committed_index: int
    not_known_committed: int
    leader_heard_seconds_ago: float
    leads: bool
    damage: tuple[str, ...]
    kept: dict[str, int]
    shut_out: tuple[ShutOut, ...]
    warnings: tuple[str, ...]


async def survey(folder: SwarmFolder, identity: NodeIdentity, running: Consensus | None) -> Survey:
    """Changes nothing. Raises FailedPrecondition when nothing is readable, OSError."""
    found_on_disk, store = await asyncio.to_thread(_read, folder, identity)
    return describe(found_on_disk, store, identity, running)


def describe(
    found_on_disk: Salvage, store: Store, identity: NodeIdentity, running: Consensus | None
) -> Survey:
    committed = max(found_on_disk.snapshot_index, _settled_by_membership(found_on_disk))
    heard, leads = math.inf, False
    if running is not None:
        committed = max(committed, min(running.commit_index, found_on_disk.last_index))
        heard, leads = running.leader_heard_s_ago, running.is_leader
    view = store.view()
    made = Survey(
        last_index=found_on_disk.last_index,
        snapshot_index=found_on_disk.snapshot_index,
        committed_index=committed,
        not_known_committed=found_on_disk.last_index - committed,
        leader_heard_seconds_ago=SECONDS_UNKNOWN if heard == math.inf else heard,
        leads=leads,
        damage=found_on_disk.damage,
        kept={kind.value: sum(1 for _ in view.all(kind)) for kind in Kind},
        shut_out=tuple(
            ShutOut(node_id=node_id, hostname=_hostname(view.nodes.get(node_id)), addr=address)
            for node_id, address in sorted(found_on_disk.configuration.members.items())
            if node_id != identity.node_id
        ),
        warnings=(),
    )
    return msgspec.structs.replace(made, warnings=tuple(_warnings(made)))


async def rewrite(folder: SwarmFolder, identity: NodeIdentity, now: float) -> Survey:
    """Make this node's state on disk that of the only manager; no part of it may run. Returns what was taken.

    Raises what `survey` raises; the old state is then still in place.
    """
    found_on_disk, store = await asyncio.to_thread(_read, folder, identity)
    taken = describe(found_on_disk, store, identity, None)
    LocalProposer(store)
    await store.update(lambda tx: _rewrite_nodes(tx, identity, now))
    index, term = max(store.index, found_on_disk.last_index) + INDEX_GAP, found_on_disk.term + 1
    dump = store.dump()
    former = found_on_disk.configuration
    gone = {*former.removed, *former.members} - {identity.node_id}

    def write() -> None:
        config = dataclasses.replace(consensus_config(folder, identity), state_dir=raft_folder.begin(folder))
        found(config, Dump(index, dump.rows).encode(), index, term, tuple(sorted(gone)))
        raft_folder.put_in_place(folder, raft_folder.REPLACED, now)

    await asyncio.to_thread(write)
    return taken


def _read(folder: SwarmFolder, identity: NodeIdentity) -> tuple[Salvage, Store]:
    try:
        found_on_disk = salvage(consensus_config(folder, identity))
    except WrongKey as error:
        raise FailedPrecondition(f"{folder.raft}: {error}") from error
    store = Store()
    found_on_disk.replay(store)
    if store.view().cluster is None:
        raise FailedPrecondition(
            f"what is readable in {folder.raft} ends at entry {found_on_disk.last_index} and has no cluster in it: "
            "restore a backup (swarmctl cluster restore FILE)"
        )
    return found_on_disk, store


def _rewrite_nodes(tx: Transaction, identity: NodeIdentity, now: float) -> None:
    for node in list(tx.nodes.values()):
        if node.id == identity.node_id:
            tx.put(_sole_manager(node, identity))
        elif node.role is NodeRole.MANAGER or node.spec.role is NodeRole.MANAGER or node.manager is not None:
            tx.put(_former_manager(node, now))


def _sole_manager(node: Node, identity: NodeIdentity) -> Node:
    return msgspec.structs.replace(
        node,
        spec=msgspec.structs.replace(node.spec, role=NodeRole.MANAGER),
        role=NodeRole.MANAGER,
        manager=ManagerStatus(address=identity.rpc_address),
    )


def _former_manager(node: Node, now: float) -> Node:
    return msgspec.structs.replace(
        node,
        spec=msgspec.structs.replace(node.spec, role=NodeRole.WORKER),
        role=NodeRole.WORKER,
        manager=None,
        status=msgspec.structs.replace(
            node.status, state=NodeState.DOWN, message="shut out by --force-new-cluster", since=now
        ),
    )


def _settled_by_membership(found_on_disk: Salvage) -> int:
    """A change of the members was only begun when the one before it was committed."""
    changes = found_on_disk.membership_indexes
    return changes[-2] if len(changes) > 1 else 0


def _hostname(node: Node | None) -> str:
    return "" if node is None else node.description.hostname


def _warnings(made: Survey) -> list[str]:
    said = [
        "writes that the other managers have acknowledged and this one has not received are lost",
    ]
    if made.not_known_committed:
        said.append(
            f"{made.not_known_committed} entries behind {made.committed_index} are not known to be committed: "
            "they are kept, and may contain changes whose writers were told that they failed"
        )
    if made.damage:
        said.append("parts of the log are damaged: what was written in and behind them is lost")
    if made.leads:
        said.append("this manager leads and has a quorum: there is no need for a new cluster")
    elif 0 <= made.leader_heard_seconds_ago < 10:
        said.append("a leader was heard only seconds ago: the cluster may have a quorum, look at it first")
    if made.shut_out:
        said.append(
            "make sure that the managers shut out never run together apart from this one: they would go on as the "
            "old cluster, with the same tasks; when they reach this one they become workers"
        )
    return said
