"""What every handler gets, and the shape of one row of the route table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import web

from node.api.backend import EngineBackend, SwarmBackend

SERVER_VERSION = "0.1.0"


class Context(msgspec.Struct, frozen=True):
    engine: EngineBackend
    swarm: SwarmBackend


Handler = Callable[[Context, web.Request], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """`path` in aiohttp's form, without the version prefix.

    `streams`: the call is cancelled when its client goes; any other is carried to its end. `keyed`: it takes
    an Idempotency-Key (node.api.keys).
    """

    method: str
    path: str
    handler: Handler
    streams: bool = False
    keyed: bool = False
