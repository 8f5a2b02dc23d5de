"""A small compiler from system call rules to classic BPF, the language of seccomp filters. Pure.

Code is built from its end to its start, so every jump target is known when the jump is made; a conditional
jump that is too far goes over a long one. The calls of an architecture become a binary search over ranges of
numbers with the same outcome. Sources: seccomp(2), include/uapi/linux/{bpf_common,seccomp,audit}.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import msgspec

LOAD_WORD, RETURN, AND, JUMP = 0x20, 0x06, 0x54, 0x05
JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_ARGUMENTS = 0, 4, 16
RETURN_ALLOW, RETURN_KILL_PROCESS, RETURN_ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
X32_BIT = 0x40000000
AUDIT = {"x86_64": 0xC000003E, "x86": 0x40000003, "aarch64": 0xC00000B7}
INSTRUCTIONS_MAX = 4096
_SHORT_JUMP_MAX = 255
_INSTRUCTION = struct.Struct("<HBBI")


class Condition(msgspec.Struct, frozen=True):
    """On argument `index`; `operator` is one of == != < <= > >= and &== (masked with `value`)."""

    index: int
    operator: str
    value: int
    value_two: int = 0


class Rule(msgspec.Struct, frozen=True):
    """`outcome` (a seccomp return value) when all conditions hold."""

    outcome: int
    conditions: tuple[Condition, ...] = ()


Rules = tuple[Rule, ...]


def compile_filter(
    tables: Mapping[str, Mapping[int, Rules]], default: int, *, foreign: int = RETURN_KILL_PROCESS
) -> bytes:
    """Machine code for architecture -> call number -> rules, the first that matches wins.

    Architectures: x86_64, x32 (numbers without the x32 bit), x86, aarch64. `default` is for calls without a
    matching rule, `foreign` for architectures that are not listed.
    """
    code = _Code()
    entry = code.outcome(foreign)
    for architecture in reversed([name for name in tables if name in AUDIT]):
        section = _section(code, architecture, tables, default, foreign)
        entry = code.branch(JUMP_EQUAL, AUDIT[architecture], section, entry)
    code.add(LOAD_WORD, OFFSET_ARCHITECTURE, before=entry)
    return code.assembled()


def _section(
    code: _Code, architecture: str, tables: Mapping[str, Mapping[int, Rules]], default: int, foreign: int
) -> int:
    calls = _calls(code, tables[architecture], default)
    if architecture == "x86_64":
        x32 = code.outcome(foreign)
        if "x32" in tables:
            shifted = {number + X32_BIT: rules for number, rules in tables["x32"].items()}
            x32 = _calls(code, shifted, default)
        calls = code.branch(JUMP_GREATER_EQUAL, X32_BIT, x32, calls)
    return code.add(LOAD_WORD, OFFSET_NUMBER, before=calls)


def _calls(code: _Code, rules: Mapping[int, Rules], default: int) -> int:
    """A search tree over ranges: (first number, outcome of the range)."""
    ranges: list[tuple[int, Rules]] = [(0, ())]
    for number in sorted(rules):
        if rules[number] != ranges[-1][1]:
            ranges.append((number, rules[number]))
        if number + 1 not in rules:
            ranges.append((number + 1, ()))
    tidy = [r for i, r in enumerate(ranges) if i + 1 == len(ranges) or ranges[i + 1][0] != r[0]]
    merged = [r for i, r in enumerate(tidy) if i == 0 or tidy[i - 1][1] != r[1]]
    return _tree(code, merged, default)


def _tree(code: _Code, ranges: Sequence[tuple[int, Rules]], default: int) -> int:
    if len(ranges) == 1:
        return _rules(code, ranges[0][1], default)
    middle = len(ranges) // 2
    upper = _tree(code, ranges[middle:], default)
    lower = _tree(code, ranges[:middle], default)
    return code.branch(JUMP_GREATER_EQUAL, ranges[middle][0], upper, lower)


def _rules(code: _Code, rules: Rules, default: int) -> int:
    entry = code.outcome(default)
    for rule in reversed(rules):
        success = code.outcome(rule.outcome)
        failure = entry
        for condition in reversed(rule.conditions):
            success = _condition(code, condition, success, failure)
        entry = success
    return entry


def _condition(code: _Code, condition: Condition, success: int, failure: int) -> int:
    """64-bit comparison of two 32-bit halves (little endian)."""
    operator, value = condition.operator, condition.value
    if operator in ("!=", "<", "<="):
        opposite = {"!=": "==", "<": ">=", "<=": ">"}[operator]
        negated = Condition(condition.index, opposite, value)
        return _condition(code, negated, failure, success)
    low_offset = OFFSET_ARGUMENTS + 8 * condition.index
    high_offset = low_offset + 4
    if operator == "&==":
        mask, value = value, condition.value_two
        low = code.branch(JUMP_EQUAL, value & 0xFFFFFFFF, success, failure)
        low = code.add(AND, mask & 0xFFFFFFFF, before=low)
        low = code.add(LOAD_WORD, low_offset, before=low)
        high = code.branch(JUMP_EQUAL, value >> 32, low, failure)
        high = code.add(AND, mask >> 32, before=high)
        return code.add(LOAD_WORD, high_offset, before=high)
    jump = {"==": JUMP_EQUAL, ">": JUMP_GREATER, ">=": JUMP_GREATER_EQUAL}[operator]
    low = code.branch(jump, value & 0xFFFFFFFF, success, failure)
    low = code.add(LOAD_WORD, low_offset, before=low)
    high = code.branch(JUMP_EQUAL, value >> 32, low, failure)
    if operator != "==":
        high = code.branch(JUMP_GREATER, value >> 32, success, high)
    return code.add(LOAD_WORD, high_offset, before=high)


class _Code:
    """Instructions from the last to the first; a position counts from the end, so it never changes."""

    def __init__(self) -> None:
        self._reversed: list[bytes] = []
        self._outcomes: dict[int, int] = {}

    def outcome(self, value: int) -> int:
        """Position of a `return value`, made once."""
        if value not in self._outcomes:
            self._outcomes[value] = self._put(RETURN, 0, 0, value)
        return self._outcomes[value]

    def add(self, operation: int, operand: int, *, before: int) -> int:
        """An instruction that goes on at `before`."""
        if before != len(self._reversed) - 1:
            self._put(JUMP, 0, 0, self._distance(before))
        return self._put(operation, 0, 0, operand)

    def branch(self, operation: int, operand: int, success: int, failure: int) -> int:
        # Both may need a long jump, and the second one moves the first one away: hence the margin.
        if self._distance(success) > _SHORT_JUMP_MAX - 1:
            success = self._put(JUMP, 0, 0, self._distance(success))
        if self._distance(failure) > _SHORT_JUMP_MAX:
            failure = self._put(JUMP, 0, 0, self._distance(failure))
        return self._put(operation, self._distance(success), self._distance(failure), operand)

    def assembled(self) -> bytes:
        if len(self._reversed) > INSTRUCTIONS_MAX:
            raise ValueError(f"{len(self._reversed)} instructions, the kernel takes {INSTRUCTIONS_MAX}")
        return b"".join(reversed(self._reversed))

    def _distance(self, position: int) -> int:
        return len(self._reversed) - position - 1

    def _put(self, operation: int, success: int, failure: int, operand: int) -> int:
        self._reversed.append(_INSTRUCTION.pack(operation, success, failure, operand))
        return len(self._reversed) - 1
