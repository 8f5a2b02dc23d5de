"""A cluster in memory for the tests of the pure deciders: a view, agents that obey, and time that is told.

`World.step` makes one pass of decisions and applies it; `World.agents` lets every node's agent take its
tasks as far as they go. Nothing here waits or draws lots.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from raft.objects.base import Annotations, Kind, Meta, ObjectRecord
from raft.objects.cluster import Cluster, Config, Network, NetworkSpec, Secret
from raft.objects.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from raft.objects.service import Resources, Service, ServiceSpec
from raft.objects.task import Task, TaskState
from scheduler.actions import Action, Create, Delete
from scheduler.plan import Plan, decide

GIB = 1 << 30


def change(record: Any, **fields: Any) -> Any:
    """A copy with fields replaced; `a__b=1` reaches into the record in field a."""
    for path, value in fields.items():
        name, _, rest = path.partition("__")
        value = change(getattr(record, name), **{rest: value}) if rest else value
        record = msgspec.structs.replace(record, **{name: value})
    return record


class World:
    """Implements the deciders' View over plain dictionaries."""

    def __init__(self, nodes: int = 3) -> None:
        self.now = 1000.0
        self.index = 0
        self.nodes: dict[str, Node] = {}
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Network] = {}
        self.secrets: Mapping[str, Secret] = {}
        self.configs: Mapping[str, Config] = {}
        self.cluster: Cluster | None = Cluster(id="cluster")
        self.commits = 0
        self._ids = itertools.count(1)
        for number in range(1, nodes + 1):
            self.add_node(f"n{number}")

    # ---- the view ----

    def tasks_of_service(self, service_id: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.service_id == service_id]

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.node_id == node_id]

    # ---- what happens ----

    def new_id(self) -> str:
        return f"t{next(self._ids):03d}"

    def put(self, obj: ObjectRecord) -> None:
        self.index += 1
        old = self._table(obj).get(obj.id)
        created = old.meta.created_at if old else (obj.meta.created_at or self.now)
        meta = Meta(version=self.index, created_at=created, updated_at=self.now)
        self._table(obj)[obj.id] = msgspec.structs.replace(obj, meta=meta)

    def add_node(self, name: str, **fields: Any) -> None:
        number = int(name.lstrip("n"))
        node = Node(
            id=name,
            spec=NodeSpec(annotations=Annotations(name=name)),
            description=NodeDescription(
                hostname=name, resources=Resources(nano_cpus=4_000_000_000, memory_bytes=8 * GIB)
            ),
            status=NodeStatus(state=NodeState.READY, address=f"192.168.0.{number}"),
        )
        self.put(change(node, **fields))

    def add_network(self, name: str, **fields: Any) -> None:
        self.put(change(Network(id=name, spec=NetworkSpec(annotations=Annotations(name=name))), **fields))

    def add_service(self, name: str, **fields: Any) -> None:
        spec = change(ServiceSpec(annotations=Annotations(name=name)), **fields)
        self.put(Service(id=name, spec=spec))

    def update_service(self, name: str, **fields: Any) -> None:
        """As the control API does it: the old spec is kept, a changed task gets a new version."""
        service = self.services[name]
        spec = change(service.spec, **fields)
        bump = (spec.task, spec.endpoint) != (service.spec.task, service.spec.endpoint)
        self.put(
            change(
                service,
                spec=spec,
                previous_spec=service.spec,
                spec_version=service.spec_version + bump,
                update_status=None,
            )
        )

    def node_state(self, name: str, state: NodeState) -> None:
        self.put(change(self.nodes[name], status__state=state))

    def availability(self, name: str, availability: Availability) -> None:
        self.put(change(self.nodes[name], spec__availability=availability))

    def report(self, task_id: str, state: TaskState, error: str = "") -> None:
        task = self.tasks[task_id]
        self.put(change(task, status__state=state, status__timestamp=self.now, status__error=error))

    def decide(self) -> Plan:
        return decide(self, self.now, self.new_id)

    def step(self) -> Plan:
        """One pass, applied."""
        decision = self.decide()
        self.apply(decision.actions)
        return decision

    def apply(self, actions: list[Action]) -> None:
        self.commits += bool(actions)
        for action in actions:
            if isinstance(action, Delete):
                del self._tables()[action.kind][action.id]
                continue
            obj = action.obj
            stored = self._table(obj).get(obj.id)
            assert (stored is None) is isinstance(action, Create), f"{action} against {stored}"
            assert stored is None or stored.meta.version == obj.meta.version, "decided from an old version"
            self.put(obj)

    def agents(self) -> None:
        """Every agent that is connected takes its tasks to where they are wanted."""
        for task in list(self.tasks.values()):
            node = self.nodes.get(task.node_id)
            if node is None or node.status.state is not NodeState.READY or not task.status.state.uses_node:
                continue
            if task.desired_state >= TaskState.SHUTDOWN:
                self.report(task.id, TaskState.SHUTDOWN)
            elif task.status.state < min(task.desired_state, TaskState.RUNNING):
                self.report(task.id, task.desired_state)

    def run(self, seconds: float = 0.0, *, pause: float = 1.0) -> None:
        """Agents and leader in turn until nothing changes, then for `seconds` more, in steps of `pause`."""
        end = self.now + seconds
        for _ in range(10_000):
            before = self.index
            self.agents()
            self.step()
            if self.index != before:
                continue
            if self.now >= end:
                return
            self.now = min(end, self.now + pause)
        raise AssertionError("does not come to rest")

    # ---- what one sees ----

    def live(self, service: str) -> list[Task]:
        tasks = [t for t in self.tasks_of_service(service) if t.desired_state <= TaskState.RUNNING]
        return sorted(tasks, key=lambda t: (t.slot, t.node_id, t.id))

    def running(self, service: str) -> list[Task]:
        return [t for t in self.live(service) if t.status.state is TaskState.RUNNING]

    def ps(self, service: str) -> str:
        """One line per task: slot, id, node, state, desired state, error."""
        tasks = sorted(
            self.tasks_of_service(service), key=lambda t: (t.slot, t.node_id if not t.slot else "", t.id)
        )
        return "\n".join(
            f"{t.slot or t.node_id} {t.id} {t.node_id or '-'} {t.status.state.name.lower()}"
            f"/{t.desired_state.name.lower()}" + (f" {t.status.error}" if t.status.error else "")
            for t in tasks
        )

    def _tables(self) -> dict[Kind, dict[str, Any]]:
        return {
            Kind.NODE: self.nodes,
            Kind.SERVICE: self.services,
            Kind.TASK: self.tasks,
            Kind.NETWORK: self.networks,
        }

    def _table(self, obj: ObjectRecord) -> dict[str, Any]:
        return self._tables()[Kind(type(obj).__name__.lower())]
