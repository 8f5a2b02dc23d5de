"""Nodes: machines that have joined, their role, availability and what they reported of themselves."""

from __future__ import annotations

import enum

from raft.objects.base import Annotations, ObjectRecord, Platform, Record
from raft.objects.service import Resources


class NodeRole(enum.StrEnum):
    WORKER = "worker"
    MANAGER = "manager"


class Availability(enum.StrEnum):
    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(enum.StrEnum):
    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class NodeSpec(Record, frozen=True):
    annotations: Annotations = Annotations()
    role: NodeRole = NodeRole.WORKER
    availability: Availability = Availability.ACTIVE


class NodeDescription(Record, frozen=True):
    """Reported by the agent when a session opens."""

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine_version: str = ""
    engine_labels: dict[str, str] = {}
    plugins: tuple[tuple[str, str], ...] = ()  # (type, name): ("Network", "overlay")


class NodeStatus(Record, frozen=True):
    """Written by the dispatcher only. `address` is the node's underlay (and VXLAN) address, without port."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""
    since: float = 0.0


class ManagerStatus(Record, frozen=True):
    """Present on nodes that are members of the Raft group. `address` is host:port of the manager's RPC."""

    address: str = ""
    leader: bool = False
    reachable: bool = True


class NodeNetwork(Record, frozen=True):
    """Written by the allocator: this node's own address on a network (ingress gateway), with prefix length."""

    network_id: str
    address: str
    mac: str


class Node(ObjectRecord, frozen=True):
    spec: NodeSpec = NodeSpec()
    role: NodeRole = NodeRole.WORKER  # the role in force; spec.role is the wish
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager: ManagerStatus | None = None
    networks: tuple[NodeNetwork, ...] = ()
    certificate_issued_at: float = 0.0
