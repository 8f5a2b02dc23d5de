"""From error classes to HTTP status codes, and to what became of the write that failed."""

from __future__ import annotations

from engine import errors as engine
from raft import errors as raft

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (engine.InvalidParameter, 400),
    (engine.Unauthorized, 401),
    (engine.Forbidden, 403),
    (engine.NotFound, 404),
    (engine.Conflict, 409),
    (engine.NotModified, 304),
    (engine.Unavailable, 503),
    (engine.NotImplementedHere, 501),
    (engine.StartFailed, 400),
    (engine.EngineFailure, 500),
    (raft.InvalidArgument, 400),
    (raft.Unauthenticated, 401),
    (raft.NotFound, 404),
    (raft.AlreadyExists, 409),
    (raft.Conflict, 409),
    (raft.FailedPrecondition, 400),
    (raft.OutOfSequence, 500),
    (raft.NotLeader, 503),
    (raft.Unavailable, 503),
    (raft.MaybeCommitted, 503),
)


def status_of(error: Exception) -> int | None:
    """None for an error that nobody expected."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return None


def outcome_of(error: Exception) -> str:
    """Of a failed call to the cluster: "none" was written, "unknown"; "" when it is not about the cluster."""
    if isinstance(error, raft.MaybeCommitted):
        return "unknown"
    return "none" if isinstance(error, raft.RaftError) else ""
