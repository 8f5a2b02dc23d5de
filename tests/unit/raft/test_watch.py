"""Watches: order, transaction borders, filters, overflow, and that none of them keeps the store waiting."""

from __future__ import annotations

import asyncio

from raft.objects.base import Annotations, Kind
from raft.objects.service import Service, ServiceSpec
from raft.objects.task import Task
from raft.store import LocalProposer, Store


def service(id: str) -> Service:
    return Service(id=id, spec=ServiceSpec(annotations=Annotations(name=id)))


def make_store() -> Store:
    store = Store()
    LocalProposer(store)
    return store


async def test_events_come_in_order_with_a_commit_mark_per_transaction():
    store = make_store()
    with store.watch() as watch:
        await store.update(lambda tx: (tx.put(service("a")), tx.put(service("b"))))
        await store.update(lambda tx: tx.delete(Kind.SERVICE, "a"))
        events = watch.drain()
    assert [(e.action, e.index, (e.new or e.old).id if e.kind else None) for e in events] == [
        ("create", 1, "a"),
        ("create", 1, "b"),
        ("commit", 1, None),
        ("delete", 2, "a"),
        ("commit", 2, None),
    ]
    assert events[3].old.meta.version == 1


async def test_filter_skips_other_kinds_and_their_commits():
    store = make_store()
    with store.watch({Kind.TASK}) as watch:
        await store.update(lambda tx: tx.put(service("a")))
        await store.update(lambda tx: tx.put(Task(id="t")))
        assert [e.action for e in watch.drain()] == ["create", "commit"]


async def test_overflow_becomes_one_resync_and_then_goes_on():
    store = make_store()
    with store.watch(limit=5) as watch:
        for i in range(10):
            await store.update(lambda tx, i=i: tx.put(service(f"s{i}")))
        events = watch.drain()
        assert "resync" in [e.action for e in events]
        assert len(events) <= 5
        await store.update(lambda tx: tx.put(service("later")))
        assert [e.action for e in watch.drain()] == ["create", "commit"]


async def test_loading_a_snapshot_asks_everybody_to_start_over():
    store = make_store()
    await store.update(lambda tx: tx.put(service("a")))
    with store.watch({Kind.TASK}) as watch:
        store.load(Store.encode(store.dump()))
        assert [e.action for e in watch.drain()] == ["resync"]


async def test_iteration_waits_and_ends_when_the_watch_is_left():
    store = make_store()
    seen: list[str] = []
    watch = store.watch()

    async def read() -> None:
        async for event in watch:
            seen.append(event.action)

    with watch:
        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        assert seen == []
        await store.update(lambda tx: tx.put(service("a")))
        await asyncio.sleep(0)
    await asyncio.wait_for(reader, 1)
    assert seen == ["create", "commit"]


async def test_left_watch_gets_nothing():
    store = make_store()
    with store.watch() as watch:
        pass
    await store.update(lambda tx: tx.put(service("a")))
    assert watch.drain() == []


async def test_refused_command_publishes_nothing():
    store = make_store()
    with store.watch() as watch:
        store.apply(b"garbage", 1)
        assert watch.drain() == []
