"""A bundle's config.json: read, checked, and what the runtime needs of it. Things that are not served are refused.

Source: OCI runtime specification 1.1, config.md and config-linux.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import InvalidParameter
from engine.storage.driver import Rootfs

_REFUSED = {
    "process": ("apparmorProfile", "selinuxLabel", "ioPriority", "scheduler"),
    "linux": ("uidMappings", "gidMappings", "intelRdt", "mountLabel", "personality", "timeOffsets"),
    "": ("vm", "windows", "solaris", "zos"),
}
_NAMESPACES = ("mount", "pid", "ipc", "uts", "network", "cgroup")
# Of every container, whatever config.json allows: null, zero, full, random, urandom, tty, console, ptmx, pts.
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Configuration:
    """`raw` is the content of config.json; relative paths are below `bundle`."""

    def __init__(self, raw: dict[str, Any], bundle: Path) -> None:
        self.raw = raw
        self.bundle = bundle
        self.linux: Mapping[str, Any] = raw.get("linux") or {}
        self.process: Mapping[str, Any] = raw.get("process") or {}
        self._check()

    @classmethod
    def read(cls, bundle: Path) -> Configuration:
        path = bundle / "config.json"
        try:
            raw = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise InvalidParameter(f"JSON specification file config.json not found in {bundle}") from error
        except ValueError as error:
            raise InvalidParameter(f"{path} is not valid JSON: {error}") from error
        return cls(raw, bundle)

    def _check(self) -> None:
        if not str(self.raw.get("ociVersion", "")).startswith("1."):
            raise InvalidParameter(
                f"ociVersion {self.raw.get('ociVersion')!r} of config.json: 1.x is understood"
            )
        if not (self.raw.get("root") or {}).get("path"):
            raise InvalidParameter("root.path of config.json is missing: name the root file system")
        for section, names in _REFUSED.items():
            held = self.raw.get(section) or {} if section else self.raw
            for name in names:
                if held.get(name):
                    where = f"{section}.{name}" if section else name
                    raise InvalidParameter(f"{where} of config.json is not supported: leave it out")
        for entry in self.linux.get("namespaces") or ():
            if entry.get("type") not in _NAMESPACES:
                raise InvalidParameter(
                    f"namespace {entry.get('type')!r} of config.json is not supported: use {', '.join(_NAMESPACES)}"
                )
        if "mount" not in {entry["type"] for entry in self.linux.get("namespaces") or ()}:
            raise InvalidParameter("config.json names no new mount namespace: it is needed")

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.raw.get("annotations") or {})

    @property
    def wants_terminal(self) -> bool:
        return bool(self.process.get("terminal"))

    @property
    def rootfs(self) -> Rootfs:
        path = self.bundle / self.raw["root"]["path"]
        if not path.is_dir():
            raise InvalidParameter(f"root.path {path} is not a directory")
        return Rootfs(upper=str(path))

    @property
    def network(self) -> str:
        """Path of the namespace to join, "" for a new one, "host" for none."""
        for entry in self.linux.get("namespaces") or ():
            if entry["type"] == "network":
                return str(entry.get("path") or "")
        return "host"

    @property
    def resources(self) -> dict[str, Any]:
        """With the devices that every container has: making nodes, and the pseudo devices."""
        resources = dict(self.linux.get("resources") or {})
        rules = [rule for rule in resources.get("devices") or () if rule]
        if rules:
            rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
            for major, minor in _DEVICES:
                number = {"major": major} if minor is None else {"major": major, "minor": minor}
                rules.append({"allow": True, "type": "c", "access": "rwm", **number})
            resources["devices"] = rules
        return {name: value for name, value in resources.items() if value}

    def cgroup(self, container_id: str) -> str:
        """Below every hierarchy, and nowhere else."""
        path = str(self.linux.get("cgroupsPath") or f"swarmctl-runtime/{container_id}")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidParameter(f"cgroupsPath {path} of config.json must not lead upwards")
        if ":" in path:
            raise InvalidParameter(f"cgroupsPath {path} is one of systemd's: use the cgroupfs manager")
        return "/".join(parts)

    def hooks(self, kind: str) -> list[Mapping[str, Any]]:
        assert kind in HOOKS, kind
        return list((self.raw.get("hooks") or {}).get(kind) or ())


def console_size(process: Mapping[str, Any]) -> tuple[int, int] | None:
    """(rows, columns)."""
    size = process.get("consoleSize") or {}
    return (int(size["height"]), int(size["width"])) if size.get("height") and size.get("width") else None
