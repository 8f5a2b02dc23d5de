"""What the engine knows of its containers, durable: one SQLite database per node.

Rows hold the whole record as JSON beside the columns that must be unique. Invariant: a record is stored
before the API acknowledges what it describes. WAL mode with synchronous=NORMAL survives a crash of the
daemon; a power cut may lose the last few records, and `Engine.start` reconciles with what is on disk.

A row that cannot be read becomes a container that is dead: its files stay until somebody removes it, and it
holds up nobody else.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import msgspec

from engine.config import ContainerConfig, HostConfig
from engine.container import Container, State, Status
from engine.errors import Conflict, EngineFailure, InvalidParameter

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    record BLOB NOT NULL
) WITHOUT ROWID;
"""

logger = logging.getLogger(__name__)


class StateStore:
    """Containers by id and by name; all of them are also kept in memory, so that reads cost nothing."""

    def __init__(self, path: Path) -> None:
        """EngineFailure when the file is damaged as a whole, or written by a newer version."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._encoder = msgspec.json.Encoder()
        try:
            self._open(path)
            rows = self._db.execute("SELECT id, name, record FROM containers").fetchall()
        except sqlite3.Error as error:
            self._db.close()
            raise EngineFailure(
                f"cannot read {path}: {error}; restore it from a backup, or move it away to start with no containers"
            ) from error
        except EngineFailure:
            self._db.close()
            raise
        decoder = msgspec.json.Decoder(Container)
        self.containers = {id: _decoded(decoder, id, name, record) for id, name, record in rows}
        self._ids_by_name = {container.name: container.id for container in self.containers.values()}

    def _open(self, path: Path) -> None:
        # One process, so no shared-memory file: the daemon also starts when the disk is full.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise EngineFailure(f"{path} was written by a newer version (schema {version}): upgrade this one")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        if version != SCHEMA_VERSION:
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def add(self, container: Container) -> None:
        """Store a new container. Conflict when its name is taken; nothing is stored then."""
        self._check_free(container.name)
        self._write("INSERT INTO containers (name, record, id) VALUES (?, ?, ?)", container)
        self.containers[container.id] = container
        self._ids_by_name[container.name] = container.id

    def save(self, container: Container) -> None:
        """Store the present state of a container that was added before."""
        self._write("UPDATE containers SET name = ?, record = ? WHERE id = ?", container)

    def rename(self, container: Container, name: str) -> None:
        """Conflict when the name is taken; the container keeps its old one when it cannot be stored."""
        if name == container.name:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        self._check_free(name)
        old, container.name = container.name, name
        try:
            self.save(container)
        except EngineFailure:
            container.name = old
            raise
        del self._ids_by_name[old]
        self._ids_by_name[name] = container.id

    def remove(self, container: Container) -> None:
        self._execute("DELETE FROM containers WHERE id = ?", (container.id,), container)
        self.containers.pop(container.id, None)
        if self._ids_by_name.get(container.name) == container.id:
            del self._ids_by_name[container.name]

    def by_name(self, name: str) -> Container | None:
        container_id = self._ids_by_name.get(name)
        return None if container_id is None else self.containers[container_id]

    def close(self) -> None:
        self._db.close()

    def _check_free(self, name: str) -> None:
        holder = self._ids_by_name.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def _write(self, statement: str, container: Container) -> None:
        self._execute(statement, (container.name, self._encoder.encode(container), container.id), container)

    def _execute(self, statement: str, values: tuple[object, ...], container: Container) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            reason = "no space left on device" if "full" in str(error) else str(error)
            raise EngineFailure(
                f"cannot record container {container.short_id}: {reason}; free space or check the disk"
            ) from error


def _decoded(decoder: msgspec.json.Decoder[Container], id: str, name: str, record: bytes) -> Container:
    try:
        return decoder.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.error("the record of container %s (%s) is damaged: %s", name, id[:12], error)
        return Container(
            id=id,
            name=name,
            created_at=0.0,
            image="",
            image_id="",
            config=ContainerConfig(),
            host_config=HostConfig(),
            endpoints={},
            process_args=[""],
            state=State(status=Status.DEAD, error=f"its record is damaged: {error}"),
        )
