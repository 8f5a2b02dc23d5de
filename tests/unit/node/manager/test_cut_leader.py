"""Leaders that are cut off or die under calls: no stale answer, one effect, no deposing by who returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from control_world import make_spec
from managers_world import Manager, ManagersWorld, until

from node.manager import asking
from raft import consensus
from raft.errors import MaybeCommitted, NotFound, RaftError, Unavailable
from raft.objects.request import Request, new_key


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ManagersWorld]:
    world = ManagersWorld(tmp_path)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LEADER_WAIT_S", 0.3)
    monkeypatch.setattr(asking, "DEADLINE_S", 3.0)


def names(manager: Manager) -> list[str]:
    return sorted(service.spec.annotations.name for service in manager.store.view().services.values())


async def test_cut_leader_answers_no_read_and_steps_down(world: ManagersWorld, impatient: None) -> None:
    old, *_ = world.all
    await old.control.create_service(make_spec("before"))
    world.network.cut(old.id)
    reading = []
    while old.consensus.is_leader:
        reading.append(asyncio.create_task(old.control.list_services({})))
        await asyncio.sleep(0.02)
    new = await world.leader(but=old.id)
    await new.control.create_service(make_spec("after"))
    answers = await asyncio.gather(*reading, return_exceptions=True)
    assert len(answers) > 5
    assert {type(answer) for answer in answers} == {Unavailable}
    with pytest.raises(Unavailable, match="does not have a leader"):
        await old.control.list_services({})


async def test_cut_leader_is_not_believed_what_is_missing(world: ManagersWorld, impatient: None) -> None:
    """A refusal is a statement about the state: who cannot read it must not make one."""
    old, *_ = world.all
    world.network.cut(old.id)
    with pytest.raises(Unavailable, match="nothing was written: The swarm does not have a leader"):
        await old.control.remove_service("nope")
    world.network.heal()
    with pytest.raises(NotFound):
        await old.control.remove_service("nope")


async def test_write_on_a_cut_leader_says_that_it_may_have_happened(
    world: ManagersWorld, impatient: None
) -> None:
    old, *_ = world.all
    world.network.cut(old.id)
    with pytest.raises(MaybeCommitted, match="may have been written: the leadership was lost") as caught:
        await old.control.create_service(make_spec("web"))
    assert caught.value.key.partition("-")[0].isdigit()


async def test_call_on_a_cut_leader_is_carried_out_once_when_it_is_back(world: ManagersWorld) -> None:
    old, *_ = world.all
    world.network.cut(old.id)
    creating = asyncio.create_task(old.control.create_service(make_spec("web")))
    new = await world.leader(but=old.id)
    await new.control.create_service(make_spec("other"))
    world.network.heal()
    created = await creating
    await until(lambda: all(names(manager) == ["other", "web"] for manager in world.all))
    assert (await new.control.get_service("web")).id == created.id


@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_decided_while_an_earlier_write_hangs(
    world: ManagersWorld, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """Who tries again would decide without knowing what the first attempt comes to."""
    leader, *_ = world.all
    monkeypatch.setattr(consensus, "PROPOSE_TIMEOUT_S", 5.0 if cancelled else 0.05)
    world.network.mute(leader.id)
    writing = asyncio.create_task(leader.api.create_service(make_spec("web")))
    await asyncio.sleep(0.01)
    if cancelled:
        writing.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else MaybeCommitted):
        await writing
    monkeypatch.undo()
    assert leader.consensus.is_leader
    with pytest.raises(Unavailable, match="no majority has confirmed an earlier write yet"):
        await leader.api.create_service(make_spec("db"))
    world.network.heal()
    await leader.control.create_service(make_spec("db"))
    await until(lambda: names(leader) == ["db", "web"])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_leader_dies_under_a_call_of_a_follower(world: ManagersWorld, when: str) -> None:
    """Before: the write is in the leader's log alone. After: it is committed, the answer is not out yet."""
    old, follower, _ = world.all
    await old.control.create_service(make_spec("first"))
    if when == "before":
        world.network.mute(old.id)
        calling = asyncio.create_task(follower.control.create_service(make_spec("web")))
        await until(lambda: old.consensus._engine._log.last > old.consensus._engine.commit_index())
        await old.stop()
    else:
        old.after_handling = lambda method: world.network.managers.pop(old.id, None)
        calling = asyncio.create_task(follower.control.create_service(make_spec("web")))
        await until(lambda: old.id not in world.network.managers)
        await old.consensus.stop()
    created = await calling
    new = await world.leader()
    assert names(new) == ["first", "web"]
    assert (await new.control.get_service("web")).id == created.id
    with pytest.raises(RaftError, match="already exists"):
        await new.control.create_service(make_spec("web"))


async def test_answer_is_known_to_who_restarts_from_a_snapshot(world: ManagersWorld) -> None:
    leader, *_ = world.all
    request = Request(new_key(leader.control.index), repeated=True)
    created = await leader.control.for_request(request).create_service(make_spec("web"))
    for number in range(60):  # more than one snapshot
        await leader.control.create_service(make_spec(f"s{number}"))
    await leader.control.remove_service("web")
    for manager in world.all:
        await manager.stop()
    await asyncio.gather(*(manager.start("resume") for manager in world.all))
    for manager in world.all:
        again = manager.control.for_request(request)
        assert (await again.create_service(make_spec("web"))).id == created.id
    assert "web" not in names(await world.leader())


async def test_manager_that_was_cut_off_does_not_depose_the_leader(world: ManagersWorld) -> None:
    leader, lonely, _ = world.all
    term = leader.consensus.term
    world.network.cut(lonely.id)
    await until(lambda: lonely.consensus.leader_id is None)
    await asyncio.sleep(1.5)  # several of its election times
    world.network.heal()
    await leader.control.create_service(make_spec("web"))
    await until(lambda: names(lonely) == ["web"])
    assert {manager.consensus.term for manager in world.all} == {term}
    assert leader.consensus.is_leader


async def test_reads_that_wait_together_share_the_confirmation(world: ManagersWorld) -> None:
    leader, *_ = world.all
    sent: list[object] = []
    send = leader.consensus._links.send
    leader.consensus._links.send = lambda node_id, message: (sent.append(message), send(node_id, message))[1]  # type: ignore[method-assign]
    await asyncio.gather(*(leader.control.list_services({}) for _ in range(200)))
    assert len(sent) < 20
