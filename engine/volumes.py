"""Named local volumes: a directory each, with its description beside it. Synchronous; removal may be slow.

Layout: <root>/<name>/{_data/, volume.json}. Invariant: a volume is there when its volume.json is.
"""

from __future__ import annotations

import datetime
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.config import VolumeCreate
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.storage.layer_tree import tree_bytes
from engine.storage.tree_copy import copy_tree

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")


class _Volume(msgspec.Struct):
    name: str
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class VolumeStore:
    """`users(name)` tells which containers need a volume."""

    def __init__(self, root: Path, users: Callable[[str], Sequence[str]]) -> None:
        self._root = root
        self._users = users
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._volumes: dict[str, _Volume] = {}
        for folder in root.iterdir():
            description = folder / "volume.json"
            if description.exists():
                self._volumes[folder.name] = msgspec.json.decode(description.read_bytes(), type=_Volume)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def create(self, request: VolumeCreate, *, anonymous: bool = False) -> dict[str, Any]:
        """The volume as the API shows it; one that exists with that name is returned as it is."""
        if request.driver not in ("", "local"):
            raise NotFound(f'plugin "{request.driver}" not found: only the local volume driver is here')
        if request.driver_opts:
            raise InvalidParameter(
                "options of local volumes are not supported yet: bind-mount the device or directory instead "
                f"(given: {', '.join(sorted(request.driver_opts))})"
            )
        name = request.name or secrets.token_hex(32)
        if not _NAME.match(name):
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        if name not in self._volumes:
            labels = dict(request.labels or {})
            if anonymous or not request.name:
                labels[ANONYMOUS_LABEL] = ""
            created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            volume = _Volume(name, created, labels)
            folder = self._root / name
            (folder / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
            temporary = folder / "volume.new"
            temporary.write_bytes(msgspec.json.encode(volume))
            temporary.rename(folder / "volume.json")
            self._volumes[name] = volume
        return self._to_api(self._volumes[name])

    def data_path(self, name: str) -> Path:
        return self._root / self._find(name).name / "_data"

    def inspect(self, name: str) -> dict[str, Any]:
        return self._to_api(self._find(name))

    def summaries(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        chosen = [volume for volume in self._volumes.values() if self._matches(volume, filters)]
        chosen.sort(key=lambda volume: volume.name)
        return {"Volumes": [self._to_api(volume) for volume in chosen], "Warnings": []}

    def remove(self, name: str, *, force: bool) -> None:
        """Conflict while a container has it. `force`: an unknown name is no error."""
        if name not in self._volumes and force:
            return
        volume = self._find(name)
        users = self._users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        folder = self._root / volume.name
        (folder / "volume.json").unlink(missing_ok=True)
        del self._volumes[name]
        shutil.rmtree(folder, ignore_errors=True)

    def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        everything = filters.get("all", ["false"])[0] in ("true", "1")
        usable = {key: values for key, values in filters.items() if key == "label"}
        deleted, reclaimed = [], 0
        for volume in tuple(self._volumes.values()):
            anonymous = ANONYMOUS_LABEL in volume.labels
            if not (anonymous or everything) or self._users(volume.name) or not self._matches(volume, usable):
                continue
            reclaimed += tree_bytes(self._root / volume.name / "_data")
            self.remove(volume.name, force=False)
            deleted.append(volume.name)
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def _find(self, name: str) -> _Volume:
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def _matches(self, volume: _Volume, filters: Mapping[str, list[str]]) -> bool:
        for key, values in filters.items():
            if key == "name":
                ok = any(value in volume.name for value in values)
            elif key == "driver":
                ok = "local" in values
            elif key == "dangling":
                ok = bool(self._users(volume.name)) != (values[0] in ("true", "1"))
            elif key == "label":
                ok = all(
                    volume.labels.get(name) == value if separator else name in volume.labels
                    for name, separator, value in (wanted.partition("=") for wanted in values)
                )
            else:
                raise InvalidParameter(f"invalid filter '{key}'")
            if not ok:
                return False
        return True

    def _to_api(self, volume: _Volume) -> dict[str, Any]:
        return {
            "Name": volume.name,
            "Driver": "local",
            "Mountpoint": str(self._root / volume.name / "_data"),
            "CreatedAt": volume.created_at,
            "Labels": volume.labels or None,
            "Options": volume.options or None,
            "Scope": "local",
        }


def copy_up(source: Path, target: Path) -> None:
    """The image's content at a volume's mount point into the (empty) volume, attributes included."""
    copy_tree(source, target)
