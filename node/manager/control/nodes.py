"""Nodes: look at, change role, availability and labels, remove.

The wish for a role is written here; making it true is the role manager's business.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from node.manager.control import listing
from node.manager.control.base import Control, Filters, check_version, find_node
from raft import validate
from raft.errors import FailedPrecondition
from raft.objects.base import Kind
from raft.objects.node import Node, NodeRole, NodeSpec, NodeState
from raft.objects.request import Request
from raft.objects.task import Task, TaskState
from raft.store import Transaction, View

# A transaction takes 200 changes; the node's own deletion is one of them.
ORPHANS_PER_COMMIT = 150


class NodeControl(Control):
    async def get_node(self, ref: str) -> Node:
        return self._with_standing(find_node(self._store.view(), ref))

    async def list_nodes(self, filters: Filters) -> list[Node]:
        nodes = listing.passing(
            self._store.view().nodes.values(),
            filters,
            {
                "id": listing.by_id,
                "name": lambda n, values: any(listing.has_prefix(name, values) for name in _names(n)),
                "label": lambda n, values: listing.has_labels(n.description.engine_labels, values),
                "node.label": lambda n, values: listing.has_labels(n.spec.annotations.labels, values),
                "role": lambda n, values: n.role.value in listing.one_of("role", NodeRole, values),
                "membership": lambda _, values: (
                    "accepted" in listing.one_of("membership", ("accepted", "pending"), values)
                ),
            },
        )
        return [self._with_standing(node) for node in nodes]

    async def update_node(
        self, id: str, version: int, spec: NodeSpec, *, request: Request | None = None
    ) -> Node:
        validate.require(spec)

        def update(tx: Transaction) -> str:
            node = find_node(tx, id)
            check_version(node, version)
            if node.spec.role is NodeRole.MANAGER and spec.role is NodeRole.WORKER:
                self._check_demotion(tx, node)
            if spec != node.spec:
                tx.put(msgspec.structs.replace(node, spec=spec))
            return node.id

        written = await self._update_alone(update, request)
        return self._with_standing(self._store.view().nodes.get(written) or Node(id=written, spec=spec))

    async def remove_node(self, ref: str, force: bool = False, *, request: Request | None = None) -> None:
        """Its tasks become ORPHANED, in several transactions when there are many; then the node goes.

        Only the last of them answers the request: what the others do may be done again.
        """

        def remove(tx: Transaction) -> bool:
            node = find_node(tx, ref)
            self._check_removal(node, force)
            running = (t for t in tx.tasks_of_node(node.id) if not t.status.state.is_terminal)
            orphans = list(islice(running, ORPHANS_PER_COMMIT + 1))
            for task in orphans[:ORPHANS_PER_COMMIT]:
                tx.put(_orphaned(task))
            done = len(orphans) <= ORPHANS_PER_COMMIT
            if done:
                tx.delete(Kind.NODE, node.id)
            else:
                tx.leave_unanswered()
            return done

        while not await self._store.update(remove, request):
            pass

    def _check_removal(self, node: Node, force: bool) -> None:
        if node.spec.role is NodeRole.MANAGER and node.id in self._leadership.members():
            raise FailedPrecondition(
                f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                "It must be demoted to worker before removal"
            )
        if node.status.state is NodeState.READY and not force:
            raise FailedPrecondition(f"node {node.id} is not down and can't be removed")

    def _check_demotion(self, view: View, node: Node) -> None:
        managers = [n for n in view.nodes.values() if n.spec.role is NodeRole.MANAGER]
        if len(managers) == 1:
            raise FailedPrecondition("attempting to demote the last manager of the swarm")
        members = self._leadership.members()
        if node.id not in members:
            return
        up = sum(1 for id in members if id != node.id and self._leadership.reachable(id))
        if up < (len(members) - 1) // 2 + 1:
            raise FailedPrecondition(
                "can't remove member from the raft: this would result in a loss of quorum"
            )

    def _with_standing(self, node: Node) -> Node:
        """Who leads and who is reachable is known, not stored: it would be old by the next election."""
        if node.manager is None:
            return node
        leads = node.id == self._leadership.leader_id
        reachable = self._leadership.reachable(node.id)
        return msgspec.structs.replace(
            node, manager=msgspec.structs.replace(node.manager, leader=leads, reachable=reachable)
        )


def _names(node: Node) -> tuple[str, str]:
    return (node.spec.annotations.name, node.description.hostname)


def _orphaned(task: Task) -> Task:
    status = msgspec.structs.replace(
        task.status, state=TaskState.ORPHANED, message="node was removed from the cluster"
    )
    return msgspec.structs.replace(task, status=status)
