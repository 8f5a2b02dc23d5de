"""A request takes effect once: repeated, racing, late, after a snapshot, on another manager, and too old."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raft import codec, requests
from raft.errors import (
    AlreadyExists,
    Forgotten,
    InvalidArgument,
    MaybeCommitted,
    NotFound,
    NotLeader,
    Unavailable,
)
from raft.objects.base import Annotations, Kind
from raft.objects.request import Request, is_key, new_key
from raft.objects.service import Service, ServiceSpec
from raft.store import Applied, LocalProposer, Refused, Repeated, Store, Transaction


class Log(LocalProposer):
    """Keeps the commands; `lose` makes the next answers get lost, before or after the command is written."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.commands: list[bytes] = []
        self.lose: list[str] = []
        self.late: list[bytes] = []
        self.barriers = 0
        self.leads = True

    async def propose(self, command: bytes) -> object:
        fate = self.lose.pop(0) if self.lose else ""
        if fate == "before":
            self.late.append(command)
            raise MaybeCommitted("the connection broke")
        self.commands.append(command)
        outcome = await super().propose(command)
        if fate == "after":
            raise MaybeCommitted("the answer was lost")
        return outcome

    async def arrive(self) -> object:
        """What was lost before it was written comes after all."""
        return await self.propose(self.late.pop(0))

    async def read_barrier(self) -> None:
        self.barriers += 1
        if not self.leads:
            raise NotLeader("this manager is not the leader")


@pytest.fixture
def store() -> Store:
    return Store(clock=lambda: 1000.0)


@pytest.fixture
def log(store: Store) -> Log:
    return Log(store)


def service(id: str, name: str = "") -> Service:
    return Service(id=id, spec=ServiceSpec(annotations=Annotations(name=name or id)))


def key(store: Store, **fields: object) -> Request:
    return Request(new_key(store.index), **fields)  # type: ignore[arg-type]


def again(request: Request) -> Request:
    return msgspec.structs.replace(request, repeated=True)


async def create(store: Store, request: Request | None, id: str, name: str = "web") -> str:
    """As the control API does: a new id with every attempt."""

    def fn(tx: Transaction) -> str:
        tx.put(service(id, name))
        return id

    return await store.update(fn, request)


async def test_repeated_call_gets_the_first_answer(store: Store, log: Log):
    request = key(store)
    assert await create(store, request, "s1") == "s1"
    assert await create(store, again(request), "s2") == "s1"
    assert set(store.view().services) == {"s1"}
    with pytest.raises(AlreadyExists):
        await create(store, key(store), "s3")


@pytest.mark.parametrize("fate", ["before", "after"])
async def test_lost_answer_is_asked_for_again(store: Store, log: Log, fate: str):
    request = key(store)
    log.lose = [fate]
    with pytest.raises(MaybeCommitted):
        await create(store, request, "s1")
    assert await create(store, again(request), "s2") == ("s1" if fate == "after" else "s2")
    assert len(store.view().services) == 1


async def test_attempt_that_arrives_late_changes_nothing(store: Store, log: Log):
    request = key(store)
    log.lose = ["before"]
    with pytest.raises(MaybeCommitted):
        await create(store, request, "s1")
    assert await create(store, again(request), "s2") == "s2"
    await store.update(lambda tx: tx.delete(Kind.SERVICE, "s2"))
    assert isinstance(await log.arrive(), Repeated)
    assert not store.view().services


async def test_refusal_stays_when_the_first_attempt_arrives_late(store: Store, log: Log):
    """Or the caller would have been told a lie: refused, and yet written."""
    request = key(store)
    log.lose = ["before"]
    with pytest.raises(MaybeCommitted):
        await create(store, request, "s1")
    await create(store, None, "other")
    with pytest.raises(AlreadyExists, match="service web already exists"):
        await create(store, again(request), "s2")
    await store.update(lambda tx: tx.delete(Kind.SERVICE, "other"))
    outcome = await log.arrive()
    assert isinstance(outcome, Repeated)
    assert outcome.receipt.refusal is not None
    assert not store.view().services
    with pytest.raises(AlreadyExists, match="service web already exists"):
        await create(store, again(request), "s3")


async def test_name_that_is_taken_meanwhile_refuses_for_good(store: Store, log: Log):
    request = again(key(store))
    outcomes = await asyncio.gather(
        create(store, None, "other"), create(store, request, "s1"), return_exceptions=True
    )
    assert outcomes[0] == "other"
    assert isinstance(outcomes[1], AlreadyExists)
    assert request.key in {receipt.id for receipt in store.view().all(Kind.RECEIPT)}


async def test_two_attempts_at_the_same_time_have_one_effect(store: Store, log: Log):
    request = key(store)
    ids = await asyncio.gather(create(store, request, "s1"), create(store, again(request), "s2"))
    assert ids == ["s1", "s1"]
    assert set(store.view().services) == {"s1"}


async def test_removal_and_update_can_be_repeated(store: Store, log: Log):
    await create(store, None, "s1")
    stored = store.view().services["s1"]

    def label(tx: Transaction) -> str:
        read = tx.services["s1"]
        if read.meta.version != stored.meta.version:
            raise AssertionError("a repeated update must not run again")
        tx.put(msgspec.structs.replace(read, spec_version=7))
        return "s1"

    update, removal = key(store), key(store)
    assert await store.update(label, update) == "s1"
    assert await store.update(label, again(update)) == "s1"
    await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"), removal)
    assert await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"), again(removal)) is None
    with pytest.raises(NotFound):
        await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"), key(store))


async def test_another_manager_and_a_restored_snapshot_know_the_answer(store: Store, log: Log):
    requests_made = [key(store) for _ in range(5)]
    for number, request in enumerate(requests_made):
        await create(store, request, f"s{number}", f"web{number}")
    replica = Store()
    for index, command in enumerate(log.commands, start=1):
        replica.apply(command, index)
    assert Store.encode(replica.dump()) == Store.encode(store.dump())
    restored = Store()
    restored.load(Store.encode(store.dump()))
    for other in (replica, restored):
        Log(other)
        for number, request in enumerate(requests_made):
            assert await create(other, again(request), "new", f"web{number}") == f"s{number}"
        assert "new" not in other.view().services


async def test_key_of_another_call_is_refused(store: Store, log: Log):
    request = key(store, fingerprint=b"create web")
    await create(store, request, "s1")
    other = msgspec.structs.replace(request, fingerprint=b"create db")
    with pytest.raises(InvalidArgument, match="was used for another call: take a new key"):
        await create(store, other, "s2", "db")
    ticket = requests.Ticket(request.key, 0, b"create db", b"\xc0", None)
    command = codec.encode_command([codec.Change(Kind.SERVICE, "s2", 0, service("s2"))], ticket)
    outcome = store.apply(command, store.index + 1)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "request"
    assert set(store.view().services) == {"s1"}


async def test_request_that_may_be_forgotten_is_never_carried_out(
    store: Store, log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(requests, "RECEIPTS_MAX", 3)
    old, unused = key(store), key(store)
    await create(store, old, "s0", "web0")
    for number in range(1, 4):
        await create(store, key(store), f"s{number}", f"web{number}")
    await store.update(lambda tx: tx.delete(Kind.SERVICE, "s0"))
    for request in (old, unused):
        with pytest.raises(Forgotten, match="older than the last 3 requests"):
            await create(store, again(request), "twice", "web0")
    # Only who sends it for the first time knows that nothing was written.
    with pytest.raises(Unavailable, match="has not heard of the latest requests"):
        await create(store, unused, "twice", "web0")
    assert set(store.view().services) == {"s1", "s2", "s3"}
    assert next(iter(store.view().all(Kind.RECEIPT))).id != old.key
    assert len(list(store.view().all(Kind.RECEIPT))) == 3
    assert await create(store, again(key(store)), "s5", "web0") == "s5"


async def test_exactly_the_requests_whose_receipts_are_kept_are_known(
    store: Store, log: Log, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(requests, "RECEIPTS_MAX", 3)
    made = []
    for number in range(8):
        made.append(key(store))
        await create(store, made[-1], f"s{number}", f"web{number}")
    for number, request in enumerate(made):
        if number < 5:
            with pytest.raises(Forgotten):
                await create(store, again(request), "twice", f"web{number}")
        else:
            assert await create(store, again(request), "twice", f"web{number}") == f"s{number}"


async def test_key_from_the_future_is_refused(store: Store, log: Log):
    with pytest.raises(InvalidArgument, match="ahead of the log, which is at 1"):
        await create(store, Request(new_key(1)), "s1")
    assert not store.view().services


async def test_refusal_and_nothing_to_write_are_decided_on_the_newest_state(store: Store, log: Log):
    with pytest.raises(NotFound):
        await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"), key(store))
    assert await store.update(lambda tx: "as it is", key(store)) == "as it is"
    assert (log.barriers, log.commands) == (2, [])
    log.leads = False
    with pytest.raises(NotLeader):
        await store.update(lambda tx: tx.delete(Kind.SERVICE, "s1"), key(store))
    with pytest.raises(NotLeader):
        await store.update(lambda tx: "as it is", key(store))


async def test_writing_costs_one_command_and_no_barrier(store: Store, log: Log):
    await create(store, key(store), "s1")
    assert (len(log.commands), log.barriers) == (1, 0)


async def test_transaction_before_the_last_does_not_answer(store: Store, log: Log):
    request = key(store)

    def step(tx: Transaction) -> bool:
        number = len(tx.services)
        tx.put(service(f"s{number}"))
        if number < 2:
            tx.leave_unanswered()
        return number == 2

    while not await store.update(step, request):
        assert not list(store.view().all(Kind.RECEIPT))
    assert await store.update(step, again(request)) is True
    assert len(store.view().services) == 3


def test_commands_of_the_first_version_are_still_applied():
    store = Store()
    change = codec.Change(Kind.SERVICE, "s1", 0, service("s1"))
    written = (change.kind, change.id, change.base, msgspec.Raw(codec.encode_record(service("s1"))))
    command = b"\x01" + msgspec.msgpack.encode([written])
    assert codec.encode_command([change]) == command
    assert store.apply(command, 4) == Applied(4)
    assert store.view().services["s1"].meta.version == 4


def test_keys_have_one_form():
    assert is_key(new_key(0))
    assert is_key(new_key(123456789))
    for bad in ("", "7", "7-short", "-7-0123456789abcdef", "07-0123456789abcdef", "7-0123456789abcde\n"):
        assert not is_key(bad)
