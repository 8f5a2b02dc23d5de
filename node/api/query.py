"""Reading requests and writing answers: filters, flags, times, strict bodies, JSON."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from engine import filter_values
from engine.errors import InvalidParameter
from node.api import go_json

BODY_BYTES_MAX = 16 << 20
_T = TypeVar("_T")
_FALSE = ("", "0", "no", "false", "none")
_NUMBER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_encoder = msgspec.json.Encoder()
_FILTERS = msgspec.json.Decoder(dict[str, list[str] | dict[str, bool]])


def json_response(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_encoder.encode(body), status=status, content_type="application/json")


def encode_json(body: object) -> bytes:
    return _encoder.encode(body)


def no_content() -> web.Response:
    return web.Response(status=204)


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """As Docker reads them: whatever is not 0, no, false, none or empty is true."""
    value = request.query.get(name)
    return default if value is None else value.strip().lower() not in _FALSE


def number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name)
    if value is None or value == "":
        return default
    if not _NUMBER.fullmatch(value):
        raise InvalidParameter(f'invalid value for query parameter {name}: "{value}" is not a number')
    return int(value)


def terminal_size(request: web.Request) -> tuple[int, int]:
    """Rows and columns (h, w), which the kernel keeps in 16 bits each."""
    size = number(request, "h", 0), number(request, "w", 0)
    for word, value in zip(("height", "width"), size, strict=True):
        if not 0 <= value <= 65535:
            raise InvalidParameter(f"invalid resize {word} {value}: it must be from 0 to 65535")
    return size


def platform(request: web.Request) -> str:
    """os/arch/variant; some calls of the API write it as a JSON object."""
    values = request.query.getall("platform", [])
    if len(values) > 1:
        raise InvalidParameter("multiple platform parameters not supported: images here have one platform")
    text = values[0] if values else ""
    if not text.startswith("{"):
        return text
    given = decode(text.encode(), dict[str, str])
    return "/".join(given[key] for key in ("os", "architecture", "variant") if given.get(key))


def filters(request: web.Request) -> Mapping[str, list[str]]:
    """Both forms: {"name": ["x"]} and the older {"name": {"x": true}}."""
    text = request.query.get("filters")
    if not text:
        return {}
    try:
        decoded = _FILTERS.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidParameter(f"invalid filter: {error}") from error
    return {
        key: values if isinstance(values, list) else [value for value, wanted in values.items() if wanted]
        for key, values in decoded.items()
    }


def prune_filters(request: web.Request, known: Collection[str], now: float) -> dict[str, list[str]]:
    """What a prune may take. A filter that is not known would take too much: InvalidParameter names it.

    `until` becomes Unix seconds; a duration is that long before `now`.
    """
    wanted = dict(filters(request))
    for key in wanted:
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")
    until = wanted.pop("until", [])
    if len(until) > 1:
        raise InvalidParameter("more than one until filter specified")
    if until:
        wanted["until"] = [f"{_moment(until[0], now, 'until'):.6f}"]
    return wanted


def moment(request: web.Request, name: str) -> float:
    """Unix seconds (see filter_values.moment), or 0.0 when it is not given."""
    value = request.query.get(name, "")
    return _moment(value, time.time(), name) if value else 0.0


def _moment(value: str, now: float, name: str) -> float:
    try:
        return filter_values.moment(value, now)
    except InvalidParameter as error:
        raise InvalidParameter(f'invalid value for "{name}": {error}') from error


async def body(request: web.Request, kind: type[_T]) -> _T:
    """The JSON body, strictly typed. InvalidParameter names the field that is wrong."""
    data = await request.read()
    if not data:
        raise InvalidParameter("invalid JSON: got EOF while reading request body")
    return decode(data, kind)


async def optional_body(request: web.Request, kind: type[_T]) -> _T | None:
    data = await request.read() if request.can_read_body else b""
    return decode(data, kind) if data.strip() not in (b"", b"null") else None


def decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return go_json.decode(data, kind)
    except msgspec.ValidationError as error:
        raise InvalidParameter(f"invalid request body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidParameter(f"invalid JSON: {error}") from error


@asynccontextmanager
async def closing(stream: AsyncIterator[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """`stream`, which is closed when it is not read to its end."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def stream_lines(request: web.Request, objects: AsyncIterator[object]) -> web.StreamResponse:
    """The head at once, then one JSON object per line as they come."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    async with closing(objects):
        await response.prepare(request)
        async for item in objects:
            await response.write(_encoder.encode(item) + b"\n")
        await response.write_eof()
    return response


def is_gone(request: web.Request) -> bool:
    """Whether the client has hung up."""
    return request.transport is None or request.transport.is_closing()


async def stream_json(
    request: web.Request, messages: Any, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """A stream of JSON objects, one per line. An error after the first bytes becomes Docker's error object."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", **(headers or {})})
    started = False
    try:
        async with closing(messages):
            async for message in messages:
                if not started:
                    await response.prepare(request)
                    started = True
                await response.write(_encoder.encode(message) + b"\r\n")
    except Exception as error:
        if not started or is_gone(request):
            raise
        text = str(error)
        await response.write(_encoder.encode({"errorDetail": {"message": text}, "error": text}) + b"\r\n")
    if not started:
        await response.prepare(request)
    await response.write_eof()
    return response
