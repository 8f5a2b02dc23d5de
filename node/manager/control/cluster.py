"""The cluster itself: its settings and join tokens, and how its first objects come to be."""

from __future__ import annotations

import msgspec

from node.ca import tokens, wrapping
from node.manager.control.base import Control, check_version, require_cluster
from raft import defaults, validate
from raft.errors import FailedPrecondition
from raft.objects.base import Annotations, new_id
from raft.objects.cluster import Cluster, ClusterSpec, ManagerLock, Network, NetworkSpec
from raft.objects.node import Node
from raft.objects.request import Request
from raft.store import Store, Transaction


class ClusterControl(Control):
    async def get_cluster(self) -> Cluster:
        return require_cluster(self._store.view())

    async def update_cluster(
        self,
        version: int,
        spec: ClusterSpec,
        rotate_worker_token: bool = False,
        rotate_manager_token: bool = False,
        rotate_unlock_key: bool = False,
        *,
        request: Request | None = None,
    ) -> Cluster:
        validate.require(spec)

        def update(tx: Transaction) -> None:
            cluster = require_cluster(tx)
            check_version(cluster, version)
            root = cluster.root_ca
            if rotate_worker_token:
                root = msgspec.structs.replace(root, worker_token=tokens.new_token(root.digest))
            if rotate_manager_token:
                root = msgspec.structs.replace(root, manager_token=tokens.new_token(root.digest))
            lock = next_lock(cluster.lock, autolock=spec.autolock, rotate=rotate_unlock_key)
            tx.put(msgspec.structs.replace(cluster, spec=spec, root_ca=root, lock=lock))

        await self._store.update(update, request)
        return await self.get_cluster()


def next_lock(current: ManagerLock, *, autolock: bool, rotate: bool = False) -> ManagerLock:
    """A key when autolock is turned on, none when it is off, another one on request."""
    if autolock == bool(current.unlock_key) and not (autolock and rotate):
        return current
    return ManagerLock(
        unlock_key=wrapping.new_unlock_key() if autolock else "", generation=current.generation + 1
    )


async def bootstrap_cluster(store: Store, cluster: Cluster, node: Node) -> None:
    """The first transaction of a cluster: its settings, its first node and the ingress network.

    The allocator gives the ingress network its subnet: the first of the default pools, 10.0.0.0/24.
    Raises FailedPrecondition when the store has a cluster already.
    """
    ingress = Network(
        id=new_id(),
        spec=NetworkSpec(annotations=Annotations(name=defaults.INGRESS_NETWORK_NAME), ingress=True),
    )

    def create(tx: Transaction) -> None:
        if tx.cluster is not None:
            raise FailedPrecondition("this node's state already has a cluster; leave it first")
        tx.put(cluster)
        tx.put(node)
        tx.put(ingress)

    await store.update(create)
