"""Errors of the engine of one host, as a tree; `node.api` maps each class to one HTTP status.

EngineError
├── InvalidParameter     400  the request is wrong; the message names the field and the value
├── Unauthorized         401  a registry does not know the credentials
├── Forbidden            403
├── NotFound             404  "No such container: x"
├── Conflict             409  name in use, container running, image in use
├── NotModified          304  already started / already stopped
├── Unavailable          503
├── NotImplementedHere   501  a feature that Docker has and this engine does not have yet
└── EngineFailure        500  the host failed: disk full, kernel refusal
    └── StartFailed      400/404-ish in Docker's words; carries the exit code 126 or 127 for the CLI
"""

from __future__ import annotations


class EngineError(Exception):
    """Base. Message: what happened to which object, and what to do."""


class InvalidParameter(EngineError):
    pass


class Unauthorized(EngineError):
    pass


class Forbidden(EngineError):
    pass


class NotFound(EngineError):
    pass


class Conflict(EngineError):
    pass


class NotModified(EngineError):
    pass


class Unavailable(EngineError):
    pass


class NotImplementedHere(EngineError):
    pass


class EngineFailure(EngineError):
    pass


class StartFailed(EngineFailure):
    """The container's process could not be started; `exit_code` is 126 (not executable) or 127 (not found)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
