"""Ways to registries: from a name and a caller's credentials to a repository that answers.

Owns this host's trust; settings are read anew each time. Endpoints are tried in order; the first that answers is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import aiohttp

from engine.errors import EngineError
from engine.images.reference import Reference
from engine.registry.answers import Refusal, Unreachable
from engine.registry.credentials import ANONYMOUS, Credentials
from engine.registry.endpoints import Endpoint, endpoints
from engine.registry.repository import Repository
from engine.registry.settings import RegistrySettings
from engine.registry.transport import Connection, Sleep, client_session
from engine.registry.trust import Trust

logger = logging.getLogger(__name__)


class RegistryAccess:
    def __init__(self, settings: Callable[[], RegistrySettings], sleep: Sleep = asyncio.sleep) -> None:
        self._settings = settings
        self._trust = Trust(settings().certs_dir)
        self._sleep = sleep

    @contextlib.asynccontextmanager
    async def repository(
        self,
        name: Reference,
        credentials: Credentials,
        *,
        push: bool = False,
        sources: Sequence[str] = (),
        skip_mirrors: bool = False,
    ) -> AsyncIterator[Repository]:
        """`sources`: further repositories of the registry that blobs may be taken from."""
        domain, _, path = name.name.partition("/")
        scopes = [f"repository:{path}:{'pull,push' if push else 'pull'}"]
        scopes += [f"repository:{source}:pull" for source in sources]
        ways = endpoints(domain, self._settings(), push=push or skip_mirrors)
        async with client_session() as session:
            yield Repository(await self._first(session, ways, credentials, scopes), path)

    async def log_in(self, domain: str, credentials: Credentials) -> None:
        """Refusal or Unreachable when the registry does not take the credentials."""
        async with client_session() as session:
            ways = endpoints(domain, self._settings(), push=True)
            connection = await self._first(session, ways, credentials, [])
            await connection.check_login()

    async def connect(
        self, session: aiohttp.ClientSession, way: Endpoint, credentials: Credentials, scopes: Sequence[str]
    ) -> Connection:
        tls = await asyncio.to_thread(self._trust.context, way)
        who = ANONYMOUS if way.is_mirror else credentials  # a mirror is not who the credentials are for
        return Connection(session, way, tls, who, scopes, self._settings(), self._sleep)

    async def _first(
        self,
        session: aiohttp.ClientSession,
        ways: Sequence[Endpoint],
        credentials: Credentials,
        scopes: Sequence[str],
    ) -> Connection:
        """The error of the one that says most, when none answers."""
        errors: list[EngineError] = []
        for way in ways:
            connection = await self.connect(session, way, credentials, scopes)
            try:
                await connection.ping()
            except (Refusal, Unreachable) as error:
                if isinstance(error, Refusal) and not way.is_mirror and error.status in (401, 403):
                    raise
                logger.debug("registry %s: %s", way.url, error)
                errors.append(error)
            else:
                return connection
        raise errors[-1]
