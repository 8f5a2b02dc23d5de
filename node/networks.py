"""The engine's `NetworkProvider` on the data plane: records and errors translated, nothing decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from engine import errors
from engine import networks as wanted
from overlay_net import errors as net
from overlay_net import records
from overlay_net.adopted import Adopted
from overlay_net.driver import NetworkDriver

_T = TypeVar("_T")


class EngineNetworks:
    """Implements engine.networks.NetworkProvider."""

    def __init__(self, driver: NetworkDriver) -> None:
        self._driver = driver

    def networks(self) -> Sequence[wanted.Network]:
        return [_as(network, wanted.Network) for network in self._driver.networks()]

    def find(self, ref: str) -> wanted.Network:
        with _translated():
            return _as(self._driver.find(ref), wanted.Network)

    async def create_network(self, spec: wanted.NetworkSpec) -> wanted.Network:
        with _translated():
            return _as(await self._driver.create_network(_as(spec, records.NetworkSpec)), wanted.Network)

    async def remove_network(self, network_id: str) -> None:
        with _translated():
            await self._driver.remove_network(network_id)

    async def create_sandbox(self, request: wanted.SandboxRequest) -> wanted.Sandbox:
        with _translated():
            return _as(
                await self._driver.create_sandbox(_as(request, records.SandboxRequest)), wanted.Sandbox
            )

    async def remove_sandbox(self, sandbox_id: str) -> None:
        with _translated():
            await self._driver.remove_sandbox(sandbox_id)

    def sandbox(self, sandbox_id: str) -> wanted.Sandbox | None:
        found = self._driver.sandbox(sandbox_id)
        return None if found is None else _as(found, wanted.Sandbox)

    async def connect(self, sandbox_id: str, request: wanted.EndpointRequest) -> wanted.Endpoint:
        with _translated():
            return _as(
                await self._driver.connect(sandbox_id, _as(request, records.EndpointRequest)), wanted.Endpoint
            )

    async def disconnect(self, sandbox_id: str, network_id: str) -> None:
        with _translated():
            await self._driver.disconnect(sandbox_id, network_id)

    async def adopt(self, sandbox_id: str, wish: wanted.PluginInterface) -> str:
        with _translated():
            return await self._driver.adopt(sandbox_id, _as(wish, Adopted))

    async def give_back(self, sandbox_id: str, name: str, source: str) -> None:
        with _translated():
            await self._driver.give_back(sandbox_id, name, source)


def _as(record: object, kind: type[_T]) -> _T:
    """The same record in the other package's words: fields have equal names on both sides."""
    return msgspec.convert(record, kind, from_attributes=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except net.NetworkNotFound as error:
        raise errors.NotFound(str(error)) from error
    except (net.NetworkInUse, net.AddressInUse) as error:
        raise errors.Conflict(str(error)) from error
    except net.SubnetOverlap as error:
        raise errors.Forbidden(str(error)) from error
    except net.InvalidNetwork as error:
        raise errors.InvalidParameter(str(error)) from error
    except net.NetworkError as error:
        raise errors.EngineFailure(str(error)) from error
