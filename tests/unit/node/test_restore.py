"""Founding a cluster anew from a backup: who is what afterwards, and that a crash leaves all or nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from node import restore
from node.ca import authority
from node.ca.tls import NodeTls
from node.config import VERSION, NodeConfig
from node.identity import SwarmFolder
from node.rpc import MANAGER
from node.swarm import SwarmMembership
from raft import backup
from raft.backup import About, BackupRefused
from raft.codec import Change, encode_command
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import FailedPrecondition
from raft.objects.base import Annotations, Kind, Meta, ObjectRecord
from raft.objects.cluster import CLUSTER_ID, Cluster
from raft.objects.node import Availability, ManagerStatus, Node, NodeRole, NodeSpec, NodeState, NodeStatus
from raft.objects.service import Service, ServiceSpec
from raft.store import Store

PASSPHRASE = "p"
NOW = 1_800_000_000.0
ROOT = authority.new_root(NOW - 1000)


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_LOG2_N", 1)


def node(id: str, address: str, *, manager: bool = False, spec: NodeSpec | None = None) -> Node:
    role = NodeRole.MANAGER if manager else NodeRole.WORKER
    return Node(
        id=id,
        spec=msgspec.structs.replace(spec or NodeSpec(), role=role),
        role=role,
        status=NodeStatus(state=NodeState.READY, address=address),
        manager=ManagerStatus(address=f"{address}:2377") if manager else None,
    )


DRAINED = NodeSpec(annotations=Annotations(labels={"disk": "ssd"}), availability=Availability.DRAIN)
OBJECTS: tuple[ObjectRecord, ...] = (
    Cluster(id=CLUSTER_ID, cluster_id="c1", root_ca=ROOT),
    node("m1", "10.0.0.1", manager=True, spec=DRAINED),
    node("m2", "10.0.0.2", manager=True),
    node("w1", "10.0.0.4"),
    Service(id="s1", spec=ServiceSpec(annotations=Annotations(name="s1"))),
)
KINDS = {Cluster: Kind.CLUSTER, Node: Kind.NODE, Service: Kind.SERVICE}


def backup_of(*objects: ObjectRecord, version: str = VERSION) -> bytes:
    store = Store()
    for index, record in enumerate(objects, start=11):
        store.apply(encode_command([Change(KINDS[type(record)], record.id, 0, record)]), index)
    about = About(
        swarmctl_version=version,
        cluster_id="c1",
        node_id="m1",
        address="10.0.0.1:2377",
        index=20,
        term=4,
        members={"m1": "10.0.0.1:2377", "m2": "10.0.0.2:2377"},
        removed=("m0",),
        made_at=NOW - 100,
        counts=backup.counts_of(store.dump().rows),
    )
    return b"".join(backup.make(about, store.encode(store.dump()), PASSPHRASE))


def planned(
    *objects: ObjectRecord, address: str = "10.0.0.1", availability: Availability | None = None
) -> restore.Founding:
    return restore.plan(
        backup_of(*(objects or OBJECTS)),
        PASSPHRASE,
        address=address,
        port=2377,
        availability=availability,
        now=NOW,
    )


def state_of(founding: restore.Founding) -> Store:
    store = Store()
    store.load(founding.state)
    return store


def test_the_cluster_is_the_same_one() -> None:
    founding = planned()
    view = state_of(founding).view()
    assert founding.identity.cluster_id == "c1"
    assert view.cluster == msgspec.structs.replace(OBJECTS[0], meta=Meta(version=11))
    assert view.services["s1"].meta.version == 15


def test_this_node_is_the_only_manager_and_a_new_one() -> None:
    founding = planned()
    own = state_of(founding).view().nodes[founding.identity.node_id]
    assert own.id not in ("m1", "m2")
    assert (own.role, own.spec.role) == (NodeRole.MANAGER, NodeRole.MANAGER)
    assert own.manager == ManagerStatus(address="10.0.0.1:2377")
    managers = [n.id for n in state_of(founding).view().nodes.values() if n.manager]
    assert managers == [own.id]
    assert founding.removed == ("m0", "m1", "m2")


def test_former_managers_become_workers_and_the_replaced_one_is_down() -> None:
    nodes = state_of(planned()).view().nodes
    for node_id, state in (("m1", NodeState.DOWN), ("m2", NodeState.UNKNOWN)):
        assert (nodes[node_id].role, nodes[node_id].spec.role) == (NodeRole.WORKER, NodeRole.WORKER)
        assert nodes[node_id].manager is None
        assert (nodes[node_id].status.state, nodes[node_id].status.since) == (state, NOW)
    assert (nodes["w1"].role, nodes["w1"].status.state) == (NodeRole.WORKER, NodeState.UNKNOWN)
    assert nodes["w1"].status.message == "not heard from since a restore"
    elsewhere = state_of(planned(address="10.0.0.9")).view().nodes
    assert elsewhere["m1"].status.state is NodeState.UNKNOWN
    on_a_workers_machine = state_of(planned(address="10.0.0.4"))
    assert on_a_workers_machine.view().nodes["w1"].status.state is NodeState.DOWN


def test_a_node_that_was_down_stays_down_since_then() -> None:
    status = NodeStatus(state=NodeState.DOWN, address="10.0.0.5", since=NOW - 5000)
    down = msgspec.structs.replace(node("w2", "10.0.0.5"), status=status)
    assert state_of(planned(*OBJECTS, down)).view().nodes["w2"].status == status


def test_labels_and_availability_are_those_of_the_machine() -> None:
    own = {id: n for id, n in state_of(planned()).view().nodes.items() if id not in ("m1", "m2", "w1")}
    (spec,) = [n.spec for n in own.values()]
    assert (spec.annotations.labels, spec.availability) == ({"disk": "ssd"}, Availability.DRAIN)
    founding = planned(availability=Availability.ACTIVE)
    assert state_of(founding).view().nodes[founding.identity.node_id].spec.availability is Availability.ACTIVE
    founding = planned(address="10.0.0.9")
    assert state_of(founding).view().nodes[founding.identity.node_id].spec.annotations.labels == {}


def test_the_log_goes_on_above_whatever_the_lost_cluster_wrote() -> None:
    founding = planned()
    assert founding.index == 1_000_000_020
    assert founding.term == 5
    store = state_of(founding)
    assert store.index == founding.index
    assert store.view().nodes["m1"].meta.version == founding.index


def test_an_address_that_no_worker_knows_is_said() -> None:
    assert not any("workers look for one at" in warning for warning in planned().warnings)
    (warning,) = [w for w in planned(address="10.0.0.9").warnings if "workers look for one at" in w]
    assert "no manager of the backup was at 10.0.0.9:2377" in warning
    assert "10.0.0.1:2377, 10.0.0.2:2377" in warning


def test_what_cannot_be_restored_is_refused() -> None:
    with pytest.raises(BackupRefused, match="holds no cluster"):
        planned(OBJECTS[1])
    newer = backup_of(*OBJECTS, version="99.0.0")
    with pytest.raises(BackupRefused, match=r"made by swarmctl 99\.0\.0, this is .* install that version"):
        restore.plan(newer, PASSPHRASE, address="10.0.0.1", port=2377, availability=None, now=NOW)


class Dialer:
    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionError(address)


async def leads_again(folder: SwarmFolder) -> Store:
    """Start the consensus of a restored folder as the daemon does."""
    identity = folder.load()
    assert identity is not None
    tls = NodeTls(folder.credentials)
    assert (tls.identity.node_id, tls.identity.role) == (identity.node_id, MANAGER)
    store = Store()
    config = ConsensusConfig(
        identity.node_id, identity.rpc_address, identity.cluster_id, folder.raft, folder.data_key()
    )
    consensus = Consensus.resume(config, store, Dialer())
    store.attach(consensus)
    await consensus.start()
    try:
        assert consensus.is_leader
        assert consensus.removed() == ("m0", "m1", "m2")
        await store.update(lambda tx: tx.put(Service(id="s2")))
    finally:
        await consensus.stop()
    return store


async def test_a_restored_folder_leads_at_once(tmp_path: Path) -> None:
    founding, folder = planned(), SwarmFolder(tmp_path)
    restore.write(folder, founding)
    assert folder.load() is None
    folder.save(founding.identity)
    store = await leads_again(folder)
    assert store.view().services.keys() == {"s1", "s2"}
    assert store.view().services["s2"].meta.version > founding.index


class NoNetworks:
    async def set_underlay(self, address: str) -> None:
        """There is no data plane."""


async def test_a_restore_that_cannot_start_leaves_the_node_in_no_swarm(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = NodeConfig(
            root=tmp_path, advertise_address="127.0.0.1", listen_port=taken.getsockname()[1], hostname="n"
        )
        membership = SwarmMembership(config, cast(Any, None), cast(Any, NoNetworks()))
        options = {"advertise": "", "listen": "", "availability": None}
        tried = await membership.cluster.restore(backup_of(*OBJECTS), PASSPHRASE, **options, dry_run=True)
        assert (tried["DryRun"], tried["ClusterID"], tried["Services"]) == (True, "c1", 1)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(FailedPrecondition, match="cannot listen on port"):
            await membership.cluster.restore(backup_of(*OBJECTS), PASSPHRASE, **options, dry_run=False)
    assert membership.local_state() == "inactive"
    assert list(tmp_path.iterdir()) == []


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Run it in a child that ends, as by kill -9, before its n-th change of the disk; True when it finished."""
    child = os.fork()
    if child == 0:
        left = step

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
            if writes or event in ("os.rename", "os.mkdir", "os.remove"):
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(watch)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_crash_at_any_point_leaves_all_or_nothing(tmp_path: Path) -> None:
    founding = planned()
    for step in range(1, 100):
        folder = SwarmFolder(tmp_path / str(step))

        def work(folder: SwarmFolder = folder) -> None:
            restore.write(folder, founding)
            folder.save(founding.identity)

        finished = dies_at(step, work)
        if folder.load() is not None:
            store = await leads_again(folder)
            assert store.view().services.keys() == {"s1", "s2"}
        assert not finished or folder.load() is not None
        if finished:
            break
    assert step > 10
