from __future__ import annotations

from typing import Any

import pytest

from engine.config import ContainerConfig, EndpointConfig, HostConfig, TaskEndpoint
from engine.container import Container, Health, State, Status
from engine.errors import InvalidParameter, NotFound
from engine.filters import Lookups, listing_filter, prune_filter
from engine.networks import Publish, Sandbox
from tests.networks import MemoryNetworks
from tests.records import container_record, exited, running, volume_mount

IMAGES = {"alpine": {"sha256:base", "sha256:child"}, "child": {"sha256:child"}}
networks = MemoryNetworks()
shop_net = networks.add("shop-net")
cluster_net = networks.add("cluster-net", scope="swarm")

WEB = container_record(
    "web",
    id="aa11" + "0" * 60,
    created_at=100.0,
    image_id="sha256:child",
    config=ContainerConfig(
        labels={"tier": "front", "com.docker.swarm.task.id": "t1"},
        exposed_ports={"80/tcp": {}, "53/udp": {}},
    ),
    state=running(health=Health(status="healthy")),
    endpoints={"shop-net": EndpointConfig()},
    mounts=[volume_mount("data", "/srv/data")],
)
DB = container_record(
    "web-db",
    id="aa22" + "0" * 60,
    created_at=200.0,
    image_id="sha256:base",
    config=ContainerConfig(labels={"tier": "back"}),
    host=HostConfig(network_mode="host"),
    state=exited(3),
)
JOB = container_record(
    "job",
    id="bb33" + "0" * 60,
    created_at=300.0,
    image_id="sha256:other",
    state=State(status=Status.RESTARTING, exit_code=3, started_at=1.0, finished_at=2.0),
    task_endpoints=[TaskEndpoint(network=cluster_net.id)],
)
NEW = container_record("new", id="cc44" + "0" * 60, created_at=400.0, image_id="sha256:other")
ALL = {container.name: container for container in (WEB, DB, JOB, NEW)}


def find(ref: str) -> Container:
    if ref not in ALL:
        raise NotFound(f"No such container: {ref}")
    return ALL[ref]


def sandbox(container_id: str) -> Sandbox | None:
    if container_id != WEB.id:
        return None
    ports = (
        Publish(container_port=80, host_port=8080),
        Publish(container_port=53, protocol="udp", host_port=5353),
    )
    return Sandbox(id=container_id, netns_path="", ports=ports)


LOOKUPS = Lookups(
    container=find,
    image_family=lambda ref: IMAGES.get(ref, set()),
    network=networks.find,
    sandbox=sandbox,
)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "web web-db job new"),
        ({"name": []}, "web web-db job new"),
        ({"name": ["web"]}, "web web-db"),
        ({"name": ["^web$"]}, "web"),
        ({"name": ["^/web$"]}, "web"),
        ({"name": ["/web-db", "job"]}, "web-db job"),
        ({"name": ["w.b"]}, "web web-db"),
        ({"name": ["("]}, ""),
        ({"id": ["aa", "cc"]}, "web web-db new"),
        ({"id": ["11"]}, ""),
        ({"label": ["tier"]}, "web web-db"),
        ({"label": ["tier=back"]}, "web-db"),
        ({"label": ["tier", "tier=back"]}, "web-db"),
        ({"status": ["running", "created"]}, "web new"),
        ({"status": ["restarting"]}, "job"),
        ({"exited": ["3"]}, "web-db"),
        ({"exited": ["0"]}, ""),
        ({"ancestor": ["alpine"]}, "web web-db"),
        ({"ancestor": ["child"]}, "web"),
        ({"ancestor": ["unknown"]}, ""),
        ({"before": ["job"]}, "web web-db"),
        ({"since": ["web-db"]}, "job new"),
        ({"since": ["web"], "before": ["new"]}, "web-db job"),
        ({"volume": ["data"]}, "web"),
        ({"volume": ["/srv/data"]}, "web"),
        ({"network": ["shop-net"]}, "web"),
        ({"network": [shop_net.id[:12]]}, "web"),
        ({"network": ["cluster-net"]}, "job"),
        ({"network": ["host"]}, "web-db"),
        ({"network": ["unknown"]}, ""),
        ({"publish": ["8080"]}, "web"),
        ({"publish": ["80"]}, ""),
        ({"publish": ["8000-8100/tcp"]}, "web"),
        ({"publish": ["8080/udp"]}, ""),
        ({"expose": ["53/udp"]}, "web"),
        ({"expose": ["53"]}, ""),
        ({"publish": ["1"], "expose": ["80"]}, "web"),
        ({"health": ["healthy"]}, "web"),
        ({"health": ["none"]}, "web-db job new"),
        ({"is-task": ["true"]}, "web"),
        ({"is-task": ["false"]}, "web-db job new"),
        ({"name": ["web"], "status": ["exited"]}, "web-db"),
    ],
)
def test_what_a_filter_lets_through(filters: dict[str, list[str]], names: str) -> None:
    matches = listing_filter(filters, LOOKUPS)
    assert [name for name, container in ALL.items() if matches(container)] == names.split()


@pytest.mark.parametrize(
    "filters",
    [
        {"colour": ["red"]},
        {"status": ["sleeping"]},
        {"health": ["ill"]},
        {"exited": ["zero"]},
        {"is-task": ["perhaps"]},
        {"publish": ["http"]},
        {"publish": ["90-80"]},
        {"expose": ["70000"]},
    ],
)
def test_filters_that_mean_nothing_are_refused(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter"):
        listing_filter(filters, LOOKUPS)


def test_a_reference_to_no_container() -> None:
    with pytest.raises(NotFound):
        listing_filter({"before": ["nobody"]}, LOOKUPS)


def test_a_container_that_could_not_start_has_not_exited() -> None:
    failed = container_record("failed", state=State(exit_code=127, finished_at=5.0))
    assert not listing_filter({"exited": ["127"]}, LOOKUPS)(failed)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "web web-db job new"),
        ({"until": ["250"]}, "web web-db"),
        ({"until": ["15m"]}, "web"),
        ({"label": ["tier"]}, "web web-db"),
        ({"label!": ["tier=front"]}, "web-db job new"),
        ({"label": ["tier"], "label!": ["tier=front"], "until": ["250"]}, "web-db"),
    ],
)
def test_what_may_be_pruned(filters: dict[str, list[str]], names: str) -> None:
    may_go = prune_filter(filters, now=1050.0)
    assert [name for name, container in ALL.items() if may_go(container)] == names.split()


@pytest.mark.parametrize("filters", [{"name": ["web"]}, {"until": ["yesterday"]}])
def test_pruning_never_guesses(filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        prune_filter(filters, now=1000.0)
