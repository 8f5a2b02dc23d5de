"""Seccomp profiles of containers: Docker's default one, custom ones, and their compiled form.

`container_profile` gives the `linux.seccomp` section of an OCI configuration, with every condition on
capabilities, architecture and kernel resolved; `compiled` turns that into the filter. Both are cached.
The default profile is `seccomp_default.json`: groups of calls with `if_caps`, `unless_caps`, `if_archs`,
`unless_archs`, `min_kernel`, `errno` (else allowed) and `args` [index, operator, value, second value].
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec

from engine.errors import InvalidParameter
from engine.runtime import bpf
from engine.runtime.bpf import Condition, Rule
from engine.runtime.syscalls import MACHINE

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64",),
}
_TABLES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
}
# What profiles call this machine in their conditions.
_PROFILE_ARCHS = {"x86_64": {"amd64"}, "aarch64": {"arm64"}}.get(MACHINE, {MACHINE})
_OPERATORS = {
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">",
    "SCMP_CMP_MASKED_EQ": "&==",
}
_OPERATOR_NAMES = {short: name for name, short in _OPERATORS.items()}
_EPERM = 1
_OUTCOMES = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": bpf.RETURN_KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": bpf.RETURN_ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": bpf.RETURN_ALLOW,
}
ACTION_NAMES, OPERATOR_NAMES = tuple(_OUTCOMES), tuple(_OPERATORS)
ARCHITECTURE_NAMES = _ARCHITECTURES.get(MACHINE, ())
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")


def container_profile(text: str, caps: Sequence[str]) -> dict[str, Any]:
    """The `linux.seccomp` section: "" is the default profile, else a profile's JSON text in Docker's form.

    The result is shared, do not change it. InvalidParameter for a profile that cannot be understood.
    """
    return _profile(text, frozenset(caps))


def compiled(section: Mapping[str, Any] | None) -> bytes:
    """The filter for a `linux.seccomp` section, b"" for none. InvalidParameter when it makes no sense."""
    if not section:
        return b""
    cached = _recent.get(id(section))
    if cached is not None and cached[0] is section:
        return cached[1]
    code = _compiled_json(msgspec.json.encode(section))
    if len(_recent) >= _RECENT_MAX:
        _recent.clear()
    # The section is kept alive here, so its id cannot become another's.
    _recent[id(section)] = (section, code)
    return code


_RECENT_MAX = 16
_recent: dict[int, tuple[Mapping[str, Any], bytes]] = {}


@functools.lru_cache(maxsize=64)
def _profile(text: str, caps: frozenset[str]) -> dict[str, Any]:
    if not text:
        return _resolved(_default_groups(), "SCMP_ACT_ERRNO", _EPERM, _default_architectures(), caps)
    try:
        profile = json.loads(text)
        if not isinstance(profile, dict) or "defaultAction" not in profile:
            raise ValueError("defaultAction is missing")
        groups = [_docker_group(group) for group in profile.get("syscalls") or ()]
        section = _resolved(
            groups, profile["defaultAction"], profile.get("defaultErrnoRet"), _architectures_of(profile), caps
        )
        _compiled_json(msgspec.json.encode(section))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidParameter(f"decoding seccomp profile failed: {error}") from error
    return section


def _resolved(
    groups: Sequence[Mapping[str, Any]],
    default: str,
    default_errno: int | None,
    architectures: Sequence[str],
    caps: frozenset[str],
) -> dict[str, Any]:
    calls = []
    for group in groups:
        if not _applies(group, caps):
            continue
        entry: dict[str, Any] = {"names": group["names"], "action": group["action"]}
        if group.get("errno") is not None:
            entry["errnoRet"] = group["errno"]
        if group.get("args"):
            entry["args"] = group["args"]
        calls.append(entry)
    section: dict[str, Any] = {
        "defaultAction": default,
        "architectures": list(architectures),
        "syscalls": calls,
    }
    if default_errno is not None:
        section["defaultErrnoRet"] = default_errno
    return section


def _applies(group: Mapping[str, Any], caps: frozenset[str]) -> bool:
    if_archs, unless_archs = group.get("if_archs"), group.get("unless_archs") or ()
    if if_archs and not _PROFILE_ARCHS & set(if_archs):
        return False
    if _PROFILE_ARCHS & set(unless_archs):
        return False
    if not set(group.get("if_caps") or ()) <= caps or set(group.get("unless_caps") or ()) & caps:
        return False
    minimum = group.get("min_kernel")
    return not minimum or _kernel(os.uname().release) >= _kernel(minimum)


def _kernel(release: str) -> tuple[int, int]:
    major, minor = release.split("-")[0].split(".")[:2]
    return int(major), int(minor)


@functools.cache
def _default_groups() -> list[dict[str, Any]]:
    groups = json.loads((resources.files("engine.runtime") / "seccomp_default.json").read_text())
    for group in groups:
        group["names"] = group.pop("calls").split()
        group["action"] = "SCMP_ACT_ERRNO" if "errno" in group else "SCMP_ACT_ALLOW"
        group["args"] = [
            {"index": index, "op": _OPERATOR_NAMES[operator], "value": value, "valueTwo": second}
            for index, operator, value, second in group.get("args", ())
        ]
    return list(groups)


def _default_architectures() -> Sequence[str]:
    return _ARCHITECTURES.get(MACHINE, ())


def _docker_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of a profile's `syscalls` in Docker's form."""
    includes, excludes = group.get("includes") or {}, group.get("excludes") or {}
    return {
        "names": list(group.get("names") or ()) + ([group["name"]] if group.get("name") else []),
        "action": group["action"],
        "errno": group.get("errnoRet"),
        "args": list(group.get("args") or ()),
        "if_caps": includes.get("caps"),
        "unless_caps": excludes.get("caps"),
        "if_archs": includes.get("arches"),
        "unless_archs": excludes.get("arches"),
        "min_kernel": includes.get("minKernel"),
    }


def _architectures_of(profile: Mapping[str, Any]) -> Sequence[str]:
    native = _default_architectures()[:1]
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") in native:
            return [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return profile.get("architectures") or native


@functools.lru_cache(maxsize=64)
def _compiled_json(encoded: bytes) -> bytes:
    section = msgspec.json.decode(encoded)
    default = _outcome(section["defaultAction"], section.get("defaultErrnoRet"))
    numbers = _call_numbers()
    tables: dict[str, dict[int, bpf.Rules]] = {}
    for name in section.get("architectures") or _default_architectures()[:1]:
        # An architecture without a table, such as 32-bit ARM, stays foreign: its calls kill.
        if name in _TABLES:
            tables[_TABLES[name]] = _rules(section["syscalls"], numbers[_TABLES[name]])
    return bpf.compile_filter(tables, default)


def _rules(groups: Sequence[Mapping[str, Any]], numbers: Mapping[str, int]) -> dict[int, bpf.Rules]:
    """Calls that an architecture does not have are left out."""
    found: dict[int, list[Rule]] = {}
    for group in groups:
        outcome = _outcome(group["action"], group.get("errnoRet"))
        alternatives = _alternatives(group.get("args") or ())
        for name in group["names"]:
            if name in numbers:
                entry = found.setdefault(numbers[name], [])
                entry += [Rule(outcome, conditions) for conditions in alternatives]
    return {number: _trimmed(rules) for number, rules in found.items()}


def _alternatives(args: Sequence[Mapping[str, Any]]) -> list[tuple[Condition, ...]]:
    """All conditions must hold; several on one argument are alternatives, as in runc."""
    conditions = [
        Condition(int(arg["index"]), _operator(arg["op"]), int(arg["value"]), int(arg.get("valueTwo") or 0))
        for arg in args
    ]
    if any(not 0 <= condition.index <= 5 for condition in conditions):
        raise ValueError("an argument's index must be 0 to 5")
    if len({condition.index for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _trimmed(rules: Sequence[Rule]) -> bpf.Rules:
    """Rules after an unconditional one are never reached."""
    kept: list[Rule] = []
    for rule in rules:
        kept.append(rule)
        if not rule.conditions:
            break
    return tuple(kept)


def _operator(name: str) -> str:
    if name not in _OPERATORS:
        raise ValueError(f"unknown operator {name}: use one of {', '.join(_OPERATORS)}")
    return _OPERATORS[name]


def _outcome(action: str, data: int | None) -> int:
    if action not in _OUTCOMES:
        raise ValueError(f"unknown action {action}: use one of {', '.join(_OUTCOMES)}")
    value = _OUTCOMES[action]
    return value | ((_EPERM if data is None else data) & 0xFFFF) if action in _WITH_DATA else value


@functools.cache
def _call_numbers() -> dict[str, dict[str, int]]:
    text = (resources.files("engine.runtime") / "syscall_numbers.json").read_text()
    return dict(json.loads(text))
