"""What can go wrong on the user's side of the API, each with what to do next.

CliError              a message, an optional hint, and the exit status of the process
+-- UsageError        the command line itself is wrong (exit status as `docker`: 125 for flags, 1 for arguments)
+-- ApiError          the daemon answered with an error; carries the HTTP status
+-- DaemonUnreachable nobody answers at the address
+-- ProtocolError     what answered is not an HTTP server we understand
SilentExit            end with this status, everything has been said
"""

from __future__ import annotations


class CliError(Exception):
    """`exit_code` is the process's status; `hint` tells what to do next, or is empty."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(CliError):
    """Names the value that is wrong and what would be right."""


class ApiError(CliError):
    """The daemon's own words; `status` is the HTTP status of its answer.

    outcome: of a change to the cluster that failed: "none", "unknown" (it may have been written), "" elsewhere.
    """

    def __init__(self, status: int, message: str, outcome: str = "") -> None:
        hint = "look whether it was done before you try again" if outcome == "unknown" else ""
        super().__init__(f"Error response from daemon: {message}", hint=hint)
        self.outcome = outcome
        self.status = status
        self.reason = message


class DaemonUnreachable(CliError):
    pass


class ProtocolError(CliError):
    pass


class SilentExit(Exception):
    def __init__(self, exit_code: int) -> None:
        super().__init__(str(exit_code))
        self.exit_code = exit_code
