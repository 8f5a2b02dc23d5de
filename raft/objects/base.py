"""What every replicated object shares: identity, version, annotations, and small value types.

Objects are frozen; a change is a new object (`msgspec.structs.replace`). Times are Unix seconds as floats,
made by the proposer (apply never reads a clock). Durations inside specs are integer nanoseconds, as in the
Docker Engine API. `Meta.version` is set by the store when the object is applied and is what clients send
back as `?version=`.
"""

from __future__ import annotations

import enum
import secrets
from typing import TypeVar

import msgspec

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


def new_id() -> str:
    """A 25-character base-36 identifier with 128 random bits, the form Swarm gives its objects."""
    number = secrets.randbits(128)
    digits = []
    for _ in range(25):
        number, remainder = divmod(number, 36)
        digits.append(_BASE36[remainder])
    return "".join(reversed(digits))


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=False, gc=False
):
    """Base of every value that is replicated or sent between nodes.

    They never refer to one another in a circle, so the garbage collector need not look at them: with 150,000
    objects a full collection would hold the event loop for half a second.
    """


class Meta(Record, frozen=True):
    """Written by the store (version) and the proposer (times)."""

    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


class Annotations(Record, frozen=True):
    """Name and labels of an object as the user gave them."""

    name: str = ""
    labels: dict[str, str] = {}


class Driver(Record, frozen=True):
    name: str = ""
    options: dict[str, str] = {}


class Platform(Record, frozen=True):
    os: str = ""
    architecture: str = ""


class ObjectRecord(Record, frozen=True):
    """Base of the objects that have a table of their own in the store."""

    id: str
    meta: Meta = Meta()


class Kind(enum.StrEnum):
    """The tables of the store, and the word for each in error messages."""

    NODE = "node"
    SERVICE = "service"
    TASK = "task"
    NETWORK = "network"
    SECRET = "secret"
    CONFIG = "config"
    CLUSTER = "cluster"
    RECEIPT = "receipt"  # of requests that were answered: raft.requests


AnyRecord = TypeVar("AnyRecord", bound=Record)
