"""Whole managers on one event loop over socket pairs: what the rest of the program sees of consensus."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from raft import snapshot as snapshots
from raft import transfers
from raft.consensus import Consensus, ConsensusConfig
from raft.errors import FailedPrecondition, InvalidArgument, MaybeCommitted, NotLeader, Unavailable
from raft.founding import found
from raft.objects.base import Kind
from raft.snapshot import Snapshot
from raft.store import Prepared, Store, Transaction
from tests.unit.raft.consensus_world import FAST, Node, World, until

pytestmark = pytest.mark.usefixtures("no_pickle")


async def test_single_manager_leads_at_once_and_again_after_a_restart(world: World):
    (node,) = await world.cluster("a")
    assert node.consensus.is_leader
    assert node.consensus.leader_id == "a"
    assert node.consensus.leader_address == "a:2377"
    for i in range(100):  # more than two snapshots
        await node.create(f"s{i}")
    versions = {s.id: s.meta.version for s in node.store.view().services.values()}
    await node.stop()
    await node.start("resume")
    assert node.consensus.is_leader
    assert {s.id: s.meta.version for s in node.store.view().services.values()} == versions
    await node.create("after")


async def test_three_managers_replicate_and_followers_name_the_leader(world: World):
    nodes = await world.cluster("a", "b", "c")
    await asyncio.gather(*(nodes[0].create(f"s{i}") for i in range(200)))
    await until(lambda: all(len(n.names()) == 200 for n in nodes))
    assert Store.encode(nodes[0].store.dump())[10:] == Store.encode(nodes[1].store.dump())[10:]
    with pytest.raises(NotLeader) as caught:
        await nodes[1].create("x")
    assert caught.value.leader == "a:2377"
    await nodes[0].consensus.read_barrier()
    with pytest.raises(NotLeader):
        await nodes[2].consensus.read_barrier()


async def test_leader_stops_and_another_accepts_writes_soon(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[0].create("one")
    changes: list[bool] = []
    nodes[1].consensus.on_change(lambda: changes.append(nodes[1].consensus.is_leader))
    await nodes[0].stop()
    leader = await world.leader()
    assert leader is not nodes[0]
    await leader.create("two")
    await nodes[0].start("resume")
    await until(lambda: nodes[0].names() == {"one", "two"})
    assert not nodes[0].consensus.is_leader
    assert changes


async def test_all_restart_and_nothing_is_lost(world: World):
    nodes = await world.cluster("a", "b", "c")
    for i in range(60):
        await nodes[0].create(f"s{i}")
    for node in nodes:
        await node.stop()
    for node in nodes:
        await node.start("resume")
    leader = await world.leader()
    assert len(leader.names()) == 60
    await until(lambda: all(len(n.names()) == 60 for n in nodes))


async def test_joiner_gets_the_snapshot_and_then_the_log(world: World):
    nodes = await world.cluster("a")
    for i in range(100):
        await nodes[0].create(f"s{i}")
    late = Node(world, "b")
    await late.start("join", {"a": "a:2377"})
    await nodes[0].consensus.add_member("b", "b:2377")
    await nodes[0].create("last")
    await until(lambda: late.names() == nodes[0].names())
    assert late.consensus.members() == {"a": "a:2377", "b": "b:2377"}


async def test_state_that_is_being_installed_shows_nothing_until_it_is_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    nodes = await world.cluster("a")
    for i in range(100):
        await nodes[0].create(f"s{i}")
    prepare, is_preparing, may_go_on = Store.prepare, threading.Event(), threading.Event()

    def slowly(pieces: Iterable[bytes]) -> Prepared:
        prepared = prepare(pieces)
        is_preparing.set()
        assert may_go_on.wait(5)
        return prepared

    monkeypatch.setattr(Store, "prepare", staticmethod(slowly))
    late = Node(world, "b")
    await late.start("join", {"a": "a:2377"})
    adding = asyncio.create_task(nodes[0].consensus.add_member("b", "b:2377"))
    await until(is_preparing.is_set)
    for _ in range(20):  # the loop goes on: the leader's messages are answered meanwhile
        await asyncio.sleep(0.005)
        assert (late.names(), late.consensus.applied_index) == (set(), 0)
    may_go_on.set()
    await adding
    await until(lambda: late.names() == nodes[0].names())


async def test_snapshot_that_cannot_be_decoded_is_neither_stored_nor_acknowledged(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    nodes = await world.cluster("a")
    for i in range(100):
        await nodes[0].create(f"s{i}")
    prepare, refused = Store.prepare, []

    def refuse_once(pieces: Iterable[bytes]) -> Prepared:
        if not refused:
            refused.append(sorted((world.folder / "b").rglob("*.snap")))
            raise InvalidArgument("state dump is of an unknown version: upgrade this manager")
        return prepare(pieces)

    monkeypatch.setattr(Store, "prepare", staticmethod(refuse_once))
    monkeypatch.setattr(transfers, "STALLED_S", 0.1)
    late = Node(world, "b")
    await late.start("join", {"a": "a:2377"})
    await nodes[0].consensus.add_member("b", "b:2377")
    await until(lambda: late.names() == nodes[0].names())
    assert refused == [[]]


async def test_unreachable_joiner_is_refused_and_the_cluster_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("raft.consensus.JOINER_CONTACT_TIMEOUT_S", 0.2)
    (node,) = await world.cluster("a")
    with pytest.raises(Unavailable, match="ghost at ghost:2377 cannot be reached"):
        await node.consensus.add_member("ghost", "ghost:2377")
    assert node.consensus.members() == {"a": "a:2377"}
    await node.create("still")


async def test_removed_manager_is_told_and_cannot_come_back(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[0].consensus.remove_member("c")
    await until(lambda: nodes[2].consensus.is_removed)
    assert set(nodes[0].consensus.members()) == {"a", "b"}
    with pytest.raises(FailedPrecondition, match="was removed"):
        await nodes[0].consensus.add_member("c", "c:2377")
    with pytest.raises(InvalidArgument, match="not a manager"):
        await nodes[0].consensus.remove_member("c")
    await nodes[0].create("on")


async def test_manager_that_was_down_when_removed_is_told_on_return(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[2].stop()
    await nodes[0].consensus.remove_member("c")
    await nodes[2].start("resume")
    await until(lambda: nodes[2].consensus.is_removed)
    assert nodes[0].consensus.is_leader


async def test_leader_hands_over_before_it_is_removed(world: World):
    nodes = await world.cluster("a", "b", "c")
    with pytest.raises(NotLeader) as caught:
        await nodes[0].consensus.remove_member("a")
    assert caught.value.leader in ("b:2377", "c:2377")
    leader = await world.leader()
    await leader.consensus.remove_member("a")
    await until(lambda: nodes[0].consensus.is_removed)


async def test_removal_that_would_lose_the_quorum_is_refused(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[2].stop()
    await until(lambda: not nodes[0].consensus.reachable("c"))
    with pytest.raises(FailedPrecondition, match="quorum would be lost"):
        await nodes[0].consensus.remove_member("b")
    await nodes[0].consensus.remove_member("c")
    await nodes[0].create("on")


async def test_address_change_is_followed(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[1].stop()
    nodes[1].config = ConsensusConfig("b", "elsewhere:9", "c1", world.folder / "b", b"k" * 32, FAST)
    await nodes[1].start("resume")
    await nodes[0].consensus.add_member("b", "elsewhere:9")
    await nodes[0].create("x")
    await until(lambda: nodes[1].names() == {"x"})
    assert nodes[2].consensus.members()["b"] == "elsewhere:9"


async def test_change_that_nobody_has_confirmed_is_not_told_as_done(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Asking again for the same change finds it in the log, where it may yet be overwritten."""
    monkeypatch.setattr("raft.consensus.PROPOSE_TIMEOUT_S", 0.1)
    nodes = await world.cluster("a", "b", "c")
    for node in nodes[1:]:
        await node.stop()
    with pytest.raises(MaybeCommitted):
        await nodes[0].consensus.add_member("b", "elsewhere:9")
    with pytest.raises(FailedPrecondition, match="another change of the managers is in progress"):
        await nodes[0].consensus.add_member("b", "elsewhere:9")


async def test_without_a_majority_the_outcome_is_unknown_then_refused(world: World):
    nodes = await world.cluster("a", "b", "c")
    for node in nodes[1:]:
        await node.stop()
    with pytest.raises(MaybeCommitted):
        await nodes[0].create("perhaps")
    with pytest.raises(NotLeader, match="does not have a leader"):
        await nodes[0].create("no")
    for node in nodes[1:]:
        await node.start("resume")
    leader = await world.leader()
    await leader.create("yes")
    await until(lambda: all("yes" in n.names() for n in nodes))


async def test_stopping_answers_everybody_who_waits(world: World):
    nodes = await world.cluster("a", "b")
    await nodes[1].stop()
    waiting = asyncio.create_task(nodes[0].create("x"))
    await asyncio.sleep(0.05)
    await nodes[0].stop()
    with pytest.raises(MaybeCommitted):
        await waiting
    with pytest.raises(Unavailable, match="stopped"):
        await nodes[0].create("y")


async def test_state_is_not_overwritten_by_a_second_beginning(world: World):
    (node,) = await world.cluster("a")
    await node.create("x")
    await node.stop()
    assert Consensus.exists(node.config.state_dir)
    with pytest.raises(FailedPrecondition, match="holds the state of a manager already"):
        Consensus.bootstrap(node.config, Store(), node)
    with pytest.raises(FailedPrecondition, match="holds the state of a manager already"):
        Consensus.join(node.config, Store(), node, {})


async def test_command_above_the_limit_is_refused(world: World):
    (node,) = await world.cluster("a")
    with pytest.raises(InvalidArgument, match="the limit is 1048576"):
        await node.consensus.propose(b"x" * (1024 * 1024 + 1))


async def test_broken_state_machine_stops_this_manager_loudly(world: World, monkeypatch: pytest.MonkeyPatch):
    (node,) = await world.cluster("a")
    monkeypatch.setattr(node.consensus._engine, "turn", lambda: 1 / 0)
    with pytest.raises((Unavailable, NotLeader, MaybeCommitted)):
        await node.create("x")
    assert isinstance(node.consensus.failure, ZeroDivisionError)
    assert not node.consensus.is_leader


async def test_conflicting_transactions_over_consensus_all_count(world: World):
    nodes = await world.cluster("a", "b", "c")
    await nodes[0].create("n")

    def increment(tx: Transaction) -> None:
        old = tx.get(Kind.SERVICE, "n")
        tx.put(type(old)(id="n", meta=old.meta, spec=old.spec, spec_version=old.spec_version + 1))

    await asyncio.gather(*(nodes[0].store.update(increment) for _ in range(20)))
    assert nodes[0].store.view().services["n"].spec_version == 21


async def test_snapshot_that_was_replaced_while_it_was_read_is_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """The log that follows it is compacted: a follower could never go on from it."""
    (node,) = await world.cluster("a")
    stored = world.folder / "a" / "snapshots"
    for number in range(45):
        await node.create(f"first-{number}")
    await until(lambda: list(stored.glob("*.snap")))
    (old,) = stored.glob("*.snap")
    load_latest, may_return = snapshots.load_latest, threading.Event()

    def slowly(*args: Any) -> Snapshot | None:
        loaded = load_latest(*args)
        assert may_return.wait(5)
        return loaded

    monkeypatch.setattr(snapshots, "load_latest", slowly)
    assert node.consensus.snapshot() is None
    for number in range(45):
        await node.create(f"second-{number}")
    await until(lambda: not old.exists())
    await until(lambda: node.consensus._log.base > 40)
    may_return.set()
    await until(node.consensus.snapshot)
    latest = node.consensus.snapshot()
    assert latest is not None
    assert latest.meta.index >= node.consensus._log.base


async def test_manager_founded_from_a_state_leads_alone_and_goes_on(world: World):
    (old,) = await world.cluster("a")
    await old.create("one")
    state = old.store.encode(old.store.dump())
    index, term = old.consensus.applied_index, old.consensus.term
    await old.stop()
    new = Node(world, "b")
    found(new.config, state, index, term, removed=("a",))
    await new.start("resume")
    assert new.names() == {"one"}
    assert new.consensus.members() == {"b": "b:2377"}
    await new.create("two")
    assert new.consensus.applied_index > index
    assert new.consensus.term > term
    with pytest.raises(FailedPrecondition, match="removed"):
        await new.consensus.add_member("a", "a:2377")
    with pytest.raises(FailedPrecondition, match="state of a manager already"):
        found(new.config, state, index, term)
