"""What swarmctl does with a cluster as a whole: backup, restore, check. Implements node.api's ClusterBackend.

Owns the answers' form (the API's field names); the work is done by node.backup, node.restore and
node.manager.checkup.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Any, Protocol

from node import restore
from node.backup import make_backup
from node.identity import NodeIdentity
from node.manager.checkup import ManagerReport, Report
from node.manager_part import ManagerPart
from node.restore import Founding
from raft.backup import About, open_backup
from raft.objects.node import Availability


class Membership(Protocol):
    """This node's part in a cluster (node.swarm)."""

    def managing(self) -> tuple[ManagerPart, NodeIdentity]:
        """Raises Unavailable in Docker's words when this node is no manager."""

    async def found_again(
        self, advertise: str, listen: str, plan: Callable[[str, int], Founding], *, dry_run: bool
    ) -> Founding: ...


class ClusterKeeper:
    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def backup(self, passphrase: str) -> list[bytes]:
        """The file in pieces."""
        manager, identity = self._membership.managing()
        return await make_backup(manager, identity, passphrase)

    async def inspect_backup(self, data: bytes, passphrase: str) -> dict[str, Any]:
        """Works on any node: everything in the file is checked, nothing is used."""
        about, _ = await asyncio.to_thread(open_backup, data, passphrase)
        return _about_to_api(about)

    async def restore(
        self,
        data: bytes,
        passphrase: str,
        *,
        advertise: str,
        listen: str,
        availability: Availability | None,
        dry_run: bool,
    ) -> dict[str, Any]:
        def plan(address: str, port: int) -> Founding:
            return restore.plan(
                data,
                passphrase,
                address=address,
                port=port,
                availability=availability,
                now=time.time(),
            )

        founding = await self._membership.found_again(advertise, listen, plan, dry_run=dry_run)
        return _founding_to_api(founding, dry_run)

    async def check(self) -> dict[str, Any]:
        manager, _ = self._membership.managing()
        report = await manager.checkup.run()
        names = {node.id: node.description.hostname for node in manager.store.view().nodes.values()}
        return _report_to_api(report, names)


def _about_to_api(about: About) -> dict[str, Any]:
    made = datetime.datetime.fromtimestamp(about.made_at, datetime.UTC)
    return {
        "SwarmctlVersion": about.swarmctl_version,
        "ClusterID": about.cluster_id,
        "NodeID": about.node_id,
        "Addr": about.address,
        "Index": about.index,
        "Term": about.term,
        "MadeAt": made.isoformat().replace("+00:00", "Z"),
        "Managers": [{"NodeID": id, "Addr": address} for id, address in sorted(about.members.items())],
        "Counts": about.counts,
    }


def _founding_to_api(founding: Founding, dry_run: bool) -> dict[str, Any]:
    return {
        "DryRun": dry_run,
        "Backup": _about_to_api(founding.about),
        "ClusterID": founding.identity.cluster_id,
        "NodeID": founding.identity.node_id,
        "Addr": founding.identity.rpc_address,
        "Index": founding.index,
        "Services": founding.services,
        "FormerNodes": [
            {"NodeID": f.node_id, "Hostname": f.hostname, "Addr": f.address, "State": f.state.value}
            for f in founding.former
        ],
        "Warnings": list(founding.warnings),
    }


def _report_to_api(report: Report, names: dict[str, str]) -> dict[str, Any]:
    return {
        "Healthy": report.healthy,
        "Index": report.index,
        "Problem": report.problem,
        "Managers": [_manager_to_api(manager, names.get(manager.node_id, "")) for manager in report.managers],
    }


def _manager_to_api(manager: ManagerReport, hostname: str) -> dict[str, Any]:
    return {
        "NodeID": manager.node_id,
        "Hostname": hostname,
        "Addr": manager.address,
        "Reachable": manager.reachable,
        "Leader": manager.leader,
        "AppliedIndex": manager.applied_index,
        "Digest": manager.digest,
        "Files": [{"Name": f.name, "Size": f.size, "Problem": f.problem} for f in manager.files],
        "Differences": [
            {"Kind": d.kind, "ID": d.id, "Version": d.version, "ExpectedVersion": d.expected}
            for d in manager.differences
        ],
        "Problems": list(manager.problems),
    }
