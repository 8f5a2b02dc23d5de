"""The volumes of this host: folders of ours, mounts with options, and those that a plugin's driver keeps.

Synchronous; plugins and removal may be slow. Layout: <root>/<name>/{_data/, volume.json}; a plugin's volume has only
the description. Invariant: a volume is there when its volume.json is. Thread-safe: one lock around the table, one for
each name; what takes long (deleting files, asking plugins) happens outside of the table's.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from engine import local_volumes
from engine.config import VolumeCreate
from engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from engine.filter_values import check_filters, has_label, is_spared, matches_pattern, truth
from engine.name_locks import NameLocks
from engine.storage.tree_copy import copy_tree
from engine.storage.trees import remove_tree, tree_bytes
from engine.volume_drivers import DriverVolume, NoDrivers, VolumeDriver, VolumeDrivers

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
LOCAL = "local"
FILTERS = ("dangling", "driver", "label", "name")
PRUNE_FILTERS = ("all", "label", "label!")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
# Volumes that are being deleted; no volume's name begins with a dot.
_DOOMED = ".doomed-"

logger = logging.getLogger(__name__)


class Volume(msgspec.Struct):
    """What volume.json holds."""

    name: str
    created_at: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    driver: str = LOCAL
    scope: str = "local"


class VolumeStore:
    """`users(name)` tells which containers need a volume; `drivers` knows the drivers that are plugins."""

    def __init__(
        self, root: Path, users: Callable[[str], Sequence[str]], drivers: VolumeDrivers | None = None
    ) -> None:
        self._root = root
        self._users = users
        self._drivers = drivers or NoDrivers()
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._names = NameLocks()
        self._volumes: dict[str, Volume] = {}
        self._mounted: dict[str, dict[str, str]] = {}  # name -> user -> path
        self.changed: Callable[[str, str, str], None] = lambda action, name, driver: None  # from any thread
        for folder in sorted(root.iterdir()):
            self._recognise(folder)

    def create(self, request: VolumeCreate, *, anonymous: bool = False) -> dict[str, Any]:
        """The volume as the API shows it; one that exists with that name is returned as it is."""
        name = request.name or secrets.token_hex(32)
        with self._names.held(name):
            volume = self._known(name, request.driver)
            if volume is None:
                labels = dict(request.labels or {})
                if anonymous or not request.name:
                    labels[ANONYMOUS_LABEL] = ""
                created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                options = dict(request.driver_opts or {})
                volume = Volume(name, created, labels, options, request.driver or LOCAL)
                self._make(volume)
                self.changed("create", name, volume.driver)
            return self._to_api(volume)

    def _known(self, name: str, driver: str) -> Volume | None:
        """Ours, or one that a plugin knows already. Conflict when another driver has the name."""
        volume = self._volumes.get(name)
        if volume is None and not driver:
            _check_name(name)
            volume = self._discovered(name)
        if volume is not None and driver and not _same_driver(volume.driver, driver):
            raise Conflict(
                f"create {name}: driver '{volume.driver}' already has volume '{name}': volume name must be unique"
            )
        return volume

    def _make(self, volume: Volume) -> None:
        if volume.driver == LOCAL:
            _check_name(volume.name)
            local_volumes.checked_options(volume.name, volume.options)
        else:
            driver = self._driver(volume, "create")
            volume.driver, volume.scope = driver.name, driver.scope()
            driver.create(volume.name, volume.options)
        self._describe(volume)
        with self._lock:
            self._volumes[volume.name] = volume

    def data_path(self, name: str) -> Path:
        """Where its content is on this host, once it is mounted."""
        volume = self._find(name)
        with self._lock:
            mounted = next(iter(self._mounted.get(name, {}).values()), "")
        if mounted:
            return Path(mounted)
        return self._folder(volume) / "_data"

    def is_plain(self, name: str) -> bool:
        """A folder of ours: using it asks no plugin and mounts nothing."""
        volume = self._volumes.get(name)
        return volume is not None and volume.driver == LOCAL and not local_volumes.is_mount(volume.options)

    def size_of(self, name: str) -> int:
        """Bytes, or -1 for what cannot be counted."""
        volume = self._volumes.get(name)
        if volume is None or volume.driver != LOCAL or local_volumes.is_mount(volume.options):
            return -1
        return tree_bytes(self._folder(volume) / "_data")

    def users_of_driver(self, driver: str) -> list[str]:
        """Names of the volumes that need it."""
        return [volume.name for volume in self._all() if volume.driver == driver]

    # ---- in use -------------------------------------------------------------------------------------------

    def mount(self, name: str, user: str) -> str:
        """The path of its content, which stays until `unmount` by the same user. Again is fine."""
        with self._names.held(name):
            volume = self._find(name)
            users = self._mounted.get(name, {})
            if user in users:
                return users[user]
            path = self._mount(volume, user, is_first=not users)
            with self._lock:
                self._mounted.setdefault(name, {})[user] = path
            return path

    def _mount(self, volume: Volume, user: str, *, is_first: bool) -> str:
        if volume.driver != LOCAL:
            return self._driver(volume, "mount", patient=True).mount(volume.name, user)
        path = self._folder(volume) / "_data"
        if is_first and local_volumes.is_mount(volume.options) and not local_volumes.is_mounted(path):
            local_volumes.mount(volume.options, path)
        return str(path)

    def unmount(self, name: str, user: str) -> None:
        """Nothing happens when that user has not mounted it."""
        with self._names.held(name):
            with self._lock:
                users = self._mounted.get(name, {})
                if users.pop(user, None) is None:
                    return
                if not users:
                    self._mounted.pop(name, None)
            volume = self._volumes.get(name)
            if volume is None:
                return
            if volume.driver != LOCAL:
                self._driver(volume, "unmount").unmount(name, user)
            elif not users and local_volumes.is_mount(volume.options):
                local_volumes.unmount(self._folder(volume) / "_data")

    def recover(self, in_use: Mapping[str, Mapping[str, str]]) -> None:
        """After a restart of the daemon: what is used (name -> user -> path) stays, other mounts of ours go."""
        with self._lock:
            self._mounted = {name: dict(users) for name, users in in_use.items() if name in self._volumes}
        points = local_volumes.mount_points()
        for volume in self._all():
            path = self._folder(volume) / "_data"
            if volume.name not in self._mounted and str(path) in points:
                logger.info("volume %s was left mounted by a daemon that ended: unmounted", volume.name)
                local_volumes.unmount(path)

    # ---- what is there ------------------------------------------------------------------------------------

    def inspect(self, name: str) -> dict[str, Any]:
        volume = self._volumes.get(name) or self._discovered(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        if volume.driver == LOCAL:
            return self._to_api(volume)
        told = self._driver(volume, "get").get(name)
        if told is None:
            raise NotFound(
                f"get {name}: no such volume: its driver {volume.driver} does not know it any more"
            )
        return self._to_api(volume, told)

    def summaries(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        """Ours, and what plugins have; a plugin that does not answer is a warning."""
        check_filters(filters, FILTERS)
        told, warnings = self._told()
        chosen = [volume for volume in self._all() if self._matches(volume, filters)]
        known = {volume.name for volume in self._all()}
        rows = [self._to_api(volume, told.get((volume.driver, volume.name))) for volume in chosen]
        for (driver, name), strange in told.items():
            volume = Volume(name, strange.created_at, driver=driver)
            if name not in known and self._matches(volume, filters):
                rows.append(self._to_api(volume, strange))
        return {"Volumes": sorted(rows, key=lambda row: str(row["Name"])), "Warnings": warnings}

    def remove(self, name: str, *, force: bool) -> None:
        """Conflict while a container has it. `force`: an unknown name, or a plugin that refuses, is no error."""
        with self._names.held(name):
            volume = self._volumes.get(name) or self._discovered(name)
            if volume is None and force:
                return
            if volume is None:
                raise NotFound(f"get {name}: no such volume")
            if users := self._users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            self._remove(volume, force=force)

    def remove_with(self, name: str, container_id: str) -> None:
        """An anonymous volume goes with the container it was made for, unless another one has it."""
        with self._names.held(name):
            volume = self._volumes.get(name)
            if volume is None or set(self._users(name)) - {container_id}:
                return
            self._remove(volume, force=True)

    def _remove(self, volume: Volume, *, force: bool) -> None:
        if volume.driver != LOCAL:
            try:
                self._driver(volume, "remove").remove(volume.name)
            except EngineError as error:
                if not force:
                    raise
                logger.warning("volume %s goes, though its driver says: %s", volume.name, error)
        elif local_volumes.is_mount(volume.options):
            # What is mounted belongs to somebody else: never deleted with the volume.
            local_volumes.unmount(self._folder(volume) / "_data")
        with self._lock:
            self._mounted.pop(volume.name, None)
            doomed = self._doom(volume) if volume.name in self._volumes else None
        if doomed is not None:
            remove_tree(doomed, ignore_errors=True)
        self.changed("destroy", volume.name, volume.driver)

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
            try:
                size = max(0, self.size_of(volume.name))
                self.remove(volume.name, force=False)
            except (Conflict, NotFound):  # somebody took or removed it since
                continue
            except EngineError as error:
                logger.warning("volume %s is not pruned: %s", volume.name, error)
                continue
            deleted.append(volume.name)
            reclaimed += size
        return {"VolumesDeleted": deleted, "SpaceReclaimed": reclaimed}

    def _recognise(self, folder: Path) -> None:
        """Know a volume again; delete what an interrupted create or remove left."""
        data = folder / "_data"
        if folder.name.startswith(_DOOMED):
            remove_tree(folder, ignore_errors=True)
            return
        try:
            description = (folder / "volume.json").read_bytes()
            volume = msgspec.json.decode(description, type=Volume)
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
            if not data.is_dir() or not any(data.iterdir()):
                _discard(folder)
                return
            # Data matters more than labels: the volume goes on without them.
            logger.warning("description of volume %s is damaged and made anew: %s", folder.name, error)
            created = datetime.datetime.fromtimestamp(folder.stat().st_mtime, datetime.UTC)
            volume = Volume(folder.name, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
            self._describe(volume)
        if volume.driver == LOCAL and not data.is_dir():
            _discard(folder)
            return
        self._volumes[volume.name] = volume

    def _describe(self, volume: Volume) -> None:
        """Write volume.json durably, after _data is there."""
        folder = self._folder(volume)
        folder.mkdir(parents=True, exist_ok=True)
        if volume.driver == LOCAL:
            (folder / "_data").mkdir(mode=0o755, exist_ok=True)
        temporary = folder / "volume.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(volume))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / "volume.json")

    def _folder(self, volume: Volume) -> Path:
        """A plugin's names are its own business: they become file names without slashes and leading dots."""
        name = volume.name
        if volume.driver != LOCAL:
            name = quote(name, safe="")
            name = f"%2E{name[1:]}" if name.startswith(".") else name
        return self._root / name

    def _all(self) -> list[Volume]:
        with self._lock:
            return list(self._volumes.values())

    def _doom(self, volume: Volume) -> Path:
        """Out of sight at once, under the lock; the caller deletes what is there."""
        doomed = self._root / f"{_DOOMED}{secrets.token_hex(8)}"
        self._folder(volume).rename(doomed)
        del self._volumes[volume.name]
        return doomed

    def _find(self, name: str) -> Volume:
        """Ours; one that only a plugin knows becomes ours by being used."""
        volume = self._volumes.get(name)
        if volume is None:
            volume = self._discovered(name)
            if volume is None:
                raise NotFound(f"get {name}: no such volume")
            self._describe(volume)
            with self._lock:
                self._volumes[name] = volume
        return volume

    # ---- plugins ------------------------------------------------------------------------------------------

    def _driver(self, volume: Volume, verb: str, *, patient: bool = False) -> VolumeDriver:
        try:
            return self._drivers.volume_driver(volume.driver, patient=patient)
        except NotFound as error:
            raise NotFound(
                f"{verb} {volume.name}: error looking up volume plugin {volume.driver}: {error}"
            ) from error

    def _discovered(self, name: str) -> Volume | None:
        """A volume that a plugin has, and that nobody made here."""
        drivers, _ = self._drivers.volume_drivers()
        for driver in drivers:
            with contextlib.suppress(EngineError):
                told = driver.get(name)
                if told is not None:
                    return Volume(name, told.created_at, driver=driver.name, scope=driver.scope())
        return None

    def _told(self) -> tuple[dict[tuple[str, str], DriverVolume], list[str]]:
        """(driver, name) -> volume, of all plugins."""
        told: dict[tuple[str, str], DriverVolume] = {}
        drivers, warnings = self._drivers.volume_drivers()
        for driver in drivers:
            try:
                told |= {(driver.name, volume.name): volume for volume in driver.volumes()}
            except EngineError as error:
                warnings.append(str(error))
        return told, warnings

    def _matches(self, volume: Volume, filters: Mapping[str, list[str]]) -> bool:
        for key, values in filters.items():
            if key == "name":
                ok = any(matches_pattern(volume.name, value) for value in values)
            elif key == "driver":
                ok = volume.driver in values
            elif key == "dangling":
                ok = bool(self._users(volume.name)) != truth(key, values)
            elif key == "label!":
                ok = not is_spared(volume.labels, values)
            else:
                ok = all(has_label(volume.labels, wanted) for wanted in values)
            if not ok:
                return False
        return True

    def _to_api(self, volume: Volume, told: DriverVolume | None = None) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "Name": volume.name,
            "Driver": volume.driver,
            "Mountpoint": self._mountpoint(volume, told),
            "CreatedAt": (told.created_at if told else "") or volume.created_at,
            "Labels": volume.labels or None,
            "Options": volume.options or None,
            "Scope": volume.scope,
        }
        if told is not None and told.status:
            shown["Status"] = told.status
        return shown

    def _mountpoint(self, volume: Volume, told: DriverVolume | None) -> str:
        if volume.driver == LOCAL:
            return str(self._folder(volume) / "_data")
        with self._lock:
            mounted = next(iter(self._mounted.get(volume.name, {}).values()), "")
        return (told.mountpoint if told else "") or mounted


def _same_driver(known: str, asked: str) -> bool:
    """The name of a managed plugin may come without its tag."""
    return asked in (known, known.removesuffix(":latest"))


def _discard(folder: Path) -> None:
    if not os.path.ismount(folder / "_data"):
        remove_tree(folder, ignore_errors=True)


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
