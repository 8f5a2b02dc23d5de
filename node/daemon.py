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
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from engine.engine import Engine
from engine.errors import EngineError, Unavailable
from engine.runtime.client import RuntimeClient
from engine.runtime.launch import this_installation
from node import machine, metrics
from node.api.app import build_app
from node.api.context import Context
from node.api.routes import OWN_ROUTES, ROUTES
from node.api.server import bound, serve, serve_also
from node.config import VERSION, ConfigError, NodeConfig
from node.engine_settings import engine_settings
from node.hosts import HandedOver, InvalidHost, TcpHost, UnixHost, chosen
from node.loop import SystemClock
from node.network_audit import NetworkAudit
from node.networks import EngineNetworks
from node.notify import notify
from node.peers import overlook_late_aborts
from node.reload import Reloader, set_log_level
from node.stack_dump import StackDump
from node.swarm import SwarmMembership
from node.swarm_events import SwarmEvents
from node.tls_files import ApiTls
from overlay_net.driver import NetworkDriver
from overlay_net.records import BridgeDefaults

logger = logging.getLogger(__name__)

# When the machine stops: until the other nodes have taken this one's tasks out of their load balancing.
TRAFFIC_LEAVES_S = 2.0


class Signals:
    """What the process is told from outside; `sockets` came from systemd, `read` reads the settings again."""

    def __init__(self, sockets: dict[str, socket.socket], read: Callable[[], NodeConfig]) -> None:
        self.sockets = sockets
        self.read = read
        self.stopping, self.reload, self.dump = asyncio.Event(), asyncio.Event(), asyncio.Event()


class Daemon:
    """`start`, then `stop`; containers outlive both, unless the machine stops."""

    def __init__(self, config: NodeConfig, signals: Signals) -> None:
        self._config = config
        self._signals = signals
        self._lock_file: int | None = None
        self._driver: NetworkDriver | None = None
        self._audit: NetworkAudit | None = None
        self._engine: Engine | None = None
        self._swarm: SwarmMembership | None = None
        self._runner: web.AppRunner | None = None
        self._metrics: web.AppRunner | None = None
        self._tls: ApiTls | None = None
        self._stacks: StackDump | None = None
        self._obeying: list[asyncio.Task[None]] = []

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
            bridge_defaults=BridgeDefaults(
                bip=config.bridge.bip,
                mtu=config.bridge.mtu,
                pools=tuple((pool.base, pool.size) for pool in config.bridge.pools),
                icc=config.bridge.icc,
                ipv6=config.bridge.ipv6,
                fixed_cidr_v6=config.bridge.fixed_cidr_v6,
            ),
        )
        settings = engine_settings(config)
        self._tls = None if config.tls is None else ApiTls(config.tls)
        try:
            self._engine = Engine(settings, runtime, EngineNetworks(self._driver))
        except EngineError as error:
            # A supervisor that was started for nothing ends again; one that has containers goes on with them.
            if await runtime.list():
                await runtime.close()
            else:
                await runtime.shutdown()
            raise ConfigError(str(error)) from error
        await self._driver.start(await self._engine.live_sandboxes())
        await self._engine.start()
        self._swarm = SwarmMembership(config, self._engine, self._driver)
        self._swarm.events = SwarmEvents(self._engine.events_bus)
        await self._swarm.start()
        self._audit = NetworkAudit(self._driver, SystemClock())
        self._audit.start()
        app = build_app(Context(engine=self._engine, swarm=self._swarm), (*ROUTES, *OWN_ROUTES))
        if config.metrics_address:
            self._metrics = await metrics.start(config.metrics_address, self._engine, self._swarm)
        await self._open_doors(app)
        self._obey(self._engine)
        logger.info("swarmd %s answers on %s", VERSION, ", ".join(map(str, config.api_hosts)))

    async def _open_doors(self, app: web.Application) -> None:
        hosts = self._config.api_hosts
        tls = None if self._tls is None else self._tls.context
        paths = [host.path for host in hosts if isinstance(host, UnixHost)]
        self._runner = await serve(app, paths, self._config.group)
        listening: list[socket.socket] = []
        for host in hosts:
            if isinstance(host, TcpHost):
                listening += bound(host.address, host.port)
            elif isinstance(host, HandedOver):
                try:
                    listening += chosen(host, self._signals.sockets)
                except InvalidHost as error:
                    raise ConfigError(str(error)) from error
        for made in listening:
            await serve_also(self._runner, made, tls)

    def _obey(self, engine: Engine) -> None:
        """Signals are followed one after the other, from now on."""
        config, signals = self._config, self._signals
        self._stacks = StackDump(config.run_dir)
        self._stacks.register()
        reloader = Reloader(config, signals.read, engine, self._tls)

        async def dump(stacks: StackDump) -> None:
            stacks.write_tasks()

        self._obeying = [
            asyncio.create_task(_whenever(signals.reload, reloader.reload), name="reload"),
            asyncio.create_task(_whenever(signals.dump, functools.partial(dump, self._stacks)), name="dump"),
        ]

    async def stop(self, *, machine_stops: bool = False) -> None:
        """Everything that was started, in reverse; what fails does not keep the rest from stopping.

        `machine_stops`: the managers are told that this node's tasks end, then all containers are stopped in order.
        """
        for task in self._obeying:
            task.cancel()
        await asyncio.gather(*self._obeying, return_exceptions=True)
        stops: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        for name, runner in (("API", self._runner), ("metrics", self._metrics)):
            if runner is not None:
                stops.append((name, runner.cleanup))
        if self._audit is not None:
            stops.append(("audit", self._audit.stop))
        if self._swarm is not None:
            takes_part = self._swarm.local_state() == "active"
            stops.append(("swarm", functools.partial(self._swarm.stop, restarting=not machine_stops)))
            if machine_stops and takes_part:
                stops.append(("traffic", functools.partial(asyncio.sleep, TRAFFIC_LEAVES_S)))
        if self._engine is not None and machine_stops:
            stops.append(
                (
                    "containers",
                    functools.partial(self._engine.shut_down, self._config.live.shutdown_timeout_s),
                )
            )
        if self._engine is not None:
            stops.append(("engine", self._engine.close))
        if self._driver is not None:
            stops.append(("networks", self._driver.close))
        for name, stop in stops:
            try:
                await stop()
            except Exception:
                logger.exception("stopping the %s failed", name)
        if self._stacks is not None:
            self._stacks.close()
        (self._config.run_dir / "swarmd.pid").unlink(missing_ok=True)
        if self._lock_file is not None:
            os.close(self._lock_file)


async def run(config: NodeConfig, signals: Signals) -> None:
    """Serve until told to stop."""
    set_log_level(config.log_level, debug=config.live.debug)
    overlook_late_aborts(asyncio.get_running_loop())
    daemon = Daemon(config, signals)
    machine_stops = False
    try:
        await daemon.start()
        notify("READY=1")
        await signals.stopping.wait()
        notify("STOPPING=1")
        machine_stops = await machine.is_stopping()
        logger.info("stopping; containers %s", "end with the machine" if machine_stops else "run on")
    finally:
        await daemon.stop(machine_stops=machine_stops)


async def _whenever(told: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await told.wait()
        told.clear()
        try:
            await act()
        except Exception:
            logger.exception("following a signal failed")


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
