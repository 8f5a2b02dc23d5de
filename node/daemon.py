"""The composition root: makes every part of a node's daemon, starts them in order, stops them in reverse.

Order: supervisor client, networks, engine (adopts what runs), membership, API. The API opens last, so that
whoever gets an answer sees a daemon that is complete.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import grp
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from engine.engine import Engine
from engine.errors import Unavailable
from engine.runtime.client import RuntimeClient
from engine.runtime.launch import this_installation
from engine.settings import EngineSettings
from node import machine
from node.api.app import build_app
from node.api.context import Context
from node.api.routes import OWN_ROUTES, ROUTES
from node.api.server import serve
from node.config import VERSION, ConfigError, NodeConfig
from node.loop import SystemClock
from node.network_audit import NetworkAudit
from node.networks import EngineNetworks
from node.notify import notify
from node.peers import overlook_late_aborts
from node.swarm import SwarmMembership
from overlay_net.driver import NetworkDriver

logger = logging.getLogger(__name__)

# Of packaging/swarmd.service's TimeoutStopSec=60; the rest is for SIGKILL and for everything but containers.
CONTAINERS_STOP_S = 40.0
# When the machine stops: until the other nodes have taken this one's tasks out of their load balancing.
TRAFFIC_LEAVES_S = 2.0


class Daemon:
    """`start`, then `stop`; containers outlive both, unless the machine stops."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._lock_file: int | None = None
        self._driver: NetworkDriver | None = None
        self._audit: NetworkAudit | None = None
        self._engine: Engine | None = None
        self._swarm: SwarmMembership | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """ConfigError when another daemon has this state, OSError when the host refuses."""
        config = self._config
        _private_folder(config.root)
        _private_folder(config.run_dir, _group_id(config.group))
        self._lock_file = _lock(config.root / "swarmd.lock")
        (config.run_dir / "swarmd.pid").write_text(f"{os.getpid()}\n")
        try:
            runtime = await RuntimeClient.connect(config.run_dir, this_installation(VERSION))
        except Unavailable as error:
            raise ConfigError(str(error)) from error
        self._driver = NetworkDriver(
            state_dir=config.root / "network",
            run_dir=config.run_dir,
            underlay_address=config.advertise_address,
        )
        settings = EngineSettings(
            root=config.root,
            run_dir=config.run_dir,
            cgroup_parent=config.cgroup_parent,
            hostname=config.name,
            storage_driver=config.storage_driver,
            userns_remap=config.userns_remap,
            labels=config.labels,
            engine_version=VERSION,
        )
        self._engine = Engine(settings, runtime, EngineNetworks(self._driver))
        await self._driver.start(await self._engine.live_sandboxes())
        await self._engine.start()
        self._swarm = SwarmMembership(config, self._engine, self._driver)
        await self._swarm.start()
        self._audit = NetworkAudit(self._driver, SystemClock())
        self._audit.start()
        app = build_app(Context(engine=self._engine, swarm=self._swarm), (*ROUTES, *OWN_ROUTES))
        self._runner = await serve(app, config.api_sockets, config.group)
        logger.info("swarmd %s answers on %s", VERSION, ", ".join(map(str, config.api_sockets)))

    async def stop(self, *, machine_stops: bool = False) -> None:
        """Everything that was started, in reverse; what fails does not keep the rest from stopping.

        `machine_stops`: the managers are told that this node's tasks end, then all containers are stopped in order.
        """
        stops: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        if self._runner is not None:
            stops.append(("API", self._runner.cleanup))
        if self._audit is not None:
            stops.append(("audit", self._audit.stop))
        if self._swarm is not None:
            takes_part = self._swarm.local_state() == "active"
            stops.append(("swarm", functools.partial(self._swarm.stop, restarting=not machine_stops)))
            if machine_stops and takes_part:
                stops.append(("traffic", functools.partial(asyncio.sleep, TRAFFIC_LEAVES_S)))
        if self._engine is not None and machine_stops:
            stops.append(("containers", functools.partial(self._engine.shut_down, CONTAINERS_STOP_S)))
        if self._engine is not None:
            stops.append(("engine", self._engine.close))
        if self._driver is not None:
            stops.append(("networks", self._driver.close))
        for name, stop in stops:
            try:
                await stop()
            except Exception:
                logger.exception("stopping the %s failed", name)
        (self._config.run_dir / "swarmd.pid").unlink(missing_ok=True)
        if self._lock_file is not None:
            os.close(self._lock_file)


async def run(config: NodeConfig, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set."""
    overlook_late_aborts(asyncio.get_running_loop())
    daemon = Daemon(config)
    machine_stops = False
    try:
        await daemon.start()
        notify("READY=1")
        await stopping.wait()
        notify("STOPPING=1")
        machine_stops = await machine.is_stopping()
        logger.info("stopping; containers %s", "end with the machine" if machine_stops else "run on")
    finally:
        await daemon.stop(machine_stops=machine_stops)


def _private_folder(folder: Path, group: int = -1) -> None:
    """Others of the host must not reach what lies there: files of images that are set-uid, above all."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o710)
    if group >= 0:
        os.chown(folder, -1, group)


def _group_id(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigError(f"--group {name}: there is no such group here: make it with groupadd") from error


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another swarmd uses {path.parent}: stop it, or give this one another --root"
        ) from error
    return descriptor
