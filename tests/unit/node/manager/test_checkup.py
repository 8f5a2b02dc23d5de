"""The check of all managers: one index for all, what most hold counts, and every kind of trouble is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from node.manager import checkup
from node.manager.checkup import Checkup, ManagerReport, Report
from node.manager.examination import Examiner
from node.manager.forward import Handler
from node.manager.leader_calls import LeaderCalls
from node.rpc import MANAGERS, RpcError
from raft.codec import Change, encode_command
from raft.consensus import ConsensusConfig
from raft.errors import NotLeader, Unavailable
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Secret, SecretSpec
from raft.objects.node import Node
from raft.store import CHECKPOINT, Store
from raft.wal import Entry, Wal

KEY = b"k" * 32


class World:
    """Managers a, b, c at the addresses of the same name; a leads. A log that all apply at once."""

    def __init__(self, folder: Path) -> None:
        self.index = 0
        self.leader: str | None = "a"
        self.down: set[str] = set()
        self.deaf: set[str] = set()  # gets no entries for now
        self.queued: list[tuple[bytes, int]] = []
        self.managers = {name: FakeManager(self, name, folder / name) for name in "abc"}

    def apply(self, command: bytes) -> object:
        self.index += 1
        results = {}
        for name, manager in self.managers.items():
            if name in self.deaf:
                self.queued.append((command, self.index))
            else:
                results[name] = manager.apply(command, self.index)
        return results[self.leader or "a"]

    def hear_again(self) -> None:
        deaf, self.deaf = self.deaf, set()
        for command, index in self.queued:
            for name in deaf:
                self.managers[name].apply(command, index)

    async def check(self, on: str = "b") -> Report:
        return await self.managers[on].checkup.run()


class FakeManager:
    """One manager: its store, its files, its services; also the consensus and the RPC client they need."""

    failure: Exception | None = None
    term = 3

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self.world = world
        self.name = name
        self.store = Store()
        self.applied_index = 0
        self.wal, _ = Wal.open(folder / "wal", KEY, f"c1/{name}")
        self.wal.append(Entry(1, 1, b"x"))
        self.wal.sync()
        self.folder = folder
        self.handlers: dict[str, Handler] = {}
        self.examiner = Examiner(ConsensusConfig(name, name, "c1", folder, KEY), self.store, self)
        self.calls = LeaderCalls(name, self, self)
        self.checkup = Checkup(name, self, self, self.calls, self.examiner)
        self.calls.register(self)
        self.examiner.register(self)

    def apply(self, command: bytes, index: int) -> object:
        self.applied_index = index
        return self.store.apply(command, index)

    def handle(self, method: str, handler: Handler, *, roles: frozenset[str] | None) -> None:
        assert roles == MANAGERS
        self.handlers[method] = handler

    async def call(self, address: str, method: str, payload: bytes, *, timeout: float) -> bytes:
        if address in self.world.down:
            raise RpcError("unavailable", f"cannot reach {address}: connection refused")
        return await self.world.managers[address].handlers[method](None, payload)

    @property
    def is_leader(self) -> bool:
        return self.world.leader == self.name

    @property
    def leader_id(self) -> str | None:
        return self.world.leader

    def members(self) -> dict[str, str]:
        return {name: name for name in self.world.managers}

    def reachable(self, node_id: str) -> bool:
        return node_id not in self.world.down

    async def propose(self, command: bytes) -> object:
        if not self.is_leader:
            raise NotLeader("not the leader")
        await asyncio.sleep(0)
        return self.world.apply(command)

    async def read_barrier(self) -> None:
        if not self.is_leader:
            raise NotLeader("not the leader")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for number in range(3):
        made.apply(encode_command([Change(Kind.NODE, f"n{number}", 0, Node(id=f"n{number}"))]))
    secret = Secret(id="s1", spec=SecretSpec(annotations=Annotations(name="s1"), data=b"true"))
    made.apply(encode_command([Change(Kind.SECRET, "s1", 0, secret)]))
    return made


def by_name(report: Report) -> dict[str, ManagerReport]:
    return {manager.node_id: manager for manager in report.managers}


def alter(manager: FakeManager) -> None:
    """Behind everybody's back: the secret's data, not its version."""
    secret = manager.store.view().secrets["s1"]
    spec = msgspec.structs.replace(secret.spec, data=b"false")
    index = manager.store.index
    change = Change(Kind.SECRET, "s1", secret.meta.version, msgspec.structs.replace(secret, spec=spec))
    manager.store.apply(encode_command([change]), secret.meta.version)
    manager.store.apply(CHECKPOINT, index)


@pytest.mark.parametrize("on", ["a", "b"])
async def test_managers_that_agree_are_well(world: World, on: str) -> None:
    report = await world.check(on)
    assert report.healthy
    assert report.index == world.index
    assert len({manager.digest for manager in report.managers}) == 1
    assert all(manager.applied_index == report.index for manager in report.managers)
    assert [m.node_id for m in report.managers if m.leader] == ["a"]
    assert [file.name for file in report.managers[0].files] == ["wal-0000000000000001.log"]


@pytest.mark.parametrize("altered", ["a", "c"])
async def test_an_altered_manager_is_found_even_when_it_leads(world: World, altered: str) -> None:
    alter(world.managers[altered])
    report = await world.check()
    assert not report.healthy
    for name, manager in by_name(report).items():
        if name == altered:
            expected = "secret s1 is not the same as on most managers, although both are at version 4"
            assert manager.problems == (expected,)
        else:
            assert manager.problems == ()


async def test_without_a_majority_the_leader_is_what_the_others_are_compared_with(world: World) -> None:
    world.down.add("b")
    alter(world.managers["c"])
    problems = {name: manager.problems for name, manager in by_name(await world.check("c")).items()}
    assert problems["a"] == ()
    assert problems["c"] == ("secret s1 is not the same as on the leader, although both are at version 4",)
    world.leader = "c"
    problems = {name: manager.problems for name, manager in by_name(await world.check("c")).items()}
    assert problems["c"] == ()
    assert "on the leader" in problems["a"][0]


async def test_missing_and_outdated_objects_are_named_with_both_versions(world: World) -> None:
    store = world.managers["c"].store
    node = store.view().nodes["n1"]
    store.apply(encode_command([Change(Kind.NODE, "n1", node.meta.version, None)]), 4)
    secret = store.view().secrets["s1"]
    store.apply(encode_command([Change(Kind.SECRET, "s1", 4, secret)]), 9)
    problems = by_name(await world.check())["c"].problems
    assert problems == (
        "node n1 is missing, on most managers at version 2",
        "secret s1 is at version 9, on most managers at version 4",
    )


async def test_writes_during_the_check_do_not_matter(world: World) -> None:
    checking = asyncio.create_task(world.check())
    for number in range(50):
        world.apply(encode_command([Change(Kind.NODE, f"x{number}", 0, Node(id=f"x{number}"))]))
        await asyncio.sleep(0)
    assert (await checking).healthy


async def test_a_manager_that_is_down_is_no_good_news(world: World) -> None:
    world.down.add("c")
    manager = by_name(await world.check())["c"]
    assert not manager.reachable
    assert manager.problems == ("cannot be examined: cannot reach c: connection refused",)


async def test_a_damaged_file_is_named(world: World) -> None:
    path = world.managers["c"].folder / "wal" / "wal-0000000000000001.log"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    report = by_name(await world.check())
    assert report["a"].problems == report["b"].problems == ()
    (problem,) = report["c"].problems
    assert problem.startswith("wal-0000000000000001.log: damaged frame at byte")


async def test_a_manager_that_stopped_says_so(world: World) -> None:
    world.managers["c"].failure = OSError("disk full")
    assert by_name(await world.check())["c"].problems == ("takes no part: disk full",)


async def test_without_a_leader_the_files_are_verified_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.manager.leader_calls.LEADER_WAIT_S", 0.05)
    world.leader = None
    report = await world.check()
    assert not report.healthy
    assert report.index == 0
    assert "states cannot be compared: the swarm does not have a leader" in report.problem
    assert all(manager.files and not manager.problems for manager in report.managers)


async def test_a_manager_that_missed_the_checkpoint_is_asked_about_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given a snapshot in place of that entry."""
    late, apply = world.managers["c"], FakeManager.apply
    missed: list[int] = []

    def skip_first(manager: FakeManager, command: bytes, index: int) -> object:
        if manager is late and command == CHECKPOINT and not missed:
            missed.append(index)
            manager.applied_index = index
            return None
        return apply(manager, command, index)

    monkeypatch.setattr(FakeManager, "apply", skip_first)
    report = await world.check()
    assert missed == [report.index - 1]
    assert report.healthy


async def test_a_manager_that_is_behind_is_waited_for(world: World) -> None:
    world.deaf.add("c")
    checking = asyncio.create_task(world.check())
    await asyncio.sleep(0.05)
    assert not checking.done()
    world.hear_again()
    assert (await checking).healthy


async def test_a_manager_that_stays_behind_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.manager.examination.APPLY_WAIT_S", 0.02)
    monkeypatch.setattr(checkup, "ATTEMPTS", 1)
    world.deaf.add("c")
    report = await world.check()
    (problem,) = by_name(report)["c"].problems
    assert f"has not applied entry {report.index}" in problem


async def test_a_confirmed_index_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower's state must contain what the leader had acknowledged when it was asked."""
    world.deaf.add("c")
    world.apply(encode_command([Change(Kind.NODE, "late", 0, Node(id="late"))]))
    asking = asyncio.create_task(world.managers["c"].calls.confirmed_index())
    await asyncio.sleep(0.05)
    assert not asking.done()
    world.hear_again()
    assert await asking == world.index
    assert "late" in world.managers["c"].store.view().nodes
    monkeypatch.setattr("node.manager.leader_calls.LEADER_WAIT_S", 0.02)
    world.deaf.add("c")
    world.apply(encode_command([Change(Kind.NODE, "later", 0, Node(id="later"))]))
    with pytest.raises(Unavailable, match="does not reach"):
        await world.managers["c"].calls.confirmed_index()
