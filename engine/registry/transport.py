"""HTTP with one endpoint of a registry, as one caller: challenges are answered, what may pass is tried again.

Invariant: credentials go to the registry they are for and to the token server that it names, nowhere else
(the HTTP client drops them when an answer redirects to another host).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from engine.errors import EngineFailure
from engine.registry.answers import (
    FAILURES,
    Challenge,
    Refusal,
    Unreachable,
    challenges,
    refusal,
    unreachable,
)
from engine.registry.credentials import Credentials
from engine.registry.endpoints import Endpoint
from engine.registry.settings import RegistrySettings

CONNECT_S = 30.0
SILENCE_S = (
    120.0  # a slow registry is waited for as long as something comes, and while it stores a large layer
)
WAIT_S_MAX = 60.0
ERROR_BODY_BYTES_MAX = 64 << 10
TOKEN_BYTES_MAX = 1 << 20
AGAIN = (408, 429, 500, 502, 503, 504)
USER_AGENT = "swarmctl/0.1.0"

Sleep = Callable[[float], Awaitable[None]]
Body = Callable[[], AsyncIterator[bytes]] | bytes | None


class Connection:
    """`scopes` as token servers take them: repository:library/hello:pull."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        tls: ssl.SSLContext,
        credentials: Credentials,
        scopes: Sequence[str],
        settings: RegistrySettings,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.endpoint = endpoint
        self._session = session
        self._tls = tls
        self._credentials = credentials
        self._scopes = list(scopes)
        self._settings = settings
        self._sleep = sleep
        self._authorization = ""
        self._authorizing = asyncio.Lock()

    async def ping(self) -> None:
        """Is it a registry, and what does it want to know of us? Unreachable, Refusal."""
        url = f"{self.endpoint.url}/v2/"
        async with self._answer("GET", url, {}, None) as response:
            if response.status == 401:
                await self._authorize(_challenges(response), "", url)
            elif response.status >= 400:
                raise await _refusal(response)

    async def check_login(self) -> None:
        """Refusal or EngineFailure when the credentials are not good."""
        async with self.exchange("GET", "/v2/"):
            pass

    def delay_s(self, attempt: int, error: EngineFailure) -> float:
        """Before attempt number `attempt` + 1: what the registry asked for, else doubling."""
        asked = error.retry_after_s if isinstance(error, Refusal) else None
        delay = self._settings.first_retry_delay_s * 2 ** (attempt - 1) if asked is None else asked
        return min(delay, WAIT_S_MAX)

    @property
    def attempts_max(self) -> int:
        return self._settings.max_download_attempts

    async def pause(self, seconds: float) -> None:
        await self._sleep(seconds)

    @contextlib.asynccontextmanager
    async def exchange(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        allowed: Sequence[int] = (),
        attempts: int | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer (below 400, or `allowed`), its body unread. `target`: a path, or a URL of the registry.

        Refusal when it says no for good, Unreachable when it does not answer.
        """
        url = target if "://" in target else f"{self.endpoint.url}{target}"
        limit = attempts or self.attempts_max
        attempt = 1
        challenged = False
        async with contextlib.AsyncExitStack() as stack:
            while True:
                error: EngineFailure
                used = self._authorization
                try:
                    response = await stack.enter_async_context(self._answer(method, url, headers or {}, body))
                    if response.status < 400 or response.status in allowed:
                        break
                    if response.status == 401 and not challenged:
                        challenged = True
                        await self._authorize(_challenges(response), used, url)
                        await stack.aclose()
                        continue
                    error = await _refusal(response)
                    again = response.status in AGAIN
                except Unreachable as failure:
                    error, again = failure, failure.again
                await stack.aclose()
                if not again or attempt >= limit:
                    raise error
                await self._sleep(self.delay_s(attempt, error))
                attempt += 1
            yield response

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        sent = dict(headers)
        if self._authorization and urlsplit(url).netloc == self.endpoint.host:
            sent["Authorization"] = self._authorization
        try:
            response = await self._session.request(
                method,
                url,
                headers=sent,
                data=body() if callable(body) else body,
                ssl=self._tls,
                proxy=proxy_for(url),
            )
        except FAILURES as error:
            raise unreachable(method, url, error) from error
        try:
            yield response
        finally:
            response.release()

    async def _authorize(self, asked: Sequence[Challenge], used: str, url: str) -> None:
        """Answer one of the challenges, unless another call has done it since `used` was sent."""
        async with self._authorizing:
            if self._authorization != used:
                return
            for challenge in asked:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    self._authorization = f"Bearer {await self._token(challenge.parameters)}"
                    return
                if challenge.scheme == "basic":
                    if not self._credentials.username:
                        raise Refusal("", f'Get "{url}": no basic auth credentials', 401)
                    if self._authorization == self._credentials.basic:
                        raise Refusal("UNAUTHORIZED", "authentication required", 401)
                    self._authorization = self._credentials.basic
                    return
            raise Refusal("UNAUTHORIZED", "authentication required", 401)

    async def _token(self, asked: Mapping[str, str]) -> str:
        """Source: distribution's token authentication specification; OAuth2 when there is an identity token."""
        who = self._credentials
        if who.registrytoken:
            return who.registrytoken
        realm, service = asked["realm"], asked.get("service", "")
        scopes = list(dict.fromkeys([*self._scopes, *asked.get("scope", "").split()]))
        if who.identitytoken:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": who.identitytoken,
                "service": service,
                "scope": " ".join(scopes),
                "client_id": "swarmctl",
            }
            return await self._fetch_token("POST", realm, {}, urlencode(form).encode())
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        query += [("account", who.username)] if who.username else []
        separator = "&" if "?" in realm else "?"
        headers = {"Authorization": who.basic} if who.username else {}
        return await self._fetch_token("GET", f"{realm}{separator}{urlencode(query)}", headers, None)

    async def _fetch_token(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> str:
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        attempt = 1
        while True:
            try:
                async with self._session.request(
                    method, url, headers=headers, data=body, ssl=self._tls, proxy=proxy_for(url)
                ) as response:
                    if response.status < 400:
                        return _decoded_token(await response.content.read(TOKEN_BYTES_MAX), url)
                    error = await _refusal(response)
                    if response.status not in AGAIN or attempt >= self.attempts_max:
                        raise error
            except FAILURES as failure:
                raise unreachable(method, url, failure) from failure
            await self._sleep(self.delay_s(attempt, error))
            attempt += 1


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def _decoded_token(data: bytes, url: str) -> str:
    try:
        answer = msgspec.json.decode(data, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineFailure(f"the token server at {url} gave no token: {error}") from error
    if not (answer.token or answer.access_token):
        raise EngineFailure(f"authorization server did not include a token in the response: {url}")
    return answer.token or answer.access_token


@contextlib.asynccontextmanager
async def client_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Bytes come as the registry sent them: digests are of those."""
    timeout = aiohttp.ClientTimeout(
        total=None, connect=CONNECT_S, sock_connect=CONNECT_S, sock_read=SILENCE_S
    )
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(
        timeout=timeout,
        headers=headers,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=1 << 20,
    ) as session:
        yield session


def proxy_for(url: str) -> str | None:
    """From HTTPS_PROXY, HTTP_PROXY and NO_PROXY (or in small letters)."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    found = proxies.get(parts.scheme)
    return found if found is None or "://" in found else f"http://{found}"


def _challenges(response: aiohttp.ClientResponse) -> list[Challenge]:
    return challenges(response.headers.getall("WWW-Authenticate", []))


async def _refusal(response: aiohttp.ClientResponse) -> Refusal:
    body = b""
    with contextlib.suppress(*FAILURES):
        body = await response.content.read(ERROR_BODY_BYTES_MAX)
    return refusal(response.status, body, _challenges(response), response.headers.get("Retry-After", ""))
