"""What the supervisor's replies mean to the daemon: a body, or the exception to raise."""

from __future__ import annotations

import errno
import os
from typing import Any

from engine.errors import EngineFailure, NotFound
from engine.runtime import program
from engine.runtime.plan import Plan
from engine.runtime.wire import Message

NOT_FOUND, NOT_EXECUTABLE, FAILED = 127, 126, 128


class SpawnError(EngineFailure):
    """The process could not be started; the message is what runc would say.

    `exit_code`: 127 command not found, 126 not executable, 128 anything else.
    """

    def __init__(self, operation: str, errno: int, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.operation = operation
        self.errno = errno
        self.message = message
        self.exit_code = exit_code


def spawn_error(made: Plan, index: int, code: int) -> SpawnError:
    """What a failed operation means to the user, in runc's words."""
    reason = os.strerror(code).lower()
    prefix = "unable to start container process: "
    if index < 0 or index >= len(made.ops):
        return SpawnError("cgroup", code, f"{prefix}enter the control group: {reason}", FAILED)
    op = made.ops[index]
    if op.number != program.EXEC:
        return SpawnError(op.name, code, f"{prefix}{op.label or op.name}: {reason}", FAILED)
    name = op.label
    if code == errno.ENOENT and "/" not in name:
        return SpawnError(
            "exec", code, f'{prefix}exec: "{name}": executable file not found in $PATH', NOT_FOUND
        )
    if code in (errno.ENOENT, errno.ENOTDIR):
        return SpawnError("exec", code, f'{prefix}exec: "{name}": stat {name}: {reason}', NOT_FOUND)
    return SpawnError("exec", code, f'{prefix}exec: "{name}": {reason}', NOT_EXECUTABLE)


def foreign_error(text: str) -> SpawnError:
    """What another runtime said of a start that failed; clients know runc's spelling."""
    text = text.replace("No such file", "no such file").replace("Permission denied", "permission denied")
    if ("executable file" in text and "not found" in text) or "no such file or directory" in text:
        return SpawnError("exec", errno.ENOENT, text, NOT_FOUND)
    return SpawnError("exec", 0, text, NOT_EXECUTABLE if "permission denied" in text else FAILED)


def checked(message: Message) -> Any:
    if message.name == "ok":
        return message.body
    if message.name == "missing":
        raise NotFound(message.body["message"])
    if message.name == "os":
        code, text = message.body["errno"], message.body["message"]
        if code == errno.ESRCH:
            raise ProcessLookupError(code, text)
        raise EngineFailure(text)
    raise EngineFailure(message.body["message"] if message.body else f"unknown reply {message.name}")
