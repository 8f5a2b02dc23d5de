"""The receipts of the latest requests, by which a request takes effect once.

The state keeps those of the last RECEIPTS_MAX requests, in the order of the log. Invariant: a request whose
key is older than the oldest receipt, and that has none, is never carried out: its receipt may be among those
that are gone. Everything here is a function of the tables and the command, the same on every manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from raft.errors import CODES, Forgotten, InvalidArgument, RaftError, Unavailable
from raft.objects.base import Kind, Meta
from raft.objects.request import Receipt, Request
from raft.tables import Tables

RECEIPTS_MAX = 10_000


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a command carries of its request: the receipt to be, and the index before which there was none."""

    key: str
    since: int
    fingerprint: bytes
    result: bytes
    refusal: tuple[str, str] | None


def receipt_of(tables: Tables, key: str, fingerprint: bytes) -> Receipt | None:
    """The answer that the request has had. Raises InvalidArgument when it was to another call."""
    receipt = _receipts(tables).get(key)
    if receipt is not None and receipt.fingerprint != fingerprint:
        raise InvalidArgument(f"request key {key} was used for another call: take a new key for each call")
    return receipt


def is_forgotten(tables: Tables, since: int) -> bool:
    """May a request with this index in its key have had a receipt that is gone?"""
    receipts = _receipts(tables)
    if len(receipts) < RECEIPTS_MAX:
        return False
    oldest = next(iter(receipts.values()))
    return since + 1 < oldest.meta.version


def forgotten(request: Request) -> RaftError:
    """What to tell of a request that was not carried out since its receipt may be gone."""
    if not request.repeated:
        return Unavailable("this manager has not heard of the latest requests yet: try again")
    return Forgotten(
        f"request {request.key} is older than the last {RECEIPTS_MAX:,} requests: look whether it was done, "
        "and if not, send it with a new key",
        request.key,
    )


def record(tables: Tables, ticket: Ticket, index: int) -> None:
    """Keep the receipt of a request that the command at `index` answers; drop the oldest above the limit."""
    receipt = Receipt(
        id=ticket.key,
        meta=Meta(version=index),
        fingerprint=ticket.fingerprint,
        result=ticket.result,
        refusal=ticket.refusal,
    )
    tables.put(Kind.RECEIPT, receipt)
    receipts = _receipts(tables)
    if len(receipts) > RECEIPTS_MAX:
        tables.remove(Kind.RECEIPT, next(iter(receipts)))


def answer(receipt: Receipt) -> object:
    """What the first attempt's transaction returned. Raises its refusal."""
    if receipt.refusal is not None:
        code, message = receipt.refusal
        raise CODES[code](message)
    return msgspec.msgpack.decode(receipt.result)


def _receipts(tables: Tables) -> Mapping[str, Receipt]:
    return cast("Mapping[str, Receipt]", tables.rows(Kind.RECEIPT))
