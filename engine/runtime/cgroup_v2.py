"""Control groups version 2: the unified hierarchy.

A process is cloned right into its group. The OCI numbers are converted as runc and crun do: cpu shares
become a weight, memory and swap together become swap alone; device rules become an eBPF program.
Source: Documentation/admin-guide/cgroup-v2.rst.
"""

# Plain strings: this runs for every start or line, where Path objects cost too much.
# ruff: noqa: PTH102, PTH106

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from engine.runtime.cgroup import Membership, Users, flat_keyed, number, parents_of, read, write
from engine.runtime.device_filter import Filters

FREEZE_TIMEOUT_S = 10.0
_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
_US = 1000


class DeviceFilters(Protocol):
    """Puts device rules in force (device_filter.Filters)."""

    def attach(self, folder: str, rules: Sequence[Mapping[str, Any]]) -> None: ...


class CgroupsV2:
    """`cgroup.Cgroups` on the unified hierarchy at `root`."""

    def __init__(self, root: Path, filters: DeviceFilters | None = None) -> None:
        self._root = str(root)
        self._filters = filters or Filters()
        self._made: set[str] = set()
        self._users = Users()

    def create(self, path: str, resources: Mapping[str, Any]) -> Membership:
        try:
            self._make(path)
            try:
                self.update(path, resources)
            except FileNotFoundError:
                # Between our handing a controller on and our use of it, a service manager may have taken it from
                # the root again, which it thinks its own. Used, it stays (EBUSY).
                self._make(path)
                self.update(path, resources)
            self._filters.attach(self._file(path), resources.get("devices") or ())
            return self.membership(path)
        except BaseException:
            if not self.remove(path):
                self._remove_parents(path)
            raise

    def membership(self, path: str) -> Membership:
        return Membership(into=os.open(self._file(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def update(self, path: str, resources: Mapping[str, Any]) -> None:
        for name, value in limits(resources).items():
            try:
                write(self._file(path, name), value)
            except FileNotFoundError:
                # A kernel without this limit has none: all is well when none is wanted.
                if value != "max":
                    raise
        block = resources.get("blockIO") or {}
        for device, key, rate in throttles(block):
            # One device and key for each write, as the kernel wants it.
            write(self._file(path, "io.max"), f"{device} {key}={rate or 'max'}")
        for name, value in weights(block):
            # Which of the files exists depends on the kernel and on the disk scheduler.
            with contextlib.suppress(FileNotFoundError):
                write(self._file(path, name), value)

    def freeze(self, path: str) -> None:
        write(self._file(path, "cgroup.freeze"), "1")
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        while flat_keyed(read(self._file(path, "cgroup.events"))).get("frozen") != 1:
            if time.monotonic() > deadline:
                self.thaw(path)
                raise TimeoutError(errno.ETIMEDOUT, "the processes do not stop", self._file(path))
            time.sleep(0.001)

    def thaw(self, path: str) -> None:
        write(self._file(path, "cgroup.freeze"), "0")

    def pids(self, path: str) -> list[int]:
        found: set[int] = set()
        for folder, _, _ in os.walk(self._file(path)):
            found.update(int(line) for line in read(f"{folder}/cgroup.procs").split())
        return sorted(found)

    def stats(self, path: str) -> dict[str, Any]:
        cpu = flat_keyed(read(self._file(path, "cpu.stat")))
        limit = read(self._file(path, "memory.max")).strip()
        memory = flat_keyed(read(self._file(path, "memory.stat")))
        return {
            "cpu_usage_ns": cpu.get("usage_usec", 0) * _US,
            "cpu_user_ns": cpu.get("user_usec", 0) * _US,
            "cpu_system_ns": cpu.get("system_usec", 0) * _US,
            "cpu_throttled_ns": cpu.get("throttled_usec", 0) * _US,
            "cpu_periods": cpu.get("nr_periods", 0),
            "cpu_throttled_periods": cpu.get("nr_throttled", 0),
            "memory_usage": int(read(self._file(path, "memory.current")).strip() or 0),
            "memory_limit": int(limit) if limit.isdigit() else _host_memory(),
            "memory_stats": memory,
            "memory_failures": flat_keyed(read(self._file(path, "memory.events"))).get("oom", 0),
            "pids": int(read(self._file(path, "pids.current")).strip() or 0),
            "pids_limit": number(read(self._file(path, "pids.max"))),
            "blkio": _io(read(self._file(path, "io.stat"))),
        }

    def oom_kills(self, path: str) -> int:
        return flat_keyed(read(self._file(path, "memory.events"))).get("oom_kill", 0)

    def kill(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            write(self._file(path, "cgroup.kill"), "1")

    def made_parents(self, path: str) -> tuple[str, ...]:
        return tuple(parent for parent in parents_of(path) if self._file(parent) in self._made)

    def adopt(self, path: str, parents: Sequence[str]) -> None:
        self._users.enter(path)
        self._made.update(self._file(parent) for parent in parents)

    def remove(self, path: str) -> bool:
        folder = self._file(path)
        for child, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(child)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        self._remove_parents(path)
        return True

    def _make(self, path: str) -> None:
        """The folder and its parents; each parent hands its controllers on to its children."""
        with self._users.lock:
            self._users.enter(path)
            self._delegate(self._root)
            for parent in reversed(list(parents_of(path))):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self._file(parent), 0o755)
                    self._made.add(self._file(parent))
                self._delegate(self._file(parent))
        folder = self._file(path)
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:
            if read(f"{folder}/cgroup.procs").strip():
                raise FileExistsError(
                    errno.EEXIST, "the control group is in use by other processes", folder
                ) from None

    def _remove_parents(self, path: str) -> None:
        with self._users.lock:
            for parent in self._users.leave(path):
                if self._file(parent) in self._made:
                    with contextlib.suppress(OSError):
                        os.rmdir(self._file(parent))
                        self._made.discard(self._file(parent))

    def _delegate(self, folder: str) -> None:
        available = read(f"{folder}/cgroup.controllers").split()
        handed_on = read(f"{folder}/cgroup.subtree_control").split()
        for controller in _CONTROLLERS:
            if controller in available and controller not in handed_on:
                write(f"{folder}/cgroup.subtree_control", f"+{controller}")

    def _file(self, path: str, name: str = "") -> str:
        return f"{self._root}/{path}/{name}" if name else f"{self._root}/{path}"


def limits(resources: Mapping[str, Any]) -> dict[str, str]:
    """File -> value for an OCI `linux.resources`. OSError (EINVAL) for what no kernel can do."""
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    files: dict[str, str] = {}
    if cpu.get("shares"):
        # 2..262144 to 1..10000, the conversion that the OCI runtimes agreed on first.
        files["cpu.weight"] = str(1 + (max(cpu["shares"], 2) - 2) * 9999 // 262142)
    if cpu.get("quota") is not None or cpu.get("period"):
        quota = cpu.get("quota")
        files["cpu.max"] = f"{quota if quota and quota > 0 else 'max'} {cpu.get('period') or 100_000}"
    for key in ("cpus", "mems"):
        if cpu.get(key):
            files[f"cpuset.{key}"] = str(cpu[key])
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        files["memory.max"] = _bytes(limit)
    if swap is not None:
        files["memory.swap.max"] = _swap(limit, swap)
    if memory.get("reservation") is not None:
        files["memory.low"] = _bytes(memory["reservation"])
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        files["pids.max"] = _bytes(pids)
    return files


def throttles(block: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(major:minor, key of io.max, rate) of an OCI `blockIO`."""
    for name, key in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for device in block.get(name) or ():
            yield f"{device['major']}:{device['minor']}", key, device["rate"]


def weights(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(file, value) of an OCI `blockIO`: 10 to 1000 for BFQ, 1 to 10000 for the cost model."""
    entries = [("default", block["weight"])] if block.get("weight") else []
    for device in block.get("weightDevice") or ():
        entries.append((f"{device['major']}:{device['minor']}", device["weight"]))
    for target, weight in entries:
        yield "io.bfq.weight", f"{target} {weight}"
        yield "io.weight", f"{target} {1 + (weight - 10) * 9999 // 990}"


def _swap(limit: int | None, swap: int) -> str:
    """OCI's swap is memory and swap together; this version's is swap alone."""
    if swap <= 0 or limit is None or limit <= 0:
        return _bytes(swap)
    if swap < limit:
        raise OSError(errno.EINVAL, f"memory and swap together ({swap}) are less than memory alone ({limit})")
    return str(swap - limit)


def _bytes(number: int) -> str:
    return "max" if number <= 0 else str(number)


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _io(text: str) -> list[dict[str, Any]]:
    entries = []
    for line in text.splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        for key, operation in (("rbytes", "read"), ("wbytes", "write")):
            if key in values and minor:
                entries.append(
                    {"major": int(major), "minor": int(minor), "op": operation, "value": int(values[key])}
                )
    return entries
