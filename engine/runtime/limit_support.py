"""Which limits this host's control groups can put in force; read when the daemon starts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.runtime.cgroup import CGROUP_ROOT


class LimitSupport(msgspec.Struct, frozen=True, kw_only=True):
    """`version` of the control groups: 1 (also hybrid) or 2. `cpus`, `mems`: such as 0-3; "" when unknown."""

    version: int = 2
    memory: bool = True
    swap: bool = True
    swappiness: bool = True
    oom_kill_disable: bool = True
    cpu: bool = True
    cpuset: bool = True
    cpus: str = ""
    mems: str = ""
    pids: bool = True
    io_weight: bool = True
    io_throttle: bool = True


def read_limit_support(root: Path = CGROUP_ROOT) -> LimitSupport:
    controllers = root / "cgroup.controllers"
    return _version_2(root, controllers.read_text().split()) if controllers.exists() else _version_1(root)


def _version_1(root: Path) -> LimitSupport:
    memory, cpuset, blkio = root / "memory", root / "cpuset", root / "blkio"
    return LimitSupport(
        version=1,
        memory=memory.is_dir(),
        swap=(memory / "memory.memsw.limit_in_bytes").exists(),
        swappiness=(memory / "memory.swappiness").exists(),
        oom_kill_disable=(memory / "memory.oom_control").exists(),
        cpu=(root / "cpu").is_dir(),
        cpuset=cpuset.is_dir(),
        cpus=_read(cpuset / "cpuset.cpus"),
        mems=_read(cpuset / "cpuset.mems"),
        pids=(root / "pids").is_dir(),
        io_weight=(blkio / "blkio.weight").exists() or (blkio / "blkio.bfq.weight").exists(),
        io_throttle=(blkio / "blkio.throttle.read_bps_device").exists(),
    )


def _version_2(root: Path, controllers: list[str]) -> LimitSupport:
    return LimitSupport(
        version=2,
        memory="memory" in controllers,
        swap="memory" in controllers and _child_has(root, "memory.max", ("memory.swap.max",)),
        swappiness=False,
        oom_kill_disable=False,
        cpu="cpu" in controllers,
        cpuset="cpuset" in controllers,
        cpus=_read(root / "cpuset.cpus.effective"),
        mems=_read(root / "cpuset.mems.effective"),
        pids="pids" in controllers,
        io_weight="io" in controllers and _child_has(root, "io.max", ("io.weight", "io.bfq.weight")),
        io_throttle="io" in controllers,
    )


def _child_has(root: Path, controlled: str, files: tuple[str, ...]) -> bool:
    """Whether groups have one of `files`; the root has none. True when no group has the controller in force yet."""
    groups = [path.parent for path in root.glob(f"*/{controlled}")]
    return not groups or any((group / name).exists() for group in groups for name in files)


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
