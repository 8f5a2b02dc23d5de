"""Translation of the cluster's objects: nothing is lost, and what cannot be honoured is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.config import ConfigReference, NetworkCreate
from node.api import bodies
from node.api.convert import cluster_spec_from_api, network_spec_from_api, service_spec, spec_to_api
from node.api.convert.cluster import cluster_spec_to_api
from raft import defaults
from raft.errors import InvalidArgument
from raft.objects import service as objects
from raft.objects.base import Annotations, Driver, Platform
from raft.objects.cluster import ClusterSpec
from raft.objects.service import ServiceMode

CONTAINER = objects.ContainerSpec(
    image="i",
    command=("c",),
    args=("a",),
    env=("E=1",),
    hostname="h",
    working_dir="/w",
    user="u",
    groups=("g",),
    labels={"l": "1"},
    mounts=(
        objects.MountSpec(type="bind", source="/a", target="/b", read_only=True, propagation="rslave"),
        objects.MountSpec(source="v", target="/v", no_copy=True, volume_driver=Driver(name="local")),
        objects.MountSpec(type="tmpfs", target="/t", tmpfs_size_bytes=5, tmpfs_mode=0o700),
    ),
    secrets=(objects.FileReference(id="1", name="n", target="t", uid="3", gid="4", mode=0),),
    configs=(objects.FileReference(id="2", name="m", target="/t"),),
    stop_signal="SIGINT",
    stop_grace_period_ns=0,
    health_check=objects.HealthCheck(
        test=("CMD", "x"), interval_ns=1, timeout_ns=2, start_period_ns=3, start_interval_ns=4, retries=5
    ),
    hosts=("1.2.3.4 a",),
    dns_nameservers=("192.0.2.1",),
    dns_search=("s",),
    dns_options=("o",),
    tty=True,
    open_stdin=True,
    read_only=True,
    init=False,
    sysctls={"a": "1"},
    cap_add=("X",),
    cap_drop=("Y",),
    ulimits=(("nofile", 1, 2),),
)
UPDATE = objects.UpdateConfig(
    parallelism=0,
    delay_ns=5,
    failure_action=objects.FailureAction.ROLLBACK,
    monitor_ns=1,
    max_failure_ratio=0.5,
    order=objects.UpdateOrder.START_FIRST,
)
TASK = objects.TaskSpec(
    container=CONTAINER,
    resources=objects.ResourceRequirements(
        limits=objects.Resources(nano_cpus=1, memory_bytes=2, pids=3),
        reservations=objects.Resources(nano_cpus=4, memory_bytes=5),
    ),
    restart=objects.RestartPolicy(
        condition=objects.RestartCondition.ON_FAILURE, delay_ns=0, max_attempts=2, window_ns=3
    ),
    placement=objects.Placement(
        constraints=("node.role==manager",),
        preferences=(objects.SpreadPreference(descriptor="node.labels.r"),),
        max_replicas=2,
        platforms=(Platform(os="linux", architecture="amd64"),),
    ),
    networks=(objects.NetworkAttachmentSpec(target="n", aliases=("al",), driver_options={"d": "1"}),),
    log_driver=Driver(name="json-file", options={"max-size": "1m"}),
    force_update=7,
)


@pytest.mark.parametrize(("mode", "replicas"), [(ServiceMode.REPLICATED, 0), (ServiceMode.GLOBAL, 1)])
def test_service_spec_survives_the_way_there_and_back(mode: ServiceMode, replicas: int) -> None:
    spec = objects.ServiceSpec(
        annotations=Annotations(name="web", labels={"a": "b"}),
        task=TASK,
        mode=mode,
        replicas=replicas,
        update=UPDATE,
        rollback=UPDATE,
        endpoint=objects.EndpointSpec(
            mode=objects.EndpointMode.DNSRR,
            ports=(
                objects.PortConfig(
                    target=80, published=8080, protocol="udp", mode=objects.PublishMode.HOST, name="p"
                ),
            ),
        ),
    )
    body = msgspec.json.decode(msgspec.json.encode(spec_to_api(spec)), type=bodies.ServiceBody)
    assert service_spec(body) == spec


def network(body: dict[str, Any]) -> NetworkCreate:
    return msgspec.convert({"Name": "n", "Driver": "overlay", **body}, NetworkCreate)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"ConfigOnly": True}, "ConfigOnly"),
        ({"EnableIPv4": False}, "EnableIPv4"),
        ({"IPAM": {"Driver": "dhcp"}}, "IPAM.Driver"),
        ({"IPAM": {"Options": {"a": "b"}}}, "IPAM.Options"),
        (
            {"IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "AuxiliaryAddresses": {"r": "10.1.0.5"}}]}},
            "AuxiliaryAddresses",
        ),
    ],
)
def test_network_field_without_support_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        network_spec_from_api(network(body))


def test_a_configuration_from_another_network_is_refused_by_name() -> None:
    body = NetworkCreate(name="n", driver="overlay", config_from=ConfigReference(network="other"))
    with pytest.raises(InvalidArgument, match="ConfigFrom"):
        network_spec_from_api(body)


def test_network_as_clients_send_it_is_accepted() -> None:
    sent = {
        "IPAM": {"Driver": "default", "Options": {}, "Config": []},
        "EnableIPv4": None,
        "ConfigOnly": False,
    }
    assert network_spec_from_api(network(sent)).driver.name == "overlay"


@pytest.mark.parametrize("option", ["NonRecursive", "CreateMountpoint"])
def test_bind_option_without_support_is_refused_by_name(option: str) -> None:
    mount = {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {option: True}}
    body = msgspec.convert({"TaskTemplate": {"ContainerSpec": {"Mounts": [mount]}}}, bodies.ServiceBody)
    with pytest.raises(InvalidArgument, match=option):
        service_spec(body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"TaskDefaults": {"LogDriver": {"Name": "syslog"}}}, "TaskDefaults"),
        ({"CAConfig": {"SigningCAKey": "k"}}, "CAConfig"),
    ],
)
def test_cluster_setting_without_support_is_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        cluster_spec_from_api(msgspec.convert(body, bodies.SwarmSpecBody))


def test_cluster_spec_survives_the_way_there_and_back() -> None:
    spec = ClusterSpec(
        annotations=Annotations(name="default", labels={"a": "b"}),
        task_history_limit=0,
        heartbeat_ns=2,
        node_cert_expiry_ns=3,
        snapshot_interval=4,
        keep_old_snapshots=5,
        log_entries_for_slow_followers=6,
        election_tick=7,
        heartbeat_tick=8,
        force_rotate=9,
        autolock=True,
    )
    shown = msgspec.json.encode(cluster_spec_to_api(spec))
    assert cluster_spec_from_api(msgspec.json.decode(shown, type=bodies.SwarmSpecBody), spec) == spec


@pytest.mark.parametrize("asked", [{}, {"CAConfig": {"ForceRotate": 3}}])
def test_rotation_of_the_root_is_refused_by_name(asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="ForceRotate"):
        cluster_spec_from_api(msgspec.convert(asked, bodies.SwarmSpecBody), ClusterSpec(force_rotate=2))


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"Resources": {"SwapBytes": 5}}, "Resources.SwapBytes"),
        ({"Resources": {"MemorySwappiness": 10}}, "Resources.MemorySwappiness"),
        ({"Placement": {"Preferences": [{}]}}, "Placement.Preferences"),
    ],
)
def test_task_field_without_support_is_refused_by_name(template: dict[str, Any], field: str) -> None:
    body = {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "i"}, **template}}
    with pytest.raises(InvalidArgument, match=field):
        service_spec(msgspec.convert(body, bodies.ServiceBody))


@pytest.mark.parametrize(("update", "parallelism"), [(None, 1), ({}, 0), ({"Parallelism": 3}, 3)])
def test_parallelism_that_is_not_given_means_all_at_once(
    update: dict[str, Any] | None, parallelism: int
) -> None:
    """Docker's zero value; without any UpdateConfig its default is one at a time."""
    body = {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "i"}}, "UpdateConfig": update}
    assert service_spec(msgspec.convert(body, bodies.ServiceBody)).update.parallelism == parallelism


@pytest.mark.parametrize("field", ["UpdateConfig", "RollbackConfig"])
def test_defaults_of_an_update_are_dockers(field: str) -> None:
    """moby daemon/cluster/convert: what is not given is the zero value, except for what swarmkit fills in."""
    body = {"TaskTemplate": {"ContainerSpec": {"Image": "i"}}, field: {"Monitor": 0}}
    shown = spec_to_api(defaults.service_spec(service_spec(msgspec.convert(body, bodies.ServiceBody))))
    assert shown[field] == {
        "Parallelism": 0,
        "FailureAction": "pause",
        "Monitor": 5_000_000_000,
        "MaxFailureRatio": 0.0,
        "Order": "stop-first",
    }


def test_service_is_shown_with_dockers_defaults() -> None:
    """As moby shows it with insertDefaults=true, whether that is asked for or not."""
    body = {"Name": "s", "TaskTemplate": {"ContainerSpec": {"Image": "i"}}}
    shown = spec_to_api(defaults.service_spec(service_spec(msgspec.convert(body, bodies.ServiceBody))))
    update = {
        "Parallelism": 1,
        "FailureAction": "pause",
        "Monitor": 5_000_000_000,
        "MaxFailureRatio": 0.0,
        "Order": "stop-first",
    }
    assert (shown["UpdateConfig"], shown["RollbackConfig"]) == (update, update)
    task = shown["TaskTemplate"]
    assert task["ContainerSpec"]["StopGracePeriod"] == 10_000_000_000
    assert task["ContainerSpec"]["DNSConfig"] == {}
    assert task["Resources"] == {"Limits": {}, "Reservations": {}}
    assert task["RestartPolicy"] == {
        "Condition": "any",
        "Delay": 5_000_000_000,
        "MaxAttempts": 0,
        "Window": 0,
    }
    assert shown["Mode"] == {"Replicated": {"Replicas": 1}}
    assert shown["EndpointSpec"] == {"Mode": "vip"}
