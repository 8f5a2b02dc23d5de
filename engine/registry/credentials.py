"""Who asks a registry: one caller's credentials as the API carries them. Pure; never logged, never kept.

Source: Docker Engine API, section Authentication and schema AuthConfig.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from engine.errors import InvalidParameter

HEADER_BYTES_MAX = 64 << 10


class Credentials(msgspec.Struct, frozen=True, rename="lower"):
    """`identitytoken` stands for a password, `registrytoken` is sent to the registry as it is."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r} for {self.serveraddress!r})"

    @property
    def is_anonymous(self) -> bool:
        return not (self.username or self.identitytoken or self.registrytoken)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


def from_header(text: str) -> Credentials:
    """X-Registry-Auth: base64 (either alphabet, padded or not) of an AuthConfig; empty is anonymous."""
    if not text:
        return ANONYMOUS
    if len(text) > HEADER_BYTES_MAX:
        raise InvalidParameter(f"invalid X-Registry-Auth header: longer than {HEADER_BYTES_MAX} bytes")
    plain = text.strip().rstrip("=").translate(str.maketrans("+/", "-_"))
    try:
        decoded = base64.b64decode(plain + "=" * (-len(plain) % 4), altchars=b"-_", validate=True)
        given = msgspec.json.decode(decoded, type=dict[str, Any] | None) if decoded.strip() else None
        # As Go reads it: a null is a field that was not sent (docker-py sends them), capitals do not matter.
        fields = {name.lower(): value for name, value in (given or {}).items() if value is not None}
        return _complete(msgspec.convert(fields, Credentials))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(
            "invalid X-Registry-Auth header: must be a base64url-encoded AuthConfig"
        ) from error


def _complete(given: Credentials) -> Credentials:
    """Old clients send user and password as one field."""
    if given.username or not given.auth:
        return given
    user, _, password = base64.b64decode(given.auth).decode().partition(":")
    return msgspec.structs.replace(given, username=user, password=password.rstrip("\0"), auth="")
