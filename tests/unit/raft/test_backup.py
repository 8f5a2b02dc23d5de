"""The backup file: what goes in comes out, and no damaged byte, wrong passphrase or newer version passes."""

from __future__ import annotations

import functools
import hashlib
import os
import zlib

import msgspec
import pytest

from raft import backup, framing
from raft.backup import About, BackupRefused, make, open_backup
from raft.codec import Change, encode_command
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Secret, SecretSpec
from raft.objects.node import Node
from raft.store import Store

PASSPHRASE = "correct horse"


@pytest.fixture(autouse=True)
def cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt's price is for attackers; `test_the_key_costs_what_was_chosen` looks at it."""
    monkeypatch.setattr(backup, "_LOG2_N", 1)


def store_with(count: int = 3, size: int = 10) -> Store:
    store = Store()
    store.apply(encode_command([Change(Kind.NODE, "n1", 0, Node(id="n1"))]), 7)
    for number in range(count):
        spec = SecretSpec(annotations=Annotations(name=f"s{number}"), data=os.urandom(size))
        secret = Secret(id=f"id{number}", spec=spec)
        store.apply(encode_command([Change(Kind.SECRET, secret.id, 0, secret)]), 7)
    return store


def counts_in(store: Store) -> dict[str, int]:
    return backup.counts_of(store.dump().rows)


def about(store: Store) -> About:
    return About(
        swarmctl_version="0.1.0",
        cluster_id="c1",
        node_id="n1",
        address="10.0.0.1:2377",
        index=9,
        term=2,
        members={"n1": "10.0.0.1:2377"},
        removed=("n0",),
        made_at=1_700_000_000.0,
        counts=counts_in(store),
    )


def file_of(store: Store, passphrase: str = PASSPHRASE) -> bytes:
    return b"".join(make(about(store), store.encode(store.dump()), passphrase))


def test_what_goes_in_comes_out() -> None:
    store = store_with(40, 100_000)  # more than one frame
    data = file_of(store)
    assert len(data) > 3 * backup.CHUNK_BYTES
    said, state = open_backup(data, PASSPHRASE)
    assert said == about(store)
    opened = Store()
    opened.load(state)
    assert opened.index == 7
    assert dict(opened.view().secrets) == dict(store.view().secrets)
    assert dict(opened.view().nodes) == dict(store.view().nodes)


def test_nothing_can_be_read_without_the_passphrase() -> None:
    store = store_with()
    data = file_of(store)
    for secret in store.view().secrets.values():
        assert secret.spec.data not in data
    assert b"10.0.0.1" not in data
    assert file_of(store)[200:] != data[200:]  # another salt, another key
    with pytest.raises(BackupRefused, match="wrong passphrase"):
        open_backup(data, "wrong horse")


@pytest.mark.parametrize("passphrase", [PASSPHRASE, ""])
def test_an_empty_passphrase_is_refused(passphrase: str) -> None:
    data = file_of(store_with())
    with pytest.raises(BackupRefused, match="needs a passphrase"):
        open_backup(data, "") if passphrase else file_of(store_with(), "")


def test_every_flipped_byte_is_found() -> None:
    data = file_of(store_with(1))
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x20
        with pytest.raises(BackupRefused):
            open_backup(bytes(damaged), PASSPHRASE)


def test_every_length_is_found() -> None:
    data = file_of(store_with(1))
    for length in range(len(data)):
        with pytest.raises(BackupRefused):
            open_backup(data[:length], PASSPHRASE)
    with pytest.raises(BackupRefused, match="damaged or cut off at byte"):
        open_backup(data + b"x", PASSPHRASE)


def test_damage_is_told_from_a_wrong_passphrase() -> None:
    data = file_of(store_with())
    for position, named in (
        (0, "not a backup"),
        (24, "format version"),
        (30, "header is damaged"),
        (80, "header is damaged"),
        (len(data) - 1, "damaged or cut off at byte"),
    ):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        with pytest.raises(BackupRefused, match=named):
            open_backup(bytes(damaged), PASSPHRASE)


def test_a_file_cut_off_between_two_frames_is_found() -> None:
    store = store_with(30, 100_000)
    pieces = make(about(store), store.encode(store.dump()), PASSPHRASE)
    with pytest.raises(BackupRefused, match=r"cut off: it holds \d+ of \d+ bytes"):
        open_backup(b"".join(pieces[:-1]), PASSPHRASE)
    with pytest.raises(BackupRefused, match="cut off after its header"):
        open_backup(pieces[0], PASSPHRASE)
    with pytest.raises(BackupRefused, match="was altered"):
        open_backup(b"".join([*pieces[:2], *reversed(pieces[2:])]), PASSPHRASE)


def test_a_newer_format_says_what_to_do() -> None:
    data = bytearray(file_of(store_with()))
    data[24] = 2
    with pytest.raises(BackupRefused, match=r"has format version 2, this swarmctl reads 1: use the version"):
        open_backup(bytes(data), PASSPHRASE)


def test_what_a_file_asks_for_is_bounded() -> None:
    """A forged header must not make this machine derive a key for hours."""
    data = bytearray(file_of(store_with()))
    data[25] = 30
    end = backup._PARAMETERS_END
    crc = zlib.crc32(bytes(data[:end] + data[end + 4 : backup._HEADER_BYTES]))
    data[end : end + 4] = crc.to_bytes(4, "big")
    with pytest.raises(BackupRefused, match=r"N=2\^30"):
        open_backup(bytes(data), PASSPHRASE)


def sealed_file(state: bytes, counts: dict[str, int]) -> bytes:
    """A file that was made by a faulty program: whole, and wrong inside."""
    said = msgspec.structs.replace(about(Store()), counts=counts)
    return b"".join(make(said, state, PASSPHRASE))


def test_objects_that_cannot_be_read_are_found() -> None:
    store = store_with()
    state = store.encode(store.dump())
    with pytest.raises(BackupRefused, match="state cannot be read by this version"):
        open_backup(sealed_file(b"\xff" + state[1:], counts_in(store)), PASSPHRASE)
    with pytest.raises(BackupRefused, match="but says"):
        open_backup(sealed_file(state, counts_in(store_with(2))), PASSPHRASE)


def test_the_key_costs_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header says N=2^17, r=8, p=1, and the frames open with exactly that key."""
    monkeypatch.undo()
    data = file_of(store_with(1))
    assert tuple(data[25:28]) == (17, 8, 1)
    derive = functools.partial(hashlib.scrypt, PASSPHRASE.encode(), salt=data[28:60], dklen=32)
    key = derive(n=1 << 17, r=8, p=1, maxmem=200 << 20)
    frames = list(framing.read_frames(data[backup._FRAMES_START :], key, b"cluster backup"))
    assert len(frames) == 2
