"""A state as bytes: in pieces, whole or not at all, the same for the same state."""

from __future__ import annotations

import msgspec
import pytest

from raft import codec, dump
from raft.dump import Dump, read_dump
from raft.errors import InvalidArgument
from raft.objects.base import Annotations, Kind, ObjectRecord, Record
from raft.objects.cluster import Config, ConfigSpec
from raft.objects.service import Service, ServiceSpec
from raft.objects.task import Task


def config(number: int, size: int) -> Config:
    spec = ConfigSpec(annotations=Annotations(name=f"config-{number}"), data=b"x" * size)
    return Config(id=f"c{number}", spec=spec)


def rows(size: int = 50_000) -> dict[Kind, list[ObjectRecord]]:
    return {
        Kind.SERVICE: [Service(id="s1", spec=ServiceSpec(annotations=Annotations(name="web")))],
        Kind.NODE: [],
        Kind.TASK: [Task(id=f"t{number}", service_id="s1", slot=number) for number in range(300)],
        Kind.CONFIG: [config(number, size) for number in range(20)],
    }


def flat(tables: dict[Kind, list[ObjectRecord]]) -> list[tuple[Kind, ObjectRecord]]:
    return [(kind, record) for kind, records in tables.items() for record in records]


def test_pieces_are_small_and_give_the_same_objects_in_the_same_order():
    pieces = list(Dump(7, rows()).pieces())
    assert len(pieces) > 3
    assert all(len(piece) <= dump.PIECE_BYTES + 60_000 for piece in pieces)
    index, objects = read_dump(pieces)
    assert index == 7
    assert list(objects) == flat(rows())


@pytest.mark.parametrize("size", [1, 3, 1000, 1_000_000])
def test_where_the_bytes_are_cut_means_nothing(size: int):
    data = b"".join(Dump(7, rows(size=10)).pieces())
    index, objects = read_dump(data[start : start + size] for start in range(0, len(data), size))
    assert (index, list(objects)) == (7, flat(rows(size=10)))


def test_an_object_larger_than_a_piece_comes_through():
    tables: dict[Kind, list[ObjectRecord]] = {Kind.CONFIG: [config(1, 3 * dump.PIECE_BYTES), config(2, 5)]}
    _, objects = read_dump(Dump(1, tables).pieces())
    assert list(objects) == flat(tables)


def test_a_dump_of_version_1_is_still_read():
    tables = rows(size=100)
    body = [
        (kind, [msgspec.Raw(codec.encode_record(record)) for record in records])
        for kind, records in tables.items()
    ]
    data = b"\x01" + msgspec.msgpack.encode((7, body))
    index, objects = read_dump([data[:100], data[100:]])
    assert (index, list(objects)) == (7, flat(tables))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_dump([data[:-1]])


def test_a_dump_that_is_cut_anywhere_is_refused():
    data = b"".join(Dump(7, {Kind.SERVICE: rows()[Kind.SERVICE], Kind.TASK: rows()[Kind.TASK][:2]}).pieces())
    for end in range(len(data)):
        with pytest.raises(InvalidArgument):
            list(read_dump([data[:end]])[1])


def test_more_than_the_header_says_is_refused():
    data = b"".join(Dump(7, {Kind.TASK: rows()[Kind.TASK][:2]}).pieces())
    with pytest.raises(InvalidArgument, match="more than its header says"):
        list(read_dump([data + b"\x00\x00\x00\x01\x80"])[1])


def test_an_unknown_version_and_garbage_are_refused():
    with pytest.raises(InvalidArgument, match="upgrade this manager"):
        read_dump([b"\x63abc"])
    with pytest.raises(InvalidArgument, match="upgrade this manager"):
        read_dump([])
    with pytest.raises(InvalidArgument, match="stored task cannot be read"):
        good = b"".join(Dump(7, {Kind.TASK: [Task(id="t1")]}).pieces())
        list(read_dump([good.replace(b"\xa2t1", b"\xc4t1")])[1])


def test_objects_of_the_store_are_nothing_for_the_garbage_collector():
    """A full collection would hold the event loop for as long as it takes to look at 150,000 objects."""
    classes: list[type[Record]] = [Record]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    assert {Service, Task, ServiceSpec} <= set(classes)
    assert [cls for cls in classes if cls.__struct_config__.gc] == []
