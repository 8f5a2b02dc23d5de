"""Founding a cluster anew from a backup: the same cluster id, root certificate and tokens, one manager.

`plan` decides everything and touches nothing; `write` makes the folder. Rules: this node gets a new id, for
its old one may still be a member in the logs of managers that are not dead after all. Former managers become
workers, and members never again; those that live find their role out when they connect. The record with this
node's address is of a node that this one replaces: it is down, so its tasks are replaced at once. The log goes
on far above the backup's index, because the lost cluster went on after the backup, and what it numbered
(versions of objects and network maps) must not come a second time with another meaning.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from node.ca import client
from node.config import VERSION, split_host_port
from node.identity import NodeIdentity, SwarmFolder
from node.rpc import MANAGER
from raft.backup import About, BackupRefused, open_backup
from raft.codec import COMMAND_CHANGES_MAX, Change, encode_command
from raft.consensus import ConsensusConfig
from raft.founding import found
from raft.objects.base import Kind, Meta, new_id
from raft.objects.cluster import Cluster
from raft.objects.node import Availability, ManagerStatus, Node, NodeRole, NodeSpec, NodeState, NodeStatus
from raft.store import Applied, Store

# As many entries as no cluster writes between two backups, and too few to matter in 64 bits.
INDEX_GAP = 1_000_000_000


class FormerNode(msgspec.Struct, frozen=True):
    """A manager of the backup, or a node that had this one's address. `address`: of the manager, or "".

    `state` is what it gets: down when this node replaces it, else unknown until it connects or is given up.
    """

    node_id: str
    hostname: str
    address: str
    state: NodeState


class Founding(msgspec.Struct, frozen=True, kw_only=True):
    """What is written; `warnings` are sentences for the user."""

    about: About
    identity: NodeIdentity
    cluster: Cluster
    state: bytes
    index: int
    term: int
    removed: tuple[str, ...]
    former: tuple[FormerNode, ...]
    services: int
    warnings: tuple[str, ...]
    now: float


def plan(
    data: bytes,
    passphrase: str,
    *,
    address: str,
    port: int,
    availability: Availability | None,
    now: float,
) -> Founding:
    """`address` and `port`: this node's for the others. `availability` None: as the replaced node's was.

    Blocks. Raises BackupRefused.
    """
    about, state = open_backup(data, passphrase)
    _require_no_newer(about)
    store = Store()
    store.load(state)
    cluster = store.view().cluster
    if cluster is None:
        raise BackupRefused("the backup holds no cluster: it was made before the swarm was founded")
    identity = NodeIdentity(node_id=new_id(), cluster_id=cluster.cluster_id, address=address, port=port)
    saved = sorted(store.view().nodes.values(), key=lambda node: node.id)
    restored = [_restored(node, _is_replaced(node, about, address), now) for node in saved]
    former = tuple(
        _former_node(node, after, about)
        for node, after in zip(saved, restored, strict=True)
        if _was_manager(node, about) or _is_replaced(node, about, address)
    )
    own = _own_record(identity, store, availability, now)
    index = about.index + INDEX_GAP
    _write_nodes(store, [*restored, own], index)
    return Founding(
        about=about,
        identity=identity,
        cluster=cluster,
        state=store.encode(store.dump()),
        index=index,
        term=about.term + 1,
        removed=tuple(sorted({*about.removed, *about.members, *(f.node_id for f in former)})),
        former=former,
        services=len(store.view().services),
        warnings=tuple(_warnings(about, identity)),
        now=now,
    )


def write(folder: SwarmFolder, founding: Founding) -> None:
    """Everything but the identity, whose file makes the folder count. Blocks. Raises OSError, RaftError."""
    identity = founding.identity
    client.bootstrap(
        folder.credentials,
        founding.cluster.root_ca,
        node_id=identity.node_id,
        role=MANAGER,
        cluster_id=identity.cluster_id,
        now=founding.now,
        lock=founding.cluster.lock,
    )
    config = ConsensusConfig(
        node_id=identity.node_id,
        address=identity.rpc_address,
        cluster_id=identity.cluster_id,
        state_dir=folder.raft,
        key=folder.data_key(),
    )
    found(config, founding.state, founding.index, founding.term, founding.removed)


def _require_no_newer(about: About) -> None:
    if _numbers(about.swarmctl_version) > _numbers(VERSION):
        raise BackupRefused(
            f"the backup was made by swarmctl {about.swarmctl_version}, this is {VERSION}: what it does not "
            "know would be lost; install that version or a newer one"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _is_replaced(node: Node, about: About, address: str) -> bool:
    return address in (_host(_manager_address(node, about)), node.status.address)


def _manager_address(node: Node, about: About) -> str:
    return about.members.get(node.id) or (node.manager.address if node.manager else "")


def _was_manager(node: Node, about: About) -> bool:
    return bool(_manager_address(node, about)) or NodeRole.MANAGER in (node.role, node.spec.role)


def _former_node(node: Node, restored: Node, about: About) -> FormerNode:
    return FormerNode(
        node_id=node.id,
        hostname=node.description.hostname,
        address=_manager_address(node, about),
        state=restored.status.state,
    )


def _restored(node: Node, is_replaced: bool, now: float) -> Node:
    """A worker that nobody has heard from: it keeps its tasks until its agent had time to find this manager."""
    if is_replaced:
        status = _status(node, NodeState.DOWN, "replaced by a restore", now)
    elif node.status.state is NodeState.DOWN:
        status = node.status
    else:
        status = _status(node, NodeState.UNKNOWN, "not heard from since a restore", now)
    return msgspec.structs.replace(
        node,
        meta=msgspec.structs.replace(node.meta, updated_at=now),
        spec=msgspec.structs.replace(node.spec, role=NodeRole.WORKER),
        role=NodeRole.WORKER,
        manager=None,
        status=status,
    )


def _status(node: Node, state: NodeState, message: str, now: float) -> NodeStatus:
    return msgspec.structs.replace(node.status, state=state, message=message, since=now)


def _own_record(identity: NodeIdentity, store: Store, availability: Availability | None, now: float) -> Node:
    """Labels and availability are those of the node that had this address: the machine is the same one."""
    replaced = next((n for n in store.view().nodes.values() if n.status.address == identity.address), None)
    spec = NodeSpec() if replaced is None else replaced.spec
    spec = msgspec.structs.replace(
        spec, role=NodeRole.MANAGER, availability=availability or spec.availability
    )
    return Node(
        id=identity.node_id,
        meta=Meta(created_at=now, updated_at=now),
        spec=spec,
        role=NodeRole.MANAGER,
        status=NodeStatus(address=identity.address),
        manager=ManagerStatus(address=identity.rpc_address),
    )


def _write_nodes(store: Store, nodes: list[Node], index: int) -> None:
    """As commands, so that they get their versions and the store its index as in the life of a cluster."""
    view = store.view()
    for start in range(0, len(nodes), COMMAND_CHANGES_MAX):
        changes = []
        for node in nodes[start : start + COMMAND_CHANGES_MAX]:
            stored = view.nodes.get(node.id)
            changes.append(Change(Kind.NODE, node.id, stored.meta.version if stored else 0, node))
        outcome = store.apply(encode_command(changes), index)
        assert isinstance(outcome, Applied), f"nobody else writes to this store: {outcome}"


def _warnings(about: About, identity: NodeIdentity) -> Iterator[str]:
    if len(about.members) > 1:
        yield (
            "the other managers must be off, or have left the old swarm, before the restored one is used: "
            "two swarms with one certificate authority would compete for the workers"
        )
    if identity.rpc_address not in about.members.values():
        known = ", ".join(sorted(about.members.values()))
        yield (
            f"no manager of the backup was at {identity.rpc_address}: workers look for one at {known}, and "
            "have to leave and join again unless this node gets one of these addresses (--advertise-addr)"
        )


def _host(rpc_address: str) -> str:
    return split_host_port(rpc_address, 1)[0] if rpc_address else ""
