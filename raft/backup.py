"""The backup file of a cluster: a header that says how the key is made, then encrypted frames.

Layout: magic, format version, scrypt's parameters and salt, CRC-32 of all these and of the frames' preamble;
then frames (raft.framing): `About` first, the state machine's bytes after it. The key comes from a passphrase
alone, so that a backup can be opened when every node is gone. Invariant: `open_backup` gives what was put in,
whole, or an error; no byte of the file can differ or lack without one.

scrypt costs 128 MiB and about half a second for each guess (N=2^17, r=8, p=1: what OWASP recommends); it is
paid once per backup, so the price is for the attacker.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Mapping, Sequence

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from raft.dump import count_dump
from raft.errors import InvalidArgument, RaftError
from raft.framing import KEY_BYTES, PREAMBLE_BYTES, Damaged, FrameWriter, WrongKey, read_frames
from raft.objects.base import Kind

FORMAT_VERSION = 1
CHUNK_BYTES = 1024 * 1024

_PURPOSE = b"cluster backup"
_MAGIC = b"swarmctl cluster backup\n"
_SALT_BYTES = 32
_LOG2_N, _R, _P = 17, 8, 1
# What a file may ask for: enough for stronger parameters later, too little to fill this machine's memory.
_LOG2_N_MAX, _R_MAX, _P_MAX = 20, 8, 4
_PARAMETERS = struct.Struct(f">BBBB{_SALT_BYTES}s")
_CRC = struct.Struct(">I")
_PARAMETERS_END = len(_MAGIC) + _PARAMETERS.size
_FRAMES_START = _PARAMETERS_END + _CRC.size
_HEADER_BYTES = _FRAMES_START + PREAMBLE_BYTES

_OTHER_COPY = "use another copy of the file"


class BackupRefused(InvalidArgument):
    """The file cannot be used; the message says why and what to do."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backup comes from. `index` and `term`: of the last log entry in the state; `members`: the
    managers, id -> host:port; `removed`: former ones; `made_at`: Unix seconds; `counts`: objects by kind."""

    swarmctl_version: str
    cluster_id: str
    node_id: str
    address: str
    index: int
    term: int
    members: dict[str, str]
    removed: tuple[str, ...]
    made_at: float
    counts: dict[str, int]


class _Sealed(msgspec.Struct, frozen=True):
    """The first frame. `size` and `sha256` are of the state."""

    about: About
    size: int
    sha256: bytes


def make(about: About, state: bytes, passphrase: str) -> list[bytes]:
    """The file in pieces. `state`: what Store.encode gave. Blocks. Raises BackupRefused: no passphrase."""
    salt = os.urandom(_SALT_BYTES)
    writer = FrameWriter(_key(passphrase, salt, _LOG2_N, _R, _P), _PURPOSE)
    start = _MAGIC + _PARAMETERS.pack(FORMAT_VERSION, _LOG2_N, _R, _P, salt)
    sealed = _Sealed(about, len(state), hashlib.sha256(state).digest())
    return [
        start + _CRC.pack(zlib.crc32(start + writer.preamble)) + writer.preamble,
        writer.frame(msgspec.msgpack.encode(sealed)),
        *(writer.frame(state[at : at + CHUNK_BYTES]) for at in range(0, len(state), CHUNK_BYTES)),
    ]


def open_backup(data: bytes, passphrase: str) -> tuple[About, bytes]:
    """Where it comes from, and the state for Store.load; all of it decrypted, checked and decoded once.

    Blocks. Raises BackupRefused.
    """
    sealed, state = _read(data, passphrase)
    if (len(state), hashlib.sha256(state).digest()) != (sealed.size, sealed.sha256):
        raise BackupRefused(
            f"the backup is cut off: it holds {len(state)} of {sealed.size} bytes of state; {_OTHER_COPY}"
        )
    try:
        found = {kind.value: count for kind, count in count_dump(state).items()}
    except RaftError as error:
        raise BackupRefused(f"the backup's state cannot be read by this version: {error}") from error
    if found != sealed.about.counts:
        raise BackupRefused(f"the backup holds {found}, but says {sealed.about.counts}; {_OTHER_COPY}")
    return sealed.about, state


def counts_of(rows: Mapping[Kind, Sequence[object]]) -> dict[str, int]:
    """Objects by kind, of a dump's rows."""
    return {kind.value: len(rows.get(kind, ())) for kind in Kind}


def _read(data: bytes, passphrase: str) -> tuple[_Sealed, bytes]:
    key = _key_of(data, passphrase)
    payloads = []
    try:
        for _, payload in read_frames(data[_FRAMES_START:], key, _PURPOSE):
            payloads.append(payload)
    except WrongKey as error:
        if payloads:
            raise BackupRefused(f"the backup was altered: {error}; {_OTHER_COPY}") from error
        raise BackupRefused("wrong passphrase for this backup") from error
    except Damaged as error:
        at = _FRAMES_START + error.offset
        raise BackupRefused(
            f"the backup is damaged or cut off at byte {at} of its {len(data)}; {_OTHER_COPY}"
        ) from error
    if not payloads:
        raise BackupRefused(f"the backup is cut off after its header; {_OTHER_COPY}")
    try:
        return msgspec.msgpack.decode(payloads[0], type=_Sealed), b"".join(payloads[1:])
    except msgspec.MsgspecError as error:
        raise BackupRefused(f"the backup's description cannot be read: {error}") from error


def _key_of(data: bytes, passphrase: str) -> bytes:
    if not data.startswith(_MAGIC):
        raise BackupRefused("this is not a backup of a swarmctl cluster: it does not begin like one")
    if len(data) < _HEADER_BYTES:
        raise BackupRefused(f"the backup is cut off within its header; {_OTHER_COPY}")
    version, log2_n, r, p, salt = _PARAMETERS.unpack_from(data, len(_MAGIC))
    if version != FORMAT_VERSION:
        raise BackupRefused(
            f"the backup has format version {version}, this swarmctl reads {FORMAT_VERSION}: "
            "use the version of swarmctl that made it, or a newer one"
        )
    (checksum,) = _CRC.unpack_from(data, _PARAMETERS_END)
    if checksum != zlib.crc32(data[:_PARAMETERS_END] + data[_FRAMES_START:_HEADER_BYTES]):
        raise BackupRefused(f"the backup's header is damaged; {_OTHER_COPY}")
    if not (1 <= log2_n <= _LOG2_N_MAX and 1 <= r <= _R_MAX and 1 <= p <= _P_MAX):
        raise BackupRefused(
            f"the backup asks for scrypt with N=2^{log2_n}, r={r}, p={p}: more than is allowed"
        )
    return _key(passphrase, salt, log2_n, r, p)


def _key(passphrase: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    if not passphrase:
        raise BackupRefused("a backup needs a passphrase: it holds the cluster's keys and secrets")
    return Scrypt(salt=salt, length=KEY_BYTES, n=1 << log2_n, r=r, p=p).derive(passphrase.encode())
