"""From a request to a container that exists: checks, merging with the image, mounts, the record.

Invariant: a request that fails leaves no volume, folder or record behind (named volumes excepted: the user
asked for them by name).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

from engine.config import (
    ContainerConfig,
    ContainerCreate,
    EndpointConfig,
    HostConfig,
    SecretFile,
    TaskEndpoint,
)
from engine.container import Container, ResolvedMount, State
from engine.containers import Containers, checked_name
from engine.endpoint_wishes import check_endpoint
from engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from engine.events import EventBus
from engine.health import checked_health
from engine.images.store import ImageStore
from engine.limits import check_cpus, discard_unsupported
from engine.links import checked_links, endpoint_links
from engine.log_settings import check_log_settings
from engine.mounts import MountResolver
from engine.name_files import parse_extra_host
from engine.names import random_name
from engine.networking import checked_networks, publishes
from engine.networks import NetworkProvider
from engine.option_checks import check_options, check_platform, check_remapped
from engine.preparation import HostPreparation, init_program
from engine.process import merged_config, process_args
from engine.runtime import capabilities
from engine.runtime.limit_support import LimitSupport
from engine.volumes import VolumeStore

MEMORY_MINIMUM_BYTES = 6 * 1024 * 1024
RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


class Creation:
    """Makes containers; knows nothing of how they run."""

    def __init__(
        self,
        containers: Containers,
        images: ImageStore,
        volumes: VolumeStore,
        provider: NetworkProvider,
        preparation: HostPreparation,
        events: EventBus,
        driver_name: str,
        support: LimitSupport,
        *,
        remaps: bool = False,
    ) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._provider = provider
        self._preparation = preparation
        self._events = events
        self._driver_name = driver_name
        self._support = support
        self._remaps = remaps
        self._mounts = MountResolver(volumes, containers.find)

    async def create(
        self,
        name: str,
        body: ContainerCreate,
        files: Sequence[SecretFile] = (),
        endpoints: Sequence[TaskEndpoint] = (),
        platform: str = "",
    ) -> tuple[str, list[str]]:
        """Returns (id, warnings). Errors: InvalidParameter, NotFound (image), Conflict (name)."""
        host = body.host_config or HostConfig()
        if not body.image:
            raise InvalidParameter("Config.Image is required: name the image to run")
        image = self._images.resolve(body.image)
        check_platform(body.image, platform, image.architecture)
        config = merged_config(body, image.config)
        args = process_args(config)
        warnings = checked_host_config(host, config, self._support)
        if self._remaps:
            warnings += check_remapped(host)
        links = checked_links(host, self._containers.find)
        if host.init:
            init_program()
        container_id = secrets.token_hex(32)
        plain_name = checked_name(name) if name else self._free_name()
        if self._containers.state.by_name(plain_name) is not None:
            holder = self._containers.state.by_name(plain_name)
            raise Conflict(
                f'Conflict. The container name "/{plain_name}" is already in use by container '
                f'"{holder.id if holder else ""}". You have to remove (or rename) that container to be able to '
                "reuse that name."
            )
        mode = "bridge" if host.network_mode in ("", "default") else host.network_mode
        wishes = (body.networking_config.endpoints_config if body.networking_config else None) or {}
        wished = {
            "bridge" if ref == "default" else ref: wish for ref, wish in wishes.items() if wish is not None
        }
        _apply_mac_address(config, mode, wished)
        for network, wish in wished.items():
            check_endpoint(network, wish)
        links += endpoint_links(wished.values(), self._containers.find)
        container = Container(
            id=container_id,
            name=plain_name,
            created_at=time.time(),
            image=body.image,
            image_id=image.id,
            config=config,
            host_config=host,
            endpoints={} if endpoints else checked_networks(self._provider, mode, wished),
            task_endpoints=list(endpoints),
            process_args=args,
            has_memory_files=bool(files),
            driver=self._driver_name,
            links=links,
            state=State(),
        )
        tuple(publishes(container))
        container.mounts = await self._resolved_mounts(config, host)
        try:
            await self._preparation.create(container, image.chain_ids[-1] if image.chain_ids else None, files)
            try:
                self._containers.state.add(container)
            except EngineError:
                await self._preparation.destroy(container, volumes=True)
                raise
        except BaseException:
            self._remove_anonymous_volumes(container)
            raise
        self._events.publish("container", "create", container.id, container.event_attributes())
        return container.id, warnings

    async def _resolved_mounts(self, config: ContainerConfig, host: HostConfig) -> list[ResolvedMount]:
        """In a thread: a volume's plugin may take its time. A call that is cancelled keeps no anonymous volume."""
        if not (host.mounts or host.binds or host.volumes_from or config.volumes):
            return self._mounts.resolve(config, host)
        resolving = asyncio.ensure_future(asyncio.to_thread(self._mounts.resolve, config, host))
        try:
            return await asyncio.shield(resolving)
        except asyncio.CancelledError:
            for mount in await resolving:
                if mount.anonymous and mount.name:
                    self._volumes.remove(mount.name, force=True)
            raise

    def _free_name(self) -> str:
        for _ in range(10):
            name = random_name()
            if self._containers.state.by_name(name) is None:
                return name
        return f"{random_name()}_{secrets.token_hex(3)}"

    def _remove_anonymous_volumes(self, container: Container) -> None:
        for mount in container.mounts:
            if mount.anonymous and mount.name:
                try:
                    self._volumes.remove(mount.name, force=True)
                except NotFound:
                    continue


def _apply_mac_address(config: ContainerConfig, mode: str, wished: dict[str, EndpointConfig]) -> None:
    """Config.MacAddress, as clients before API 1.44 give it, is the one on the network of NetworkMode."""
    if not config.mac_address:
        return
    wish = wished.setdefault(mode, EndpointConfig())
    if wish.mac_address not in ("", config.mac_address):
        raise InvalidParameter(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or "
            f"should be left empty: {config.mac_address}, {wish.mac_address}"
        )
    wish.mac_address = config.mac_address


def checked_host_config(host: HostConfig, config: ContainerConfig, support: LimitSupport) -> list[str]:
    """InvalidParameter for values that cannot be honoured; returns warnings for those that are discarded."""
    warnings = discard_unsupported(host, support)
    if host.memory and host.memory < MEMORY_MINIMUM_BYTES:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidParameter(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_reservation and host.memory and host.memory < host.memory_reservation:
        raise InvalidParameter(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if host.nano_cpus and (host.cpu_period or host.cpu_quota):
        raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    check_cpus(host.nano_cpus, support)
    policy = host.restart_policy
    if policy is not None:
        if policy.name not in RESTART_POLICIES:
            raise InvalidParameter(
                f"invalid restart policy '{policy.name}': use no, always, unless-stopped or on-failure"
            )
        if policy.maximum_retry_count and policy.name != "on-failure":
            raise InvalidParameter(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
            )
        if policy.name not in ("", "no") and host.auto_remove:
            raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    check_log_settings(host.log_config)
    for entry in host.extra_hosts or ():
        parse_extra_host(entry)
    capabilities.container_capabilities(
        add=host.cap_add or (), drop=host.cap_drop or (), privileged=host.privileged
    )
    checked_health(config.healthcheck)
    check_options(host, config)
    return warnings
