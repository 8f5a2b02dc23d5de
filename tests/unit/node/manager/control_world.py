"""A store without a cluster around it, and the control API on it, for the tests of node.manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from node.manager.controlapi import ControlApi, bootstrap_cluster
from raft.errors import NotLeader
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import CLUSTER_ID, Cluster, RootCA
from raft.objects.node import ManagerStatus, Node, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from raft.objects.service import ContainerSpec, ServiceSpec, TaskSpec
from raft.store import LocalProposer, Store

LEADER = "m1"


class FakeConsensus:
    """One manager that leads, until the test says otherwise."""

    def __init__(self) -> None:
        self.is_leader = True
        self.leader_id: str | None = LEADER
        self.group = {LEADER: "10.9.0.1:2377"}
        self.cut: set[str] = set()
        self.calls: list[str] = []
        self.barriers = 0
        self._callbacks: list[Callable[[], None]] = []

    def members(self) -> Mapping[str, str]:
        return self.group

    def reachable(self, node_id: str) -> bool:
        return node_id in self.group and node_id not in self.cut

    async def read_barrier(self) -> None:
        self.barriers += 1
        if not self.is_leader:
            raise NotLeader("this manager is not the leader", self.group.get(self.leader_id or "", ""))

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def changed(self) -> None:
        for callback in self._callbacks:
            callback()

    async def add_member(self, node_id: str, address: str) -> None:
        self.calls.append(f"add {node_id} {address}")
        self.group[node_id] = address
        self.changed()

    async def remove_member(self, node_id: str) -> None:
        self.calls.append(f"remove {node_id}")
        del self.group[node_id]
        self.changed()

    async def expel_member(self, node_id: str) -> int:
        self.calls.append(f"expel {node_id}")
        self.group.pop(node_id, None)
        self.changed()
        return 7

    async def transfer_leadership(self) -> None:
        self.calls.append("transfer")
        self.is_leader = False
        self.leader_id = next(id for id in self.group if id != LEADER)
        self.changed()


class CountingProposer(LocalProposer):
    commits = 0

    async def propose(self, command: bytes) -> object:
        self.commits += 1
        return await super().propose(command)


class ControlWorld:
    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.store = Store() if clock is None else Store(clock=clock)
        self.proposer = CountingProposer(self.store)
        self.consensus = FakeConsensus()
        self.api = ControlApi(self.store, self.consensus, clock or (lambda: 1000.0))

    async def bootstrap(self, workers: int = 2) -> None:
        cluster = Cluster(id=CLUSTER_ID, cluster_id="c1", root_ca=RootCA(digest="0" * 50))
        manager = make_node(LEADER, NodeRole.MANAGER)
        await bootstrap_cluster(self.store, cluster, manager)
        for number in range(1, workers + 1):
            await self.put(make_node(f"w{number}"))

    async def put(self, obj: Any) -> None:
        await self.store.update(lambda tx: tx.put(obj))

    async def put_changed(self, kind: Kind, id: str, **fields: Any) -> None:
        obj = self.store.view().get(kind, id)
        assert obj is not None
        await self.put(msgspec.structs.replace(obj, **fields))


def make_node(id: str, role: NodeRole = NodeRole.WORKER, state: NodeState = NodeState.READY) -> Node:
    return Node(
        id=id,
        spec=NodeSpec(role=role),
        role=role,
        description=NodeDescription(hostname=f"host-{id}"),
        status=NodeStatus(state=state, address="10.9.0." + id[1:]),
        manager=ManagerStatus(address="10.9.0.1:2377") if role is NodeRole.MANAGER else None,
    )


def make_spec(name: str = "web", **fields: Any) -> ServiceSpec:
    task = fields.pop("task", TaskSpec(container=ContainerSpec(image="hello")))
    return ServiceSpec(annotations=Annotations(name=name), task=task, **fields)
