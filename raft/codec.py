"""Objects to bytes and back: the store's commands, and the JSON that nodes send each other.

A command is one version byte, then msgpack: version 1 is the changes, version 2 the ticket of a request and
the changes. Commands without a request are written in version 1, and logs that hold it are read for ever.
A version that is unknown is refused, so that an old manager stops with a clear message in place of guessing.
Nothing here executes what it decodes: only plain data with a declared type comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from raft.errors import InvalidArgument
from raft.objects.base import Kind, ObjectRecord
from raft.objects.cluster import Cluster, Config, Network, Secret
from raft.objects.node import Node
from raft.objects.request import Receipt
from raft.objects.service import Service
from raft.objects.task import Task
from raft.requests import Ticket

CHANGES_ONLY, WITH_TICKET = 1, 2  # versions of a command
COMMAND_BYTES_MAX = 1024 * 1024
COMMAND_CHANGES_MAX = 200

T = TypeVar("T")

CLASS_OF: dict[Kind, type[ObjectRecord]] = {
    Kind.NODE: Node,
    Kind.SERVICE: Service,
    Kind.TASK: Task,
    Kind.NETWORK: Network,
    Kind.SECRET: Secret,
    Kind.CONFIG: Config,
    Kind.CLUSTER: Cluster,
    Kind.RECEIPT: Receipt,
}

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Kind, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(cls) for kind, cls in CLASS_OF.items()
}
_json_encoder = msgspec.json.Encoder()


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One write: `record` None deletes. `base` is the version that was read, 0 when there was no object."""

    kind: Kind
    id: str
    base: int
    record: ObjectRecord | None


class Command(msgspec.Struct, frozen=True):
    """One entry of the log: changes that are made all or not at all, and whose request that answers."""

    changes: list[Change]
    ticket: Ticket | None = None


class _WireChange(msgspec.Struct, frozen=True, array_like=True):
    kind: Kind
    id: str
    base: int
    record: msgspec.Raw  # nil deletes


_NIL = msgspec.Raw(b"\xc0")

_changes_decoder = msgspec.msgpack.Decoder(tuple[_WireChange, ...])
_command_decoder = msgspec.msgpack.Decoder(tuple[Ticket, tuple[_WireChange, ...]])


def encode_record(record: ObjectRecord) -> bytes:
    return _encoder.encode(record)


def decode_record(kind: Kind, data: bytes | memoryview | msgspec.Raw) -> ObjectRecord:
    """Raises InvalidArgument when the bytes are not an object of that kind."""
    try:
        record: ObjectRecord = _decoders[kind].decode(data)
    except msgspec.MsgspecError as err:
        raise InvalidArgument(f"stored {kind} cannot be read: {err}") from err
    return record


def encode_command(changes: Iterable[Change], ticket: Ticket | None = None) -> bytes:
    """Raises InvalidArgument above 200 changes or 1 MiB: the caller splits its work."""
    wire = [
        _WireChange(c.kind, c.id, c.base, _NIL if c.record is None else msgspec.Raw(encode_record(c.record)))
        for c in changes
    ]
    if len(wire) > COMMAND_CHANGES_MAX:
        raise InvalidArgument(
            f"transaction has {len(wire)} changes, the limit is {COMMAND_CHANGES_MAX}: split it"
        )
    if ticket is None:
        command = bytes([CHANGES_ONLY]) + _encoder.encode(wire)
    else:
        command = bytes([WITH_TICKET]) + _encoder.encode((ticket, wire))
    if len(command) > COMMAND_BYTES_MAX:
        raise InvalidArgument(f"transaction has {len(command)} bytes, the limit is {COMMAND_BYTES_MAX}")
    return command


def decode_command(command: bytes) -> Command:
    """Raises InvalidArgument when the command is of another version or damaged."""
    version = command[0] if command else None
    if version not in (CHANGES_ONLY, WITH_TICKET):
        found = "none" if version is None else version
        raise InvalidArgument(f"command version {found} is above {WITH_TICKET}: upgrade this manager")
    body = memoryview(command)[1:]
    try:
        if version == CHANGES_ONLY:
            ticket, wire = None, _changes_decoder.decode(body)
        else:
            ticket, wire = _command_decoder.decode(body)
    except msgspec.MsgspecError as err:
        raise InvalidArgument(f"command cannot be read: {err}") from err
    changes = [
        Change(w.kind, w.id, w.base, None if w.record == _NIL else decode_record(w.kind, w.record))
        for w in wire
    ]
    return Command(changes, ticket)


def to_json(value: object) -> bytes:
    """Any record (or plain value) as JSON; bytes become base64."""
    return _json_encoder.encode(value)


def from_json(data: bytes, kind: type[T]) -> T:
    """Decode strictly. Raises InvalidArgument with the path of the wrong field."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise InvalidArgument(f"invalid message: {err}") from err
