"""The control API on a local store: what it writes, and Docker's words for what it refuses."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest
from control_world import ControlWorld, make_node, make_spec

from raft.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfSequence,
    RaftError,
)
from raft.objects.base import Annotations, Driver, Kind
from raft.objects.cluster import ConfigSpec, IpamConfig, NetworkSpec, SecretSpec
from raft.objects.node import Availability, NodeRole, NodeSpec, NodeState
from raft.objects.service import (
    ContainerSpec,
    EndpointSpec,
    FileReference,
    NetworkAttachmentSpec,
    PortConfig,
    PublishMode,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
)
from raft.objects.task import NetworkAttachment, Task, TaskState, TaskStatus


@pytest.fixture
async def world() -> ControlWorld:
    world = ControlWorld()
    await world.bootstrap()
    return world


async def refusal(error: type[RaftError], call: Awaitable[Any]) -> str:
    with pytest.raises(error) as caught:
        await call
    return str(caught.value)


def named(name: str, **labels: str) -> Annotations:
    return Annotations(name=name, labels=labels)


def publishing(name: str, *ports: PortConfig) -> ServiceSpec:
    return make_spec(name, endpoint=EndpointSpec(ports=ports))


def attached(name: str, *networks: str) -> ServiceSpec:
    attachments = tuple(NetworkAttachmentSpec(target=network) for network in networks)
    return make_spec(name, task=TaskSpec(container=ContainerSpec(image="hello"), networks=attachments))


# ---- services ----


async def test_create_fills_defaults_and_resolves_names(world: ControlWorld) -> None:
    front = await world.api.create_network(NetworkSpec(annotations=named("front")))
    service = await world.api.create_service(attached("web", "front"))
    assert service.spec.task.networks[0].target == front.id
    assert service.spec.task.restart.delay_ns == 5_000_000_000
    assert service.spec_version == 1
    assert service.meta.version > 0
    for ref in (service.id, "web", service.id[:6]):
        assert (await world.api.get_service(ref)).id == service.id


async def test_create_refuses(world: ControlWorld) -> None:
    await world.api.create_service(publishing("web", PortConfig(target=80, published=8080)))
    api = world.api
    assert (
        await refusal(AlreadyExists, api.create_service(make_spec()))
        == "name conflicts with an existing object: service web already exists"
    )
    assert await refusal(NotFound, api.create_service(attached("db", "back"))) == "network back not found"
    assert (
        await refusal(InvalidArgument, api.create_service(attached("db", "ingress")))
        == 'Service cannot be explicitly attached to the ingress network "ingress"'
    )
    assert "image reference" in await refusal(
        InvalidArgument, api.create_service(make_spec("db", task=TaskSpec()))
    )
    assert len(await api.list_services({})) == 1


async def test_published_ports_conflict_by_mode(world: ControlWorld) -> None:
    port = PortConfig(target=80, published=8080)
    host = msgspec.structs.replace(port, mode=PublishMode.HOST)
    web = await world.api.create_service(publishing("web", port))
    sentence = f"port '8080' is already in use by service 'web' ({web.id}) as an ingress port"
    assert await refusal(InvalidArgument, world.api.create_service(publishing("db", port))) == sentence
    assert await refusal(InvalidArgument, world.api.create_service(publishing("db", host))) == sentence
    udp = msgspec.structs.replace(port, protocol="udp")
    await world.api.create_service(publishing("dns", udp))
    await world.api.remove_service("web")
    await world.api.create_service(publishing("h1", host))
    await world.api.create_service(publishing("h2", host))
    assert "as a host-published port" in await refusal(
        InvalidArgument, world.api.create_service(publishing("db", port))
    )


async def test_update_versions_and_previous_spec(world: ControlWorld) -> None:
    first = await world.api.create_service(make_spec(replicas=1))
    scaled = await world.api.update_service(first.id, first.meta.version, make_spec(replicas=3))
    assert (scaled.spec.replicas, scaled.spec_version) == (3, 1)
    new_task = TaskSpec(container=ContainerSpec(image="hello:2"))
    second = await world.api.update_service("web", scaled.meta.version, make_spec(replicas=3, task=new_task))
    assert second.spec_version == 2
    assert second.previous_spec == scaled.spec
    published = msgspec.structs.replace(second.spec, endpoint=EndpointSpec(ports=(PortConfig(target=80),)))
    third = await world.api.update_service("web", second.meta.version, published)
    assert third.spec_version == 3
    same = await world.api.update_service("web", third.meta.version, published)
    assert same.meta.version == third.meta.version, "the same spec is no update"


async def test_update_refuses(world: ControlWorld) -> None:
    service = await world.api.create_service(make_spec())
    version = service.meta.version

    async def update(spec: ServiceSpec, version: int = version, rollback: str = "") -> Any:
        return await world.api.update_service(service.id, version, spec, rollback)

    assert await refusal(OutOfSequence, update(make_spec(), version - 1)) == "update out of sequence"
    assert await refusal(InvalidArgument, update(make_spec("www"))) == "renaming services is not supported"
    assert (
        await refusal(InvalidArgument, update(make_spec(mode=ServiceMode.GLOBAL)))
        == "service mode change is not allowed"
    )
    assert (
        await refusal(FailedPrecondition, update(make_spec(), rollback="previous"))
        == f"service {service.id} does not have a previous spec"
    )
    assert await refusal(InvalidArgument, update(make_spec(), rollback="first")) == (
        "unrecognized rollback option first"
    )
    assert (
        await refusal(NotFound, world.api.update_service("nope", 1, make_spec())) == "service nope not found"
    )


async def test_rollback_takes_the_previous_spec(world: ControlWorld) -> None:
    first = await world.api.create_service(make_spec(replicas=1))
    second = await world.api.update_service(
        "web", first.meta.version, make_spec(task=TaskSpec(container=ContainerSpec(image="hello:2")))
    )
    back = await world.api.update_service("web", second.meta.version, make_spec(), rollback="previous")
    assert back.spec == first.spec
    assert back.previous_spec == second.spec
    assert back.spec_version == 3
    assert back.update_status is not None
    assert back.update_status.state is UpdateState.ROLLBACK_STARTED


async def test_rollback_to_what_is_taken_by_now_is_refused(world: ControlWorld) -> None:
    port = PortConfig(target=80, published=8080)
    first = await world.api.create_service(publishing("web", port))
    second = await world.api.update_service("web", first.meta.version, publishing("web"))
    await world.api.create_service(publishing("db", port))
    rollback = world.api.update_service("web", second.meta.version, make_spec(), rollback="previous")
    assert "port '8080' is already in use by service 'db'" in await refusal(InvalidArgument, rollback)


async def test_removed_name_is_free_at_once(world: ControlWorld) -> None:
    await world.api.create_service(make_spec())
    await world.api.remove_service("web")
    await world.api.create_service(make_spec())
    assert await refusal(NotFound, world.api.remove_service("nope")) == "service nope not found"


async def test_service_and_task_filters(world: ControlWorld) -> None:
    web = await world.api.create_service(
        msgspec.structs.replace(make_spec(), annotations=named("web", tier="a"))
    )
    await world.api.create_service(make_spec("each", mode=ServiceMode.GLOBAL))
    await world.put(Task(id="t1", service_id=web.id, service_name="web", slot=1, node_id="w1"))
    await world.put(
        Task(
            id="t2",
            service_id=web.id,
            service_name="web",
            slot=1,
            node_id="w2",
            desired_state=TaskState.SHUTDOWN,
        )
    )
    api = world.api

    async def services(**filters: list[str]) -> list[str]:
        return [s.spec.annotations.name for s in await api.list_services(filters)]

    async def tasks(filters: dict[str, list[str]]) -> list[str]:
        return [task.id for task in await api.list_tasks(filters)]

    assert await services(name=["we"]) == ["web"]
    assert await services(label=["tier=a"]) == ["web"]
    assert await services(label=["tier=b"]) == []
    assert await services(mode=["global"]) == ["each"]
    assert await services(id=[web.id[:5]]) == ["web"]
    assert "invalid filter 'colour'" in await refusal(InvalidArgument, services(colour=["red"]))
    assert await tasks({"service": ["web"], "desired-state": ["running"]}) == ["t1"]
    assert await tasks({"node": ["host-w2"]}) == ["t2"]
    assert await tasks({"name": ["web.1"]}) == ["t1", "t2"]
    assert await refusal(NotFound, tasks({"service": ["nope"]})) == "service nope not found"
    assert "desired-state=dead" in await refusal(InvalidArgument, tasks({"desired-state": ["dead"]}))
    assert (await api.service_statuses())[web.id].desired == 1


async def test_ambiguous_prefix_is_refused(world: ControlWorld) -> None:
    for id in ("abc1", "abc2"):
        await world.put(Task(id=id))
    assert (
        await refusal(InvalidArgument, world.api.get_task("abc")) == "task abc is ambiguous (2 matches found)"
    )
    assert (await world.api.get_task("abc1")).id == "abc1"


# ---- nodes ----


async def test_nodes_are_found_and_changed(world: ControlWorld) -> None:
    node = await world.api.get_node("host-w1")
    spec = NodeSpec(availability=Availability.DRAIN, annotations=Annotations(labels={"rack": "a"}))
    changed = await world.api.update_node(node.id, node.meta.version, spec)
    assert changed.spec == spec
    assert (
        await refusal(OutOfSequence, world.api.update_node(node.id, node.meta.version, spec))
        == "update out of sequence"
    )
    listed = await world.api.list_nodes({"node.label": ["rack=a"]})
    assert [n.id for n in listed] == ["w1"]
    assert [n.id for n in await world.api.list_nodes({"role": ["manager"]})] == ["m1"]
    leader = await world.api.get_node("m1")
    assert leader.manager is not None
    assert leader.manager.leader


async def test_last_manager_cannot_be_demoted(world: ControlWorld) -> None:
    node = await world.api.get_node("m1")
    assert (
        await refusal(FailedPrecondition, world.api.update_node("m1", node.meta.version, NodeSpec()))
        == "attempting to demote the last manager of the swarm"
    )


async def test_demotion_must_leave_a_quorum(world: ControlWorld) -> None:
    for id in ("m2", "m3"):
        await world.put(make_node(id, NodeRole.MANAGER))
        world.consensus.group[id] = "10.9.0.9:2377"
    world.consensus.cut.add("m3")
    node = await world.api.get_node("m2")
    assert "loss of quorum" in await refusal(
        FailedPrecondition, world.api.update_node("m2", node.meta.version, NodeSpec())
    )
    down = await world.api.get_node("m3")
    assert down.manager is not None
    assert not down.manager.reachable
    changed = await world.api.update_node("m3", down.meta.version, NodeSpec())
    assert changed.spec.role is NodeRole.WORKER


async def test_remove_node(world: ControlWorld) -> None:
    for number in range(400):
        running = TaskStatus(state=TaskState.RUNNING)
        await world.put(Task(id=f"t{number}", node_id="w1", status=running))
    assert (
        await refusal(FailedPrecondition, world.api.remove_node("w1"))
        == "node w1 is not down and can't be removed"
    )
    assert "must be demoted" in await refusal(FailedPrecondition, world.api.remove_node("m1", force=True))
    await world.api.remove_node("w1", force=True)
    assert "w1" not in world.store.view().nodes
    assert {t.status.state for t in world.store.view().tasks.values()} == {TaskState.ORPHANED}
    await world.put_changed(Kind.NODE, "w2", status=make_node("w2", state=NodeState.DOWN).status)
    await world.api.remove_node("w2")


# ---- networks, secrets, configs, cluster ----


async def test_networks_refuse(world: ControlWorld) -> None:
    api = world.api
    subnet = (IpamConfig(subnet="10.5.0.0/24"),)
    await api.create_network(NetworkSpec(annotations=named("front"), ipam=subnet))

    async def create(name: str, **fields: Any) -> Any:
        return await api.create_network(NetworkSpec(annotations=named(name), **fields))

    assert await refusal(AlreadyExists, create("front")) == "network with name front already exists"
    assert "overlaps with other one" in await refusal(
        InvalidArgument, create("back", ipam=(IpamConfig(subnet="10.5.0.128/25"),))
    )
    assert "bridge" in await refusal(InvalidArgument, create("back", driver=Driver(name="bridge")))
    assert "predefined host network" in await refusal(InvalidArgument, create("host"))
    assert re.match(
        r"ingress network \(\w+\) is already present",
        await refusal(AlreadyExists, create("i2", ingress=True)),
    )


async def test_network_in_use_stays(world: ControlWorld) -> None:
    api = world.api
    front = await api.create_network(NetworkSpec(annotations=named("front")))
    await api.create_service(attached("web", "front"))
    assert (
        await refusal(FailedPrecondition, api.remove_network("front"))
        == "network front is in use by service web"
    )
    await api.remove_service("web")
    attachment = NetworkAttachment(network_id=front.id, address="10.0.1.2/24", mac="02:42:0a:00:01:02")
    await world.put(Task(id="t1", networks=(attachment,), status=TaskStatus(state=TaskState.RUNNING)))
    assert (
        await refusal(FailedPrecondition, api.remove_network("front")) == "network front is in use by task t1"
    )
    await world.put_changed(Kind.TASK, "t1", desired_state=TaskState.REMOVE)
    await api.remove_network("front")
    web = await api.create_service(publishing("web", PortConfig(target=80)))
    assert (
        await refusal(FailedPrecondition, api.remove_network("ingress"))
        == f"ingress network cannot be removed because service {web.id} depends on it"
    )
    assert [n.spec.annotations.name for n in await api.list_networks({"name": ["gre"]})] == ["ingress"]


async def test_secret_in_use_and_never_shown(world: ControlWorld) -> None:
    api = world.api
    secret = await api.create_secret(SecretSpec(annotations=named("key"), data=b"s3cret"))
    assert secret.spec.data == b""
    assert (await api.list_secrets({"name": ["ke"]}))[0].spec.data == b""
    reference = FileReference(id="", name="key", target="key")
    spec = make_spec(task=TaskSpec(container=ContainerSpec(image="hello", secrets=(reference,))))
    service = await api.create_service(spec)
    assert service.spec.task.container.secrets[0].id == secret.id
    assert (
        await refusal(InvalidArgument, api.remove_secret("key"))
        == "secret 'key' is in use by the following service: web"
    )
    await api.create_service(msgspec.structs.replace(spec, annotations=named("db")))
    assert "following services: db, web" in await refusal(InvalidArgument, api.remove_secret("key"))
    missing = FileReference(id="", name="nope", target="nope")
    bad = make_spec("x", task=TaskSpec(container=ContainerSpec(image="hello", secrets=(missing,))))
    assert await refusal(InvalidArgument, api.create_service(bad)) == "secret not found: nope"


async def test_only_labels_of_files_change(world: ControlWorld) -> None:
    api = world.api
    config = await api.create_config(ConfigSpec(annotations=named("conf"), data=b"a=1"))
    assert "already exists" in await refusal(
        AlreadyExists, api.create_config(ConfigSpec(annotations=named("conf"), data=b"b"))
    )
    labelled = ConfigSpec(annotations=named("conf", tier="a"))
    changed = await api.update_config(config.id, config.meta.version, labelled)
    assert (changed.spec.data, changed.spec.annotations.labels) == (b"a=1", {"tier": "a"})
    other = ConfigSpec(annotations=named("conf"), data=b"a=2")
    assert (
        await refusal(InvalidArgument, api.update_config(config.id, changed.meta.version, other))
        == "only updates to Labels are allowed"
    )
    await api.remove_config("conf")
    assert await refusal(NotFound, api.get_config("conf")) == "config conf not found"


async def test_cluster_tokens_rotate_one_by_one(world: ControlWorld) -> None:
    before = await world.api.get_cluster()
    after = await world.api.update_cluster(before.meta.version, before.spec, rotate_worker_token=True)
    assert after.root_ca.worker_token.startswith("SWMTKN-1-" + "0" * 50)
    assert after.root_ca.manager_token == before.root_ca.manager_token
    assert (
        await refusal(OutOfSequence, world.api.update_cluster(before.meta.version, before.spec))
        == "update out of sequence"
    )


async def test_bootstrap_only_once(world: ControlWorld) -> None:
    with pytest.raises(FailedPrecondition, match="already has a cluster"):
        await world.bootstrap()
