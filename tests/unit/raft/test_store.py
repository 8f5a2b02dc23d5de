"""Transactions, sequence checks, names, indexes, and what a snapshot of the store brings back."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raft import codec
from raft.errors import AlreadyExists, InvalidArgument, MaybeCommitted, NotFound, OutOfSequence, Unavailable
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import CLUSTER_ID, Cluster, Network, NetworkSpec
from raft.objects.service import Service, ServiceSpec
from raft.objects.task import Task
from raft.store import RELEASED_AT_ONCE, LocalProposer, Prepared, Refused, Store, Transaction
from raft.tables import Tables


def service(id: str, name: str = "") -> Service:
    return Service(id=id, spec=ServiceSpec(annotations=Annotations(name=name or id)))


def make_store() -> Store:
    store = Store(clock=lambda: 1000.0)
    LocalProposer(store)
    return store


async def test_create_sets_version_to_log_index_and_times():
    store = make_store()
    await store.update(lambda tx: tx.put(service("s1", "web")))
    stored = store.view().services["s1"]
    assert stored.meta.version == store.index == 1
    assert stored.meta.created_at == stored.meta.updated_at == 1000.0
    assert store.view().by_name(Kind.SERVICE, "web") is stored


async def test_update_keeps_creation_time_and_bumps_version():
    times = iter([10.0, 20.0])
    store = Store(clock=lambda: next(times))
    LocalProposer(store)
    await store.update(lambda tx: tx.put(service("s1")))
    await store.update(lambda tx: tx.put(msgspec.structs.replace(tx.services["s1"], spec_version=2)))
    meta = store.view().services["s1"].meta
    assert (meta.version, meta.created_at, meta.updated_at) == (2, 10.0, 20.0)


async def test_concurrent_increments_are_all_counted():
    store = make_store()
    await store.update(lambda tx: tx.put(service("s1")))

    def increment(tx: Transaction) -> None:
        old = tx.services["s1"]
        tx.put(msgspec.structs.replace(old, spec_version=old.spec_version + 1))

    await asyncio.gather(*(store.update(increment) for _ in range(50)))
    assert store.view().services["s1"].spec_version == 51


async def test_stale_object_is_refused_before_it_is_proposed():
    store = make_store()
    await store.update(lambda tx: tx.put(service("s1")))
    stale = store.view().services["s1"]
    await store.update(lambda tx: tx.put(msgspec.structs.replace(tx.services["s1"], spec_version=2)))
    with pytest.raises(OutOfSequence, match="update out of sequence"):
        await store.update(lambda tx: tx.put(stale))


def test_apply_refuses_a_command_that_read_an_older_version():
    store = make_store()
    create = codec.encode_command([codec.Change(Kind.SERVICE, "s1", 0, service("s1"))])
    store.apply(create, 5)
    outcome = store.apply(create, 6)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "sequence"
    assert store.view().services["s1"].meta.version == 5
    assert store.index == 6


def test_apply_never_raises_on_garbage():
    store = make_store()
    for command in (
        b"",
        b"\x07abc",
        b"\x01\xff\xff",
        b"\x01" + msgspec.msgpack.encode([["service", "x", 0, {}]]),
    ):
        assert isinstance(store.apply(command, 1), Refused)
    assert not store.view().services


async def test_names_are_unique_per_kind():
    store = make_store()
    await store.update(lambda tx: tx.put(service("s1", "web")))
    with pytest.raises(
        AlreadyExists, match="name conflicts with an existing object: service web already exists"
    ):
        await store.update(lambda tx: tx.put(service("s2", "web")))
    network = Network(id="n1", spec=NetworkSpec(annotations=Annotations(name="web")))
    await store.update(lambda tx: tx.put(network))
    assert store.view().by_name(Kind.NETWORK, "web").id == "n1"


async def test_racing_creations_of_one_name_give_one_winner():
    store = make_store()
    results = await asyncio.gather(
        *(store.update(lambda tx, i=i: tx.put(service(f"s{i}", "web"))) for i in range(5)),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == 4
    assert len(store.view().services) == 1


async def test_name_can_be_swapped_and_reused_within_one_transaction():
    store = make_store()
    await store.update(lambda tx: (tx.put(service("a", "one")), tx.put(service("b", "two"))))

    def rename(tx: Transaction) -> None:
        tx.delete(Kind.SERVICE, "a")
        b = tx.services["b"]
        tx.put(msgspec.structs.replace(b, spec=ServiceSpec(annotations=Annotations(name="one"))))

    await store.update(rename)
    assert store.view().by_name(Kind.SERVICE, "one").id == "b"
    assert store.view().by_name(Kind.SERVICE, "two") is None


async def test_transaction_reads_its_own_writes():
    store = make_store()
    await store.update(
        lambda tx: (tx.put(Task(id="t1", service_id="s", slot=1)), tx.put(service("s", "web")))
    )

    def check(tx: Transaction) -> None:
        tx.put(Task(id="t2", service_id="s", slot=1, node_id="n"))
        tx.put(msgspec.structs.replace(tx.tasks["t1"], node_id="n"))
        tx.put(service("s2", "api"))
        assert {t.id for t in tx.tasks_of_service("s")} == {"t1", "t2"}
        assert {t.id for t in tx.tasks_of_slot("s", 1)} == {"t1", "t2"}
        assert {t.id for t in tx.tasks_of_node("n")} == {"t1", "t2"}
        assert tx.by_name(Kind.SERVICE, "api").id == "s2"
        tx.delete(Kind.TASK, "t2")
        tx.delete(Kind.SERVICE, "s")
        assert list(tx.tasks) == ["t1"]
        assert tx.by_name(Kind.SERVICE, "web") is None
        assert [s.id for s in tx.all(Kind.SERVICE)] == ["s2"]

    await store.update(check)
    assert [t.id for t in store.view().tasks_of_node("n")] == ["t1"]


async def test_indexes_follow_a_task_that_gets_a_node_and_goes():
    store = make_store()
    await store.update(lambda tx: tx.put(Task(id="t", service_id="s", slot=2)))
    assert [t.id for t in store.view().tasks_of_node("")] == ["t"]
    await store.update(lambda tx: tx.put(msgspec.structs.replace(tx.tasks["t"], node_id="n1")))
    view = store.view()
    assert view.tasks_of_node("") == []
    assert (
        view.tasks_of_node("n1")
        == view.tasks_of_slot("s", 2)
        == view.tasks_of_service("s")
        == [view.tasks["t"]]
    )
    await store.update(lambda tx: tx.delete(Kind.TASK, "t"))
    assert view.tasks_of_node("n1") == view.tasks_of_slot("s", 2) == view.tasks_of_service("s") == []


async def test_nothing_staged_is_not_proposed():
    store = Store()  # has no proposer: proposing would raise
    assert await store.update(lambda tx: len(tx.services)) == 0


async def test_write_without_a_manager_is_unavailable():
    with pytest.raises(Unavailable):
        await Store().update(lambda tx: tx.put(service("s1")))


async def test_exception_in_transaction_writes_nothing():
    store = make_store()

    def fail(tx: Transaction) -> None:
        tx.put(service("s1"))
        raise NotFound("network x not found")

    with pytest.raises(NotFound):
        await store.update(fail)
    assert not store.view().services
    with pytest.raises(NotFound, match="service nope not found"):
        await store.update(lambda tx: tx.delete(Kind.SERVICE, "nope"))


async def test_unknown_outcome_is_not_retried():
    calls = 0

    class Lossy:
        async def propose(self, command: bytes) -> object:
            nonlocal calls
            calls += 1
            raise MaybeCommitted("leader changed")

    with pytest.raises(MaybeCommitted):
        await Store(Lossy()).update(lambda tx: tx.put(service("s1")))
    assert calls == 1


async def test_too_many_or_too_large_changes_are_refused():
    store = make_store()
    with pytest.raises(InvalidArgument, match="201 changes"):
        await store.update(lambda tx: [tx.put(service(f"s{i}")) for i in range(201)])
    big = Service(id="s", spec=ServiceSpec(annotations=Annotations(name="s", labels={"k": "x" * 2_000_000})))
    with pytest.raises(InvalidArgument, match="bytes"):
        await store.update(lambda tx: tx.put(big))


async def test_dump_is_a_consistent_picture_and_loads_elsewhere():
    store = make_store()
    await store.update(
        lambda tx: (tx.put(service("s1", "web")), tx.put(Cluster(id=CLUSTER_ID, cluster_id="c")))
    )
    await store.update(lambda tx: tx.put(Task(id="t1", service_id="s1", slot=1, node_id="n")))
    dump = store.dump()
    await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"))
    other = Store()
    view = other.view()
    other.load(Store.encode(dump))
    assert other.index == 2
    assert view.services["s1"].meta.version == 1
    assert view.by_name(Kind.SERVICE, "web").id == "s1"
    assert [t.id for t in view.tasks_of_node("n")] == ["t1"]
    assert view.cluster.cluster_id == "c"


def test_damaged_dump_changes_nothing():
    store = make_store()
    store.apply(codec.encode_command([codec.Change(Kind.SERVICE, "s1", 0, service("s1"))]), 1)
    data = Store.encode(store.dump())
    for bad in (b"", data[:-1], b"\x63" + data[1:]):
        with pytest.raises(InvalidArgument):
            store.load(bad)
    assert "s1" in store.view().services


async def test_prepared_state_shows_nothing_until_it_is_adopted_whole():
    store, source = make_store(), make_store()
    await store.update(lambda tx: tx.put(service("old", "old")))
    for i in range(3):
        await source.update(lambda tx, i=i: tx.put(service(f"s{i}", f"name-{i}")))
    await source.update(lambda tx: tx.put(Task(id="t1", service_id="s1", slot=1, node_id="n")))
    view, former = store.view(), store.view().services
    with store.watch({Kind.SERVICE}) as watch:
        prepared = await asyncio.to_thread(store.prepare, source.pieces(source.dump()))
        assert (set(view.services), store.index, watch.drain()) == ({"old"}, 1, [])
        store.adopt(prepared)
        assert [event.action for event in watch.drain()] == ["resync"]
    assert (set(view.services), store.index) == ({"s0", "s1", "s2"}, 4)
    assert view.by_name(Kind.SERVICE, "old") is None
    assert [task.id for task in view.tasks_of_service("s1")] == ["t1"]
    # Whoever still looks at the former state finds it whole, also while it is let go.
    assert len(list(prepared.release())) == 1
    assert set(former) == {"old"}
    assert (set(view.services), len(view.tasks)) == ({"s0", "s1", "s2"}, 1)


async def test_former_state_is_let_go_a_few_objects_at_a_time():
    store, count = make_store(), 2 * RELEASED_AT_ONCE
    tables = Tables()
    for i in range(count):
        tables.put(Kind.TASK, Task(id=f"t{i}", service_id="s", slot=i, node_id="n"))
    steps = sum(1 for _ in Prepared(1, tables).release())
    # The tasks, one dictionary for each slot, one for the service and one for the node.
    assert steps == -(-(2 * count + 2) // RELEASED_AT_ONCE)
    assert store.index == 0


def test_same_commands_give_the_same_bytes_on_every_manager():
    commands = [
        codec.encode_command([codec.Change(Kind.SERVICE, f"s{i}", 0, service(f"s{i}"))]) for i in range(20)
    ] + [codec.encode_command([codec.Change(Kind.SERVICE, "s3", 4, None)])]
    stores = [make_store(), make_store()]
    for index, command in enumerate(commands, start=1):
        for store in stores:
            store.apply(command, index)
    assert Store.encode(stores[0].dump()) == Store.encode(stores[1].dump())
    assert "s3" not in stores[0].view().services
