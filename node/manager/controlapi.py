"""The cluster's control API: every change that users can ask for, on the leader.

Joins the parts of `node.manager.control`. All methods are coroutines that take and return `raft.objects`
and raise `raft.errors`; a reference is an id, a name, or a unique prefix of an id. Invariant: a method
either writes one transaction completely or changes nothing (`remove_node` may orphan tasks before).
"""

from __future__ import annotations

from node.manager.control.base import Leadership
from node.manager.control.cluster import ClusterControl, bootstrap_cluster
from node.manager.control.files import FileControl
from node.manager.control.networks import NetworkControl
from node.manager.control.nodes import NodeControl
from node.manager.control.services import ServiceControl, ServiceStatus


class ControlApi(ServiceControl, NodeControl, NetworkControl, FileControl, ClusterControl):
    """On the leader only; other managers reach it through `forward.ControlProxy`."""


__all__ = ["ControlApi", "Leadership", "ServiceStatus", "bootstrap_cluster"]
