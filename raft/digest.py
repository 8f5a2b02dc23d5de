"""Digests of the state, for comparing managers: equal exactly when the objects are.

An object's digest covers its kind, id and canonical bytes; a kind's is the sum of its objects' digests
modulo 2^256, so that neither the order of insertion nor sorting matters. Where two kinds differ, the objects
are told apart by buckets (of their ids), so that only a few have to be sent. Everything runs in a thread: a
dump is made of frozen objects, and the interpreter serves the event loop between two of them.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping

import msgspec

from raft.dump import Dump
from raft.objects.base import Kind, ObjectRecord

BUCKETS = 256
_BYTES = 32
_MODULUS = 1 << (8 * _BYTES)
# Maps inside objects may have been filled in another order; everything else has one form only.
_encoder = msgspec.msgpack.Encoder(order="deterministic")


class KindDigest(msgspec.Struct, frozen=True):
    """All objects of one kind."""

    count: int
    digest: bytes


class ObjectDigest(msgspec.Struct, frozen=True, array_like=True):
    version: int
    digest: bytes


class Difference(msgspec.Struct, frozen=True):
    """One object that two managers hold differently; a version is None where the object is missing."""

    kind: str
    id: str
    version: int | None
    expected: int | None


Digests = dict[str, KindDigest]


def of_kinds(dump: Dump) -> Digests:
    """By kind. Blocks."""
    digests = {}
    for kind in Kind:
        records = dump.rows.get(kind, [])
        total = 0
        for record in records:
            total = _added(total, _of_record(kind, record))
        digests[kind.value] = KindDigest(len(records), total.to_bytes(_BYTES, "big"))
    return digests


def of_buckets(dump: Dump, kind: Kind) -> list[bytes]:
    """The objects of one kind in BUCKETS parts. Blocks."""
    totals = [0] * BUCKETS
    for record in dump.rows.get(kind, []):
        bucket = _bucket(record.id)
        totals[bucket] = _added(totals[bucket], _of_record(kind, record))
    return [total.to_bytes(_BYTES, "big") for total in totals]


def of_objects(dump: Dump, kind: Kind, bucket: int) -> dict[str, ObjectDigest]:
    """The objects of one bucket, by id. Blocks."""
    return {
        record.id: ObjectDigest(record.meta.version, _of_record(kind, record))
        for record in dump.rows.get(kind, [])
        if _bucket(record.id) == bucket
    }


def _bucket(object_id: str) -> int:
    return zlib.crc32(object_id.encode()) % BUCKETS


def _added(total: int, digest: bytes) -> int:
    return (total + int.from_bytes(digest, "big")) % _MODULUS


def summary(digests: Digests) -> str:
    """One short name of the whole state: 12 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=_BYTES)
    for kind in Kind:
        whole.update(digests[kind.value].digest)
    return whole.hexdigest()[:12]


def differing_kinds(found: Digests, expected: Digests) -> list[Kind]:
    return [kind for kind in Kind if found.get(kind.value) != expected.get(kind.value)]


def first_difference(
    kind: Kind, found: Mapping[str, ObjectDigest], expected: Mapping[str, ObjectDigest]
) -> Difference | None:
    """The lowest id that is not the same in both."""
    for object_id in sorted(found.keys() | expected.keys()):
        mine, theirs = found.get(object_id), expected.get(object_id)
        if mine != theirs:
            return Difference(kind.value, object_id, _version(mine), _version(theirs))
    return None


def _version(digest: ObjectDigest | None) -> int | None:
    return None if digest is None else digest.version


def _of_record(kind: Kind, record: ObjectRecord) -> bytes:
    hashed = hashlib.blake2b(kind.value.encode() + b"\0", digest_size=_BYTES)
    hashed.update(_encoder.encode(record))
    return hashed.digest()
