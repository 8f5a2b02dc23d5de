"""A file from the web, as `import URL` wants it. Redirects are followed; a certificate must be good."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from engine.errors import EngineFailure, InvalidParameter
from engine.registry.answers import FAILURES, unreachable
from engine.registry.transport import client_session, proxy_for


async def remote_file(address: str) -> AsyncIterator[bytes]:
    """`address`: a URL, or HOST/PATH for http. EngineFailure when it cannot be had as a whole."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidParameter(f"invalid URL {address!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidParameter(
            f"unsupported URL {address!r}: use http:// or https://, or send the archive (fromSrc=-)"
        )
    tls = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with client_session() as session:
            async with session.get(url, ssl=tls, proxy=proxy_for(url)) as response:
                if response.status >= 400:
                    raise EngineFailure(f"cannot import {url}: the server answers {response.status}")
                async for chunk in response.content.iter_any():
                    yield chunk
    except FAILURES as error:
        raise EngineFailure(f"cannot import {url}: {unreachable('GET', url, error)}") from error
