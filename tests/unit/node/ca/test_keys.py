"""A node's secret files: locked, unlocked, rotated, and cut off by a crash at every step of each of these."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from node.ca import authority
from node.ca.disk import DISK, Disk
from node.ca.files import CredentialFiles, Credentials
from node.ca.keys import DamagedKeys, Locked
from node.ca.wrapping import InvalidUnlockKey, WrongKey, new_key, new_unlock_key
from node.rpc import MANAGER, WORKER
from raft.objects.cluster import ManagerLock

NOW = 1_800_000_000.0
ROOT = authority.new_root(NOW)
OFF = ManagerLock()
FIRST = ManagerLock(unlock_key=new_unlock_key(), generation=1)
SECOND = ManagerLock(unlock_key=new_unlock_key(), generation=2)
OFF_AGAIN = ManagerLock(generation=3)
DATA_KEY = new_key()


def credentials(role: str = MANAGER) -> Credentials:
    key = authority.new_key()
    certificate = authority.sign(
        ROOT, authority.new_request(key), node_id="n1", role=role, cluster_id="c1", now=NOW
    )
    return Credentials(
        root_pem=ROOT.cert_pem, certificate_pem=certificate, key_pem=authority.key_to_pem(key).decode()
    )


OLD, NEW, AS_WORKER = credentials(), credentials(), credentials(WORKER)


def node(folder: Path, lock: ManagerLock = OFF, saved: Credentials = OLD) -> CredentialFiles:
    """A folder as a manager (or worker) has it after some time with that lock."""
    files = CredentialFiles(folder)
    files.save(saved, lock)
    if saved is not AS_WORKER:
        files.keys.save_data_key(DATA_KEY)
        files.apply_lock(lock)
    return files


def restarted(folder: Path, lock: ManagerLock = OFF) -> CredentialFiles:
    files = CredentialFiles(folder)
    if lock.unlock_key:
        files.keys.unlock(lock.unlock_key)
    return files


def secrets_in_the_clear(folder: Path) -> list[str]:
    """Files in which one of the keys can be read."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if DATA_KEY in (data := path.read_bytes()) or b"PRIVATE KEY" in data
    )


# ---- states ----------------------------------------------------------------------------------------------


def test_without_autolock_the_keys_are_in_the_clear_and_nobody_elses(tmp_path: Path) -> None:
    files = node(tmp_path / "tls")
    assert secrets_in_the_clear(files.folder) == ["node.key", "raft.key"]
    assert {p.stat().st_mode & 0o777 for p in (files.keys.tls, files.keys.data)} == {0o600}
    assert not restarted(files.folder).keys.locked
    assert not files.keys.lock.exists()


def test_locked_files_show_nothing_and_open_with_the_key_only(tmp_path: Path) -> None:
    folder = node(tmp_path / "tls", FIRST).folder
    assert secrets_in_the_clear(folder) == []
    assert {p.stat().st_mode & 0o777 for p in folder.glob("*.key")} == {0o600}
    files = CredentialFiles(folder)
    assert files.keys.locked and files.is_manager
    for reading in (files.load, files.keys.data_key, lambda: files.apply_lock(SECOND)):
        with pytest.raises(Locked):
            reading()
    with pytest.raises(InvalidUnlockKey):
        files.keys.unlock("SWMKEY-1-nonsense")
    with pytest.raises(WrongKey):
        files.keys.unlock(SECOND.unlock_key)
    assert files.keys.locked
    files.keys.unlock(FIRST.unlock_key)
    assert not files.keys.locked
    assert (files.load(), files.keys.data_key()) == (OLD, DATA_KEY)


def test_rotation_closes_the_old_key_out(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", FIRST)
    assert files.apply_lock(SECOND)
    assert not files.apply_lock(SECOND), "nothing is left to do"
    with pytest.raises(WrongKey):
        CredentialFiles(files.folder).keys.unlock(FIRST.unlock_key)
    assert restarted(files.folder, SECOND).load() == OLD


def test_turned_off_and_on_again(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", FIRST)
    assert files.apply_lock(OFF_AGAIN)
    assert secrets_in_the_clear(files.folder) == ["node.key", "raft.key"]
    assert not CredentialFiles(files.folder).keys.locked
    fourth = ManagerLock(unlock_key=new_unlock_key(), generation=4)
    assert files.apply_lock(fourth)
    assert secrets_in_the_clear(files.folder) == []
    assert restarted(files.folder, fourth).keys.data_key() == DATA_KEY


def test_a_manager_that_replays_its_log_does_not_go_back(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", SECOND)
    for former in (OFF, FIRST):
        assert not files.apply_lock(former)
    assert restarted(files.folder, SECOND).load() == OLD
    files.apply_lock(OFF_AGAIN)
    assert not restarted(files.folder).apply_lock(SECOND)
    assert secrets_in_the_clear(files.folder) == ["node.key", "raft.key"]


def test_a_renewed_certificate_comes_with_a_wrapped_key(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", FIRST)
    files.save(NEW, FIRST)
    assert secrets_in_the_clear(files.folder) == []
    assert restarted(files.folder, FIRST).load() == NEW
    files.save(OLD)  # a signer that says nothing about the lock
    assert secrets_in_the_clear(files.folder) == []


def test_a_signer_that_is_behind_does_not_bring_a_former_key_back(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", SECOND)
    files.save(NEW, FIRST)
    assert restarted(files.folder, SECOND).load() == NEW
    files.apply_lock(OFF_AGAIN)
    files.save(OLD, FIRST)
    assert restarted(files.folder).load() == OLD


def test_a_joining_manager_never_has_its_key_in_the_clear(tmp_path: Path) -> None:
    class Seen(Disk):
        def write(self, path: Path, data: bytes, mode: int) -> None:
            assert b"PRIVATE KEY" not in data and DATA_KEY not in data
            super().write(path, data, mode)

    files = CredentialFiles(tmp_path / "tls", Seen())
    files.save(NEW, FIRST)
    files.keys.save_data_key(DATA_KEY)
    assert not files.apply_lock(FIRST), "nothing is left to do"
    assert restarted(files.folder, FIRST).keys.data_key() == DATA_KEY


def test_promotion_wraps_and_demotion_unwraps(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", saved=AS_WORKER)
    assert not files.apply_lock(FIRST), "a worker is never locked"
    files.save(NEW, FIRST)
    assert secrets_in_the_clear(files.folder) == []
    files.save(AS_WORKER)
    assert not files.apply_lock(FIRST)
    files.keys.forget_lock()
    again = CredentialFiles(files.folder)
    assert (again.is_manager, again.keys.locked, again.load()) == (False, False, AS_WORKER)


def test_promoted_again_before_the_demotion_was_done(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", FIRST)
    files.save(AS_WORKER)
    files.save(NEW, FIRST)
    files.keys.data.unlink()
    files.keys.forget_lock()
    files.keys.save_data_key(DATA_KEY)
    assert secrets_in_the_clear(files.folder) == []
    again = restarted(files.folder, FIRST)
    assert (again.load(), again.keys.data_key()) == (NEW, DATA_KEY)


def test_what_a_crash_left_beside_goes_when_the_lock_closes(tmp_path: Path) -> None:
    files = node(tmp_path / "tls", FIRST)
    for name in ("node.key.new", "raft.key.new"):
        (files.folder / name).write_bytes(DATA_KEY)
    files.apply_lock(SECOND)
    assert secrets_in_the_clear(files.folder) == []


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["node.key", "raft.key"])
def test_damaged_key_is_named_and_stays_locked(tmp_path: Path, name: str) -> None:
    folder = node(tmp_path / "tls", FIRST).folder
    data = bytearray((folder / name).read_bytes())
    data[-10] ^= 1
    (folder / name).write_bytes(data)
    files = CredentialFiles(folder)
    with pytest.raises(DamagedKeys, match=f"{name} is damaged: .*leave the swarm with --force"):
        files.keys.unlock(FIRST.unlock_key)
    assert files.keys.locked
    assert (folder / name).read_bytes() == data


@pytest.mark.parametrize("content", [b"", b"{}", b'{"generation":1,"wrapped":5}', b'{"generation":1}'])
def test_lost_lock_key_is_an_error_and_no_reason_for_a_new_one(tmp_path: Path, content: bytes) -> None:
    files = node(tmp_path / "tls", FIRST)
    files.keys.lock.write_bytes(content)
    again = CredentialFiles(files.folder)
    with pytest.raises(DamagedKeys, match=r"lock\.key"):
        bool(again.keys.locked)
    with pytest.raises(DamagedKeys, match=r"lock\.key"):
        again.keys.unlock(FIRST.unlock_key)
    with pytest.raises(DamagedKeys, match=r"lock\.key"):
        again.apply_lock(SECOND)
    assert files.keys.lock.read_bytes() == content


def test_key_of_another_folder_is_named(tmp_path: Path) -> None:
    folder, other = (node(tmp_path / name, FIRST).folder for name in ("tls", "other"))
    shutil.copy(other / "raft.key", folder / "raft.key")
    with pytest.raises(DamagedKeys, match=r"raft\.key does not belong to lock\.key"):
        CredentialFiles(folder).keys.unlock(FIRST.unlock_key)


def test_short_data_key_is_damage(tmp_path: Path) -> None:
    files = node(tmp_path / "tls")
    files.keys.data.write_bytes(DATA_KEY[:31])
    with pytest.raises(DamagedKeys, match="it has 31 bytes, not 32"):
        files.keys.data_key()


# ---- crashes ---------------------------------------------------------------------------------------------


class PowerCut(Exception):
    pass


class CutDisk(Disk):
    """Goes off at the n-th operation; a write that is cut off leaves half of its data."""

    def __init__(self, operations: int) -> None:
        self._left = operations

    def _spend(self) -> None:
        if self._left == 0:
            raise PowerCut
        self._left -= 1

    def write(self, path: Path, data: bytes, mode: int) -> None:
        if self._left == 0:
            super().write(path, data[: len(data) // 2], mode)
        self._spend()
        super().write(path, data, mode)

    def rename(self, source: Path, target: Path) -> None:
        self._spend()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._spend()
        super().remove(path)

    def sync(self, folder: Path) -> None:
        self._spend()
        super().sync(folder)


def cut_off(
    tmp_path: Path, before: CredentialFiles, lock: ManagerLock, change: Callable[[CredentialFiles], object]
) -> Iterator[Path]:
    """Folders in which the change was cut off at its first, second, ... operation; the last one is complete."""
    for operations in range(100):
        folder = tmp_path / f"cut{operations}"
        shutil.copytree(before.folder, folder)
        disk = CutDisk(1000)
        files = CredentialFiles(folder, disk)
        if lock.unlock_key:
            files.keys.unlock(lock.unlock_key)
        disk._left = operations
        try:
            change(files)
        except PowerCut:
            yield folder
            continue
        assert operations > 2, "the change wrote nothing"
        yield folder
        return
    raise AssertionError("the change does not end")


def opened(folder: Path, *locks: ManagerLock) -> CredentialFiles:
    """With one of the locks that may be in force."""
    if not CredentialFiles(folder).keys.locked:
        return CredentialFiles(folder)
    for lock in locks:
        if lock.unlock_key:
            with contextlib.suppress(WrongKey):
                return restarted(folder, lock)
    raise AssertionError(f"none of {locks} opens {folder}")


@pytest.mark.parametrize(
    ("before", "after"),
    [(OFF, FIRST), (FIRST, SECOND), (SECOND, OFF_AGAIN), (FIRST, OFF_AGAIN)],
    ids=["turned on", "rotated", "turned off", "turned off after many changes"],
)
def test_crash_while_the_lock_changes(tmp_path: Path, before: ManagerLock, after: ManagerLock) -> None:
    locked = node(tmp_path / "tls", before)
    for folder in cut_off(tmp_path, locked, before, lambda files: files.apply_lock(after)):
        files = opened(folder, before, after)
        assert (files.load(), files.keys.data_key()) == (OLD, DATA_KEY)
        files.apply_lock(before)  # what the log of a restarted manager says at first
        files.apply_lock(after)
        final = restarted(folder, after)
        assert (final.load(), final.keys.data_key()) == (OLD, DATA_KEY)
        assert secrets_in_the_clear(folder) == ([] if after.unlock_key else ["node.key", "raft.key"])


@pytest.mark.parametrize("lock", [OFF, FIRST, SECOND], ids=["off", "on", "rotated meanwhile"])
def test_crash_during_a_renewal(tmp_path: Path, lock: ManagerLock) -> None:
    before = FIRST if lock is SECOND else lock
    renewing = node(tmp_path / "tls", before)
    for folder in cut_off(tmp_path, renewing, before, lambda files: files.save(NEW, lock)):
        files = opened(folder, before, lock)
        assert files.load() in (OLD, NEW)
        assert files.keys.data_key() == DATA_KEY
        if lock.unlock_key:
            files.apply_lock(lock)
            assert secrets_in_the_clear(folder) == []


def test_crash_during_a_promotion_leaves_a_worker_or_a_manager(tmp_path: Path) -> None:
    worker = node(tmp_path / "tls", saved=AS_WORKER)
    for folder in cut_off(tmp_path, worker, OFF, lambda files: files.save(NEW, FIRST)):
        files = opened(folder, OFF, FIRST)
        assert files.load() == (NEW if files.is_manager else AS_WORKER)


def test_crash_during_a_demotion_leaves_a_manager_or_an_open_worker(tmp_path: Path) -> None:
    manager = node(tmp_path / "tls", FIRST)
    seen = set()
    for folder in cut_off(tmp_path, manager, FIRST, lambda files: files.save(AS_WORKER)):
        files = CredentialFiles(folder)
        seen.add(files.is_manager)
        if files.is_manager:
            files.keys.unlock(FIRST.unlock_key)
            assert (files.load(), files.keys.data_key()) == (OLD, DATA_KEY)
        else:
            assert files.load() == AS_WORKER
    assert seen == {True, False}


def test_failing_disk_leaves_usable_files_and_the_next_try_succeeds(tmp_path: Path) -> None:
    for operations in range(6):
        disk = CutDisk(1000)
        files = CredentialFiles(tmp_path / f"tls{operations}", disk)
        files.save(OLD)
        files.keys.save_data_key(DATA_KEY)
        disk._left = operations
        with pytest.raises(PowerCut):
            files.apply_lock(FIRST)
        disk._left = 1000
        assert (files.load(), files.keys.data_key()) == (OLD, DATA_KEY)
        assert files.apply_lock(FIRST)
        assert secrets_in_the_clear(files.folder) == []
        assert restarted(files.folder, FIRST).load() == OLD


def test_replacing_leaves_nothing_beside(tmp_path: Path) -> None:
    DISK.replace(tmp_path / "a", b"1", 0o600)
    DISK.replace(tmp_path / "a", b"2", 0o600)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"2")]
