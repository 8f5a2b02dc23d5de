"""The store's whole state as bytes, made and read one object at a time.

A thread that encodes or decodes never holds the interpreter for longer than one object takes, however large
the state is, so the event loop goes on beside it. The bytes come as pieces of about 256 KiB; where they are
cut means nothing. Version 2: one version byte, then items of a length (4 bytes, big endian) and msgpack.
The first item is the `Header`, the others are the objects, table after table. Version 1 (one msgpack value
of everything) is still read. Invariant: equal states give equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from raft import codec
from raft.errors import InvalidArgument
from raft.objects.base import Kind, ObjectRecord

PIECE_BYTES = 256 * 1024

_VERSION = 2
_VERSION_OF_ONE_VALUE = 1
_LENGTH = struct.Struct(">I")


class Header(msgspec.Struct, frozen=True):
    """`index` of the log that the state is at; the tables in order, with how many objects each has."""

    index: int
    tables: list[tuple[Kind, int]]


_header_decoder = msgspec.msgpack.Decoder(Header)
_one_value_decoder = msgspec.msgpack.Decoder(tuple[int, list[tuple[Kind, list[msgspec.Raw]]]])


class Dump:
    """The state at one log index: frozen objects in lists that nobody changes."""

    def __init__(self, index: int, rows: Mapping[Kind, list[ObjectRecord]]) -> None:
        self.index = index
        self.rows = rows

    def pieces(self) -> Iterator[bytes]:
        """The bytes in order; meant for a thread."""
        tables = [(kind, len(records)) for kind, records in self.rows.items()]
        piece = bytearray([_VERSION])
        piece += _item(msgspec.msgpack.encode(Header(self.index, tables)))
        for records in self.rows.values():
            for record in records:
                piece += _item(codec.encode_record(record))
                if len(piece) >= PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        if piece:
            yield bytes(piece)


def read_dump(pieces: Iterable[bytes]) -> tuple[int, Iterator[tuple[Kind, ObjectRecord]]]:
    """(index, objects) of a dump. The objects are decoded as they are taken.

    Raises InvalidArgument, at once or while the objects are taken, when the bytes are no whole dump.
    """
    rest = iter(pieces)
    first = next(rest, b"")
    if first[:1] == bytes([_VERSION_OF_ONE_VALUE]):
        return _read_one_value(b"".join([first, *rest]))
    if first[:1] != bytes([_VERSION]):
        raise InvalidArgument("state dump is of an unknown version: upgrade this manager")
    items = _items(first[1:], rest)
    try:
        header = _header_decoder.decode(next(items, b""))
    except msgspec.MsgspecError as err:
        raise _unreadable(str(err)) from err
    return header.index, _objects(header, items)


def count_dump(data: bytes) -> dict[Kind, int]:
    """Objects by kind, each of them decoded and none kept: could this dump be loaded?

    Blocks. Raises InvalidArgument.
    """
    counts = dict.fromkeys(Kind, 0)
    for kind, _ in read_dump([data])[1]:
        counts[kind] += 1
    return counts


def _objects(header: Header, items: Iterator[bytes]) -> Iterator[tuple[Kind, ObjectRecord]]:
    for kind, count in header.tables:
        for number in range(count):
            item = next(items, None)
            if item is None:
                raise _unreadable(f"it has {number} of {count} {kind} objects")
            yield kind, codec.decode_record(kind, item)
    if next(items, None) is not None:
        raise _unreadable("there is more than its header says")


def _items(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    data = first
    while True:
        position = 0
        while position + _LENGTH.size <= len(data):
            start = position + _LENGTH.size
            end = start + _LENGTH.unpack_from(data, position)[0]
            if end > len(data):
                break
            yield data[start:end]
            position = end
        more = next(others, None)
        if more is None:
            break
        data = data[position:] + more
    if position < len(data):
        raise _unreadable("it ends in the middle of an object")


def _item(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


def _read_one_value(data: bytes) -> tuple[int, Iterator[tuple[Kind, ObjectRecord]]]:
    try:
        index, tables = _one_value_decoder.decode(memoryview(data)[1:])
    except msgspec.MsgspecError as err:
        raise _unreadable(str(err)) from err
    return index, ((kind, codec.decode_record(kind, raw)) for kind, rows in tables for raw in rows)


def _unreadable(reason: str) -> InvalidArgument:
    return InvalidArgument(f"state dump cannot be read: {reason}")
