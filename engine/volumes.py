"""Named local volumes: a directory each, with its description beside it. Synchronous; removal may be slow.

Layout: <root>/<name>/{_data/, volume.json}. Invariant: a volume is there when its volume.json is. Thread-safe:
one lock around the table; what takes long (deleting files) happens outside of it.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.config import VolumeCreate
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.filter_values import check_filters, has_label, is_spared, truth
from engine.storage.layer_tree import tree_bytes
from engine.storage.tree_copy import copy_tree

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
# Volumes that are being deleted; no volume's name begins with a dot.
_DOOMED = ".doomed-"

logger = logging.getLogger(__name__)


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
        self._lock = threading.RLock()
        self._volumes: dict[str, _Volume] = {}
        for folder in sorted(root.iterdir()):
            self._recognise(folder)

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
        _check_name(name)
        with self._lock:
            volume = self._volumes.get(name)
            if volume is None:
                labels = dict(request.labels or {})
                if anonymous or not request.name:
                    labels[ANONYMOUS_LABEL] = ""
                created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                volume = _Volume(name, created, labels)
                self._describe(volume)
                self._volumes[name] = volume
            return self._to_api(volume)

    def data_path(self, name: str) -> Path:
        return self._root / self._find(name).name / "_data"

    def inspect(self, name: str) -> dict[str, Any]:
        return self._to_api(self._find(name))

    def summaries(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        check_filters(filters, FILTERS)
        chosen = [volume for volume in self._all() if self._matches(volume, filters)]
        chosen.sort(key=lambda volume: volume.name)
        return {"Volumes": [self._to_api(volume) for volume in chosen], "Warnings": []}

    def remove(self, name: str, *, force: bool) -> None:
        """Conflict while a container has it. `force`: an unknown name is no error."""
        with self._lock:
            if name not in self._volumes and force:
                return
            volume = self._find(name)
            users = self._users(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            doomed = self._doom(volume.name)
        shutil.rmtree(doomed, ignore_errors=True)

    def remove_with(self, name: str, container_id: str) -> None:
        """An anonymous volume goes with the container it was made for, unless another one has it."""
        with self._lock:
            if name not in self._volumes or set(self._users(name)) - {container_id}:
                return
            doomed = self._doom(name)
        shutil.rmtree(doomed, ignore_errors=True)

    def prune(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        """Delete what no container has: anonymous volumes, with the filter `all` also named ones."""
        check_filters(filters, PRUNE_FILTERS)
        everything = "all" in filters and truth("all", filters["all"])
        wanted = {key: values for key, values in filters.items() if key != "all"}
        deleted, reclaimed = [], 0
        for volume in self._all():
            if not (everything or ANONYMOUS_LABEL in volume.labels) or not self._matches(volume, wanted):
                continue
            if self._users(volume.name):
                continue
            size = tree_bytes(self._root / volume.name / "_data")
            try:
                self.remove(volume.name, force=False)
            except (Conflict, NotFound):  # somebody took or removed it since
                continue
            deleted.append(volume.name)
            reclaimed += size
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def _recognise(self, folder: Path) -> None:
        """Know a volume again; delete what an interrupted create or remove left."""
        data = folder / "_data"
        if folder.name.startswith(_DOOMED) or not data.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            description = (folder / "volume.json").read_bytes()
            self._volumes[folder.name] = msgspec.json.decode(description, type=_Volume)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if not any(data.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                return
            # Data matters more than labels: the volume goes on without them.
            logger.warning("description of volume %s is damaged and made anew: %s", folder.name, error)
            created = datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC)
            volume = _Volume(folder.name, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._describe(volume)
            self._volumes[folder.name] = volume

    def _describe(self, volume: _Volume) -> None:
        """Write volume.json durably, after _data is there."""
        folder = self._root / volume.name
        (folder / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = folder / "volume.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(volume))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / "volume.json")

    def _all(self) -> list[_Volume]:
        with self._lock:
            return list(self._volumes.values())

    def _doom(self, name: str) -> Path:
        """Out of sight at once, under the lock; the caller deletes what is there."""
        doomed = self._root / f"{_DOOMED}{secrets.token_hex(8)}"
        (self._root / name).rename(doomed)
        del self._volumes[name]
        return doomed

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
                ok = bool(self._users(volume.name)) != truth(key, values)
            elif key == "label!":
                ok = not is_spared(volume.labels, values)
            else:
                ok = all(has_label(volume.labels, wanted) for wanted in values)
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


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidParameter(
            "volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )


def copy_up(source: Path, target: Path) -> None:
    """The image's content at a volume's mount point into the (empty) volume, attributes included."""
    copy_tree(source, target)
