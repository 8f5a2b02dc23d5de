"""The managed plugins that are installed on this host, as folders. Synchronous: callers use threads.

Layout: <root>/<id>/{plugin.json, rootfs/, propagated-mount/}. Invariant: a folder has its final name only when it is
complete; everything half made or half removed begins with a dot and is deleted at the next start.
"""

from __future__ import annotations

import gzip
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.images.reference import parse_reference
from engine.plugins.config import (
    CONFIG_BYTES_MAX,
    PluginConfig,
    PluginSettings,
    first_settings,
    parse_config,
)
from engine.plugins.settings import carried_over
from engine.storage.layer_tree import LayerUnpacker
from engine.storage.trees import remove_tree

GZIP_MAGIC = b"\x1f\x8b"
_NEXT = ".next-"

logger = logging.getLogger(__name__)


class Plugin(msgspec.Struct, kw_only=True):
    """`name` is familiar and has its tag; `reference` is where it came from, "" for one made here."""

    id: str
    name: str
    config: PluginConfig
    settings: PluginSettings
    enabled: bool = False
    reference: str = ""
    timeout_s: int = 0


class PluginStore:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._plugins: dict[str, Plugin] = {}
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if folder.name.startswith("."):
                _finish(folder)
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            try:
                record = msgspec.json.decode((folder / "plugin.json").read_bytes(), type=Plugin)
                self._plugins[record.id] = record
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                logger.error("plugin in %s cannot be read and is left alone: %s", folder, error)

    def all(self) -> list[Plugin]:
        return sorted(self._plugins.values(), key=lambda plugin: plugin.name)

    def get(self, plugin_id: str) -> Plugin | None:
        return self._plugins.get(plugin_id)

    def find(self, ref: str) -> Plugin:
        """By id, name (`:latest` may be left out) or unique id prefix. NotFound."""
        found = self._plugins.get(ref) or self.by_name(ref)
        if found is None and ref:
            matches = [plugin for plugin in self._plugins.values() if plugin.id.startswith(ref)]
            if len(matches) > 1:
                raise InvalidParameter(
                    f'multiple plugins found with provided prefix "{ref}": write more of it'
                )
            found = matches[0] if matches else None
        if found is None:
            raise NotFound(f'plugin "{ref}" not found')
        return found

    def by_name(self, name: str) -> Plugin | None:
        try:
            normal = plugin_name(name)
        except InvalidParameter:
            return None
        return next((plugin for plugin in self._plugins.values() if plugin.name == normal), None)

    def check_free(self, name: str) -> str:
        """The name with its tag. Conflict when a plugin has it."""
        normal = plugin_name(name)
        if self.by_name(normal) is not None:
            raise Conflict(f"plugin {normal} already exists: remove it first, or choose another name")
        return normal

    def create(self, name: str, archive: BinaryIO) -> Plugin:
        """From a tar (gzip or plain) with config.json and rootfs/."""
        normal = self.check_free(name)

        def fill(folder: Path) -> PluginConfig:
            content = folder / "content"
            content.mkdir()
            unpack(archive, content)
            config = read_config(content)
            if (content / "rootfs").is_symlink() or not (content / "rootfs").is_dir():
                raise InvalidParameter("a plugin needs a folder rootfs beside its config.json")
            (content / "rootfs").rename(folder / "rootfs")
            remove_tree(content)
            return config

        return self.add(normal, fill)

    def add(self, name: str, fill: Callable[[Path], PluginConfig], reference: str = "") -> Plugin:
        """`fill` makes rootfs/ in a new folder and tells the config."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        plugin_id = secrets.token_hex(32)
        folder = self._root / f".new-{plugin_id}"
        folder.mkdir(mode=0o700)
        try:
            config = fill(folder)
            (folder / "propagated-mount").mkdir()
            plugin = Plugin(
                id=plugin_id, name=name, config=config, settings=first_settings(config), reference=reference
            )
            _write(folder / "plugin.json", plugin)
            self.check_free(name)
            folder.rename(self.folder(plugin))
        except BaseException:
            remove_tree(folder, ignore_errors=True)
            raise
        self._plugins[plugin.id] = plugin
        return plugin

    def replace(self, plugin: Plugin, fill: Callable[[Path], PluginConfig], reference: str) -> None:
        """Another version in its place; what the user set stays as far as the new one lets him."""
        folder = self._root / f"{_NEXT}{plugin.id}"
        remove_tree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            config = fill(folder)
            (folder / "propagated-mount").mkdir()
            settings = carried_over(plugin.settings, config)
            made = msgspec.structs.replace(plugin, config=config, settings=settings, reference=reference)
            _write(folder / "plugin.json", made)
        except BaseException:
            remove_tree(folder, ignore_errors=True)
            raise
        doomed = self._root / f".doomed-{plugin.id}"
        self.folder(plugin).rename(doomed)
        folder.rename(self.folder(plugin))
        plugin.config, plugin.settings, plugin.reference = config, settings, reference
        remove_tree(doomed, ignore_errors=True)

    def save(self, plugin: Plugin) -> None:
        _write(self.folder(plugin) / "plugin.json", plugin)

    def remove(self, plugin: Plugin) -> None:
        doomed = self._root / f".doomed-{plugin.id}"
        self.folder(plugin).rename(doomed)
        self._plugins.pop(plugin.id, None)
        remove_tree(doomed, ignore_errors=True)

    def folder(self, plugin: Plugin) -> Path:
        return self._root / plugin.id

    def rootfs(self, plugin: Plugin) -> Path:
        return self.folder(plugin) / "rootfs"

    def propagated(self, plugin: Plugin) -> Path:
        """What the plugin mounts below its PropagatedMount appears here."""
        return self.folder(plugin) / "propagated-mount"


def _finish(folder: Path) -> None:
    """What an interrupted verb left. Only a new version whose old one is out of the way already is kept."""
    final = folder.parent / folder.name.removeprefix(_NEXT)
    if folder.name.startswith(_NEXT) and not final.exists() and (folder / "plugin.json").exists():
        folder.rename(final)
    else:
        remove_tree(folder, ignore_errors=True)


def plugin_name(text: str) -> str:
    """`sample` -> sample:latest. InvalidParameter."""
    reference = parse_reference(text)
    if reference.digest:
        raise InvalidParameter(f'invalid plugin name "{text}": a name has a tag, not a digest')
    return reference.familiar


def unpack(archive: BinaryIO, folder: Path) -> None:
    """An archive that nobody vouches for, into an empty folder."""
    is_packed = archive.read(2) == GZIP_MAGIC
    archive.seek(0)
    try:
        with gzip.GzipFile(fileobj=archive) if is_packed else archive as plain:
            LayerUnpacker(folder, "apply").unpack(cast(BinaryIO, plain))
    except (gzip.BadGzipFile, EOFError) as error:
        raise InvalidParameter(f"the plugin's archive is damaged: {error}") from error


def read_config(folder: Path) -> PluginConfig:
    try:
        descriptor = os.open(
            folder / "config.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError as error:
        raise InvalidParameter(f"the plugin's config.json cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        return parse_config(file.read(CONFIG_BYTES_MAX))


def _write(path: Path, plugin: Plugin) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(plugin))
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
