"""Wrapping a key with another key, and the unlock key as people handle it: `SWMKEY-1-<base64 of 32 bytes>`.

Pure. A wrapped key is `magic, version, nonce, AES-256-GCM ciphertext, CRC-32 of all that`. The header and
what the key is for are authenticated, so that one file cannot stand in for another; the CRC tells damage
from a wrong key. No error and no log ever contains a key.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
import zlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_PREFIX = "SWMKEY-1-"
_MAGIC = b"swarmctl wrapped key\n"
_VERSION = 1
_NONCE_BYTES = 12
_CRC = struct.Struct(">I")
_HEADER_BYTES = len(_MAGIC) + 1 + _NONCE_BYTES


class InvalidUnlockKey(ValueError):
    """The text is not an unlock key (in Docker's words)."""

    def __init__(self) -> None:
        super().__init__("invalid key string")


class WrongKey(ValueError):
    """What was wrapped is whole, but this key does not open it."""


class Damaged(ValueError):
    """The bytes are not what was written."""


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def new_unlock_key() -> str:
    return _PREFIX + base64.b64encode(new_key()).decode().rstrip("=")


def parse_unlock_key(text: str) -> bytes:
    """The 32 bytes. Raises InvalidUnlockKey."""
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise InvalidUnlockKey
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX) + "=", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidUnlockKey from error
    if len(key) != KEY_BYTES:
        raise InvalidUnlockKey
    return key


def is_wrapped(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def wrap(content: bytes, key: bytes, purpose: str) -> bytes:
    """`purpose`: what the content is for; `unwrap` must be told the same."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    header = _MAGIC + bytes([_VERSION]) + nonce
    body = header + AESGCM(key).encrypt(nonce, content, _authenticated(header, purpose))
    return body + _CRC.pack(zlib.crc32(body))


def unwrap(data: bytes, key: bytes, purpose: str) -> bytes:
    """Raises Damaged, WrongKey."""
    body, checksum = data[: -_CRC.size], data[-_CRC.size :]
    if not is_wrapped(data) or len(body) <= _HEADER_BYTES or _CRC.pack(zlib.crc32(body)) != checksum:
        raise Damaged("it is not what was written")
    version = data[len(_MAGIC)]
    if version != _VERSION:
        raise Damaged(f"it has format version {version}, this program reads {_VERSION}")
    header, sealed = body[:_HEADER_BYTES], body[_HEADER_BYTES:]
    try:
        return AESGCM(key).decrypt(header[-_NONCE_BYTES:], sealed, _authenticated(header, purpose))
    except InvalidTag as error:
        raise WrongKey("the key does not open it") from error


def _authenticated(header: bytes, purpose: str) -> bytes:
    return header + purpose.encode()
