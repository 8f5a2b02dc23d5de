"""Frames on disk: encrypted, checksummed, and numbered by their place in the file.

A file is a preamble (magic, version, a random salt) and then frames. Each frame is `magic, length, CRC-32,
ciphertext`. The file's key is derived from the data key and the salt, the nonce is the frame's number, so
that no key and nonce pair is ever used twice and a frame cannot be moved, repeated or left out. The CRC
tells damage from a wrong key. Invariant: a file that was closed or torn is never appended to again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
FRAME_BYTES_MAX = 80 * 1024 * 1024

_FILE_MAGIC = b"swarmctl"
_VERSION = 1
_SALT_BYTES = 32
_FRAME_MAGIC = b"\xf5swF"
_HEADER = struct.Struct(">4sII")
PREAMBLE_BYTES = len(_FILE_MAGIC) + 1 + _SALT_BYTES


class Damaged(Exception):
    """A file or frame is not what was written; `offset` is where good data ends, in bytes."""

    def __init__(self, message: str, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class WrongKey(Exception):
    """The frame is whole, but this data key does not open it."""


class FrameWriter:
    """Makes the bytes of one new file: `preamble` first, then `frame(payload)` in order."""

    def __init__(self, key: bytes, purpose: bytes) -> None:
        salt = os.urandom(_SALT_BYTES)
        self.preamble = _FILE_MAGIC + bytes([_VERSION]) + salt
        self._cipher = _file_cipher(key, salt, purpose)
        self._count = 0

    def frame(self, payload: bytes) -> bytes:
        assert len(payload) <= FRAME_BYTES_MAX
        sealed = self._cipher.encrypt(_nonce(self._count), payload, None)
        self._count += 1
        return _HEADER.pack(_FRAME_MAGIC, len(sealed), _checksum(sealed)) + sealed


def read_frames(data: bytes, key: bytes, purpose: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset after the frame, payload) for each good frame.

    Raises Damaged at the first bad one, WrongKey when the data key does not open a whole frame.
    """
    if len(data) < PREAMBLE_BYTES or not data.startswith(_FILE_MAGIC):
        raise Damaged("file has no valid beginning")
    version = data[len(_FILE_MAGIC)]
    if version != _VERSION:
        raise Damaged(f"file has format version {version}, this program reads {_VERSION}")
    cipher = _file_cipher(key, data[len(_FILE_MAGIC) + 1 : PREAMBLE_BYTES], purpose)
    offset, count = PREAMBLE_BYTES, 0
    while offset < len(data):
        sealed = _sealed_at(data, offset)
        if sealed is None:
            raise Damaged(f"damaged frame at byte {offset}", offset)
        try:
            payload = cipher.decrypt(_nonce(count), sealed, None)
        except InvalidTag as err:
            raise WrongKey(f"frame at byte {offset} cannot be decrypted: wrong data key") from err
        offset += _HEADER.size + len(sealed)
        count += 1
        yield offset, payload


def has_frame_after(data: bytes, offset: int) -> bool:
    """Is there any whole frame behind this place? Then what is damaged here was not the end of the file."""
    position = data.find(_FRAME_MAGIC, offset)
    while position >= 0:
        if _sealed_at(data, position) is not None:
            return True
        position = data.find(_FRAME_MAGIC, position + 1)
    return False


def _sealed_at(data: bytes, offset: int) -> bytes | None:
    if offset + _HEADER.size > len(data):
        return None
    magic, length, checksum = _HEADER.unpack_from(data, offset)
    start = offset + _HEADER.size
    if magic != _FRAME_MAGIC or start + length > len(data):
        return None
    sealed = data[start : start + length]
    return sealed if _checksum(sealed) == checksum else None


def _checksum(sealed: bytes) -> int:
    # The length is part of it: a flipped bit there must not pass for a shorter frame.
    return zlib.crc32(sealed, zlib.crc32(len(sealed).to_bytes(4, "big")))


def _file_cipher(key: bytes, salt: bytes, purpose: bytes) -> AESGCM:
    assert len(key) == KEY_BYTES, "the data key has 32 bytes"
    derived = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"swarmctl " + purpose).derive(key)
    return AESGCM(derived)


def _nonce(count: int) -> bytes:
    return count.to_bytes(12, "big")
