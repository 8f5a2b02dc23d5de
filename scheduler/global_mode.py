"""Global services: one task on every node that may run it. The node's id is the slot.

Owns which nodes are wanted. A paused or unreachable node keeps its task but gets no new one; a node that is
down, drained, removed or no longer fits loses its task, and nobody replaces it elsewhere.
"""

from __future__ import annotations

from raft.objects.node import Availability, Node, NodeState
from raft.objects.service import Service
from scheduler import constraints
from scheduler.actions import Decision, NewId, View
from scheduler.restart import supervise
from scheduler.slots import is_live, node_name, shut_down, slots_of


def reconcile(service: Service, view: View, now: float, new_id: NewId) -> Decision:
    slots = {
        key: tasks
        for key, tasks in slots_of(view.tasks_of_service(service.id)).items()
        if isinstance(key, str)
    }
    decision = Decision()
    for node_id in sorted(slots.keys() | view.nodes.keys()):
        node = view.nodes.get(node_id)
        tasks = slots.get(node_id, [])
        unfit = f"node {node_id} was removed" if node is None else _unfit(service, node)
        if unfit:
            decision.add(*(shut_down(task, unfit) for task in tasks if is_live(task)))
        elif any(is_live(task) for task in tasks) or (node is not None and _takes_new(node)):
            decision.extend(supervise(service, node_id, tasks, view, now, new_id))
    return decision


def _unfit(service: Service, node: Node) -> str:
    if node.status.state is NodeState.DOWN:
        return f"node {node_name(node)} is down"
    if node.spec.availability is Availability.DRAIN:
        return f"node {node_name(node)} is drained"
    if not constraints.satisfied(service.spec.task.placement.constraints, node):
        return f"node {node_name(node)} does not satisfy the scheduling constraints"
    return ""


def _takes_new(node: Node) -> bool:
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE
