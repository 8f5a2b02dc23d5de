"""The engine of one host, whole: what the API and the swarm agent call.

A facade: each verb of containers goes to the module that owns it; images, volumes and networks are objects of
their own. References are a full id, a name or a unique id prefix.
Knows nothing of clusters; their networks and tasks come in through `create_container`'s keywords.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from engine.attach import AttachSession
from engine.attach_logs import LoggedSession
from engine.attachment_events import AttachmentEvents
from engine.background import BackgroundTasks
from engine.building.roots import Roots
from engine.building.running import CommandRunner
from engine.builds import Builds
from engine.commits import Commits
from engine.config import (
    ContainerCreate,
    ExecConfig,
    LogOptions,
    LogRecord,
    SecretFile,
    TaskEndpoint,
)
from engine.container import Container, Status
from engine.container_defaults import complete
from engine.containers import Containers, checked_name
from engine.creation import Creation
from engine.detach import detach_keys, detachable
from engine.errors import Conflict, InvalidParameter, NotFound, NotImplementedHere
from engine.events import EventBus
from engine.execs import Execs
from engine.files.service import Files
from engine.filters import Lookups, listing_filter, prune_filter
from engine.foreign import Bundles, ForeignPreparation, check_runtime
from engine.health import ExecProber, HealthMonitor
from engine.host_facts import HostFacts
from engine.images.store import ImageStore
from engine.imaging import Imaging
from engine.lifecycle import ContainerExit, Lifecycle
from engine.links import without_link
from engine.log_forwarding import LogForwarding
from engine.log_settings import log_settings
from engine.logs import read_batches
from engine.memory_files import MemoryFiles
from engine.network_service import NetworkService
from engine.networking import ContainerNetworking
from engine.networks import NetworkProvider
from engine.plugins.networks import PluginNetworks
from engine.plugins.service import PluginService
from engine.preparation import HostPreparation
from engine.process_list import process_table
from engine.registry.service import RegistryService
from engine.runtime.client import ContainerState, ExitEvent, RuntimeClient
from engine.runtime.limit_support import read_limit_support
from engine.settings import EngineSettings
from engine.state import StateStore
from engine.stats_stream import stats_stream
from engine.storage.choice import choose_driver
from engine.storage.trees import remove_tree
from engine.timings import Timings
from engine.update import apply_update
from engine.views import container_inspect, container_summary, graph_driver_data
from engine.volume_service import VolumeService
from engine.volumes import VolumeStore

logger = logging.getLogger(__name__)


class Engine:
    """Made by `open`, then `start`; `close` leaves containers running."""

    def __init__(self, settings: EngineSettings, runtime: RuntimeClient, networks: NetworkProvider) -> None:
        self.settings = settings
        self.events_bus = EventBus()
        self.timings = Timings(("changes", "create", "delete", "start"))
        self._background = BackgroundTasks()
        self._runtime = runtime
        settings.containers_dir.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._storage = choose_driver(settings.root, settings.storage_driver, settings.storage_options)
        self._state = StateStore(settings.root / "engine.db")
        self._containers = Containers(self._state)
        self._support = read_limit_support()
        find = self._containers.find
        self._images = ImageStore(settings.root / "images", self._storage)
        self.plugins = PluginService(settings, runtime, networks, self.events_bus, self._background)
        networks = PluginNetworks(networks, self.plugins.catalog, settings.root / "plugin-networks.json")
        users_of_volume = self._containers.users_of_volume
        self._volumes = VolumeStore(settings.root / "volumes", users_of_volume, self.plugins.catalog)
        volumes_of, networks_of = self._volumes.users_of_driver, networks.users_of_driver
        self.plugins.users = lambda name: [*volumes_of(name), *networks_of(name)]
        self._memory_files = MemoryFiles(settings.memory_files_dir)
        self._provider = networks
        self._forwarding = LogForwarding(settings, self._background)
        networking = ContainerNetworking(settings, networks, find, self._containers.all)
        preparation = self._preparation = HostPreparation(
            settings,
            self._storage,
            self._volumes,
            networking,
            self._memory_files,
            find,
            self._images.collect,
            self._forwarding,
        )
        self._creation = Creation(
            self._containers,
            self._images,
            self._volumes,
            networks,
            preparation,
            self.events_bus,
            self._storage.name,
            self._support,
            remaps=preparation.remaps,
        )
        self._bundles = Bundles(settings.run_dir, settings.live)
        starts = ForeignPreparation(preparation, self._bundles)
        self._lifecycle = Lifecycle(self._containers, runtime, starts, self.events_bus, self._background)
        self._execs = Execs(self._containers, runtime, preparation, self.events_bus, self._background)
        self._lifecycle.health_watch = HealthMonitor(
            ExecProber(self._execs), self._containers, self.events_bus, self._background
        )
        self._lifecycle.on_started = self._forwarding.started
        self.files = Files(
            settings, self._containers, self._storage, preparation, self.events_bus, self.timings
        )
        temp_dir = settings.root / "tmp"
        self.registry = RegistryService(lambda: settings.registry, self._images, self.events_bus, temp_dir)
        self.images = Imaging(self._images, self._containers, self.events_bus, temp_dir, self.registry)
        roots = Roots(self._storage, temp_dir)
        runner = CommandRunner(self._containers, self._creation, self._lifecycle)
        self.builds = Builds(settings.root / "builds", self.images, roots, runner)
        self.commits = Commits(self.images, roots, self._containers, self._lifecycle, self.events_bus)
        self.networks = NetworkService(networks, self._containers, self.events_bus, networking.update_hosts)
        self.volumes = VolumeService(self._volumes, self.events_bus, self._containers.users_of_volume)
        self.events_bus.companion = AttachmentEvents(find, networks)
        self.host = HostFacts(
            settings,
            self._containers,
            self._images,
            self.volumes,
            self._support,
            self._storage,
            self.events_bus,
            self.supervisor,
            lambda: self.list_containers(True, 0, True, {}),
        )
        self.host.plugin_names = self.plugins.catalog.names
        self._lookups = Lookups(
            container=find,
            image_family=self._image_family,
            network=networks.find,
            sandbox=networks.sandbox,
        )
        runtime.on_exit(self._exited)

    # ---- the engine's own life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Reconcile with what runs: adopt live containers, record exits that were missed, remove leftovers."""
        for leftover in self.settings.containers_dir.iterdir():
            if leftover.name not in self._state.containers:
                await asyncio.to_thread(remove_tree, leftover, ignore_errors=True)
        self._preparation.recover(self._state.containers)
        await asyncio.to_thread(self._bundles.recover, set(self._state.containers))
        known_layers = {chain for image in self._images.all() for chain in image.chain_ids}
        await asyncio.to_thread(self._storage.recover, known_layers, set(self._state.containers))
        states = {state.id: state for state in await self._runtime.list()}
        await self.plugins.recover(states)
        for unknown in set(states) - set(self._state.containers) - self.plugins.ids:
            if states[unknown].running:
                await self._runtime.kill(unknown, 9)
            else:
                await self._runtime.forget(unknown)
        had_process = [c for c in self._containers.all() if c.is_running or c.id in states]
        await asyncio.to_thread(self._preparation.recover_volumes, had_process)
        recoveries = [self._recover(c, states.get(c.id)) for c in tuple(self._containers.all())]
        await asyncio.gather(*recoveries)
        await self.builds.recover()
        for container in self._containers.all():
            self._forwarding.started(container)

    async def _recover(self, container: Container, state: ContainerState | None) -> None:
        running = state is not None and state.running
        try:
            if state is not None and not container.is_running:
                if running or state.finished_at > container.state.finished_at:
                    _adopt(container, state)  # started, and not recorded before the daemon ended
                else:
                    await self._runtime.forget(container.id)
            exit_event = None if state is None or running else _exit_of(state)
            await self._lifecycle.recover(container, exit_event, running=running)
        except Exception:
            # One damaged container must not keep the others from their daemon.
            logger.exception("container %s cannot be recovered", container.name)

    async def live_sandboxes(self) -> set[str]:
        """Containers that run in the supervisor: their networks must be kept when the data plane starts."""
        ours = set(self._state.containers) | self.plugins.ids
        return {state.id for state in await self._runtime.list() if state.running} & ours

    async def shut_down(self, within_s: float) -> None:
        """The machine stops: end all containers in order, so that they come back as their restart policies say."""
        await self._lifecycle.shut_down(within_s)
        await self.plugins.shut_down()

    async def close(self) -> None:
        await self._background.close()
        self.plugins.close()
        self.files.close()
        await self._runtime.close()
        self._memory_files.close()
        self._preparation.close()
        self._state.close()

    def _exited(self, event: ExitEvent) -> None:
        if event.exec_id is not None:
            self._execs.exited(event)
        else:
            self._lifecycle.exited(event)

    async def fetch_image(self, ref: str, auth: str) -> None:
        """The image is here afterwards: from its registry, when it was not. NotFound when it cannot be had."""
        await self.registry.fetch(ref, auth)

    # ---- containers ---------------------------------------------------------------------------------------

    async def create_container(
        self,
        name: str,
        body: ContainerCreate,
        *,
        files: Sequence[SecretFile] = (),
        endpoints: Sequence[TaskEndpoint] = (),
        platform: str = "",
    ) -> tuple[str, list[str]]:
        complete(body, self.settings.live.defaults)
        if body.host_config is not None:
            check_runtime(body.host_config.runtime, self.settings.live.runtimes)
        with self.timings.of("create"):
            return await self._creation.create(name, body, files, endpoints, platform)

    async def start_container(self, ref: str) -> None:
        with self.timings.of("start"):
            await self._lifecycle.start(self._containers.find(ref))

    async def stop_container(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self._lifecycle.stop(self._containers.find(ref), timeout, signal)

    async def kill_container(self, ref: str, signal: str = "") -> None:
        await self._lifecycle.kill(self._containers.find(ref), signal)

    async def restart_container(self, ref: str, timeout: int | None = None, signal: str = "") -> None:
        await self._lifecycle.restart(self._containers.find(ref), timeout, signal)

    async def pause_container(self, ref: str) -> None:
        await self._lifecycle.pause(self._containers.find(ref))

    async def unpause_container(self, ref: str) -> None:
        await self._lifecycle.unpause(self._containers.find(ref))

    async def remove_container(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        with self.timings.of("delete"):
            await self._lifecycle.remove(self._containers.find(ref), force=force, volumes=volumes)

    async def remove_link(self, ref: str) -> None:
        """`rm --link CONTAINER/ALIAS`: the container keeps its name for the other no longer."""
        self._containers.save(without_link(ref, self._containers.find))

    async def wait_container(self, ref: str, condition: str = "") -> ContainerExit:
        return await self._lifecycle.wait(self._containers.find(ref), condition)

    async def rename_container(self, ref: str, name: str) -> None:
        container = self._containers.find(ref)
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        old = container.name
        if checked_name(name) == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        self._state.rename(container, checked_name(name))
        self._tell(container, "rename", oldName=f"/{old}")

    async def resize_container(self, ref: str, rows: int, cols: int) -> None:
        container = self._running(ref)
        await self._runtime.resize(container.id, None, rows, cols)
        self._tell(container, "resize", height=str(rows), width=str(cols))

    async def top_container(self, ref: str, ps_args: str) -> dict[str, Any]:
        container = self._running(ref)
        self._tell(container, "top")
        return await process_table(await self._runtime.pids(container.id), ps_args)

    async def update_container(self, ref: str, changes: Mapping[str, Any]) -> list[str]:
        container = self._containers.find(ref)
        resources, warnings = apply_update(container, changes, self._support)
        if container.is_running and resources:
            await self._runtime.update(container.id, resources)
        self._containers.save(container)
        self._tell(container, "update")
        return warnings

    def stats_container(
        self, ref: str, *, stream: bool, one_shot: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """See `stats_stream`."""
        container = self._containers.find(ref)
        return stats_stream(container, self._runtime.stats, stream=stream, one_shot=one_shot)

    async def inspect_container(self, ref: str, size: bool = False) -> dict[str, Any]:
        container = self._containers.find(ref)
        shown = container_inspect(container, self._provider.sandbox(container.id), self.settings)
        shown["ExecIDs"] = self._execs.ids_of(container.id)
        with contextlib.suppress(NotFound):  # one that is being removed has lost it
            shown["GraphDriver"]["Data"] = graph_driver_data(container, self._storage.places(container.id))
        if size:
            usage = await asyncio.to_thread(self._storage.usage, container.id)
            shown |= {"SizeRw": usage, "SizeRootFs": usage + self._image_size(container)}
        return shown

    async def list_containers(
        self, all: bool, limit: int, size: bool, filters: Mapping[str, list[str]]
    ) -> list[dict[str, Any]]:
        matches = listing_filter(filters, self._lookups)
        show_stopped = all or limit > 0 or bool(filters.get("status") or filters.get("exited"))
        chosen = [c for c in self._containers.all() if (show_stopped or c.state.status.is_up) and matches(c)]
        chosen.sort(key=lambda container: container.created_at, reverse=True)
        rows = []
        for container in chosen[: limit if limit > 0 else None]:
            row = container_summary(container, self._provider.sandbox(container.id))
            if size:
                usage = await asyncio.to_thread(self._storage.usage, container.id)
                row |= {"SizeRw": usage, "SizeRootFs": usage + self._image_size(container)}
            rows.append(row)
        return rows

    def container_is_tty(self, ref: str) -> bool:
        return self._containers.find(ref).config.tty

    async def container_logs(self, ref: str, options: LogOptions) -> AsyncGenerator[LogRecord, None]:
        async for batch in self.container_log_batches(ref, options):
            for record in batch:
                yield record

    def container_log_batches(self, ref: str, options: LogOptions) -> AsyncGenerator[list[LogRecord], None]:
        """`container_logs`, as many lines at a time as were read at once. What cannot be read is refused by the call."""
        container = self._containers.find(ref)
        log = log_settings(container.host_config.log_config)
        if not log.is_readable:
            raise NotImplementedHere("configured logging driver does not support reading")
        path = self.settings.log_path(container.id, log.driver)
        return read_batches(path, options, lambda: not container.is_running)

    async def attach_container(
        self,
        ref: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        stream: bool,
        logs: bool,
        keys: str = "",
    ) -> AttachSession:
        """`logs`: what was logged comes first. `keys`: the detach keys, "" for the usual ones."""
        container = self._containers.find(ref)
        typed = detach_keys(keys)
        streams = frozenset(number for number, wanted in ((1, stdout), (2, stderr)) if wanted)
        session = await self._lifecycle.attach(container, stdin=stdin and stream, streams=streams)
        if logs or not stream:
            options = LogOptions(stdout=stdout and logs, stderr=stderr and logs)
            session = LoggedSession(session, self.container_log_batches(ref, options), follows=stream)
        if stdin:
            left = functools.partial(self._tell, container, "detach")
            session = detachable(session, typed, left)
        self._tell(container, "attach")
        return session

    async def prune_containers(self, filters: Mapping[str, list[str]]) -> dict[str, Any]:
        matches = prune_filter(filters, time.time())
        deleted, reclaimed = [], 0
        for container in tuple(self._containers.all()):
            if container.state.status in ("created", "exited", "dead") and matches(container):
                reclaimed += await asyncio.to_thread(self._storage.usage, container.id)
                await self._lifecycle.remove(container, force=False, volumes=False)
                deleted.append(container.id)
        self.events_bus.publish("container", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed}

    def _image_family(self, ref: str) -> set[str]:
        """Ids of an image and of all images that stand on its layers; empty for an unknown one."""
        try:
            ancestor = self._images.resolve(ref)
        except (NotFound, InvalidParameter):
            return set()
        layers = ancestor.diff_ids
        above = (image for image in self._images.all() if layers and image.diff_ids[: len(layers)] == layers)
        return {ancestor.id, *(image.id for image in above)}

    def _image_size(self, container: Container) -> int:
        """0 when the image was removed by force."""
        try:
            return self._images.resolve(container.image_id).size
        except NotFound:
            return 0

    def _tell(self, container: Container, action: str, **extra: str) -> None:
        self.events_bus.publish("container", action, container.id, {**container.event_attributes(), **extra})

    def _running(self, ref: str) -> Container:
        container = self._containers.find(ref)
        if not container.is_running:
            raise Conflict(f"container {container.id} is not running")
        return container

    # ---- exec ---------------------------------------------------------------------------------------------

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        return self._execs.create(ref, config)

    async def exec_start(
        self, exec_id: str, *, detach: bool, tty: bool, console_size: list[int] | None = None
    ) -> AttachSession | None:
        return await self._execs.start(exec_id, detach=detach, tty=tty, console_size=console_size)

    async def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        return self._execs.inspect(exec_id)

    async def exec_resize(self, exec_id: str, rows: int, cols: int) -> None:
        await self._execs.resize(exec_id, rows, cols)

    # ---- the host -----------------------------------------------------------------------------------------

    def events(
        self, since: float, until: float, filters: Mapping[str, list[str]]
    ) -> AsyncIterator[dict[str, Any]]:
        """See `EventBus.stream`: subscribed, and checked, before the first event is asked for."""
        stream = self.events_bus.stream(since, until, filters)

        async def shown() -> AsyncIterator[dict[str, Any]]:
            async with contextlib.aclosing(stream):
                async for event in stream:
                    yield event.to_api()

        return shown()

    def supervisor(self) -> dict[str, str]:
        """The process that is the parent of all containers; a `Problem` when it does not run the daemon's build."""
        facts = self._runtime.supervisor
        shown = {"Pid": str(facts.pid), "Build": facts.build or "unknown", "Protocol": str(facts.protocol)}
        return shown | ({"Problem": facts.problem} if facts.problem else {})


def _adopt(container: Container, state: ContainerState) -> None:
    container.state.status = Status.RUNNING
    container.state.pid, container.state.start_ticks = state.pid, state.start_ticks
    container.state.started_at = container.state.started_at or time.time()


def _exit_of(state: ContainerState) -> ExitEvent:
    return ExitEvent(
        id=state.id,
        exec_id=None,
        pid=state.pid,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        finished_at=state.finished_at,
    )
