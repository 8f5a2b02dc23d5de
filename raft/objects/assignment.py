"""What a manager sends to a node's agent, and what the agent sends back, over one session.

A session is one bidirectional stream of messages (`node.rpc`). The dispatcher sends one complete
`Assignments` (complete=True), then numbered differences; the agent applies them in order and answers a gap
by closing the session. Secrets and configs carry their data and live in memory only at the agent.
"""

from __future__ import annotations

from raft.objects.base import Record
from raft.objects.cluster import Config, Secret
from raft.objects.node import NodeDescription
from raft.objects.task import Task, TaskStatus

# ---- the network map: plain, per node, computed purely by scheduler.netmap --------------------------------


class MapPeer(Record, frozen=True):
    """One endpoint on an overlay network that lives on another node: where frames and ARP go."""

    address: str  # without prefix length
    mac: str
    node_address: str  # underlay address of the node that has it


class MapName(Record, frozen=True):
    """A DNS name on a network, lower case, and its addresses (a VIP, or every task's)."""

    name: str
    addresses: tuple[str, ...]


class MapBackend(Record, frozen=True):
    address: str  # of the task on this network
    task_id: str = ""


class MapVip(Record, frozen=True):
    """A service's virtual address on a network and the running tasks behind it."""

    service_id: str
    service_name: str
    address: str
    backends: tuple[MapBackend, ...] = ()


class MapGateway(Record, frozen=True):
    """A node's own address on the ingress network."""

    address: str
    mac: str
    node_address: str


class MapNetwork(Record, frozen=True):
    id: str
    name: str
    vni: int
    subnet: str
    gateway: str
    internal: bool = False
    ingress: bool = False
    options: dict[str, str] = {}
    peers: tuple[MapPeer, ...] = ()
    names: tuple[MapName, ...] = ()
    vips: tuple[MapVip, ...] = ()
    gateways: tuple[MapGateway, ...] = ()  # ingress only: every node's, this node's too
    local_address: str = ""  # ingress only: this node's address, with prefix length
    local_mac: str = ""
    version: int = 0  # of the last change that touched this network's part of the map


class MapPort(Record, frozen=True):
    """A published ingress port: answered on every node, balanced over the running tasks."""

    protocol: str
    published: int
    target: int
    service_id: str
    service_name: str
    backends: tuple[MapBackend, ...] = ()  # addresses on the ingress network


class NetworkMap(Record, frozen=True):
    """Everything this node must program. `version` grows with every change; the node acknowledges it."""

    version: int = 0
    networks: tuple[MapNetwork, ...] = ()
    ports: tuple[MapPort, ...] = ()


# ---- manager -> agent ------------------------------------------------------------------------------------


class ManagerAddress(Record, frozen=True):
    node_id: str
    address: str  # host:port of its RPC


class SessionMessage(Record, frozen=True, tag="session"):
    """First message of a session, and again whenever something in it changes."""

    session_id: str
    heartbeat_s: float
    managers: tuple[ManagerAddress, ...] = ()
    role: str = "worker"  # the role this node should have; a difference makes the agent renew
    root_cert_pem: str = ""


class Assignments(Record, frozen=True, tag="assignments"):
    """complete: replaces everything. Otherwise: update these, then remove those; `sequence` has no gaps."""

    sequence: int
    complete: bool = False
    tasks: tuple[Task, ...] = ()
    secrets: tuple[Secret, ...] = ()
    configs: tuple[Config, ...] = ()
    removed_tasks: tuple[str, ...] = ()
    removed_secrets: tuple[str, ...] = ()
    removed_configs: tuple[str, ...] = ()
    network_map: NetworkMap | None = None  # whole, when it changed


class LogSubscribe(Record, frozen=True, tag="log_subscribe"):
    """Publish the logs of these tasks. since/until: Unix seconds, 0 = open; tail: lines, -1 = all."""

    subscription_id: str
    task_ids: tuple[str, ...]
    follow: bool = False
    since: float = 0.0
    until: float = 0.0
    tail: int = -1
    stdout: bool = True
    stderr: bool = True


class LogUnsubscribe(Record, frozen=True, tag="log_unsubscribe"):
    subscription_id: str


class Leave(Record, frozen=True, tag="leave"):
    """This node was removed from the cluster; it stops its tasks and forgets its certificate."""

    reason: str = ""


ManagerMessage = SessionMessage | Assignments | LogSubscribe | LogUnsubscribe | Leave

# ---- agent -> manager ------------------------------------------------------------------------------------


class Hello(Record, frozen=True, tag="hello"):
    """First message of the agent. `address`: underlay address the others reach it at."""

    description: NodeDescription
    address: str
    session_id: str = ""  # of the session it had, when it reconnects


class Heartbeat(Record, frozen=True, tag="heartbeat"):
    pass


class TaskReport(Record, frozen=True):
    task_id: str
    status: TaskStatus


class Reports(Record, frozen=True, tag="reports"):
    """Task states in order, batched; `network_version`: the last network map version fully programmed."""

    tasks: tuple[TaskReport, ...] = ()
    network_version: int = 0


class LogLine(Record, frozen=True):
    task_id: str
    stream: int  # 1 stdout, 2 stderr
    timestamp_ns: int
    data: bytes


class LogBatch(Record, frozen=True, tag="log_batch"):
    subscription_id: str
    lines: tuple[LogLine, ...] = ()
    finished: bool = False  # nothing more will come from this node
    error: str = ""


class Goodbye(Record, frozen=True, tag="goodbye"):
    """The daemon stops on purpose: `restarting` asks for the longer grace because containers run on."""

    restarting: bool = True


AgentMessage = Hello | Heartbeat | Reports | LogBatch | Goodbye
