"""This node's tasks on disk: one JSON file each, so that a restarted daemon finds its containers again.

Holds tasks and statuses, never secrets or configs (tasks only refer to them). Files replace each other by
rename; they need not survive a power cut, because no container does.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from raft.codec import to_json
from raft.objects.task import Task, TaskStatus

log = logging.getLogger(__name__)


class StoredTask(msgspec.Struct, frozen=True):
    task: Task
    status: TaskStatus


class TaskStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> list[StoredTask]:
        """A file that cannot be read is reported and removed: the manager knows its task."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for path in sorted(self._folder.iterdir()):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=StoredTask))
            except (msgspec.MsgspecError, OSError) as error:
                log.warning("stored task %s cannot be read, forgetting it: %s", path.name, error)
                path.unlink(missing_ok=True)
        return found

    def save(self, task: Task, status: TaskStatus) -> None:
        """Raises OSError."""
        path = self._folder / f"{task.id}.json"
        beside = path.with_suffix(".new")
        beside.write_bytes(to_json(StoredTask(task, status)))
        beside.replace(path)

    def remove(self, task_id: str) -> None:
        (self._folder / f"{task_id}.json").unlink(missing_ok=True)
