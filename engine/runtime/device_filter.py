"""Device rules of control groups version 2: OCI rules as one eBPF program per control group.

`effective` turns the list of rules, each a change of what was before, into what version 1's devices.allow and
devices.deny would end with; `compile_filter` makes the program for that (both pure); `Filters` loads and attaches.
A program returns 1 when the access may go on. Sources: Documentation/admin-guide/cgroup-v1/devices.rst,
cgroup-v2.rst (device controller), bpf(2), include/uapi/linux/bpf.h, security/device_cgroup.c.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from engine.runtime import syscalls

ANY = None
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_DEVICE, _ALLOW_MULTI = 15, 6, 2
_INSTRUCTION = struct.Struct("<BBhi")
# struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
_LOAD, _MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0x61, 0xB4, 0xBC, 0x54, 0x74
_JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER, _JUMP_EQUAL, _EXIT = 0x56, 0x5E, 0x16, 0x95
_RESULT, _CONTEXT, _TYPE, _REQUEST, _MAJOR, _MINOR, _SCRATCH = 0, 1, 2, 3, 4, 5, 6
# An old kernel takes this many instructions; a rule needs at most seven.
_INSTRUCTIONS_MAX = 4096
_KEPT_PROGRAMS = 16

Key = tuple[int, int | None, int | None]  # type, major, minor; None is any


class Effective(msgspec.Struct, frozen=True):
    """What is not an exception is allowed or not; `exceptions`: device -> the accesses that are the opposite."""

    allows: bool
    exceptions: tuple[tuple[Key, int], ...] = ()

    @property
    def allows_everything(self) -> bool:
        return self.allows and not self.exceptions


def effective(rules: Iterable[Mapping[str, Any]]) -> Effective:
    """OCI `linux.resources.devices`, in order. ValueError names a rule that is none."""
    allows, exceptions = True, OrderedDict[Key, int]()
    for rule in rules:
        kind, major, minor = rule.get("type") or "a", _number(rule.get("major")), _number(rule.get("minor"))
        access = _access(rule)
        if kind == "a":
            # As version 1 does it: this is the start of a new list.
            allows, exceptions = bool(rule.get("allow")), OrderedDict()
            continue
        if kind not in ("c", "b", "u"):
            raise ValueError(f"device rule {dict(rule)}: type must be a, b, c or u")
        key = (_TYPES["b" if kind == "b" else "c"], major, minor)
        if bool(rule.get("allow")) != allows:
            exceptions[key] = exceptions.get(key, 0) | access
        else:
            exceptions[key] = exceptions.get(key, 0) & ~access
    return Effective(allows, tuple((key, access) for key, access in exceptions.items() if access))


def compile_filter(wanted: Effective) -> bytes:
    """The program. ValueError when there are too many rules for a kernel."""
    code = [
        _op(_LOAD, _TYPE, _CONTEXT, 0, 0),
        _op(_MOVE_REGISTER, _REQUEST, _TYPE, 0, 0),
        _op(_AND, _TYPE, 0, 0, 0xFFFF),
        _op(_SHIFT_RIGHT, _REQUEST, 0, 0, 16),
        _op(_LOAD, _MAJOR, _CONTEXT, 4, 0),
        _op(_LOAD, _MINOR, _CONTEXT, 8, 0),
    ]
    for (kind, major, minor), access in wanted.exceptions:
        code += _exception(kind, major, minor, access, wanted.allows)
    code += [_op(_MOVE, _RESULT, 0, 0, int(wanted.allows)), _op(_EXIT, 0, 0, 0, 0)]
    if len(code) > _INSTRUCTIONS_MAX:
        raise ValueError(f"{len(wanted.exceptions)} device rules are more than the kernel takes")
    return b"".join(code)


def _exception(kind: int, major: int | None, minor: int | None, access: int, allows: bool) -> list[bytes]:
    """Return the opposite of the default when the request is for this device and these accesses."""
    tests: list[tuple[int, int, int, int]] = [(_JUMP_UNEQUAL, _TYPE, 0, kind)]
    if major is not ANY:
        tests.append((_JUMP_UNEQUAL, _MAJOR, 0, major))
    if minor is not ANY:
        tests.append((_JUMP_UNEQUAL, _MINOR, 0, minor))
    tests.append((_MOVE_REGISTER, _SCRATCH, _REQUEST, 0))
    tests.append((_AND, _SCRATCH, 0, access))
    # Allowed only as a whole; refused as soon as a part of it is refused.
    if allows:
        tests.append((_JUMP_EQUAL, _SCRATCH, 0, 0))
    else:
        tests.append((_JUMP_UNEQUAL_REGISTER, _SCRATCH, _REQUEST, 0))
    verdict = [_op(_MOVE, _RESULT, 0, 0, int(not allows)), _op(_EXIT, 0, 0, 0, 0)]
    code = []
    for position, (operation, left, right, value) in enumerate(tests):
        is_jump = operation in (_JUMP_UNEQUAL, _JUMP_UNEQUAL_REGISTER, _JUMP_EQUAL)
        to_next_rule = len(tests) - position - 1 + len(verdict) if is_jump else 0
        code.append(_op(operation, left, right, to_next_rule, value))
    return code + verdict


class Filters:
    """Loaded programs by their code: nearly all containers have the same rules."""

    def __init__(self) -> None:
        self._programs: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def attach(self, folder: str, rules: Sequence[Mapping[str, Any]]) -> None:
        """Put the rules in force for a control group, which keeps them until it is removed.

        Raises OSError with the kernel's reason, ValueError for rules that are wrong.
        """
        wanted = effective(rules)
        if wanted.allows_everything:
            return
        with self._lock:
            program = self._program(compile_filter(wanted))
            group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.bpf(_PROG_ATTACH, struct.pack("<IIII", group, program, _ATTACH_DEVICE, _ALLOW_MULTI))
            except OSError as error:
                raise _explained(error, folder) from error
            finally:
                os.close(group)

    def _program(self, code: bytes) -> int:
        if code in self._programs:
            self._programs.move_to_end(code)
            return self._programs[code]
        try:
            program = _load(code)
        except OSError as error:
            raise _explained(error, "device filter") from error
        self._programs[code] = program
        if len(self._programs) > _KEPT_PROGRAMS:
            os.close(self._programs.popitem(last=False)[1])
        return program


def _load(code: bytes) -> int:
    """Its descriptor. bpf(2): BPF_PROG_LOAD; the verifier's log is not asked for, the program is ours."""
    instructions, address = syscalls.memory(code)
    license_text, license_address = syscalls.memory(b"Apache-2.0\0")
    attributes = struct.pack(
        "<IIQQIIQII16sII",
        *(_PROG_TYPE_CGROUP_DEVICE, len(code) // _INSTRUCTION.size, address, license_address),
        *(0, 0, 0, 0, 0, b"swarmctl_device", 0, _ATTACH_DEVICE),
    )
    descriptor = syscalls.bpf(_PROG_LOAD, attributes)
    del instructions, license_text
    os.set_inheritable(descriptor, False)
    return descriptor


def _explained(error: OSError, what: str) -> OSError:
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        reason += " (device rules on cgroup v2 need a kernel with CONFIG_CGROUP_BPF)"
    elif error.errno == errno.EPERM:
        reason += " (loading eBPF needs CAP_SYS_ADMIN or CAP_BPF and a sufficient limit of locked memory)"
    return OSError(error.errno, reason, what)


def _number(value: Any) -> int | None:
    return ANY if value is None or value < 0 else int(value)


def _access(rule: Mapping[str, Any]) -> int:
    bits = 0
    for letter in rule.get("access") or "rwm":
        if letter not in _ACCESS:
            raise ValueError(f"device rule {dict(rule)}: access must be made of r, w and m")
        bits |= _ACCESS[letter]
    return bits


def _op(operation: int, left: int, right: int, offset: int, value: int) -> bytes:
    return _INSTRUCTION.pack(operation, right << 4 | left, offset, value)
