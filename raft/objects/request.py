"""Requests that take effect once, however often they are sent, and what is kept of them.

A request's key is INDEX-RANDOM. INDEX is a log index that had been applied when the key was made, so only a
later command can have answered the request.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from raft.objects.base import ObjectRecord

KEY_FORM = "INDEX-RANDOM: an index as the header Swarmctl-Index gives it, and 16 to 64 letters or digits"

_KEY = re.compile(r"(0|[1-9][0-9]{0,17})-[0-9A-Za-z]{16,64}", re.ASCII)


class Request(msgspec.Struct, frozen=True):
    """One call of a client.

    fingerprint: of the call's content, so that a key cannot stand for two calls. repeated: the call may have
    been sent before, so that one attempt may still be under way: even a refusal has to be agreed upon.
    """

    key: str
    fingerprint: bytes = b""
    repeated: bool = False

    @property
    def since(self) -> int:
        """The log index of the key."""
        return int(self.key.partition("-")[0])


class Receipt(ObjectRecord, frozen=True):
    """`id` is the request's key; `meta.version` the log index of the command that answered it for good.

    result: what the transaction returned, as msgpack (the id of the object that it wrote, as a rule). refusal:
    code and message of the error (raft.errors.CODES) when it was refused instead; nothing was written then.
    """

    fingerprint: bytes = b""
    result: bytes = b"\xc0"
    refusal: tuple[str, str] | None = None


def new_key(index: int) -> str:
    """`index`: any log index that is applied by now, on this manager or another."""
    return f"{index}-{secrets.token_hex(16)}"


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None
