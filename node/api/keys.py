"""Idempotency-Key: a client's own name for a write of the cluster's state, so that it can be sent again.

The key is INDEX-RANDOM, where INDEX is what the header Swarmctl-Index of any manager's answer to /_ping said
before the first attempt. docs/consistency.md says what a repeated call answers, and for how long.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from aiohttp import web

from engine.errors import InvalidParameter
from node.api.context import Context
from raft.objects.request import KEY_FORM, Request, is_key

KEY_HEADER = "Idempotency-Key"
INDEX_HEADER = "Swarmctl-Index"

_VERSION = re.compile(r"^/v[0-9]+\.[0-9]+(?=/)")


async def request_of(request: web.Request) -> Request | None:
    """The request that the caller names, None when it names none. InvalidParameter for a malformed key."""
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return None
    if not is_key(key):
        raise InvalidParameter(f"invalid {KEY_HEADER} {key!r}: it must be {KEY_FORM}")
    call = f"{request.method} {_VERSION.sub('', request.path)}?{request.query_string}\n"
    content = hashlib.sha256(call.encode() + await request.read())
    # This manager cannot know whether the key was sent to another one before.
    return Request(key, content.digest(), repeated=True)


async def writer(context: Context, request: web.Request) -> Any:
    """The control API for the one write that this call makes."""
    asked = await request_of(request)
    return context.swarm.control if asked is None else context.swarm.control.for_request(asked)


def refuse_key(request: web.Request) -> None:
    """A promise that cannot be kept must not be ignored."""
    if KEY_HEADER in request.headers:
        raise InvalidParameter(
            f"{KEY_HEADER} is for calls that write the cluster's state, which this one does not: leave it out"
        )
