"""What the engine knows of its containers, durable: one SQLite database per node.

Rows hold the whole record as JSON beside the columns that must be unique. Invariant: a record is stored
before the API acknowledges what it describes. WAL mode with synchronous=NORMAL survives a crash of the
daemon; a power cut may lose the last few records, and `Engine.start` reconciles with what is on disk.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from engine.container import Container
from engine.errors import Conflict, EngineFailure

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL
) WITHOUT ROWID;
"""


class StateStore:
    """Containers by id and by name; all of them are also kept in memory, so that reads cost nothing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        # One process, so no shared-memory file: the daemon also starts when the disk is full.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise EngineFailure(f"{path} was written by a newer version (schema {version}): upgrade this one")
        self._db.executescript(_SCHEMA)
        if version != SCHEMA_VERSION:
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self._encoder = msgspec.json.Encoder()
        decoder = msgspec.json.Decoder(Container)
        rows = self._db.execute("SELECT record FROM containers").fetchall()
        self.containers = {container.id: container for container in (decoder.decode(row[0]) for row in rows)}
        self._ids_by_name = {container.name: container.id for container in self.containers.values()}

    def add(self, container: Container) -> None:
        """Store a new container. Conflict when its name is taken; nothing is stored then."""
        holder = self._ids_by_name.get(container.name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{container.name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._write("INSERT INTO containers (name, record, id) VALUES (?, ?, ?)", container)
        self.containers[container.id] = container
        self._ids_by_name[container.name] = container.id

    def save(self, container: Container) -> None:
        """Store the present state of a container that was added before."""
        self._write("UPDATE containers SET name = ?, record = ? WHERE id = ?", container)

    def rename(self, container: Container, name: str) -> None:
        holder = self._ids_by_name.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        old = container.name
        container.name = name
        self.save(container)
        del self._ids_by_name[old]
        self._ids_by_name[name] = container.id

    def remove(self, container: Container) -> None:
        """EngineFailure when the disk refuses; the container is still known then."""
        try:
            self._db.execute("DELETE FROM containers WHERE id = ?", (container.id,))
        except sqlite3.OperationalError as error:
            raise _unwritten(container, error) from error
        self.containers.pop(container.id, None)
        if self._ids_by_name.get(container.name) == container.id:
            del self._ids_by_name[container.name]

    def by_name(self, name: str) -> Container | None:
        container_id = self._ids_by_name.get(name)
        return None if container_id is None else self.containers[container_id]

    def close(self) -> None:
        self._db.close()

    def _write(self, statement: str, container: Container) -> None:
        try:
            self._db.execute(statement, (container.name, self._encoder.encode(container), container.id))
        except sqlite3.OperationalError as error:
            raise _unwritten(container, error) from error


def _unwritten(container: Container, error: sqlite3.OperationalError) -> EngineFailure:
    reason = "no space left on device" if "full" in str(error) else str(error)
    return EngineFailure(
        f"cannot record container {container.short_id}: {reason}; free space or check the disk"
    )
