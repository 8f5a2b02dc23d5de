from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.config import EndpointConfig, HostConfig, RestartPolicy
from engine.container import Container, Health, HealthProbe, Status
from engine.errors import Conflict, EngineFailure, InvalidParameter
from engine.state import SCHEMA_VERSION, StateStore
from tests.records import container_record, exited, running, volume_mount


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/engine.db"


@pytest.fixture
def store(path: Path) -> Iterator[StateStore]:
    made = StateStore(path)
    yield made
    made.close()


def reopened(path: Path) -> dict[str, Container]:
    """What a daemon finds that starts after this one was killed, here and now: the store is open, and its own."""
    copy = Path(tempfile.mkdtemp(dir=path.parent.parent))
    for file in path.parent.iterdir():
        shutil.copy(file, copy)
    store = StateStore(copy / path.name)
    containers = {container.name: container for container in store.containers.values()}
    store.close()
    return containers


def change(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


def test_a_record_comes_back_as_it_was(path: Path, store: StateStore) -> None:
    probe = HealthProbe(start=1.5, end=2.5, exit_code=1, output="�no")
    made = container_record(
        host=HostConfig(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=3)),
        state=running(health=Health(log=[probe]), restart_count=2),
        mounts=[volume_mount("data", "/data", read_only=True)],
        endpoints={"shop": EndpointConfig(aliases=["db"])},
    )
    store.add(made)
    assert reopened(path) == {"web": made}
    made.state = exited(137)
    store.save(made)
    assert reopened(path)["web"].state.exit_code == 137
    store.remove(made)
    assert reopened(path) == {}
    assert store.by_name("web") is None


def test_a_name_has_one_holder(path: Path, store: StateStore) -> None:
    first, second = container_record("first"), container_record("second")
    store.add(first)
    store.add(second)
    with pytest.raises(Conflict, match='name "/first" is already in use'):
        store.add(container_record("first", id="f" * 64))
    with pytest.raises(Conflict, match='name "/first" is already in use'):
        store.rename(second, "first")
    with pytest.raises(InvalidParameter, match="same name"):
        store.rename(second, "second")
    store.rename(second, "third")
    assert (store.by_name("second"), store.by_name("third")) == (None, second)
    assert set(reopened(path)) == {"first", "third"}


def test_a_rename_that_cannot_be_stored_has_not_happened(store: StateStore) -> None:
    made = container_record("old")
    store.add(made)
    store.close()
    with pytest.raises(EngineFailure, match=f"cannot record container {made.short_id}"):
        store.rename(made, "new")
    assert (made.name, store.by_name("old"), store.by_name("new")) == ("old", made, None)
    with pytest.raises(EngineFailure):
        store.remove(made)
    assert store.by_name("old") is made


@pytest.mark.parametrize("record", [b"", b"\xff\xfe", b"{}", b'{"id": 5}'])
def test_a_damaged_row_is_a_dead_container_and_harms_no_other(
    path: Path, store: StateStore, record: bytes
) -> None:
    broken, sound = container_record("broken"), container_record("sound")
    for container in (broken, sound):
        store.add(container)
    store.close()
    change(path, "UPDATE containers SET record = ? WHERE name = 'broken'", record)
    again = StateStore(path)
    dead = again.containers[broken.id]
    assert (dead.name, dead.state.status) == ("broken", Status.DEAD)
    assert "its record is damaged" in dead.state.error
    assert again.containers[sound.id] == sound
    again.remove(dead)
    again.close()
    assert reopened(path) == {"sound": sound}


def test_fields_that_an_older_version_did_not_write_have_their_defaults(
    path: Path, store: StateStore
) -> None:
    made = container_record(state=exited(1))
    store.add(made)
    raw = msgspec.json.decode(msgspec.json.encode(made))
    del raw["state"]["quick_exits"]
    raw["from_a_newer_version"] = 1
    store.close()
    change(path, "UPDATE containers SET record = ?", msgspec.json.encode(raw))
    assert reopened(path) == {"web": made}


def test_a_file_of_a_newer_version_is_left_alone(path: Path, store: StateStore) -> None:
    store.close()
    change(path, f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    with pytest.raises(EngineFailure, match="written by a newer version"):
        StateStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "engine.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(EngineFailure, match=r"cannot read .*engine.db: file is not a database"):
        StateStore(path)
    assert path.read_bytes() == b"not a database" * 1000
