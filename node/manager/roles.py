"""Roles: make the managers' group what the nodes' specs say.

Owns `Node.role` and `Node.manager`, and the leader's side of joining the group. Promotion: the role
changes, the node renews its certificate as a manager and asks to be added. Demotion: the node leaves the
group first, and only then loses its role. One membership change at a time; a leader that is to be demoted
hands over, and its successor removes it. Invariant: a node with role worker is no member.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

import msgspec

from node.loop import NEVER, Clock, ControlLoop, SystemClock
from node.manager.control.base import Leadership
from raft.errors import FailedPrecondition, NotFound
from raft.objects.base import Kind
from raft.objects.node import ManagerStatus, Node, NodeRole
from raft.store import Store, Transaction, View

log = logging.getLogger(__name__)

RECHECK_S = 5.0


class Membership(Leadership, Protocol):
    """The consensus group, as far as roles go."""

    async def add_member(self, node_id: str, address: str) -> None: ...

    async def remove_member(self, node_id: str) -> None: ...

    async def expel_member(self, node_id: str) -> int: ...

    async def transfer_leadership(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step for one node: "promote", "hand over", "remove", "demote", or "record" (its address)."""

    verb: str
    node_id: str
    reason: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class RoleDecision:
    steps: tuple[Step, ...]
    due: float


def decide_roles(view: View, members: dict[str, str], leader_id: str) -> tuple[Step, ...]:
    """What has to be done next for every node whose role, membership and wish do not agree."""
    steps = []
    for node in sorted(view.nodes.values(), key=lambda n: n.id):
        step = _next_step(node, members, leader_id)
        if step is not None:
            steps.append(step)
    for node_id in sorted(members.keys() - view.nodes.keys()):
        if node_id != leader_id:
            steps.append(Step("remove", node_id, "it is no node of the cluster any more"))
    # The leader leaves last, and nothing else must follow in a pass that may end its term.
    return tuple(sorted(steps, key=lambda step: step.verb == "hand over"))


def _next_step(node: Node, members: dict[str, str], leader_id: str) -> Step | None:
    address = members.get(node.id, "")
    if node.spec.role is NodeRole.MANAGER:
        if node.role is not NodeRole.MANAGER:
            return Step("promote", node.id, "its spec says manager")
        if address and (node.manager is None or node.manager.address != address):
            return Step("record", node.id, f"it is a member at {address}", address)
        return None
    if address and node.id == leader_id:
        return Step("hand over", node.id, "it leads and is to be demoted")
    if address:
        return Step("remove", node.id, "it is to be demoted")
    if node.role is NodeRole.MANAGER or node.manager is not None:
        return Step("demote", node.id, "it has left the managers")
    return None


class RoleManager:
    """Run it while this manager leads."""

    def __init__(self, store: Store, membership: Membership, clock: Clock | None = None) -> None:
        self._store = store
        self._membership = membership
        self._clock = clock or SystemClock()
        self._changing = asyncio.Lock()
        self._loop: ControlLoop[View, RoleDecision] = ControlLoop(
            "roles", observe=store.view, decide=self._decide, act=self._act, clock=self._clock
        )

    async def run(self) -> None:
        self._loop.wake()
        with self._store.watch({Kind.NODE}) as watch:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._loop.run())
                while True:
                    await watch.wait()
                    watch.drain()
                    self._loop.wake()

    def wake(self) -> None:
        """The membership changed."""
        self._loop.wake()

    async def add(self, node_id: str, address: str) -> None:
        """A promoted node asks to become a member at `address` (host:port).

        Raises NotFound for an unknown node, FailedPrecondition for one that is no manager.
        """
        async with self._changing:
            self._require_manager(node_id)
            if self._membership.members().get(node_id) != address:
                await self._membership.add_member(node_id, address)
        self.wake()

    async def expel(self, node_id: str) -> int:
        """A manager without a log must be none before it can be added. Returns the term that binds it.

        Raises what `add` does.
        """
        async with self._changing:
            self._require_manager(node_id)
            log.warning("expelling manager %s: it has lost its log, or has none yet", node_id)
            term = await self._membership.expel_member(node_id)
        self.wake()
        return term

    def _require_manager(self, node_id: str) -> None:
        node = self._store.view().nodes.get(node_id)
        if node is None:
            raise NotFound(f"node {node_id} not found")
        if node.spec.role is not NodeRole.MANAGER:
            raise FailedPrecondition(f"node {node_id} is not a manager; promote it first")

    def _decide(self, view: View, now: float) -> RoleDecision:
        leader = self._membership.leader_id
        if leader is None:
            return RoleDecision((), now + RECHECK_S)
        steps = decide_roles(view, dict(self._membership.members()), leader)
        return RoleDecision(steps, now + RECHECK_S if steps else NEVER)

    async def _act(self, decision: RoleDecision) -> None:
        for step in decision.steps:
            log.info("%s manager %s: %s", step.verb, step.node_id, step.reason)
            async with self._changing:
                await self._take(step)
        if any(step.verb == "remove" for step in decision.steps):
            self._loop.wake()

    async def _take(self, step: Step) -> None:
        match step.verb:
            case "hand over":
                await self._membership.transfer_leadership()
            case "remove":
                await self._membership.remove_member(step.node_id)
            case _:
                await self._store.update(lambda tx: _write_role(tx, step))


def _write_role(tx: Transaction, step: Step) -> None:
    node = tx.nodes.get(step.node_id)
    if node is None:
        return
    if step.verb == "promote":
        changed = msgspec.structs.replace(node, role=NodeRole.MANAGER)
    elif step.verb == "record":
        changed = msgspec.structs.replace(node, manager=ManagerStatus(address=step.address))
    else:
        changed = msgspec.structs.replace(node, role=NodeRole.WORKER, manager=None)
    tx.put(changed)
