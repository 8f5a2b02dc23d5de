"""The folder of a node's membership: its data key, and whether it waits for the unlock key."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.ca import authority
from node.ca.files import Credentials
from node.ca.keys import DamagedKeys, Locked
from node.ca.wrapping import new_key, new_unlock_key
from node.identity import SwarmFolder
from node.rpc import MANAGER, WORKER
from raft.objects.cluster import ManagerLock

NOW = 1_800_000_000.0
ROOT = authority.new_root(NOW)
LOCK = ManagerLock(unlock_key=new_unlock_key(), generation=1)


def credentials(role: str) -> Credentials:
    key = authority.new_key()
    certificate = authority.sign(
        ROOT, authority.new_request(key), node_id="n1", role=role, cluster_id="c1", now=NOW
    )
    return Credentials(
        root_pem=ROOT.cert_pem, certificate_pem=certificate, key_pem=authority.key_to_pem(key).decode()
    )


@pytest.fixture
def folder(tmp_path: Path) -> SwarmFolder:
    folder = SwarmFolder(tmp_path)
    folder.credentials.save(credentials(MANAGER))
    return folder


def write_log(folder: SwarmFolder) -> None:
    (folder.raft / "wal").mkdir(parents=True)
    (folder.raft / "wal" / "wal-1.log").write_bytes(b"x")


def test_data_key_is_made_once(folder: SwarmFolder, tmp_path: Path) -> None:
    key = folder.data_key()
    assert len(key) == 32
    assert folder.data_key() == SwarmFolder(tmp_path).data_key() == key


def test_data_key_of_an_earlier_layout_is_adopted(folder: SwarmFolder) -> None:
    key = new_key()
    former = folder.path / "raft.key"
    former.write_bytes(key)
    write_log(folder)
    assert folder.data_key() == key
    assert not former.exists()
    former.write_bytes(key)  # a crash before it was removed
    assert folder.data_key() == key
    assert not former.exists()


def test_damaged_data_key_of_an_earlier_layout_is_kept_and_named(folder: SwarmFolder) -> None:
    former = folder.path / "raft.key"
    former.write_bytes(b"short")
    with pytest.raises(DamagedKeys, match=r"swarm/raft\.key is damaged: it has 5 bytes"):
        folder.data_key()
    assert former.read_bytes() == b"short"


def test_a_lost_data_key_is_not_replaced_while_there_is_a_log(folder: SwarmFolder) -> None:
    folder.data_key()
    write_log(folder)
    folder.credentials.keys.data.unlink()
    with pytest.raises(DamagedKeys, match=r"raft\.key is missing, and .* cannot be read without it"):
        folder.data_key()
    assert not folder.credentials.keys.data.exists()
    folder.remove_raft()
    assert len(folder.data_key()) == 32


def test_a_manager_waits_for_the_key_and_a_worker_never(folder: SwarmFolder, tmp_path: Path) -> None:
    key = folder.data_key()
    assert not SwarmFolder(tmp_path).is_locked()
    folder.credentials.apply_lock(LOCK)
    again = SwarmFolder(tmp_path)
    assert again.is_locked()
    with pytest.raises(Locked):
        again.data_key()
    again.credentials.keys.unlock(LOCK.unlock_key)
    assert not again.is_locked()
    assert again.data_key() == key

    # Demoted, and killed before its log was removed.
    write_log(again)
    again.credentials.save(credentials(WORKER))
    demoted = SwarmFolder(tmp_path)
    assert not demoted.is_locked()
    assert not demoted.raft.exists()
    assert sorted(p.name for p in demoted.credentials.folder.iterdir()) == [
        "node.crt",
        "node.key",
        "root.crt",
    ]


def test_the_lock_of_a_former_swarm_is_forgotten(folder: SwarmFolder) -> None:
    folder.credentials.apply_lock(LOCK)
    folder.remove()
    folder.credentials.save(credentials(MANAGER))
    folder.data_key()
    assert sorted(p.name for p in folder.credentials.folder.iterdir()) == [
        "node.crt",
        "node.key",
        "raft.key",
        "root.crt",
    ]
    assert b"PRIVATE KEY" in folder.credentials.key.read_bytes()


def test_a_lost_certificate_costs_no_log(folder: SwarmFolder) -> None:
    folder.data_key()
    write_log(folder)
    folder.credentials.certificate.unlink()
    assert not folder.is_locked()
    assert folder.raft.exists() and folder.credentials.keys.data.exists()
