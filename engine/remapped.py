"""What changes in a container's OCI configuration when its users are others on the host (docs/adr/0019). Pure.

Volumes and the root have their owners shifted by the kernel; file systems that live in memory are made with the owners
as the host numbers them; bind mounts stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from engine.runtime.user_namespaces import Remapping


def apply(spec: dict[str, Any], remapping: Remapping, namespace: str, volumes: Collection[str]) -> None:
    """Changes `spec`; `volumes` are the targets of volumes."""
    linux = spec["linux"]
    linux["namespaces"].append({"type": "user", "path": namespace})
    linux["uidMappings"] = [{"containerID": 0, "hostID": remapping.uid, "size": remapping.uids}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": remapping.gid, "size": remapping.gids}]
    for mount in spec["mounts"]:
        if mount["type"] in ("tmpfs", "devpts"):
            mount["options"] = _shifted_ids(mount["options"], remapping, mount["type"])
        elif mount["destination"] in volumes:
            mount["options"] = [*mount["options"], "idmap"]
    for device in linux["devices"]:
        device["uid"], device["gid"] = remapping.uid + device["uid"], remapping.gid + device["gid"]


def _shifted_ids(options: list[str], remapping: Remapping, kind: str) -> list[str]:
    """uid= and gid= as the host numbers them; without, the container's root (of a devpts whoever opens it)."""
    bases = {"uid": remapping.uid, "gid": remapping.gid}
    shifted, given = [], set()
    for option in options:
        name, _, value = option.partition("=")
        if name in bases and value.isdecimal():
            given.add(name)
            option = f"{name}={bases[name] + int(value)}"
        shifted.append(option)
    if kind == "tmpfs":
        shifted += [f"{name}={base}" for name, base in bases.items() if name not in given]
    return shifted
