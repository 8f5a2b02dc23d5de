"""What registries answer when they refuse, and why one could not be reached: in Docker's words. Pure.

Sources: OCI distribution specification (error codes), RFC 6750 and RFC 7235 (challenges).
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from engine.errors import EngineFailure

_CHALLENGE = re.compile(
    r"([A-Za-z][\w-]*)\s+(?=[A-Za-z][\w-]*\s*=)|([\w-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))"
)
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # X509_V_ERR_*: self-signed, or an issuer that we do not know
_EXPIRED = (9, 10)
DETAIL_CHARS_MAX = 300


class Refusal(EngineFailure):
    """A registry said no. `code` is one of the specification's (DENIED, MANIFEST_UNKNOWN...), or UNKNOWN."""

    def __init__(self, code: str, message: str, status: int, retry_after_s: float | None = None) -> None:
        words = code.replace("_", " ").lower()
        super().__init__(": ".join(part for part in (words, message) if part))
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(EngineFailure):
    """No answer, or none that is HTTP. `again`: it is worth another try."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


class Challenge(msgspec.Struct, frozen=True):
    """One of WWW-Authenticate: `scheme` in lower case."""

    scheme: str
    parameters: dict[str, str] = {}


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Of all WWW-Authenticate headers of an answer, in order."""
    found: list[Challenge] = []
    for header in headers:
        for match in _CHALLENGE.finditer(header):
            if match[1]:
                found.append(Challenge(match[1].lower(), {}))
            elif found:
                value = match[3] if match[3] is not None else match[4]
                found[-1].parameters[match[2].lower()] = re.sub(r"\\(.)", r"\1", value)
        if header.strip().lower() in ("basic", "bearer"):
            found.append(Challenge(header.strip().lower(), {}))
    return found


class _Error(msgspec.Struct):
    code: str = "UNKNOWN"
    message: str = ""
    detail: Any = None


class _Errors(msgspec.Struct):
    errors: list[_Error] = []
    details: str = ""  # of token servers
    message: str = ""


def refusal(
    status: int, body: bytes, authenticate: Sequence[Challenge] = (), retry_after: str = ""
) -> Refusal:
    """From an answer of 400 and more."""
    wait_s = float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else None
    try:
        said = msgspec.json.decode(body, type=_Errors)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = _Errors()
    if status == 401 and any(c.parameters.get("error") == "insufficient_scope" for c in authenticate):
        return Refusal("DENIED", "requested access to the resource is denied", status)
    if said.errors:
        first = said.errors[0]
        detail = first.detail if isinstance(first.detail, str) else ""
        message = first.message or detail
        return Refusal(first.code, message[:DETAIL_CHARS_MAX], status, wait_s)
    text = said.details or said.message
    if status == 401:
        return Refusal("UNAUTHORIZED", text or "authentication required", status)
    if status == 403:
        return Refusal("DENIED", text or "requested access to the resource is denied", status)
    if status == 429:
        return Refusal("TOOMANYREQUESTS", text or "too many requests", status, wait_s)
    plain = text or body[:DETAIL_CHARS_MAX].decode(errors="replace").strip()
    return Refusal(
        "UNKNOWN",
        f"received unexpected HTTP status {status}" + (f": {plain}" if plain else ""),
        status,
        wait_s,
    )


# What the HTTP client raises when there is no answer; UnicodeError: the host's name can be no name.
FAILURES = (aiohttp.ClientError, OSError, UnicodeError)


def unreachable(method: str, url: str, error: BaseException) -> Unreachable:
    """From what the HTTP client raised."""
    reason, again = _reason(error)
    return Unreachable(f'{method.capitalize()} "{url}": {reason}', again=again)


def _reason(error: BaseException) -> tuple[str, bool]:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _distrust(error.certificate_error), False
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        text = str(error.os_error)
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
            return "http: server gave HTTP response to HTTPS client", False
        return f"tls: {text}", False
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host", False
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        text = os.strerror(number).lower() if number else str(error.os_error)
        return f"dial tcp {error.host}:{error.port}: connect: {text}", False
    if isinstance(error, UnicodeError):
        return "the host's name is invalid", False
    if isinstance(error, asyncio.TimeoutError):
        return "request timed out while awaiting an answer", True
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "unexpected EOF", True
    return str(error) or type(error).__name__, isinstance(error, OSError)


def _distrust(error: BaseException) -> str:
    words = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_AUTHORITY:
            words = "certificate signed by unknown authority"
        elif error.verify_code in _EXPIRED:
            words = "certificate has expired or is not yet valid"
        else:
            words = error.verify_message
    return f"tls: failed to verify certificate: x509: {words}"
