"""Calls at the same moment that may each be right, but not both: what they decide by, they do not write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from control_world import ControlWorld, make_node, make_spec

from raft.errors import FailedPrecondition, InvalidArgument
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import ConfigSpec, IpamConfig, NetworkSpec, SecretSpec
from raft.objects.node import NodeRole, NodeSpec
from raft.objects.service import (
    ContainerSpec,
    EndpointSpec,
    FileReference,
    NetworkAttachmentSpec,
    PortConfig,
    ServiceSpec,
    TaskSpec,
)


@pytest.fixture
async def world() -> ControlWorld:
    world = ControlWorld()
    await world.bootstrap()
    return world


async def one_refused(*calls: Awaitable[Any]) -> str:
    """All at once; exactly one of them must be refused. Returns why."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [
        type(error) for error in refused if not isinstance(error, FailedPrecondition | InvalidArgument)
    ] == []
    assert len(refused) == 1, outcomes
    return str(refused[0])


def using(**container: Any) -> ServiceSpec:
    return make_spec("web", task=TaskSpec(container=ContainerSpec(image="hello", **container)))


@pytest.mark.parametrize("removed_first", [False, True])
async def test_secret_is_used_and_removed(world: ControlWorld, removed_first: bool) -> None:
    await world.api.create_secret(SecretSpec(annotations=Annotations(name="key"), data=b"x"))
    spec = using(secrets=(FileReference(id="", name="key", target="key"),))
    calls = [world.api.create_service(spec), world.api.remove_secret("key")]
    why = await one_refused(*(reversed(calls) if removed_first else calls))
    assert why == (
        "secret not found: key" if removed_first else "secret 'key' is in use by the following service: web"
    )


async def test_config_is_taken_into_use_by_an_update_and_removed(world: ControlWorld) -> None:
    await world.api.create_config(ConfigSpec(annotations=Annotations(name="conf"), data=b"x"))
    service = await world.api.create_service(using())
    changed = using(configs=(FileReference(id="", name="conf", target="conf"),))
    await one_refused(
        world.api.update_service(service.id, service.meta.version, changed), world.api.remove_config("conf")
    )


async def test_network_is_used_and_pruned(world: ControlWorld) -> None:
    await world.api.create_network(NetworkSpec(annotations=Annotations(name="net")))
    attachment = NetworkAttachmentSpec(target="net")
    spec = make_spec("web", task=TaskSpec(container=ContainerSpec(image="hello"), networks=(attachment,)))
    _, pruned = await asyncio.gather(world.api.create_service(spec), world.api.prune_networks({}))
    assert pruned == []
    assert world.store.view().by_name(Kind.NETWORK, "net") is not None


async def test_port_is_published_twice(world: ControlWorld) -> None:
    endpoint = EndpointSpec(ports=(PortConfig(target=80, published=8080),))
    why = await one_refused(*(world.api.create_service(make_spec(name, endpoint=endpoint)) for name in "ab"))
    assert "port '8080' is already in use" in why


async def test_subnet_is_given_twice(world: ControlWorld) -> None:
    specs = [
        NetworkSpec(annotations=Annotations(name=name), ipam=(IpamConfig(subnet="10.77.0.0/24"),))
        for name in "ab"
    ]
    assert "Pool overlaps" in await one_refused(*(world.api.create_network(spec) for spec in specs))


async def test_both_managers_are_demoted(world: ControlWorld) -> None:
    await world.put(make_node("m2", NodeRole.MANAGER))
    world.consensus.group["m2"] = "10.9.0.2:2377"
    nodes = [await world.api.get_node(id) for id in ("m1", "m2")]
    why = await one_refused(*(world.api.update_node(n.id, n.meta.version, NodeSpec()) for n in nodes))
    assert why == "attempting to demote the last manager of the swarm"
    roles = [node.spec.role for node in world.store.view().nodes.values()]
    assert roles.count(NodeRole.MANAGER) == 1
