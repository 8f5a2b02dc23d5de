"""Errors of the replicated state.

RaftError
├── InvalidArgument        the request is wrong; the message names the field            (400)
├── Unauthenticated        the unlock key is not the right one; never between nodes      (401)
├── NotFound               no object with that id or name                               (404)
├── AlreadyExists          the name is taken                                            (409)
├── Conflict               it is so already (not locked); never between nodes           (409)
├── FailedPrecondition     right request, wrong moment: in use, still up, last manager  (400)
├── OutOfSequence          the object changed since the caller read it                  (500, as Docker answers)
├── NotLeader              nothing was written; `leader` is the address to ask, or ""   (503)
├── Unavailable            nothing was written: no leader, no quorum, disk full         (503)
└── MaybeCommitted         the outcome is unknown: look before trying again             (503)
    └── Forgotten          and it will stay so: the request is too old to be known
"""

from __future__ import annotations


class RaftError(Exception):
    """Base. The message is lower case, names the object and the value, and says what to do."""


class InvalidArgument(RaftError):
    pass


class Unauthenticated(RaftError):
    pass


class NotFound(RaftError):
    pass


class AlreadyExists(RaftError):
    pass


class Conflict(RaftError):
    pass


class FailedPrecondition(RaftError):
    pass


class OutOfSequence(RaftError):
    pass


class NotLeader(RaftError):
    def __init__(self, message: str, leader: str = "") -> None:
        super().__init__(message)
        self.leader = leader


class Unavailable(RaftError):
    pass


class MaybeCommitted(RaftError):
    """`key`: with which the same request may be sent again and takes effect once; "" without one."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class Forgotten(MaybeCommitted):
    pass


# How each class is named in receipts and between nodes.
CODES: dict[str, type[RaftError]] = {
    "invalid_argument": InvalidArgument,
    "not_found": NotFound,
    "already_exists": AlreadyExists,
    "failed_precondition": FailedPrecondition,
    "out_of_sequence": OutOfSequence,
    "not_leader": NotLeader,
    "unavailable": Unavailable,
    "maybe_committed": MaybeCommitted,
}


def code_of(error: RaftError) -> str:
    """The key of its class in CODES."""
    return next(code for code, cls in CODES.items() if isinstance(error, cls))
