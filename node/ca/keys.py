"""The secret files of a node: `node.key` (its TLS key) and `raft.key` (the key of its log and snapshots).

With autolock on they are wrapped with a folder key, which is in `lock.key`, itself wrapped with the
cluster's unlock key; with autolock off they are in the clear (0600). Owns the order of replacements.
Invariants: at every instant the unlock key that was in force before a change, or the one after it, opens
everything; a change of the unlock key is the replacement of one file; nothing is overwritten whose content
is not at hand; an older generation of the lock is never applied over a newer one.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.ca.disk import DISK, Disk, beside
from node.ca.wrapping import (
    KEY_BYTES,
    Damaged,
    WrongKey,
    is_wrapped,
    new_key,
    parse_unlock_key,
    unwrap,
    wrap,
)
from raft.objects.cluster import ManagerLock

_MODE = 0o600


class Locked(ValueError):
    """The files are wrapped, and nobody has given the unlock key yet."""


class DamagedKeys(ValueError):
    """A file cannot be what was written; the message names it."""


class LockFile(msgspec.Struct, frozen=True):
    """Content of lock.key (JSON). `wrapped`: the folder key; empty while autolock is off."""

    generation: int
    wrapped: bytes = b""


class KeyFiles:
    """The files in `folder`, and the folder key in memory once they are unlocked. Blocks; raises OSError."""

    def __init__(self, folder: Path, disk: Disk = DISK) -> None:
        self.tls = folder / "node.key"
        self.data = folder / "raft.key"
        self.lock = folder / "lock.key"
        self._disk = disk
        self._folder_key: bytes | None = None

    # ---- contents -----------------------------------------------------------------------------------------

    def read(self, path: Path) -> bytes | None:
        """The content in the clear; None when there is no such file. Raises Locked, DamagedKeys."""
        data = _content(path)
        if data is None or not is_wrapped(data):
            return data
        if self._folder_key is None:
            raise Locked(f"{path} is locked: unlock the swarm first")
        try:
            return unwrap(data, self._folder_key, path.name)
        except Damaged as error:
            raise DamagedKeys(f"{path} is damaged: {error}; {_REMEDY}") from error
        except WrongKey as error:
            raise DamagedKeys(f"{path} does not belong to {self.lock.name}: {error}; {_REMEDY}") from error

    def sealed(self, path: Path, content: bytes) -> bytes:
        """The content as the file must have it now."""
        return content if self._folder_key is None else wrap(content, self._folder_key, path.name)

    def data_key(self) -> bytes | None:
        """32 bytes; None when there is none. Raises Locked, DamagedKeys."""
        key = self.read(self.data)
        if key is not None and len(key) != KEY_BYTES:
            raise DamagedKeys(f"{self.data} is damaged: it has {len(key)} bytes, not {KEY_BYTES}; {_REMEDY}")
        return key

    def save_data_key(self, key: bytes) -> None:
        """Durable when it returns."""
        self.data.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disk.replace(self.data, self.sealed(self.data, key), _MODE)

    # ---- the lock -----------------------------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        """Is the unlock key needed? Raises DamagedKeys when no key could open the files."""
        if self._folder_key is not None or not any(map(self.is_wrapped, (self.data, self.tls))):
            return False
        self._wrapped_folder_key()
        return True

    def is_wrapped(self, path: Path) -> bool:
        data = _content(path)
        return data is not None and is_wrapped(data)

    def unlock(self, unlock_key: str) -> None:
        """Raises InvalidUnlockKey, WrongKey, DamagedKeys; then the files stay locked."""
        key = parse_unlock_key(unlock_key)
        try:
            self._folder_key = unwrap(self._wrapped_folder_key(), key, self.lock.name)
        except Damaged as error:
            raise DamagedKeys(f"{self.lock} is damaged: {error}; {_REMEDY}") from error
        try:
            for path in (self.data, self.tls):
                self.read(path)
        except DamagedKeys:
            self._folder_key = None
            raise

    def prepare(self, lock: ManagerLock) -> bool:
        """The first half of `apply`: what is `sealed` from here on is in the form that the cluster asks for."""
        stored = self._stored() or LockFile(0)
        # Without a folder key nothing is wrapped, whatever lock.key says: a crash came before that.
        is_new = self._folder_key is None or stored.generation < lock.generation
        if not lock.unlock_key or lock.generation < stored.generation or not is_new:
            return False
        key = self._folder_key or new_key()
        self._save_lock(
            LockFile(lock.generation, wrap(key, parse_unlock_key(lock.unlock_key), self.lock.name))
        )
        self._folder_key = key
        return True

    def apply(self, lock: ManagerLock) -> bool:
        """Make the files what the cluster says; whether anything had to be written. Safe to repeat.

        Raises Locked, DamagedKeys, OSError (the files are usable as they are).
        """
        if self.locked:
            raise Locked(f"{self.data.parent} is locked: unlock the swarm first")
        stored = self._stored() or LockFile(0)
        if lock.generation < stored.generation:
            return False
        return self._close(lock) if lock.unlock_key else self._open(lock, stored)

    def forget_lock(self) -> None:
        """The node is no manager any more; if it has a manager's TLS key again meanwhile, that stays locked."""
        if not self.is_wrapped(self.tls):
            self._disk.remove(self.lock)
            self._folder_key = None

    def _close(self, lock: ManagerLock) -> bool:
        changed = self.prepare(lock)
        for path in (self.data, self.tls):
            if beside(path).exists():  # of a replacement that was cut off, and perhaps in the clear
                self._disk.remove(beside(path))
            if path.exists() and not self.is_wrapped(path):
                self._disk.replace(path, self.sealed(path, path.read_bytes()), _MODE)
                changed = True
        return changed

    def _open(self, lock: ManagerLock, stored: LockFile) -> bool:
        changed = False
        for path in (self.tls, self.data):
            if self.is_wrapped(path):
                content = self.read(path)
                assert content is not None, "it was there a moment ago"
                self._disk.replace(path, content, _MODE)
                changed = True
        if stored.wrapped or stored.generation < lock.generation:
            self._save_lock(LockFile(lock.generation))
            changed = True
        self._folder_key = None
        return changed

    def _save_lock(self, content: LockFile) -> None:
        self.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._disk.replace(self.lock, msgspec.json.encode(content), _MODE)

    def _stored(self) -> LockFile | None:
        data = _content(self.lock)
        try:
            return None if data is None else msgspec.json.decode(data, type=LockFile)
        except msgspec.MsgspecError as error:
            raise DamagedKeys(f"{self.lock} is damaged: {error}; {_REMEDY}") from error

    def _wrapped_folder_key(self) -> bytes:
        stored = self._stored()
        if stored is None or not stored.wrapped:
            raise DamagedKeys(
                f"the keys in {self.lock.parent} are locked, but {self.lock.name}, which opens them with the "
                f"unlock key, is missing or empty; {_REMEDY}"
            )
        return stored.wrapped


_REMEDY = "restore the swarm folder from a backup, or leave the swarm with --force and join again"


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
