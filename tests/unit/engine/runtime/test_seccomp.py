"""The filter is run by a small interpreter of classic BPF, so what it decides is tested without a kernel."""

from __future__ import annotations

import json
import struct

import pytest

from engine.errors import InvalidParameter
from engine.runtime import bpf, seccomp
from engine.runtime.capabilities import DEFAULT

ALLOW, KILL = bpf.RETURN_ALLOW, bpf.RETURN_KILL_PROCESS
EPERM, ENOSYS = bpf.RETURN_ERRNO | 1, bpf.RETURN_ERRNO | 38
X86_64 = bpf.AUDIT["x86_64"]


def run(code: bytes, number: int, *arguments: int, architecture: int = X86_64) -> int:
    """What the kernel's BPF machine would return."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    program = list(struct.iter_unpack("<HBBI", code))
    accumulator, position = 0, 0
    while True:
        operation, success, failure, operand = program[position]
        position += 1
        if operation == bpf.RETURN:
            return int(operand)
        if operation == bpf.LOAD_WORD:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif operation == bpf.AND:
            accumulator &= operand
        elif operation == bpf.JUMP:
            position += operand
        else:
            holds = {
                bpf.JUMP_EQUAL: accumulator == operand,
                bpf.JUMP_GREATER: accumulator > operand,
                bpf.JUMP_GREATER_EQUAL: accumulator >= operand,
            }[operation]
            position += success if holds else failure


def call(code: bytes, name: str, *arguments: int, table: str = "x86_64", architecture: int = X86_64) -> int:
    number = seccomp._call_numbers()[table][name]
    if table == "x32":
        number += bpf.X32_BIT
    return run(code, number, *arguments, architecture=architecture)


@pytest.fixture(scope="module")
def default() -> bytes:
    return seccomp.compiled(seccomp.container_profile("", DEFAULT))


@pytest.mark.parametrize("name", ["read", "execve", "futex", "ptrace", "chroot"])
def test_default_allows(default: bytes, name: str) -> None:
    assert call(default, name) == ALLOW


@pytest.mark.parametrize(
    "name", ["mount", "unshare", "setns", "keyctl", "add_key", "bpf", "kexec_load", "init_module", "swapon"]
)
def test_default_refuses(default: bytes, name: str) -> None:
    assert call(default, name) == EPERM


def test_default_conditions_on_arguments(default: bytes) -> None:
    assert call(default, "clone3") == ENOSYS
    assert call(default, "clone", 0x11) == ALLOW
    assert call(default, "clone", 0x10000000 | 0x11) == EPERM  # CLONE_NEWUSER
    assert call(default, "clone", 0x00020000) == EPERM  # CLONE_NEWNS
    assert call(default, "socket", 2) == ALLOW
    assert call(default, "socket", 38) == EPERM  # AF_ALG
    assert call(default, "socket", 40) == EPERM  # AF_VSOCK
    assert call(default, "socket", 1 << 32) == ALLOW  # 64-bit comparison
    assert call(default, "personality", 0xFFFFFFFF) == ALLOW
    assert call(default, "personality", 0x0400000) == EPERM


def test_default_in_other_architectures(default: bytes) -> None:
    x86 = bpf.AUDIT["x86"]
    assert call(default, "read", table="x86", architecture=x86) == ALLOW
    assert call(default, "mount", table="x86", architecture=x86) == EPERM
    assert call(default, "read", table="x32") == ALLOW
    assert call(default, "mount", table="x32") == EPERM
    assert call(default, "read", architecture=bpf.AUDIT["aarch64"]) == KILL


def test_unknown_numbers_are_refused(default: bytes) -> None:
    assert run(default, 100_000) == EPERM
    assert run(default, 0xFFFFFFFF) == EPERM


def test_capabilities_open_more() -> None:
    code = seccomp.compiled(seccomp.container_profile("", [*DEFAULT, "CAP_SYS_ADMIN"]))
    assert call(code, "mount") == ALLOW
    assert call(code, "clone", 0x10000000) == ALLOW
    assert call(code, "clone3") == ALLOW
    assert call(code, "init_module") == EPERM


def test_every_call_of_the_profile_agrees_with_the_rules(default: bytes) -> None:
    """The search tree against a plain walk over the profile, for every number of the main table."""
    section = seccomp.container_profile("", DEFAULT)
    rules = seccomp._rules(section["syscalls"], seccomp._call_numbers()["x86_64"])
    for number in range(600):
        plain = rules.get(number, ())
        if any(rule.conditions for rule in plain):
            continue
        expected = plain[0].outcome if plain else EPERM
        assert run(default, number) == expected, number


@pytest.mark.parametrize(
    ("operator", "value", "second", "holds", "fails"),
    [
        ("==", 1 << 33, 0, [1 << 33], [0, 1, (1 << 33) + 1, 1 << 34]),
        ("!=", 5, 0, [4, 6, (1 << 32) + 5], [5]),
        ("<", 1 << 32, 0, [0, (1 << 32) - 1], [1 << 32, 1 << 33]),
        ("<=", 7, 0, [0, 7], [8, 1 << 32]),
        (">", 7, 0, [8, 1 << 40], [7, 0]),
        (">=", (1 << 32) + 2, 0, [(1 << 32) + 2, 1 << 33], [(1 << 32) + 1, 2]),
        ("&==", 0xF0, 0x10, [0x10, 0x1F, (1 << 40) + 0x10], [0x20, 0x30]),
    ],
)
def test_operators(operator: str, value: int, second: int, holds: list[int], fails: list[int]) -> None:
    condition = bpf.Condition(2, operator, value, second)
    code = bpf.compile_filter({"x86_64": {9: (bpf.Rule(ALLOW, (condition,)),)}}, EPERM)
    assert [run(code, 9, 0, 0, argument) for argument in holds] == [ALLOW] * len(holds)
    assert [run(code, 9, 0, 0, argument) for argument in fails] == [EPERM] * len(fails)


def test_long_jumps() -> None:
    """More code between a jump and its target than a conditional jump can cross."""
    rules = {n: (bpf.Rule(bpf.RETURN_ERRNO | n, (bpf.Condition(0, "==", n),)),) for n in range(1, 200)}
    code = bpf.compile_filter({"x86_64": rules, "x86": rules}, EPERM)
    for n in (1, 2, 100, 198, 199):
        assert run(code, n, n) == bpf.RETURN_ERRNO | n
        assert run(code, n, n + 1) == EPERM
    assert run(code, 200) == EPERM


def test_a_filter_has_a_limit() -> None:
    rules = {n: (bpf.Rule(bpf.RETURN_ERRNO | n, (bpf.Condition(0, "==", n),)),) for n in range(1, 900)}
    with pytest.raises(ValueError, match="instructions"):
        bpf.compile_filter({"x86_64": rules}, EPERM)


def test_custom_profile() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"name": "chmod", "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_PACCT"]}},
        ],
    }
    code = seccomp.compiled(seccomp.container_profile(json.dumps(profile), DEFAULT))
    assert [call(code, name) for name in ("mkdir", "chmod", "acct")] == [ENOSYS, KILL, ALLOW]


def test_several_conditions_on_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args}],
    }
    code = seccomp.compiled(seccomp.container_profile(json.dumps(profile), DEFAULT))
    assert [call(code, "socket", domain) for domain in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"defaultAction": "SCMP_ACT_NO"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}',
    ],
)
def test_bad_profiles(text: str) -> None:
    with pytest.raises(InvalidParameter, match="decoding seccomp profile failed"):
        seccomp.container_profile(text, DEFAULT)


def test_compiling_is_cached() -> None:
    section = seccomp.container_profile("", DEFAULT)
    assert seccomp.container_profile("", tuple(reversed(DEFAULT))) is section
    assert seccomp.compiled(section) is seccomp.compiled(section)
    assert seccomp.compiled(None) == b""
