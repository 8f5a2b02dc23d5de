"""Digests of the state: equal for equal objects in any order, different for any change."""

from __future__ import annotations

import random

import msgspec
import pytest

from raft import digest
from raft.digest import Difference
from raft.dump import Dump
from raft.objects.base import Annotations, Kind, ObjectRecord
from raft.objects.cluster import Secret, SecretSpec
from raft.objects.node import Node, NodeSpec, NodeState
from raft.store import LocalProposer, Store


def node(id: str, labels: dict[str, str] | None = None) -> Node:
    return Node(id=id, spec=NodeSpec(annotations=Annotations(labels=labels or {})))


def dump(*nodes: ObjectRecord, secrets: tuple[ObjectRecord, ...] = ()) -> Dump:
    return Dump(5, {Kind.NODE: list(nodes), Kind.SECRET: list(secrets)})


def test_the_order_of_objects_and_labels_does_not_matter() -> None:
    nodes: list[ObjectRecord] = [node(f"n{number}", {"a": "1", "b": "2"}) for number in range(50)]
    shuffled: list[ObjectRecord] = [node(n.id, {"b": "2", "a": "1"}) for n in nodes]
    random.Random(1).shuffle(shuffled)
    first, second = digest.of_kinds(dump(*nodes)), digest.of_kinds(dump(*shuffled))
    assert first == second
    assert digest.summary(first) == digest.summary(second)
    assert digest.differing_kinds(first, second) == []


@pytest.mark.parametrize(
    "changed",
    [
        (),
        (node("n1"),),
        (node("n1"), node("n2"), node("n3")),
        (node("n1"), node("n3")),
        (node("n1"), node("n2", {"a": ""})),
        (node("n1"), msgspec.structs.replace(node("n2"), meta=msgspec.structs.replace(node("n2").meta, version=1))),
        (node("n1"), msgspec.structs.replace(node("n2"), status=msgspec.structs.replace(
            node("n2").status, state=NodeState.READY))),
    ],
)  # fmt: skip
def test_any_change_makes_another_digest(changed: tuple[ObjectRecord, ...]) -> None:
    before, after = digest.of_kinds(dump(node("n1"), node("n2"))), digest.of_kinds(dump(*changed))
    assert digest.differing_kinds(before, after) == [Kind.NODE]
    assert digest.summary(before) != digest.summary(after)


def test_an_object_counts_with_its_kind() -> None:
    empty = digest.of_kinds(dump())
    with_secret = digest.of_kinds(dump(secrets=(Secret(id="x"),)))
    assert digest.differing_kinds(empty, with_secret) == [Kind.SECRET]
    assert with_secret["secret"].count == 1


def test_the_first_difference_is_named_with_both_versions() -> None:
    def objects(*records: ObjectRecord) -> dict[str, digest.ObjectDigest]:
        return digest.of_objects(dump(*records), Kind.NODE, bucket=digest._bucket("n2"))

    def at(id: str, version: int, **labels: str) -> Node:
        made = node(id, labels)
        return msgspec.structs.replace(made, meta=msgspec.structs.replace(made.meta, version=version))

    same = objects(at("n1", 1), at("n2", 2))
    assert same.keys() == {"n2"}
    assert digest.first_difference(Kind.NODE, same, objects(at("n2", 2), at("n1", 1))) is None
    for found, expected, versions in (
        ((at("n2", 3),), (at("n2", 2),), (3, 2)),
        ((at("n2", 2, a="b"),), (at("n2", 2),), (2, 2)),
        ((), (at("n2", 2), at("n3", 3)), (None, 2)),
        ((at("n2", 2),), (), (2, None)),
    ):
        difference = digest.first_difference(Kind.NODE, objects(*found), objects(*expected))
        assert difference == Difference("node", "n2", *versions)


def test_buckets_hold_every_object_once() -> None:
    nodes = [node(f"n{number}") for number in range(2000)]
    state = dump(*nodes)
    found = [digest.of_objects(state, Kind.NODE, bucket) for bucket in range(digest.BUCKETS)]
    assert sum(map(len, found)) == 2000
    assert max(map(len, found)) < 40
    buckets = digest.of_buckets(state, Kind.NODE)
    changed = digest.of_buckets(dump(*nodes[:-1], node("n1999", {"a": "b"})), Kind.NODE)
    assert [n for n in range(digest.BUCKETS) if buckets[n] != changed[n]] == [digest._bucket("n1999")]
    whole = sum(int.from_bytes(bucket, "big") for bucket in buckets) % (1 << 256)
    assert digest.of_kinds(state)["node"].digest == whole.to_bytes(32, "big")


async def test_a_checkpoint_shows_the_state_at_its_own_index() -> None:
    from raft.store import CHECKPOINT, Applied

    store, seen = Store(), []
    proposer = LocalProposer(store)
    store.on_checkpoint(seen.append)
    await store.update(lambda tx: tx.put(Secret(id="s1", spec=SecretSpec(data=b"x"))))
    outcome = await proposer.propose(CHECKPOINT)
    await store.update(lambda tx: tx.put(Secret(id="s2", spec=SecretSpec(annotations=Annotations(name="b")))))
    assert outcome == Applied(2)
    assert [(d.index, [r.id for r in d.rows[Kind.SECRET]]) for d in seen] == [(2, ["s1"])]
    assert store.index == 3
