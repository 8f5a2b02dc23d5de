"""Managed plugins that run: started as containers of the runtime, adopted after a restart, started again when they end.

Owns their processes, sockets (<run-dir>/plugin-sockets/<id>/) and the shared mount through which their mounts reach
the host. Invariant: `stop` undoes all of `start`, also when starting failed half way.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from engine import local_volumes
from engine.background import BackgroundTasks
from engine.errors import EngineError, EngineFailure, NotFound
from engine.networks import EndpointRequest, NetworkProvider, SandboxRequest
from engine.plugins.client import PluginAddress, PluginClient, connect_unix
from engine.plugins.container import path_on_host, plugin_spec
from engine.plugins.store import Plugin, PluginStore
from engine.preparation import cgroup_path
from engine.runtime import syscalls
from engine.runtime.client import ContainerStart, ContainerState, ExitEvent, RuntimeClient, SpawnError
from engine.settings import EngineSettings
from engine.storage.driver import Rootfs
from engine.storage.trees import remove_tree

LISTENS_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.05
STOP_WITHIN_S = 10.0
AGAIN_FIRST_S, AGAIN_MOST_S = 1.0, 60.0
LOG_BYTES_MAX = 1 << 20
MS_BIND = 0x1000

logger = logging.getLogger(__name__)


class RunningPlugin(msgspec.Struct):
    """`ended` is set when its process has ended; `scoped` tells where the host finds a path of it."""

    plugin: Plugin
    client: PluginClient
    ended: asyncio.Event
    scoped: Callable[[str], str]
    stopping: bool = False

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def capabilities(self) -> tuple[str, ...]:
        return self.plugin.config.capabilities


class PluginRunner:
    def __init__(
        self,
        settings: EngineSettings,
        store: PluginStore,
        runtime: RuntimeClient,
        networks: NetworkProvider,
        background: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._store = store
        self._runtime = runtime
        self._networks = networks
        self._background = background
        self._sockets = settings.run_dir / "plugin-sockets"
        self._running: dict[str, RunningPlugin] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        runtime.on_exit(self._exited)

    def running(self) -> list[RunningPlugin]:
        return [running for running in tuple(self._running.values()) if not running.ended.is_set()]

    def get(self, plugin: Plugin) -> RunningPlugin | None:
        running = self._running.get(plugin.id)
        return None if running is None or running.ended.is_set() else running

    async def start(self, plugin: Plugin) -> None:
        """Returns when it listens at its socket. EngineFailure when it ends before, or takes too long."""
        async with self._locks[plugin.id]:
            await self._start(plugin)

    async def _start(self, plugin: Plugin) -> None:
        running = self._known(plugin)
        try:
            await self._start_process(plugin)
            await self._listens(running)
        except BaseException as error:
            await self._stop(running)
            if isinstance(error, SpawnError | OSError):
                raise EngineFailure(f"plugin {plugin.name} cannot be started: {error}") from error
            raise

    async def stop(self, plugin: Plugin) -> None:
        """SIGTERM, then SIGKILL."""
        async with self._locks[plugin.id]:
            running = self._running.get(plugin.id)
            if running is not None:
                await self._stop(running)

    async def recover(self, states: Mapping[str, ContainerState]) -> None:
        """After a restart of the daemon: adopt what runs, start what should; one that fails is logged."""
        for plugin in self._store.all():
            state = states.get(plugin.id)
            if plugin.enabled and state is not None and state.running:
                self._known(plugin)
                continue
            if state is not None:
                await self._end_of(plugin, state)
            await asyncio.to_thread(self._unshare, plugin)
            if plugin.enabled:
                try:
                    await self.start(plugin)
                except EngineError as error:
                    logger.error("plugin %s does not start: %s; enable it again", plugin.name, error)

    async def shut_down(self) -> None:
        """The machine stops."""
        await asyncio.gather(*(self._stop(running) for running in self.running()), return_exceptions=True)

    def close(self) -> None:
        for running in self._running.values():
            running.client.close()

    # ---- inside -------------------------------------------------------------------------------------------

    def _known(self, plugin: Plugin) -> RunningPlugin:
        address = PluginAddress(f"unix://{self._socket(plugin)}")
        scoped = functools.partial(
            path_on_host,
            plugin,
            rootfs=self._store.rootfs(plugin),
            propagated=self._store.propagated(plugin),
        )
        running = RunningPlugin(plugin, PluginClient(plugin.name, address), asyncio.Event(), scoped)
        self._running[plugin.id] = running
        return running

    async def _start_process(self, plugin: Plugin) -> None:
        spec = plugin_spec(
            plugin, sockets=self._socket(plugin).parent, propagated=self._store.propagated(plugin)
        )
        await asyncio.to_thread(self._share, plugin)
        start = ContainerStart(
            id=plugin.id,
            spec=spec,
            rootfs=Rootfs(upper=str(self._store.rootfs(plugin))),
            netns=await self._namespace(plugin),
            cgroup=cgroup_path(f"{self._settings.cgroup_parent}/plugins", plugin.id),
            log_path=str(self._store.folder(plugin) / "plugin-json.log"),
            log_max_size=LOG_BYTES_MAX,
            log_max_file=2,
        )
        await self._runtime.start(start)

    async def _namespace(self, plugin: Plugin) -> str:
        kind = plugin.config.network.type
        if kind == "host":
            return "host"
        if kind != "bridge":
            return ""
        bridge = self._networks.find("bridge")
        request = SandboxRequest(
            id=plugin.id, name=plugin.id[:12], endpoints=(EndpointRequest(network=bridge.id),)
        )
        return (await self._networks.create_sandbox(request)).netns_path

    async def _listens(self, running: RunningPlugin) -> None:
        """Bounded; ends early when the process has ended."""
        path = self._socket(running.plugin)
        limit_s = max(LISTENS_WITHIN_S, float(running.plugin.timeout_s))
        try:
            async with asyncio.timeout(limit_s):
                while not await asyncio.to_thread(_answers, path):
                    if running.ended.is_set():
                        log = self._store.folder(running.plugin) / "plugin-json.log"
                        raise EngineFailure(f"plugin {running.name} ended before it listened: see {log}")
                    await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError as error:
            raise EngineFailure(
                f"plugin {running.name} does not listen at {path.name} within {limit_s:.0f} s"
            ) from error

    def _exited(self, event: ExitEvent) -> None:
        running = self._running.get(event.id)
        if running is None or event.exec_id is not None:
            return
        running.ended.set()
        if not running.stopping:
            logger.warning("plugin %s ended with exit code %d", running.name, event.exit_code)
            self._background.start(self._start_again(running), f"restart of plugin {running.name}")

    async def _start_again(self, ended: RunningPlugin) -> None:
        """Until it runs, or somebody disables it."""
        pause_s = AGAIN_FIRST_S
        while self._running.get(ended.plugin.id) is ended and ended.plugin.enabled:
            await asyncio.sleep(pause_s)
            async with self._locks[ended.plugin.id]:
                if self._running.get(ended.plugin.id) is not ended or not ended.plugin.enabled:
                    return
                try:
                    await self._clean(ended.plugin)
                    await self._start(ended.plugin)
                except EngineError as error:
                    logger.warning("plugin %s does not start again: %s", ended.name, error)
                    self._running[ended.plugin.id] = ended
            pause_s = min(2 * pause_s, AGAIN_MOST_S)

    async def _stop(self, running: RunningPlugin) -> None:
        running.stopping = True
        plugin = running.plugin
        for number in (15, 9):
            if running.ended.is_set():
                break
            try:
                await self._runtime.kill(plugin.id, number)
            except (ProcessLookupError, NotFound):
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await running.ended.wait()
        running.client.close()
        if self._running.get(plugin.id) is running:
            del self._running[plugin.id]
        await self._clean(plugin)

    async def _end_of(self, plugin: Plugin, state: ContainerState) -> None:
        """One that runs though it is disabled, or that ended while nobody looked."""
        if state.running:
            with contextlib.suppress(ProcessLookupError, NotFound):
                await self._runtime.kill(plugin.id, 9)
        await self._clean(plugin)

    async def _clean(self, plugin: Plugin) -> None:
        await self._runtime.forget(plugin.id)
        if self._networks.sandbox(plugin.id) is not None:
            await self._networks.remove_sandbox(plugin.id)
        await asyncio.to_thread(self._unshare, plugin)

    def _share(self, plugin: Plugin) -> None:
        """Its folder for sockets, and a mount whose later mounts travel both ways."""
        folder = self._socket(plugin).parent
        remove_tree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        if plugin.config.propagated_mount:
            path = str(self._store.propagated(plugin))
            syscalls.mount(path, path, "", MS_BIND, "")
            syscalls.mount("", path, "", syscalls.MS_SHARED | syscalls.MS_REC, "")

    def _unshare(self, plugin: Plugin) -> None:
        """What it left mounted, deepest first, and its sockets."""
        top = str(self._store.propagated(plugin))
        points = [point for point in local_volumes.mount_points() if f"{point}/".startswith(f"{top}/")]
        for point in sorted(points, reverse=True):
            try:
                syscalls.umount(point, syscalls.MNT_DETACH)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    logger.warning("%s cannot be unmounted: %s", point, error)
        remove_tree(self._socket(plugin).parent, ignore_errors=True)

    def _socket(self, plugin: Plugin) -> Path:
        return self._sockets / plugin.id[:32] / plugin.config.interface.socket


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connect_unix(connection, str(path))
    except OSError:
        return False
    return True
