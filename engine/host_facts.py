"""What GET /info and GET /system/df say of this host: its kernel, what the engine has, and what lies on the disk.

Reads only, but for the engine's own id, which is made once and kept beside its state.
"""

from __future__ import annotations

import asyncio
import collections
import os
import platform
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from engine.containers import Containers
from engine.events import EventBus
from engine.foreign import BUILT_IN, runtimes
from engine.images.config import Image
from engine.images.store import ImageStore
from engine.images.views import summary
from engine.limits import missing_limits
from engine.log_settings import DRIVERS
from engine.runtime.limit_support import LimitSupport
from engine.settings import EngineSettings, LiveSettings
from engine.storage.driver import StorageDriver
from engine.volume_service import VolumeService

INDEX_SERVER = "https://index.docker.io/v1/"
_LOOPBACK = ["::1/128", "127.0.0.0/8"]  # registries there need no TLS, as in Docker

ListContainers = Callable[[], Awaitable[list[dict[str, Any]]]]
Supervisor = Callable[[], dict[str, str]]


class HostFacts:
    """`supervisor` and `list_containers` (all, with sizes) are the engine's own."""

    def __init__(
        self,
        settings: EngineSettings,
        containers: Containers,
        images: ImageStore,
        volumes: VolumeService,
        support: LimitSupport,
        storage: StorageDriver,
        events: EventBus,
        supervisor: Supervisor,
        list_containers: ListContainers,
    ) -> None:
        self._settings = settings
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._support = support
        self._storage = storage
        self._events = events
        self._supervisor = supervisor
        self._list_containers = list_containers
        self.id = _engine_id(settings.root / "engine-id")

    async def info(self) -> dict[str, Any]:
        """The engine's part of GET /info."""
        live = self._settings.live
        supervisor = self._supervisor()
        stays = f"the supervisor stays build {supervisor['Build']}: {supervisor.get('Problem')}"
        warnings = [*missing_limits(self._support), *self._settings.warnings]
        return {
            "ID": self.id,
            **self._counts(),
            **_kernel_facts(),
            **self._limits(),
            **_components(live),
            "Driver": self._storage.name,
            "DriverStatus": self._storage.status(),
            "Debug": live.debug,
            "NEventsListener": self._events.subscribers,
            "NGoroutines": len(asyncio.all_tasks()),
            "LoggingDriver": live.defaults.log_driver,
            "DockerRootDir": str(self._settings.root),
            "Name": self._settings.hostname,
            "Labels": [f"{name}={value}" for name, value in live.labels.items()],
            "ServerVersion": self._settings.engine_version,
            "LiveRestoreEnabled": True,
            "SecurityOptions": _security_options(live, self._settings.userns_remap),
            "Supervisor": supervisor,
            "Warnings": warnings + ([stays] if "Problem" in supervisor else []),
            "IndexServerAddress": INDEX_SERVER,
            "RegistryConfig": _registries(live),
        }

    def _counts(self) -> dict[str, int]:
        states = collections.Counter(str(c.state.status) for c in self._containers.all())
        running, paused = states["running"], states["paused"]
        return {
            "Containers": states.total(),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": states.total() - running - paused,
            "Images": len(self._images.all()),
        }

    def _limits(self) -> dict[str, Any]:
        support = self._support
        return {
            "MemoryLimit": support.memory,
            "SwapLimit": support.swap,
            "CpuCfsPeriod": support.cpu,
            "CpuCfsQuota": support.cpu,
            "CPUShares": support.cpu,
            "CPUSet": support.cpuset,
            "PidsLimit": support.pids,
            "OomKillDisable": support.oom_kill_disable,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": str(support.version),
        }

    def container_states(self) -> dict[str, int]:
        counts = self._counts()
        return {name: counts[f"Containers{name.capitalize()}"] for name in ("running", "paused", "stopped")}

    async def disk_usage(self, kinds: frozenset[str]) -> dict[str, Any]:
        """GET /system/df, of `kinds` (image, container, volume, build-cache) only. Counting bytes takes a while."""
        shown: dict[str, Any] = {}
        if "image" in kinds:
            shown |= self._image_usage()
        if "container" in kinds:
            shown["Containers"] = await self._list_containers()
        if "volume" in kinds:
            shown["Volumes"] = await self._volumes.usage()
        if "build-cache" in kinds:
            shown["BuildCache"] = []
        return shown

    def _image_usage(self) -> dict[str, Any]:
        images = self._images.all()
        users = collections.Counter(container.image_id for container in self._containers.all())
        sizes = {image.id: self._images.layer_sizes(image) for image in images}
        layers = {chain: size for of_image in sizes.values() for chain, size in of_image.items()}
        shared = shared_sizes(sizes)
        return {
            "LayersSize": sum(layers.values()),
            "Images": [self._image_row(image, users[image.id], shared[image.id]) for image in images],
        }

    def _image_row(self, image: Image, containers: int, shared: int) -> dict[str, Any]:
        return {**summary(image, containers), "SharedSize": shared}


def shared_sizes(layers: dict[str, dict[str, int]]) -> dict[str, int]:
    """Image id -> bytes of those of its layers that another image has as well. `layers`: id -> chain id -> bytes."""
    holders = collections.Counter(chain for of_image in layers.values() for chain in of_image)
    return {
        image: sum(size for chain, size in of_image.items() if holders[chain] > 1)
        for image, of_image in layers.items()
    }


def _engine_id(path: Path) -> str:
    """Of this engine for ever, whatever the machine is called."""
    try:
        found = path.read_text().strip()
        if found:
            return found
    except FileNotFoundError:
        pass
    made = str(uuid.uuid4())
    new = path.with_suffix(".new")
    new.write_text(made + "\n")
    new.replace(path)
    return made


def _kernel_facts() -> dict[str, Any]:
    name, version = _operating_system()
    now = time.time_ns()
    return {
        "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
        "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names only
        "SystemTime": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z",
        "KernelVersion": platform.release(),
        "OperatingSystem": name,
        "OSVersion": version,
        "OSType": sys.platform,
        "Architecture": platform.machine(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
    }


def _components(live: LiveSettings) -> dict[str, Any]:
    """What Docker has as programs of their own is built in here."""
    built_in = {"ID": ""}
    return {
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null", "overlay"],
            "Authorization": None,
            "Log": list(DRIVERS),
        },
        "Runtimes": {BUILT_IN: {"path": "built in"}, **runtimes(live.runtimes)},
        "DefaultRuntime": live.defaults.runtime or BUILT_IN,
        "InitBinary": "built in",
        "ContainerdCommit": built_in,
        "RuncCommit": built_in,
        "InitCommit": built_in,
        "ExperimentalBuild": False,
        "Isolation": "",
        "GenericResources": None,
        "CDISpecDirs": [],
    }


def _security_options(live: LiveSettings, userns_remap: str) -> list[str]:
    profile = live.defaults.seccomp_profile or "builtin"
    shown = ["name=seccomp,profile=" + (profile if profile in ("builtin", "unconfined") else "custom")]
    shown += ["name=userns"] if userns_remap else []
    return shown + (["name=no-new-privileges"] if live.defaults.no_new_privileges else [])


def _registries(live: LiveSettings) -> dict[str, Any]:
    """GET /info's RegistryConfig: the Hub with its mirrors, and who may be spoken to without TLS."""
    mirrors = list(live.registry_mirrors)
    hosts = {
        "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True},
        **{
            name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
            for name in live.insecure_registries
            if "/" not in name
        },
    }
    networks = [name for name in live.insecure_registries if "/" in name]
    return {"IndexConfigs": hosts, "InsecureRegistryCIDRs": [*_LOOPBACK, *networks], "Mirrors": mirrors}


def _operating_system() -> tuple[str, str]:
    facts = dict(line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line)
    return facts.get("PRETTY_NAME", '"Linux"').strip('"'), facts.get("VERSION_ID", "").strip('"')


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
