"""Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`, one per role.

The digest lets a joiner know the right cluster before it says anything secret; the secret lets the manager
know the joiner. Format as in Docker Swarm: base 36, 50 and 25 characters. Secrets are compared in constant
time and never logged.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

import msgspec

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGEST_CHARS = 50
_SECRET_CHARS = 25
_TOKEN = re.compile(rf"SWMTKN-1-([0-9a-z]{{{_DIGEST_CHARS}}})-([0-9a-z]{{{_SECRET_CHARS}}})")


class InvalidToken(ValueError):
    """The text is not a join token."""


class JoinToken(msgspec.Struct, frozen=True):
    """`digest`: base 36, of the root certificate that the cluster must show."""

    digest: str
    secret: str

    def __str__(self) -> str:
        return f"SWMTKN-1-{self.digest}-{self.secret}"


def base36(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, remainder = divmod(number, 36)
        digits.append(_DIGITS[remainder])
    assert number == 0, "number does not fit the width"
    return "".join(reversed(digits))


def certificate_digest(certificate_der: bytes) -> str:
    """SHA-256 of a certificate in DER form, as 50 base-36 characters."""
    return base36(int.from_bytes(hashlib.sha256(certificate_der).digest(), "big"), _DIGEST_CHARS)


def new_token(digest: str) -> str:
    """A token with a fresh 128-bit secret."""
    return str(JoinToken(digest, base36(secrets.randbits(128), _SECRET_CHARS)))


def parse_token(text: str) -> JoinToken:
    """Raises InvalidToken in Docker's words."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise InvalidToken("invalid join token")
    return JoinToken(match[1], match[2])


def same_token(given: str, expected: str) -> bool:
    """Constant-time comparison; an empty expectation matches nothing."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())
