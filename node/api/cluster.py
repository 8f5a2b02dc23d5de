"""/swarmctl/cluster: backup, restore and check of the whole cluster. swarmctl's own: Docker has none of these.

A backup file comes as a body of one line of JSON (passphrase and options) and then the file itself, so that no
passphrase stands in a URL or header.
"""

from __future__ import annotations

from aiohttp import web

from engine.config import ApiStruct
from engine.errors import InvalidParameter
from node.api.context import Context, Route
from node.api.convert import availability_from_api
from node.api.query import body, decode, json_response

FILE_BYTES_MAX = 4 << 30
_LINE_BYTES_MAX = 64 * 1024


class BackupBody(ApiStruct):
    passphrase: str = ""


class RestoreBody(ApiStruct):
    passphrase: str = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    availability: str = ""
    dry_run: bool = False


async def backup(context: Context, request: web.Request) -> web.StreamResponse:
    asked = await body(request, BackupBody)
    pieces = await context.swarm.cluster.backup(asked.passphrase)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = sum(map(len, pieces))
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


async def inspect_backup(context: Context, request: web.Request) -> web.StreamResponse:
    line, data = await _line_and_file(request)
    asked = decode(line, BackupBody)
    return json_response(await context.swarm.cluster.inspect_backup(data, asked.passphrase))


async def restore(context: Context, request: web.Request) -> web.StreamResponse:
    line, data = await _line_and_file(request)
    asked = decode(line, RestoreBody)
    founded = await context.swarm.cluster.restore(
        data,
        asked.passphrase,
        advertise=asked.advertise_addr,
        listen=asked.listen_addr,
        availability=availability_from_api(asked.availability) if asked.availability else None,
        dry_run=asked.dry_run,
    )
    return json_response(founded)


async def check(context: Context, _request: web.Request) -> web.StreamResponse:
    return json_response(await context.swarm.cluster.check())


async def _line_and_file(request: web.Request) -> tuple[bytes, bytes]:
    received = bytearray()
    async for part in request.content.iter_any():
        received += part
        if len(received) > FILE_BYTES_MAX:
            raise InvalidParameter(f"the backup is larger than {FILE_BYTES_MAX} bytes")
    end = received.find(b"\n", 0, _LINE_BYTES_MAX)
    if end < 0:
        raise InvalidParameter("the body must begin with one line of JSON; the backup file follows it")
    return bytes(received[:end]), bytes(memoryview(received)[end + 1 :])


ROUTES = [
    Route("POST", "/swarmctl/cluster/backup", backup),
    Route("POST", "/swarmctl/cluster/inspect-backup", inspect_backup),
    Route("POST", "/swarmctl/cluster/restore", restore),
    Route("POST", "/swarmctl/cluster/check", check),
]
