from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import (
    ContainerConfig,
    EndpointConfig,
    HealthConfig,
    HostConfig,
    LogConfig,
    RestartPolicy,
)
from engine.container import Health, HealthProbe, ResolvedMount, State, Status
from engine.networks import Endpoint, Publish, Sandbox
from engine.settings import EngineSettings
from engine.views import container_inspect, container_summary, human_duration, rfc3339, status_text
from tests.records import container_record, exited, running, volume_mount

MINUTE, HOUR, DAY = 60, 3600, 86400
NOW = 1_700_000_300.0
SETTINGS = EngineSettings(root=Path("/var/lib/x"), run_dir=Path("/run/x"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0.999, "Less than a second"),
        (1, "1 second"),
        (1.9, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * MINUTE + 59, "59 minutes"),
        (HOUR, "About an hour"),
        (1.49 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47.4 * HOUR, "47 hours"),
        (47.5 * HOUR, "2 days"),
        (13.9 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (3 * 365 * DAY - 60, "2 years"),
        (3 * 365 * DAY, "3 years"),
    ],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def up(**fields: Any) -> State:
    return running(**fields)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(exit_code=127, finished_at=5.0), "Created"),
        (up(), "Up 5 minutes"),
        (up(health=Health()), "Up 5 minutes (health: starting)"),
        (up(health=Health(status="healthy")), "Up 5 minutes (healthy)"),
        (up(health=Health(status="unhealthy")), "Up 5 minutes (unhealthy)"),
        (
            State(status=Status.PAUSED, started_at=NOW - 2 * HOUR, health=Health(status="healthy")),
            "Up 2 hours (Paused)",
        ),
        (exited(0, finished_at=NOW - 3), "Exited (0) 3 seconds ago"),
        (exited(137, finished_at=NOW - 0.2), "Exited (137) Less than a second ago"),
        (
            State(status=Status.RESTARTING, exit_code=1, started_at=1.0, finished_at=NOW - 2),
            "Restarting (1) 2 seconds ago",
        ),
        (State(status=Status.REMOVING), "Removal In Progress"),
        (State(status=Status.DEAD), "Dead"),
    ],
)
def test_the_status_column(state: State, text: str) -> None:
    assert status_text(container_record(state=state), NOW) == text


@pytest.mark.parametrize(
    ("state", "running_", "paused", "restarting"),
    [
        (State(), False, False, False),
        (up(), True, False, False),
        (State(status=Status.PAUSED), True, True, False),
        (State(status=Status.RESTARTING), True, False, True),
        (exited(1), False, False, False),
    ],
)
def test_the_state_of_inspect(state: State, running_: bool, paused: bool, restarting: bool) -> None:
    shown = container_inspect(container_record(state=state), None, SETTINGS)["State"]
    assert (shown["Running"], shown["Paused"], shown["Restarting"]) == (running_, paused, restarting)
    assert shown["Status"] == str(state.status)
    assert "Health" not in shown


def test_times() -> None:
    assert rfc3339(0.0) == "0001-01-01T00:00:00Z"
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000000Z"


def test_health_in_inspect() -> None:
    health = Health(
        status="unhealthy", failing_streak=3, log=[HealthProbe(start=1.0, end=2.0, exit_code=-1, output="x")]
    )
    shown = container_inspect(container_record(state=up(health=health)), None, SETTINGS)
    assert shown["State"]["Health"] == {
        "Status": "unhealthy",
        "FailingStreak": 3,
        "Log": [
            {
                "Start": "1970-01-01T00:00:01.000000000Z",
                "End": "1970-01-01T00:00:02.000000000Z",
                "ExitCode": -1,
                "Output": "x",
            }
        ],
    }


def test_inspect_of_a_plain_container_has_dockers_defaults() -> None:
    container = container_record()
    shown = container_inspect(container, None, SETTINGS)
    host, config = shown["HostConfig"], shown["Config"]
    assert (shown["Id"], shown["Name"], shown["Path"], shown["Args"]) == (
        container.id,
        "/web",
        "server",
        ["--fast"],
    )
    assert (config["Hostname"], config["Image"], config["Labels"]) == (container.short_id, "shop/web:1", {})
    assert {"Healthcheck", "StopSignal", "ExposedPorts", "Shell"} & set(config) == set()
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {}}
    assert (host["NetworkMode"], host["IpcMode"], host["PortBindings"]) == ("bridge", "private", {})
    assert shown["LogPath"] == f"/var/lib/x/containers/{container.id}/{container.id}-json.log"
    assert shown["NetworkSettings"]["Ports"] == {}


def test_inspect_shows_what_was_asked_for() -> None:
    container = container_record(
        config=ContainerConfig(
            hostname="h", healthcheck=HealthConfig(test=["CMD", "x"]), stop_signal="SIGINT", labels={"a": "1"}
        ),
        host=HostConfig(
            restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=3),
            log_config=LogConfig(type="none"),
            network_mode="host",
        ),
        state=exited(2, restart_count=3, error="why"),
    )
    shown = container_inspect(container, None, SETTINGS)
    assert shown["RestartCount"] == 3
    assert (shown["State"]["ExitCode"], shown["State"]["Error"]) == (2, "why")
    assert shown["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert shown["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {}}
    assert (shown["Config"]["Hostname"], shown["Config"]["StopSignal"]) == ("h", "SIGINT")
    assert shown["Config"]["Healthcheck"]["Test"] == ["CMD", "x"]


def test_mounts_show_all_but_those_of_the_tmpfs_flag() -> None:
    container = container_record(
        host=HostConfig(tmpfs={"/run/": "size=1m"}),
        mounts=[
            ResolvedMount(kind="bind", source="/srv", target="/srv", read_only=True, mode="ro"),
            volume_mount("data", "/data"),
            ResolvedMount(kind="tmpfs", source="", target="/run"),
            ResolvedMount(kind="tmpfs", source="", target="/app"),
        ],
    )
    common = {"Mode": "", "RW": True, "Propagation": ""}
    assert container_inspect(container, None, SETTINGS)["Mounts"] == [
        {
            "Type": "bind",
            "Source": "/srv",
            "Destination": "/srv",
            "Mode": "ro",
            "RW": False,
            "Propagation": "rprivate",
        },
        {
            "Type": "volume",
            "Source": "/volumes/data/_data",
            "Destination": "/data",
            "Name": "data",
            "Driver": "local",
            **common,
        },
        {"Type": "tmpfs", "Source": "", "Destination": "/app", **common},
    ]


def sandbox() -> Sandbox:
    endpoint = Endpoint(
        id="e1",
        network="n1",
        network_name="bridge",
        interface="eth0",
        cidr="172.17.0.2/16",
        gateway="172.17.0.1",
        mac="02:42:ac:11:00:02",
        aliases=("db",),
    )
    ports = (
        Publish(container_port=80, host_port=8080),
        Publish(container_port=80, host_ip="127.0.0.1", host_port=80),
    )
    return Sandbox(id="s1", netns_path="/run/netns/s1", endpoints=(endpoint,), ports=ports)


def test_the_network_of_a_running_container() -> None:
    container = container_record(
        config=ContainerConfig(exposed_ports={"80/tcp": {}, "53/udp": {}, "90": {}}),
        endpoints={"bridge": EndpointConfig()},
        state=up(),
    )
    shown = container_inspect(container, sandbox(), SETTINGS)["NetworkSettings"]
    assert shown["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "80"}],
        "53/udp": None,
        "90/tcp": None,
    }
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("172.17.0.2", 16, "172.17.0.1")
    assert list(shown["Networks"]) == ["bridge"]
    assert shown["Networks"]["bridge"]["Aliases"] == ["db"]
    row = container_summary(container, sandbox())
    assert row["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 80, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
        {"PrivatePort": 90, "Type": "tcp"},
    ]


def test_a_stopped_container_shows_where_it_belongs() -> None:
    container = container_record(endpoints={"shop": EndpointConfig(aliases=["db"])}, state=exited(0))
    shown = container_inspect(container, None, SETTINGS)["NetworkSettings"]
    assert (shown["IPAddress"], shown["Networks"]["shop"]["Aliases"]) == ("", ["db"])
    row = container_summary(container, None)
    assert (list(row["NetworkSettings"]["Networks"]), row["Ports"]) == (["shop"], [])


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (["sh"], "sh"),
        (["sh", "-c", "echo $HOME; exit 1"], "sh -c 'echo $HOME; exit 1'"),
        (["a b", 'say"', "x;y"], 'a b say" x;y'),
        ([""], ""),
    ],
)
def test_the_command_column(args: list[str], command: str) -> None:
    assert container_summary(container_record(process_args=args), None)["Command"] == command
