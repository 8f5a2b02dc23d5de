"""What managers say to each other in Raft: plain data with declared types, msgpack on the wire.

Every message carries the sender's term. Decoding builds these classes and nothing else; a frame that does
not decode ends the connection. `from_stock` translates the dictionaries that PySyncObj makes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raft.membership import Configuration

PROTOCOL_VERSION = 1


class Message(msgspec.Struct, frozen=True, array_like=True):
    term: int


class Hello(Message, frozen=True, array_like=True, tag="hello"):
    """First frame of a connection: whose it is and where its sender listens."""

    version: int
    cluster_id: str
    node_id: str
    address: str


class PreVote(Message, frozen=True, array_like=True, tag="prevote"):
    """Would you vote for me in `term`? Changes nothing at the receiver."""

    last_index: int
    last_term: int


class PreVoteAnswer(Message, frozen=True, array_like=True, tag="prevote-answer"):
    """`term` is the answerer's own; `asked` the term that was asked about."""

    asked: int
    granted: bool


class RequestVote(Message, frozen=True, array_like=True, tag="vote"):
    """`transfer`: the leader itself asked for this election, so vote even though it is alive."""

    last_index: int
    last_term: int
    transfer: bool


class VoteAnswer(Message, frozen=True, array_like=True, tag="vote-answer"):
    granted: bool


class Append(Message, frozen=True, array_like=True, tag="append"):
    """Entries after (prev_index, prev_term); without entries a heartbeat. `round` comes back in the Ack."""

    round: int
    commit_index: int
    prev_index: int
    prev_term: int
    entries: tuple[tuple[bytes, int, int], ...]


class SnapshotChunk(Message, frozen=True, array_like=True, tag="snapshot"):
    """A piece of a snapshot, in order from offset 0. The meta data is repeated in every piece."""

    round: int
    index: int
    snapshot_term: int
    configuration: Configuration
    size: int
    crc32: int
    offset: int
    data: bytes


class Alive(Message, frozen=True, array_like=True, tag="alive"):
    """The leader's heartbeat while it has no log position to share with this follower."""

    round: int


class Ack(Message, frozen=True, array_like=True, tag="ack"):
    """Answer to Append, SnapshotChunk and Alive.

    success: the log matches the leader's below `next_index`. Otherwise, with `reset`: send again from
    `next_index`; without: nothing to say about the log. `received`: bytes of the snapshot so far.
    """

    round: int
    next_index: int
    success: bool
    reset: bool
    received: int


class TimeoutNow(Message, frozen=True, array_like=True, tag="timeout-now"):
    """The leader hands over: start an election at once."""


class Removed(Message, frozen=True, array_like=True, tag="removed"):
    """You are no longer a member; stop asking. `index`: of the committed entry that says so, or a later one."""

    index: int


AnyMessage = (
    Hello
    | PreVote
    | PreVoteAnswer
    | RequestVote
    | VoteAnswer
    | Append
    | SnapshotChunk
    | Alive
    | Ack
    | TimeoutNow
    | Removed
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> AnyMessage:
    """Raises msgspec.MsgspecError for anything that is not a message."""
    message: AnyMessage = _decoder.decode(data)
    return message


def from_stock(message: dict[str, Any], round: int, transfer: bool) -> Message:
    """A PySyncObj dictionary as a message."""
    kind, term = message["type"], message["term"]
    if kind == "append_entries":
        return Append(
            term,
            round,
            message["commit_index"],
            message["prevLogIdx"],
            message["prevLogTerm"],
            tuple(message["entries"]),
        )
    if kind == "request_vote":
        return RequestVote(term, message["last_log_index"], message["last_log_term"], transfer)
    if kind == "timeout_now":
        return TimeoutNow(term)
    raise AssertionError(f"PySyncObj sent a message of the unknown type {kind}")
