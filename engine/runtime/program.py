"""A program of system calls: what a container's first process does between clone3 and execve.

Owns the operations, their printed form and their packed form, which `_spawn.c` and `interpreter.py` both
execute. Pure: nothing is called here. The layout is a contract with `_spawn.c`; change both together.

An operation is one system call with up to six arguments (numbers, pointers to data, registers), an optional
register for its result, and the errnos it tolerates; a tolerated error skips the next `skip` operations.
Three operations are more than one call: TARGET (open a mount target inside the root, making what is
missing), RLIMIT (set a limit, lowered to what this process may set) and EXEC (the first candidate that runs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from engine.runtime.syscalls import NUMBERS

MAGIC = 0x53574D50  # "SWMP"
REGISTERS_MAX = 64
OPS_MAX = 4096
TARGET, RLIMIT, EXEC = -1, -2, -3
TARGET_DIRECTORY, TARGET_FILE, TARGET_LIKE = 0, 1, 2
ANY_ERROR = 0x7FFF
HEADER = struct.Struct("<IIII")  # magic, operations, relocations, bytes of data
OPERATION = struct.Struct("<i6BbBhh6q")
_pack_operation = OPERATION.pack
_IMMEDIATE, _POINTER, _REGISTER = 0, 1, 2
_COMPOSITE_NAMES = {TARGET: "target", RLIMIT: "rlimit", EXEC: "exec"}


class Register(msgspec.Struct, frozen=True):
    """A slot for a file descriptor; the first ones are filled by the caller before the program runs."""

    index: int
    name: str


class Vector(msgspec.Struct, frozen=True):
    """A null-terminated array of pointers to strings (argv, envp)."""

    items: tuple[bytes, ...]


class FilterCode(msgspec.Struct, frozen=True):
    """A struct sock_fprog that points to BPF instructions (8 bytes each)."""

    code: bytes


Argument = int | bytes | None | Register | Vector | FilterCode


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. `label` tells a person what failed; `name` is the system call or the composite."""

    name: str
    number: int
    arguments: tuple[Argument, ...]
    out: Register | None = None
    tolerated: tuple[int, ...] = ()
    skip: int = 0
    label: str = ""

    def __str__(self) -> str:
        text = f"{self.name}({', '.join(_shown(argument) for argument in self.arguments)})"
        if self.out is not None:
            text += f" -> {self.out.name}"
        if self.tolerated:
            known = ["*" if code == ANY_ERROR else str(code) for code in self.tolerated]
            text += f" unless {'|'.join(known)}" + (f" skip {self.skip}" if self.skip else "")
        return text


def call(
    name: str,
    *arguments: Argument,
    out: Register | None = None,
    tolerated: tuple[int, ...] = (),
    skip: int = 0,
    label: str = "",
) -> Op:
    return Op(
        name=name,
        number=NUMBERS[name],
        arguments=arguments,
        out=out,
        tolerated=tolerated,
        skip=skip,
        label=label,
    )


def target(
    root: Register, path: str, kind: int, like: Register | None, out: Register, *, label: str = ""
) -> Op:
    """Open `path` inside `root` (links stay inside) for mounting on it; missing parts are made.

    `kind` TARGET_LIKE makes a directory or a file, whichever the descriptor in `like` is.
    """
    arguments: tuple[Argument, ...] = (root, path.encode(), kind, like if like is not None else 0)
    return Op(name="target", number=TARGET, arguments=arguments, out=out, label=label)


def rlimit(resource: int, soft: int, hard: int, *, label: str = "") -> Op:
    """-1 is unlimited."""
    return Op(name="rlimit", number=RLIMIT, arguments=(resource, soft, hard), label=label)


def execute(candidates: Sequence[str], argv: Sequence[str], env: Sequence[str], *, label: str = "") -> Op:
    """execve of the first candidate that runs; the most telling error when none does."""
    vectors = tuple(
        Vector(tuple(item.encode("utf-8", "surrogateescape") for item in items))
        for items in (candidates, argv, env)
    )
    return Op(name="exec", number=EXEC, arguments=vectors, label=label)


def pack(ops: Sequence[Op]) -> bytes:
    """The form that the interpreters read. Invariant: unpacking gives the same calls in the same order."""
    assert len(ops) <= OPS_MAX, f"program of {len(ops)} operations"
    packer = _Packer()
    body = b"".join(packer.operation(op) for op in ops)
    data, relocations = bytes(packer.data), packer.relocations
    header = HEADER.pack(MAGIC, len(ops), len(relocations), len(data))
    return header + body + struct.pack(f"<{len(relocations)}Q", *relocations) + data


def transcript(ops: Iterable[Op]) -> str:
    """The program as text, one operation per line."""
    return "".join(f"{op}\n" for op in ops)


class _Packer:
    """Collects the data that arguments point to; equal strings are stored once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.relocations: list[int] = []
        self._strings: dict[bytes, int] = {}

    def operation(self, op: Op) -> bytes:
        # Exact types in the order of their frequency: this is the hot part of a start in the daemon.
        kinds, values = [_IMMEDIATE] * 6, [0] * 6
        for position, argument in enumerate(op.arguments):
            kind = type(argument)
            if kind is int:
                values[position] = cast(int, argument)
            elif kind is bytes:
                kinds[position] = _POINTER
                values[position] = self._string(cast(bytes, argument))
            elif argument is not None:
                kinds[position], values[position] = self._other(argument)
        first, second = (*op.tolerated, 0, 0)[:2]
        out = -1 if op.out is None else op.out.index
        return _pack_operation(op.number, *kinds, out, op.skip, first, second, *values)

    def _other(self, argument: Argument) -> tuple[int, int]:
        if isinstance(argument, Register):
            return _REGISTER, argument.index
        if isinstance(argument, Vector):
            return _POINTER, self._vector(argument)
        assert isinstance(argument, FilterCode), f"argument {argument!r}"
        return _POINTER, self._filter(argument)

    def _string(self, value: bytes) -> int:
        offset = self._strings.get(value)
        if offset is None:
            offset = self._strings[value] = self._append(value + b"\0")
        return offset

    def _vector(self, vector: Vector) -> int:
        pointers = [self._string(item) for item in vector.items]
        offset = self._append(struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))
        self.relocations += range(offset, offset + 8 * len(pointers), 8)
        return offset

    def _filter(self, filter_code: FilterCode) -> int:
        code = self._append(filter_code.code)
        offset = self._append(struct.pack("<HxxxxxxQ", len(filter_code.code) // 8, code))
        self.relocations.append(offset + 8)
        return offset

    def _append(self, value: bytes) -> int:
        """Aligned to 8 bytes, as structures need it."""
        self.data += bytes(-len(self.data) % 8)
        offset = len(self.data)
        self.data += value
        return offset


def _shown(argument: Argument) -> str:
    if isinstance(argument, Register):
        return argument.name
    if isinstance(argument, bytes):
        printable = argument.isascii() and argument.decode().isprintable()
        return repr(argument.decode()) if printable else f"<{argument.hex()}>"
    if isinstance(argument, Vector):
        return "[" + ", ".join(repr(item.decode("utf-8", "replace")) for item in argument.items) + "]"
    if isinstance(argument, FilterCode):
        return f"<filter of {len(argument.code) // 8} instructions>"
    if argument is None:
        return "null"
    return str(argument) if -256 <= argument < 256 else hex(argument)
