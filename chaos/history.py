"""What clients did and saw: one `Operation` per request, on one register each.

Times are nanoseconds of one monotonic clock (all clients live in one process): `start` is taken before the
request leaves, `end` after the answer came. A register that does not exist holds None.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    READ = "read"
    WRITE = "write"
    CAS = "cas"


class Outcome(StrEnum):
    """`REFUSED`: a compare-and-swap found another value. `FAIL`: certainly nothing happened, for a reason
    that says nothing about the register. `UNKNOWN`: it may take effect at any time from its start on."""

    OK = "ok"
    REFUSED = "refused"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """`value`: what was read, or is to be written; `expected`: what a compare-and-swap compares with.
    `end` None: no answer that would bound the time of its effect."""

    client: str
    manager: str
    key: str
    kind: Kind
    value: str | None
    expected: str | None
    start: int
    end: int | None
    outcome: Outcome
    detail: str = ""

    def ended(self, outcome: Outcome, *, value: str | None = None, detail: str = "") -> Operation:
        """As it ended now; a read gets the `value` that it saw."""
        seen = value if self.kind is Kind.READ else self.value
        end = None if outcome is Outcome.UNKNOWN else time.monotonic_ns()
        return replace(self, value=seen, end=end, outcome=outcome, detail=detail)


def started(
    client: str, manager: str, key: str, kind: Kind, *, value: str | None = None, expected: str | None = None
) -> Operation:
    """An operation whose request leaves now."""
    start = time.monotonic_ns()
    return Operation(client, manager, key, kind, value, expected, start, None, Outcome.UNKNOWN)


def save(operations: Iterable[Operation], path: Path) -> None:
    """One JSON object a line, in order of start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(operation)) for operation in sorted(operations, key=lambda o: o.start)]
    path.write_text("".join(f"{line}\n" for line in lines))


def load(path: Path) -> list[Operation]:
    operations = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        kind, outcome = Kind(fields.pop("kind")), Outcome(fields.pop("outcome"))
        operations.append(Operation(**fields, kind=kind, outcome=outcome))
    return operations
