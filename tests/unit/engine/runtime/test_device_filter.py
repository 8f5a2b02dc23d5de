"""The device program, run by a small interpreter of the instructions it uses, against what version 1 would answer."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest

from engine.bundle import device_rules
from engine.config import HostConfig
from engine.runtime.device_filter import Effective, Filters, compile_filter, effective

BLOCK, CHARACTER = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
NOTHING = {"allow": False, "access": "rwm"}


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers = [0] * 11
    position, limit = 0, 1 << 32
    instructions = list(struct.iter_unpack("<BBhi", code))
    while True:
        operation, pair, offset, value = instructions[position]
        left, right = pair & 15, pair >> 4
        position += 1
        match operation:
            case 0x61:
                assert right == 1, "only the context may be read"
                registers[left] = context[offset]
            case 0xB4:
                registers[left] = value % limit
            case 0xBC:
                registers[left] = registers[right] % limit
            case 0x54:
                registers[left] = registers[left] & value
            case 0x74:
                registers[left] = registers[left] >> value
            case 0x56:
                position += offset * (registers[left] != value % limit)
            case 0x5E:
                position += offset * (registers[left] != registers[right])
            case 0x16:
                position += offset * (registers[left] == value % limit)
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {operation:#x}")


class VersionOne:
    """The kernel's own list (security/device_cgroup.c), as a model."""

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        self.allows = True
        self.items: list[list[Any]] = []
        for rule in rules:
            if rule.get("type", "a") == "a":
                self.allows, self.items = rule["allow"], []
                continue
            device = [rule["type"], rule.get("major"), rule.get("minor")]
            bits = set(rule.get("access", "rwm"))
            same = [item for item in self.items if item[:3] == device]
            if rule["allow"] != self.allows:
                if same:
                    same[0][3] |= bits
                else:
                    self.items.append([*device, bits])
            for item in same if rule["allow"] == self.allows else ():
                item[3] -= bits

    def may(self, kind: str, access: set[str], major: int, minor: int) -> bool:
        for item_kind, item_major, item_minor, bits in self.items:
            if item_kind != kind or item_major not in (None, major) or item_minor not in (None, minor):
                continue
            if (access & bits) if self.allows else access <= bits:
                return not self.allows
        return self.allows


@pytest.mark.parametrize(
    "rules",
    [
        device_rules(HostConfig()),
        [NOTHING],
        [NOTHING, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}],
        [
            NOTHING,
            {"allow": True, "type": "c", "major": 1, "access": "rw"},
            {"allow": False, "type": "c", "major": 1, "access": "w"},
            {"allow": True, "type": "b", "access": "m"},
        ],
        [
            {"allow": True, "access": "rwm"},
            {"allow": False, "type": "b", "major": 8, "access": "w"},
            {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        ],
        [
            {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
            NOTHING,
            {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "w"},
            {"allow": True, "type": "c", "major": 5, "minor": 2, "access": "r"},
        ],
    ],
)
def test_program_answers_as_version_one(rules: list[dict[str, Any]]) -> None:
    code = compile_filter(effective(rules))
    model = VersionOne(rules)
    letters = {"m": MKNOD, "r": READ, "w": WRITE}
    answers = set()
    for kind, major, minor, size in itertools.product(
        "bc", (1, 5, 8, 136, 2**20), (0, 1, 2, 3, 255), (1, 2, 3)
    ):
        for access in itertools.combinations("rwm", size):
            expected = model.may(kind, set(access), major, minor)
            bits = sum(letters[letter] for letter in access)
            number = BLOCK if kind == "b" else CHARACTER
            assert run(code, number, bits, major, minor) == expected, (kind, access, major, minor)
            answers.add(expected)
    assert answers == ({False} if rules == [NOTHING] else {True, False})


def test_privileged_containers_need_no_program() -> None:
    rules = device_rules(HostConfig(privileged=True))
    assert effective(rules) == Effective(allows=True)
    Filters().attach("/no/such/group", rules)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"allow": True, "type": "x"}, "type must be"),
        ({"allow": True, "type": "c", "access": "rx"}, "access must be"),
    ],
)
def test_wrong_rules(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        effective([rule])


def test_too_many_rules_for_a_kernel() -> None:
    rules = [NOTHING, *({"allow": True, "type": "c", "major": 1, "minor": n} for n in range(1000))]
    with pytest.raises(ValueError, match="1000 device rules"):
        compile_filter(effective(rules))
