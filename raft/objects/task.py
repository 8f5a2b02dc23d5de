"""Tasks: one attempt to run one copy of a service on one node; never moved, never re-run."""

from __future__ import annotations

import enum

from raft.objects.base import ObjectRecord, Record
from raft.objects.service import Endpoint, PortConfig, TaskSpec


class TaskState(enum.IntEnum):
    """Ordered with gaps; a task only moves forward (reports that go back are dropped)."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800  # desired state only
    ORPHANED = 832

    @property
    def is_terminal(self) -> bool:
        """No further step is possible: the container does not run and never will."""
        return self > TaskState.RUNNING

    @property
    def is_failure(self) -> bool:
        return self in (TaskState.FAILED, TaskState.REJECTED)

    @property
    def uses_node(self) -> bool:
        """The task holds resources of its node."""
        return TaskState.ASSIGNED <= self <= TaskState.RUNNING


class PortStatus(Record, frozen=True):
    ports: tuple[PortConfig, ...] = ()


class ContainerStatus(Record, frozen=True):
    container_id: str = ""
    pid: int = 0
    exit_code: int = 0


class TaskStatus(Record, frozen=True):
    """Written by the allocator and scheduler up to ASSIGNED, then by the agent only (ORPHANED: dispatcher).

    `message` says what is being done or why it waits; `error` why it failed. `applied_by` is the node's id.
    """

    state: TaskState = TaskState.NEW
    timestamp: float = 0.0
    message: str = ""
    error: str = ""
    container: ContainerStatus | None = None
    port_status: PortStatus | None = None
    applied_by: str = ""


class NetworkAttachment(Record, frozen=True):
    """Written by the allocator: one endpoint of the task. Address with prefix length; mac from the address."""

    network_id: str
    address: str
    mac: str
    aliases: tuple[str, ...] = ()


class Task(ObjectRecord, frozen=True):
    service_id: str = ""
    service_name: str = ""
    slot: int = 0  # 1..N of a replicated service; 0 for a global one, whose slot is its node
    node_id: str = ""
    spec: TaskSpec = TaskSpec()
    spec_version: int = 0  # the service's spec_version it was made from
    status: TaskStatus = TaskStatus()
    desired_state: TaskState = TaskState.RUNNING
    networks: tuple[NetworkAttachment, ...] = ()
    endpoint: Endpoint | None = None
    restart_at: float = 0.0  # replacement tasks: desired READY until this time (restart delay)

    @property
    def name(self) -> str:
        """The container's name: web.1.<task id>, or web.<node id>.<task id> for a global service."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"
