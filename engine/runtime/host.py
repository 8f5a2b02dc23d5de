"""What the runtime has to know of the host to plan a container; gathered once per daemon."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.runtime import capabilities

CGROUP_ROOT = Path("/sys/fs/cgroup")
MOUNT_POINT, EMPTY_DIR = "rootfs", "empty"


class CgroupMount(msgspec.Struct, frozen=True):
    """One hierarchy as the container sees it below /sys/fs/cgroup. `folder` "" is the unified one (v2)."""

    folder: str
    kind: str  # cgroup | cgroup2
    options: tuple[tuple[str, str | None], ...]
    host_path: str


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`mount_point`: a folder on which each container mounts its root, in its own mount namespace.

    `empty_dir`: an empty folder shown in place of masked folders. `capabilities`: the bounding set.
    """

    mount_point: str
    empty_dir: str
    capabilities: int
    last_capability: int = 40
    cgroup_mounts: tuple[CgroupMount, ...] = ()
    overlay_append: bool = True  # fsconfig of overlay knows lowerdir+ (Linux 6.8)


def gather(run_dir: Path) -> HostFacts:
    """Facts of this host; makes the two folders in `run_dir`."""
    for name in (MOUNT_POINT, EMPTY_DIR):
        (run_dir / name).mkdir(mode=0o711, parents=True, exist_ok=True)
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    return HostFacts(
        mount_point=str(run_dir / MOUNT_POINT),
        empty_dir=str(run_dir / EMPTY_DIR),
        capabilities=capabilities.bounding_mask(),
        last_capability=capabilities.last_capability(),
        cgroup_mounts=tuple(cgroup_hierarchies(Path("/proc/self/mountinfo").read_text())),
        overlay_append=(major, minor) >= (6, 8),
    )


def cgroup_hierarchies(mountinfo: str, root: str = str(CGROUP_ROOT)) -> list[CgroupMount]:
    """The hierarchies mounted below `root`, from /proc/self/mountinfo.

    With version 1 only those with a controller: not the unified one, and no named one such as systemd's.
    """
    found: dict[str, CgroupMount] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        path, (kind, _, super_options) = left.split()[4], right.split()[:3]
        if kind == "cgroup2" and path == root:
            return [CgroupMount("", "cgroup2", (), path)]
        if kind != "cgroup" or not path.startswith(root + "/"):
            continue
        options: list[tuple[str, str | None]] = []
        for option in super_options.split(","):
            key, separator, value = option.partition("=")
            if key not in ("rw", "ro", "xattr", "clone_children", "release_agent"):
                options.append((key, value if separator else None))
        folder = path[len(root) + 1 :]
        if any(key == "name" for key, _ in options):
            continue
        found[folder] = CgroupMount(folder, "cgroup", tuple(options), path)
    return list(found.values())
