"""All plugins that can be used now, by capability: managed ones that are enabled, then those found in folders.

A plugin is activated (asked what it implements) when it is first needed. Invariant: one that fails is not asked
again for a while by listings, so that a dead plugin does not hold up everybody; who names it always asks.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

from engine.errors import EngineError, NotFound
from engine.plugins.client import SHORT_S, PluginAddress, PluginClient
from engine.plugins.discovery import Discovery
from engine.plugins.volume_driver import PluginVolumeDriver
from engine.volume_drivers import VolumeDriver

VOLUME, NETWORK, IPAM, LOG = "VolumeDriver", "NetworkDriver", "IpamDriver", "LogDriver"
LISTING_WITHIN_S, LISTING_ANSWER_S = 1.0, 5.0
ASKED_AGAIN_S = 30.0
APPEARS_WITHIN_S = (1.0, 2.0, 4.0, 8.0)


class EnabledPlugin(Protocol):
    """A managed plugin that runs."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> tuple[str, ...]: ...

    @property
    def client(self) -> PluginClient: ...

    @property
    def scoped(self) -> Callable[[str], str]: ...


class ManagedPlugins(Protocol):
    def enabled(self) -> Sequence[EnabledPlugin]: ...

    def enabled_plugin(self, name: str) -> EnabledPlugin | None:
        """None for a name that is not installed. NotFound when it is disabled."""


class Catalog:
    """Implements engine.volume_drivers.VolumeDrivers. Thread-safe."""

    def __init__(
        self,
        discovery: Discovery,
        managed: ManagedPlugins,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wait = wait
        self._discovery, self._managed = discovery, managed
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[str, PluginClient] = {}
        self._implements: dict[PluginAddress, tuple[str, ...]] = {}
        self._volume_drivers: weakref.WeakKeyDictionary[PluginClient, PluginVolumeDriver] = (
            weakref.WeakKeyDictionary()
        )
        self._silent_until: dict[str, float] = {}

    def find(self, name: str, capability: str, *, patient: bool = False) -> PluginClient:
        """NotFound in Docker's words when there is none, or it does something else.

        `patient`: after a boot a plugin may come a few seconds after us.
        """
        managed = self._managed.enabled_plugin(name)
        if managed is not None:
            if capability not in managed.capabilities:
                raise NotFound(f'plugin "{name}" does not implement {capability}')
            return managed.client
        address = self._discovery.find(name)
        for pause_s in APPEARS_WITHIN_S if patient else ():
            if address is None:
                self._wait(pause_s)
                address = self._discovery.find(name)
        if address is None:
            raise NotFound(f'plugin "{name}" not found')
        client = self._client(name, address)
        if capability not in self._activated(client):
            raise NotFound(f'plugin "{name}" does not implement {capability}')
        return client

    def volume_driver(self, name: str, *, patient: bool = False) -> VolumeDriver:
        return self._as_volume_driver(self.find(name, VOLUME, patient=patient))

    def volume_drivers(self) -> tuple[list[VolumeDriver], list[str]]:
        clients, warnings = self.all(VOLUME)
        return [self._as_volume_driver(client) for client in clients], warnings

    def all(self, capability: str) -> tuple[list[PluginClient], list[str]]:
        """Every plugin that has it and answers soon, and warnings about those that do not answer."""
        found = [plugin.client for plugin in self._managed.enabled() if capability in plugin.capabilities]
        warnings = []
        for name in self._discovery.names():
            if self._silent_until.get(name, 0.0) > self._clock():
                continue
            try:
                address = self._discovery.find(name)
                if address is None:
                    continue
                quick = PluginClient(name, address, within_s=LISTING_WITHIN_S)
                if capability in self._activated(quick, LISTING_ANSWER_S):
                    found.append(self._client(name, address))
            except EngineError as error:
                self._silent_until[name] = self._clock() + ASKED_AGAIN_S
                warnings.append(str(error))
        return found, warnings

    def names(self, capability: str) -> list[str]:
        """For `info`: asks nobody, knows who was asked before."""
        known = [plugin.name for plugin in self._managed.enabled() if capability in plugin.capabilities]
        with self._lock:
            known += [
                client.name
                for client in self._clients.values()
                if capability in self._implements.get(client.address, ())
            ]
        return sorted(known)

    def close(self) -> None:
        with self._lock:
            clients = tuple(self._clients.values())
        for client in clients:
            client.close()

    def _client(self, name: str, address: PluginAddress) -> PluginClient:
        with self._lock:
            known = self._clients.get(name)
            if known is None or known.address != address:
                known = self._clients[name] = PluginClient(name, address)
            return known

    def _activated(self, client: PluginClient, timeout_s: float = SHORT_S) -> tuple[str, ...]:
        with self._lock:
            known = self._implements.get(client.address)
        if known is not None:
            return known
        told = client.call("Plugin.Activate", timeout_s=timeout_s).get("Implements") or ()
        implements = tuple(str(capability) for capability in told)
        with self._lock:
            self._implements[client.address] = implements
        return implements

    def _as_volume_driver(self, client: PluginClient) -> PluginVolumeDriver:
        with self._lock:
            driver = self._volume_drivers.get(client)
            if driver is None:
                driver = PluginVolumeDriver(client, self._scope_of(client))
                self._volume_drivers[client] = driver
            return driver

    def _scope_of(self, client: PluginClient) -> Callable[[str], str]:
        return next((plugin.scoped for plugin in self._managed.enabled() if plugin.client is client), str)
