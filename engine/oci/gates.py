"""Where a container waits between `create` and `start`: two gates in the program of its first process. Pure.

The first is before pivot_root, when the namespaces are made and the root is mounted, for hooks of the runtime; the second
after it, before rights are given up and the command is executed. At each the process says one byte on a socket (with
it comes its pid: SCM_CREDENTIALS) and waits for one: from the socket, whose other end is `create`'s, then from the
FIFO of the container's folder, for `start`.
Invariant: a process whose `create` died does not wait for ever: its socket ends, and it dies of SIGPIPE.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.runtime.plan import Plan
from engine.runtime.program import Op, call

NUMBER_MIN = 200  # of the descriptors: above those that a program uses, below any limit of open files
_DESCRIPTOR_MAX = 0xFFFFFFFF
_ROOM = b"a byte that was read at a gate"
_SAID = b"a byte that is written at a gate"


class Gates(msgspec.Struct, frozen=True):
    """Descriptors; `fifo` is the one after `socket`."""

    socket: int
    fifo: int


def with_gates(made: Plan, gates: Gates, preserved: int) -> Plan:
    """The plan of a container with both gates; descriptors 3 to 3 + preserved - 1 reach the command."""
    assert gates.fifo == gates.socket + 1 and gates.socket >= 3 + preserved, (
        "the gates stay open as one range"
    )
    assert [op.name for op in made.ops].count("pivot_root") == 1, "the place of the first gate"
    ops: list[Op] = []
    pivoted = False
    for op in made.ops:
        if op.name == "pivot_root":
            ops += _gate(gates.socket, gates.socket)
            pivoted = True
        if op.name == "close_range" and pivoted:
            ops += _close_but(gates, preserved)
            ops += _gate(gates.socket, gates.fifo)
            ops.append(call("close_range", gates.socket, gates.fifo, 0))
        else:
            ops.append(op)
    return msgspec.structs.replace(made, ops=tuple(ops))


def with_preserved(made: Plan, preserved: int) -> Plan:
    """The plan of an exec that keeps descriptors 3 to 3 + preserved - 1."""
    closed = call("close_range", 3 + preserved, _DESCRIPTOR_MAX, 0)
    ops = tuple(closed if op.name == "close_range" else op for op in made.ops)
    return msgspec.structs.replace(made, ops=ops)


def _gate(says: int, hears: int) -> Iterator[Op]:
    yield call("write", says, _SAID, 1, label="tell that it waits")
    yield call("read", hears, _ROOM, 1, label="wait at the gate")


def _close_but(gates: Gates, preserved: int) -> Iterator[Op]:
    if 3 + preserved < gates.socket:
        yield call("close_range", 3 + preserved, gates.socket - 1, 0)
    yield call("close_range", gates.fifo + 1, _DESCRIPTOR_MAX, 0)
