"""Going on alone from what is on the disk of one manager, as files; no daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from node import force_new_cluster, raft_folder
from node.identity import NodeIdentity, SwarmFolder
from node.manager_part import consensus_config
from raft.config import log_owner, wal_dir
from raft.consensus import Consensus
from raft.errors import FailedPrecondition
from raft.membership import Configuration
from raft.objects.base import Annotations
from raft.objects.cluster import CLUSTER_ID, Cluster
from raft.objects.node import ManagerStatus, Node, NodeDescription, NodeRole, NodeSpec, NodeState, NodeStatus
from raft.objects.service import Service, ServiceSpec
from raft.replication import MEMBERSHIP, REGULAR
from raft.salvage import salvage
from raft.store import Store, Transaction
from raft.wal import Entry, Vote, Wal

OURS = NodeIdentity(node_id="a", cluster_id="c1", address="10.0.0.1", port=2377)
MEMBERS = {"a": "10.0.0.1:2377", "b": "10.0.0.2:2377", "c": "10.0.0.3:2377"}


class Disk:
    """The folder of a manager whose two companions are gone: two services, the second not committed."""

    def __init__(self, root: Path) -> None:
        self.folder = SwarmFolder(root)
        self.config = consensus_config(self.folder, OURS)
        self.log, _ = Wal.open(wal_dir(self.config), self.config.key, log_owner(self.config))
        self.store = Store()
        self.index = 0
        self.store.attach(self)

    async def propose(self, command: bytes) -> object:
        return self.store.apply(command, self.append(REGULAR + b"i" * 16 + command))

    def append(self, command: bytes, term: int = 3) -> int:
        self.index += 1
        self.log.append(Entry(self.index, term, command))
        self.log.sync()
        return self.index

    async def fill(self) -> None:
        self.append(MEMBERSHIP + Configuration({"a": MEMBERS["a"]}).encode())
        await self.store.update(lambda tx: tx.put(Cluster(id=CLUSTER_ID, cluster_id="c1")))
        for node_id, address in MEMBERS.items():
            await self.store.update(self.put_manager(node_id, address))
        self.append(MEMBERSHIP + Configuration({**MEMBERS, "d": "10.0.0.4:2377"}).encode())
        await self.put_service("first")
        self.append(MEMBERSHIP + Configuration(MEMBERS, ("d",)).encode())
        await self.put_service("second")
        self.log.append(Vote(9, "b"))
        self.log.sync()
        self.log.close()

    def put_manager(self, node_id: str, address: str) -> Callable[[Transaction], None]:
        node = Node(
            id=node_id,
            spec=NodeSpec(role=NodeRole.MANAGER),
            role=NodeRole.MANAGER,
            description=NodeDescription(hostname=f"host-{node_id}"),
            status=NodeStatus(state=NodeState.READY),
            manager=ManagerStatus(address=address),
        )
        return lambda tx: tx.put(node)

    async def put_service(self, name: str) -> None:
        spec = ServiceSpec(annotations=Annotations(name=name))
        await self.store.update(lambda tx: tx.put(Service(id=name, spec=spec)))


class NoDialer:
    async def dial(self, node_id: str, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise AssertionError(f"dialled {node_id} at {address}")


@pytest.fixture
async def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    await made.fill()
    return made


async def test_survey_says_what_is_there_and_changes_nothing(disk: Disk):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in disk.folder.path.rglob("*") if path.is_file()}

    before = files()
    found = await force_new_cluster.survey(disk.folder, OURS, None)
    assert files() == before
    # The third change of the members was only begun when the second was committed.
    assert (found.last_index, found.committed_index, found.not_known_committed) == (9, 6, 3)
    assert (found.kept["service"], found.kept["node"], found.damage) == (2, 3, ())
    assert [(gone.node_id, gone.hostname, gone.addr) for gone in found.shut_out] == [
        ("b", "host-b", "10.0.0.2:2377"),
        ("c", "host-c", "10.0.0.3:2377"),
    ]
    assert found.leader_heard_seconds_ago == -1
    assert any("3 entries behind 6 are not known to be committed" in text for text in found.warnings)
    assert msgspec.to_builtins(found)["ShutOut"][0]["NodeID"] == "b"


async def test_everything_on_the_disk_goes_on_with_one_manager(disk: Disk):
    await force_new_cluster.rewrite(disk.folder, OURS, 5.0)
    store = Store()
    consensus = Consensus.resume(disk.config, store, NoDialer())
    store.attach(consensus)
    await consensus.start()
    try:
        assert consensus.is_leader
        assert consensus.term > 9
        assert consensus.applied_index > 9 + 10_000
        assert consensus.members() == {"a": MEMBERS["a"]}
        view = store.view()
        assert set(view.services) == {"first", "second"}
        assert view.cluster is not None and view.cluster.cluster_id == "c1"
        roles = {
            n.id: (n.role, n.spec.role, n.manager is not None, n.status.state) for n in view.nodes.values()
        }
        assert roles["a"] == (NodeRole.MANAGER, NodeRole.MANAGER, True, NodeState.READY)
        assert roles["b"] == roles["c"] == (NodeRole.WORKER, NodeRole.WORKER, False, NodeState.DOWN)
        for gone in ("b", "c", "d"):
            with pytest.raises(FailedPrecondition, match="was removed"):
                await consensus.add_member(gone, "10.0.0.9:2377")
        spec = ServiceSpec(annotations=Annotations(name="third"))
        await store.update(lambda tx: tx.put(Service(id="third", spec=spec)))
    finally:
        await consensus.stop()
    assert len(raft_folder.kept(disk.folder)) == 1


class PowerCut(BaseException):
    pass


async def test_cut_at_any_step_leaves_the_old_cluster_or_the_new_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    left: list[set[str]] = []
    for steps in range(100):
        folder = SwarmFolder(tmp_path / f"cut{steps}")
        shutil.copytree(disk.folder.path, folder.path)
        cut = Steps(steps)
        with monkeypatch.context() as patched:
            for owner, name in ((os, "fsync"), (os, "fdatasync"), (Path, "rename")):
                patched.setattr(owner, name, cut.counted(getattr(owner, name)))
            with contextlib.suppress(PowerCut):
                await force_new_cluster.rewrite(folder, OURS, 5.0)
        raft_folder.finish(folder)
        found = salvage(consensus_config(folder, OURS))
        assert found.damage == ()
        left.append(set(found.configuration.members))
        if not cut.is_cut:
            break
    turn = left.index({"a"})
    assert turn > 5
    assert left[:turn] == [{"a", "b", "c"}] * turn
    assert left[turn:] == [{"a"}] * (len(left) - turn)


class Steps:
    """Lets a number of calls pass, then the power is gone."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self.is_cut = False

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if self._allowed == 0:
                self.is_cut = True
                raise PowerCut
            self._allowed -= 1
            return function(*args)

        return call


async def test_cluster_that_is_not_there_is_not_invented(tmp_path: Path):
    disk = Disk(tmp_path)
    disk.append(MEMBERSHIP + Configuration(MEMBERS).encode())
    disk.log.close()
    with pytest.raises(FailedPrecondition, match="has no cluster in it"):
        await force_new_cluster.rewrite(disk.folder, OURS, 5.0)
    with pytest.raises(FailedPrecondition, match="nothing is readable"):
        await force_new_cluster.survey(SwarmFolder(tmp_path / "empty"), OURS, None)
    (disk.folder.path / "raft.key").write_bytes(b"x" * 32)
    with pytest.raises(FailedPrecondition, match="wrong data key"):
        await force_new_cluster.survey(disk.folder, OURS, None)
