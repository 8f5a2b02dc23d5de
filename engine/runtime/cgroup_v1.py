"""Control groups version 1: one hierarchy per controller.

A process joins by writing 0 to `tasks`, not `cgroup.procs`: a single thread that moves itself does not take
the kernel's global lock, whose first taking after idle waits for an RCU grace period (8 ms instead of 0.3).
Source: Documentation/admin-guide/cgroup-v1.
"""

# Plain strings: this runs for every start or line, where Path objects cost too much.
# ruff: noqa: PTH102, PTH106, PTH110, PTH120

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.runtime.cgroup import Membership, Users, flat_keyed, number, parents_of, read, write

FREEZE_TIMEOUT_S = 10.0
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UNLIMITED = 0x7FFFFFFFFFFFF000
_THROTTLES = {
    "throttleReadBpsDevice": "blkio.throttle.read_bps_device",
    "throttleWriteBpsDevice": "blkio.throttle.write_bps_device",
    "throttleReadIOPSDevice": "blkio.throttle.read_iops_device",
    "throttleWriteIOPSDevice": "blkio.throttle.write_iops_device",
}


class CgroupsV1:
    """`cgroup.Cgroups` on version 1 hierarchies below `root`; links such as cpu -> cpu,cpuacct are followed."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders = _hierarchies(root)
        self._made: set[str] = set()
        self._filled: set[str] = set()
        self._users = Users()

    def create(self, path: str, resources: Mapping[str, Any]) -> Membership:
        self._make_parents(path)
        try:
            for folder in self._unique():
                if not self._make(folder, path):
                    self._reuse(f"{folder}/{path}")
            self.update(path, resources)
            self._devices(path, resources.get("devices") or ())
            return self.membership(path)
        except BaseException:
            if not self.remove(path):
                self._remove_parents(path)
            raise

    def membership(self, path: str) -> Membership:
        descriptors: list[int] = []
        try:
            for folder in self._unique():
                flags = os.O_WRONLY | os.O_CLOEXEC
                descriptors.append(os.open(f"{folder}/{path}/tasks", flags))
        except BaseException:
            Membership(tuple(descriptors)).close()
            raise
        return Membership(tuple(descriptors))

    def update(self, path: str, resources: Mapping[str, Any]) -> None:
        self._memory(path, resources.get("memory") or {})
        cpu = resources.get("cpu") or {}
        self._set("cpu", path, "cpu.shares", cpu.get("shares"))
        self._set("cpu", path, "cpu.cfs_period_us", cpu.get("period"))
        self._set("cpu", path, "cpu.cfs_quota_us", cpu.get("quota"))
        self._set("cpuset", path, "cpuset.cpus", cpu.get("cpus"))
        self._set("cpuset", path, "cpuset.mems", cpu.get("mems"))
        limit = (resources.get("pids") or {}).get("limit")
        if limit is not None:
            self._set("pids", path, "pids.max", limit if limit > 0 else "max")
        self._block_io(path, resources.get("blockIO") or {})

    def freeze(self, path: str) -> None:
        folder = f"{self._folders['freezer']}/{path}"
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        while True:
            # A process that forks meanwhile keeps the state at FREEZING: writing again catches it.
            write(f"{folder}/freezer.state", "FROZEN")
            if read(f"{folder}/freezer.state").strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                write(f"{folder}/freezer.state", "THAWED")
                raise TimeoutError(errno.ETIMEDOUT, "the processes do not stop", folder)
            time.sleep(0.001)

    def thaw(self, path: str) -> None:
        write(f"{self._folders['freezer']}/{path}/freezer.state", "THAWED")

    def pids(self, path: str) -> list[int]:
        found: set[int] = set()
        base = f"{self._any()}/{path}"
        for folder, _, _ in os.walk(base):
            found.update(int(line) for line in read(f"{folder}/cgroup.procs").split())
        return sorted(found)

    def stats(self, path: str) -> dict[str, Any]:
        usage = read(self._file("cpuacct", path, "cpuacct.usage")).strip()
        times = flat_keyed(read(self._file("cpuacct", path, "cpuacct.stat")))
        throttling = flat_keyed(read(self._file("cpu", path, "cpu.stat")))
        memory = read(self._file("memory", path, "memory.usage_in_bytes")).strip()
        limit = int(read(self._file("memory", path, "memory.limit_in_bytes")).strip() or 0)
        return {
            "cpu_usage_ns": int(usage or 0),
            "cpu_user_ns": times.get("user", 0) * _TICK_NS,
            "cpu_system_ns": times.get("system", 0) * _TICK_NS,
            "cpu_throttled_ns": throttling.get("throttled_time", 0),
            "cpu_periods": throttling.get("nr_periods", 0),
            "cpu_throttled_periods": throttling.get("nr_throttled", 0),
            "percpu_ns": [
                int(each) for each in read(self._file("cpuacct", path, "cpuacct.usage_percpu")).split()
            ],
            "memory_usage": int(memory or 0),
            "memory_max_usage": number(read(self._file("memory", path, "memory.max_usage_in_bytes"))),
            "memory_failures": number(read(self._file("memory", path, "memory.failcnt"))),
            "memory_limit": _host_memory() if limit >= _UNLIMITED else limit,
            "memory_stats": flat_keyed(read(self._file("memory", path, "memory.stat"))),
            "pids": int(read(self._file("pids", path, "pids.current")).strip() or 0),
            "pids_limit": number(read(self._file("pids", path, "pids.max"))),
            "blkio": _blkio(read(self._file("blkio", path, "blkio.throttle.io_service_bytes_recursive"))),
            "blkio_serviced": _blkio(read(self._file("blkio", path, "blkio.throttle.io_serviced_recursive"))),
        }

    def oom_kills(self, path: str) -> int:
        return flat_keyed(read(self._file("memory", path, "memory.oom_control"))).get("oom_kill", 0)

    def kill(self, path: str) -> None:
        for pid in self.pids(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def made_parents(self, path: str) -> tuple[str, ...]:
        folder = self._any()
        return tuple(parent for parent in parents_of(path) if f"{folder}/{parent}" in self._made)

    def adopt(self, path: str, parents: Sequence[str]) -> None:
        self._users.enter(path)
        self._made.update(f"{folder}/{parent}" for folder in self._unique() for parent in parents)

    def remove(self, path: str) -> bool:
        done = True
        for folder in self._unique():
            done = _remove_tree(f"{folder}/{path}") and done
        if done:
            self._remove_parents(path)
        return done

    def _remove_parents(self, path: str) -> None:
        with self._users.lock:
            for parent in self._users.leave(path):
                for folder in self._unique():
                    if f"{folder}/{parent}" in self._made:
                        with contextlib.suppress(OSError):
                            os.rmdir(f"{folder}/{parent}")
                            self._made.discard(f"{folder}/{parent}")
                            self._filled.discard(f"{folder}/{parent}")

    def _make_parents(self, path: str) -> None:
        with self._users.lock:
            self._users.enter(path)
            for parent in reversed(list(parents_of(path))):
                for folder in self._unique():
                    made = f"{folder}/{parent}"
                    if self._make(folder, parent):
                        self._made.add(made)
                    elif folder == self._folders.get("cpuset") and made not in self._filled:
                        self._fill_cpuset(os.path.dirname(made), made)
                    self._filled.add(made)

    def _make(self, folder: str, path: str) -> bool:
        """False when it is there already. A cpuset is useless until it has processors and memory nodes."""
        made = f"{folder}/{path}"
        try:
            os.mkdir(made, 0o755)
        except FileExistsError:
            return False
        if folder == self._folders.get("cpuset"):
            self._fill_cpuset(os.path.dirname(made), made)
        return True

    def _fill_cpuset(self, parent: str, folder: str) -> None:
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{folder}/{name}").strip():
                write(f"{folder}/{name}", read(f"{parent}/{name}").strip())

    def _reuse(self, folder: str) -> None:
        """A leftover of an earlier start with the same id: only an empty one may be used."""
        if read(f"{folder}/cgroup.procs").strip():
            raise FileExistsError(errno.EEXIST, "the control group is in use by other processes", folder)

    def _memory(self, path: str, memory: Mapping[str, Any]) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        writes = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
        if not os.path.exists(self._file("memory", path, "memory.memsw.limit_in_bytes")):
            writes.pop()
        try:
            for name, value in writes:
                self._set("memory", path, name, value)
        except OSError:
            # Swap may not be below memory: raising both has to begin with the other one.
            for name, value in reversed(writes):
                self._set("memory", path, name, value)
        self._set("memory", path, "memory.soft_limit_in_bytes", memory.get("reservation"))
        self._set("memory", path, "memory.swappiness", memory.get("swappiness"))
        if memory.get("disableOOMKiller"):
            self._set("memory", path, "memory.oom_control", 1)

    def _block_io(self, path: str, block: Mapping[str, Any]) -> None:
        for name, file in _THROTTLES.items():
            for device in block.get(name) or ():
                self._set("blkio", path, file, f"{device['major']}:{device['minor']} {device['rate']}")
        for file in ("blkio.weight", "blkio.bfq.weight"):
            # Which of them exists depends on the disk scheduler; none does for many devices.
            with contextlib.suppress(FileNotFoundError):
                self._set("blkio", path, file, block.get("weight"))
                for device in block.get("weightDevice") or ():
                    value = f"{device['major']}:{device['minor']} {device['weight']}"
                    self._set("blkio", path, f"{file}_device", value)

    def _devices(self, path: str, rules: Any) -> None:
        if "devices" not in self._folders:
            return
        with contextlib.ExitStack() as files:
            allow, deny = (
                files.enter_context(open(self._file("devices", path, name), "wb", buffering=0))
                for name in ("devices.allow", "devices.deny")
            )
            for rule in rules:
                kind = rule.get("type") or "a"
                major, minor = (_star(rule.get(key)) for key in ("major", "minor"))
                everything = kind == "a" and (major, minor) == ("*", "*")
                text = "a" if everything else f"{kind} {major}:{minor} {rule.get('access') or 'rwm'}"
                (allow if rule.get("allow") else deny).write(text.encode())

    def _set(self, controller: str, path: str, name: str, value: Any) -> None:
        if value is not None and value != "" and controller in self._folders:
            write(self._file(controller, path, name), str(value))

    def _file(self, controller: str, path: str, name: str) -> str:
        folder = self._folders.get(controller, f"{self._root}/{controller}")
        return f"{folder}/{path}/{name}"

    def _unique(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._folders.values()))

    def _any(self) -> str:
        return self._folders.get("pids") or next(iter(self._folders.values()))


def _hierarchies(root: Path) -> dict[str, str]:
    """controller -> folder of its hierarchy. A co-mounted pair (cpu,cpuacct) appears once per controller.

    systemd's named hierarchy has no controller: containers stay where the supervisor is.
    """
    found: dict[str, str] = {}
    for entry in sorted(root.iterdir()):
        folder = entry.resolve()
        if entry.name != "systemd" and (folder / "tasks").exists():
            for controller in entry.name.split(","):
                found[controller] = str(folder)
    return found


def _remove_tree(folder: str) -> bool:
    """Children first (a container with rights may have made some). False: a process is still leaving."""
    try:
        os.rmdir(folder)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        pass
    try:
        with os.scandir(folder) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in children:
            _remove_tree(child)
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _star(number: Any) -> str:
    return "*" if number is None or number < 0 else str(number)


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _blkio(text: str) -> list[dict[str, Any]]:
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, separator, minor = device.partition(":")
        fields = rest.split()
        if separator and len(fields) == 2:
            entries.append(
                {"major": int(major), "minor": int(minor), "op": fields[0], "value": int(fields[1])}
            )
    return entries
