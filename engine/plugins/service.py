"""Plugins for the API: those that the engine runs itself (managed), and what all of them can do (the catalog).

Owns the order of verbs on one plugin (a lock each) and their events. Invariant: a plugin is recorded as enabled only
while it ran when that was asked for; one that is in use is neither disabled nor removed, unless forced.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.background import BackgroundTasks
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.events import EventBus
from engine.filter_values import check_filters, truth
from engine.images.reference import Reference, parse_reference
from engine.networks import NetworkProvider
from engine.plugins.catalog import Catalog
from engine.plugins.config import PluginConfig, privileges
from engine.plugins.discovery import SOCKET_FOLDERS, Discovery
from engine.plugins.distribution import PluginDistribution
from engine.plugins.running import PluginRunner, RunningPlugin
from engine.plugins.settings import changed
from engine.plugins.store import Plugin, PluginStore
from engine.registry.access import RegistryAccess
from engine.registry.progress import Report
from engine.registry.pull import finished
from engine.registry.stream import reported
from engine.runtime.client import ContainerState, RuntimeClient
from engine.settings import EngineSettings

FILTERS = ("capability", "enable", "enabled")
ARCHIVE_BYTES_MAX = 8 << 30


class PluginService:
    """`users(name)`: what needs the plugin of that name, such as volumes."""

    def __init__(
        self,
        settings: EngineSettings,
        runtime: RuntimeClient,
        networks: NetworkProvider,
        events: EventBus,
        background: BackgroundTasks,
    ) -> None:
        self._store = PluginStore(settings.root / "plugins")
        self._runner = PluginRunner(settings, self._store, runtime, networks, background)
        temp_dir = settings.root / "tmp"
        temp_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._temp_dir = temp_dir
        self._distribution = PluginDistribution(RegistryAccess(lambda: settings.registry), temp_dir)
        self._events = events
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.users: Callable[[str], Sequence[str]] = lambda name: ()
        sockets = (settings.run_dir / "plugins", *SOCKET_FOLDERS)
        sockets[0].mkdir(mode=0o755, parents=True, exist_ok=True)
        self.catalog = Catalog(Discovery(sockets), self)

    # ---- the engine's life --------------------------------------------------------------------------------

    @property
    def ids(self) -> set[str]:
        """Of all managed plugins: what runs under these names is no stray container."""
        return {plugin.id for plugin in self._store.all()}

    async def recover(self, states: Mapping[str, ContainerState]) -> None:
        await self._runner.recover(states)

    async def shut_down(self) -> None:
        await self._runner.shut_down()

    def close(self) -> None:
        self._runner.close()
        self.catalog.close()

    # ---- for the catalog ----------------------------------------------------------------------------------

    def enabled(self) -> Sequence[RunningPlugin]:
        return self._runner.running()

    def enabled_plugin(self, name: str) -> RunningPlugin | None:
        plugin = self._store.by_name(name)
        if plugin is None:
            return None
        running = self._runner.get(plugin)
        if running is None:
            state = "does not run: see its log" if plugin.enabled else "found but disabled: enable it"
            raise NotFound(f"plugin {plugin.name} {state}")
        return running

    # ---- verbs --------------------------------------------------------------------------------------------

    async def summaries(self, filters: Mapping[str, list[str]]) -> list[dict[str, Any]]:
        check_filters(filters, FILTERS)
        return [_to_api(plugin) for plugin in self._store.all() if _matches(plugin, filters)]

    async def inspect(self, ref: str) -> dict[str, Any]:
        return _to_api(self._store.find(ref))

    async def create(self, name: str, source: AsyncIterator[bytes]) -> None:
        self._store.check_free(name)
        with tempfile.TemporaryFile(dir=self._temp_dir) as archive:
            size = 0
            async for chunk in source:
                size += len(chunk)
                if size > ARCHIVE_BYTES_MAX:
                    raise InvalidParameter("the plugin's archive is larger than 8 GiB")
                await asyncio.to_thread(archive.write, chunk)
            archive.seek(0)
            plugin = await asyncio.to_thread(self._store.create, name, archive)
        self._publish("create", plugin)

    async def enable(self, ref: str, timeout_s: int) -> None:
        plugin = self._store.find(ref)
        if timeout_s < 0:
            raise InvalidParameter("negative timeouts are not allowed")
        async with self._locks[plugin.id]:
            if plugin.enabled:
                raise Conflict(f"plugin {plugin.name} is already enabled")
            plugin.timeout_s = timeout_s
            await self._runner.start(plugin)
            await self._record(plugin, enabled=True)
        self._publish("enable", plugin)

    async def disable(self, ref: str, *, force: bool) -> None:
        plugin = self._store.find(ref)
        async with self._locks[plugin.id]:
            if not plugin.enabled:
                raise Conflict(f"plugin {plugin.name} is already disabled")
            await self._disable(plugin, force=force)

    async def set(self, ref: str, wishes: Sequence[str]) -> None:
        plugin = self._store.find(ref)
        async with self._locks[plugin.id]:
            if plugin.enabled:
                raise Conflict("cannot set on an active plugin, disable plugin before setting")
            before = plugin.settings
            plugin.settings = changed(plugin.config, plugin.settings, wishes)
            try:
                await asyncio.to_thread(self._store.save, plugin)
            except OSError:
                plugin.settings = before
                raise

    async def remove(self, ref: str, *, force: bool) -> None:
        plugin = self._store.find(ref)
        async with self._locks[plugin.id]:
            if plugin.enabled and not force:
                raise Conflict(f"plugin {plugin.name} is enabled: disable it before removing, or force it")
            self._check_unused(plugin, force=force)
            if plugin.enabled:
                await self._disable(plugin, force=force)
            await asyncio.to_thread(self._store.remove, plugin)
        del self._locks[plugin.id]
        self._publish("remove", plugin)

    async def _disable(self, plugin: Plugin, *, force: bool) -> None:
        """Recorded first: after a crash in the middle it does not come back."""
        self._check_unused(plugin, force=force)
        await self._record(plugin, enabled=False)
        await self._runner.stop(plugin)
        self._publish("disable", plugin)

    def _check_unused(self, plugin: Plugin, *, force: bool) -> None:
        if not force and (users := self.users(plugin.name)):
            raise Conflict(f"plugin {plugin.name} is in use: {', '.join(users[:5])}")

    async def _record(self, plugin: Plugin, *, enabled: bool) -> None:
        plugin.enabled = enabled
        try:
            await asyncio.to_thread(self._store.save, plugin)
        except OSError:
            plugin.enabled = not enabled
            if enabled:
                await self._runner.stop(plugin)
            raise

    # ---- registries ---------------------------------------------------------------------------------------

    async def privileges(self, remote: str, auth: str) -> list[dict[str, Any]]:
        return privileges(await self._distribution.config(remote, auth))

    def local_name(self, remote: str, name: str) -> str:
        """With its tag; from the registry's, when none is given. Conflict when it is taken."""
        return self._store.check_free(name or parse_reference(remote).familiar.partition("@")[0])

    def pull(
        self, remote: str, name: str, agreed: Sequence[Mapping[str, Any]], auth: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Errors before the first message are raised there."""
        normal = self.local_name(remote, name)

        async def work(report: Report) -> None:
            async with self._distribution.fetched(remote, auth, report) as found:
                _check_agreed(found.config, agreed)
                reference = _complete(found.reference)
                add = asyncio.to_thread(self._store.add, normal, found.fill, reference)
                plugin = await finished(add)
            self._publish("pull", plugin)

        return reported(work)

    def upgrade(
        self, ref: str, remote: str, agreed: Sequence[Mapping[str, Any]], auth: str
    ) -> AsyncIterator[dict[str, Any]]:
        plugin = self._store.find(ref)
        if plugin.enabled:
            raise Conflict(f"plugin must be disabled before upgrading: plugin {plugin.name} is enabled")

        async def work(report: Report) -> None:
            async with self._locks[plugin.id], self._distribution.fetched(remote, auth, report) as found:
                if plugin.enabled:
                    raise Conflict(f"plugin {plugin.name} was enabled meanwhile: disable it, then upgrade")
                _check_agreed(found.config, agreed)
                reference = _complete(found.reference)
                await finished(asyncio.to_thread(self._store.replace, plugin, found.fill, reference))
            self._publish("upgrade", plugin)

        return reported(work)

    def push(self, ref: str, auth: str) -> AsyncIterator[dict[str, Any]]:
        plugin = self._store.find(ref)

        async def work(report: Report) -> None:
            async with self._locks[plugin.id]:
                rootfs = self._store.rootfs(plugin)
                await self._distribution.push(plugin.name, plugin.config, rootfs, auth, report)
            self._publish("push", plugin)

        return reported(work)

    def _publish(self, action: str, plugin: Plugin) -> None:
        self._events.publish("plugin", action, plugin.id, {"name": plugin.name})


def _check_agreed(config: PluginConfig, agreed: Sequence[Mapping[str, Any]]) -> None:
    """The user agreed to exactly what this config asks for: it may have changed since he was asked."""

    def shown(asked: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
        return sorted((str(each.get("Name")), sorted(each.get("Value") or ())) for each in asked)

    if shown(agreed) != shown(privileges(config)):
        raise InvalidParameter("incorrect privileges: the plugin asks for others than were agreed to")


def _complete(reference: Reference) -> str:
    return f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"


def _matches(plugin: Plugin, filters: Mapping[str, list[str]]) -> bool:
    for key, values in filters.items():
        if key == "capability":
            kinds = {text.partition("/")[0].rpartition(".")[2] for text in plugin.config.interface.types}
            ok = any(value.lower() in kinds for value in values)
        else:
            ok = plugin.enabled == truth(key, values)
        if not ok:
            return False
    return True


def _to_api(plugin: Plugin) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Id": plugin.id,
        "Name": plugin.name,
        "Enabled": plugin.enabled,
        "Settings": msgspec.to_builtins(plugin.settings),
        "Config": msgspec.to_builtins(plugin.config),
    }
    return shown | ({"PluginReference": plugin.reference} if plugin.reference else {})
