"""Placeholders such as {{.Service.Name}} in a task's environment, hostname and mounts, and in its configs.

Source: Docker's service templates. An unknown placeholder is an error that names it, as in Docker.
"""

from __future__ import annotations

import re

from node.agent.task_step import ExecutorError
from raft.objects.task import Task

_PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_LABEL = re.compile(r'index\s+\.Service\.Labels\s+"([^"]+)"')


class Templates:
    """The values for one task on one node. Labels are those of its containers, which the task carries."""

    def __init__(self, task: Task, *, node_id: str, hostname: str, os: str, architecture: str) -> None:
        self._values = {
            ".Service.ID": task.service_id,
            ".Service.Name": task.service_name,
            ".Node.ID": node_id,
            ".Node.Hostname": hostname,
            ".Node.Platform.OS": os,
            ".Node.Platform.Architecture": architecture,
            ".Task.ID": task.id,
            ".Task.Name": task.name,
            ".Task.Slot": str(task.slot or node_id),
        }
        self._labels = task.spec.container.labels

    def expand(self, text: str) -> str:
        """Raises ExecutorError for an unknown placeholder."""
        return _PLACEHOLDER.sub(self._value, text) if "{{" in text else text

    def _value(self, match: re.Match[str]) -> str:
        expression = match[1]
        label = _LABEL.fullmatch(expression)
        if label is not None:
            return self._labels.get(label[1], "")
        if expression not in self._values:
            known = ", ".join(self._values)
            raise ExecutorError(f"unknown placeholder {{{{{expression}}}}}: known are {known}")
        return self._values[expression]
