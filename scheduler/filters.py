"""Which nodes may take a task, and for the others why not, in words that users of Swarm know.

Owns the order of the filters and their explanations. A filter looks at one node and one task, and at what
the node has left (`NodeRoom`). The first filter that refuses a node is the one that is counted for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raft.objects.node import Availability, Node, NodeState
from raft.objects.service import PublishMode
from raft.objects.task import Task, TaskState
from scheduler import constraints

HostPort = tuple[str, int]  # protocol, published port
Version = tuple[str, int]  # service id, spec version

RECENT_FAILURES_S = 300.0
LOCAL_LOG_DRIVERS = frozenset({"", "json-file", "none", "local"})


@dataclass(slots=True)
class NodeRoom:
    """A node and what its tasks leave of it; placement keeps it up to date as it places."""

    node: Node
    nano_cpus: int
    memory_bytes: int
    tasks: int = 0
    service_tasks: Counter[str] = field(default_factory=Counter)
    host_ports: set[HostPort] = field(default_factory=set)
    failures: Counter[Version] = field(default_factory=Counter)

    @classmethod
    def of(cls, node: Node, tasks: Iterable[Task], now: float) -> NodeRoom:
        resources = node.description.resources
        room = cls(node, resources.nano_cpus, resources.memory_bytes)
        for task in tasks:
            room.add(task)
            status = task.status
            if status.state.is_failure and status.timestamp > now - RECENT_FAILURES_S:
                room.failures[task.service_id, task.spec_version] += 1
        return room

    def add(self, task: Task) -> None:
        """Count a task that uses this node; one that will stop holds its resources until it has."""
        if not task.status.state.uses_node:
            return
        reserved = task.spec.resources.reservations
        self.nano_cpus -= reserved.nano_cpus
        self.memory_bytes -= reserved.memory_bytes
        self.host_ports.update(host_ports(task))
        if task.desired_state <= TaskState.RUNNING:
            self.tasks += 1
            self.service_tasks[task.service_id] += 1


def host_ports(task: Task) -> list[HostPort]:
    ports = task.endpoint.ports if task.endpoint else ()
    return [(p.protocol, p.published) for p in ports if p.mode is PublishMode.HOST and p.published]


def _ready(room: NodeRoom, _task: Task) -> bool:
    node = room.node
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def _resources(room: NodeRoom, task: Task) -> bool:
    wanted = task.spec.resources.reservations
    # What is not reserved cannot be lacking, even on a node that is overcommitted already.
    cpus_fit = not wanted.nano_cpus or wanted.nano_cpus <= room.nano_cpus
    return cpus_fit and (not wanted.memory_bytes or wanted.memory_bytes <= room.memory_bytes)


def _plugins(room: NodeRoom, task: Task) -> bool:
    plugins = room.node.description.plugins
    log_driver = task.spec.log_driver.name if task.spec.log_driver else ""
    if log_driver not in LOCAL_LOG_DRIVERS and ("Log", log_driver) not in plugins:
        return False
    drivers = {mount.volume_driver.name for mount in task.spec.container.mounts if mount.type == "volume"}
    return all(("Volume", driver) in plugins for driver in drivers - {"", "local"})


def _constraints(room: NodeRoom, task: Task) -> bool:
    return constraints.satisfied(task.spec.placement.constraints, room.node)


def _platform(room: NodeRoom, task: Task) -> bool:
    platforms = task.spec.placement.platforms
    own = room.node.description.platform
    architecture = constraints.normal_architecture(own.architecture)
    return not platforms or any(
        platform.os in ("", own.os)
        and constraints.normal_architecture(platform.architecture) in ("", architecture)
        for platform in platforms
    )


def _host_ports(room: NodeRoom, task: Task) -> bool:
    return room.host_ports.isdisjoint(host_ports(task))


def _max_replicas(room: NodeRoom, task: Task) -> bool:
    limit = task.spec.placement.max_replicas
    return limit == 0 or room.service_tasks[task.service_id] < limit


@dataclass(frozen=True, slots=True)
class Filter:
    """`refusal` is the counted explanation; "{nodes}" becomes "1 node" or "3 nodes"."""

    accepts: Callable[[NodeRoom, Task], bool]
    refusal: str
    varies: bool = False  # its answer changes while tasks of one service are being placed


FILTERS = (
    Filter(_ready, "{nodes} not available for new tasks"),
    Filter(_resources, "insufficient resources on {nodes}", varies=True),
    Filter(_plugins, "missing plugin on {nodes}"),
    Filter(_constraints, "scheduling constraints not satisfied on {nodes}"),
    Filter(_platform, "unsupported platform on {nodes}"),
    Filter(_host_ports, "host-mode port already in use on {nodes}", varies=True),
    Filter(_max_replicas, "max replicas per node limit exceed", varies=True),
)
_VARYING = tuple(f for f in FILTERS if f.varies)


def still_accepts(room: NodeRoom, task: Task) -> bool:
    """Ask only what may have changed since `room` passed all filters."""
    return all(f.accepts(room, task) for f in _VARYING)


def refused_by(room: NodeRoom, task: Task) -> Filter | None:
    """The first filter that refuses the node, or None when it may take the task."""
    return next((f for f in FILTERS if not f.accepts(room, task)), None)


def explain(rooms: Iterable[NodeRoom], task: Task) -> str:
    """Why no node takes the task: the reasons with the number of nodes, most frequent first."""
    counts: Counter[Filter] = Counter()
    for room in rooms:
        refusal = refused_by(room, task)
        if refusal is not None:
            counts[refusal] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], FILTERS.index(item[0])))
    return "; ".join(
        f.refusal.format(nodes="1 node" if count == 1 else f"{count} nodes") for f, count in ordered
    )
