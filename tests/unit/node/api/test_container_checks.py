"""What clients send is let through; what is wrong is named, all of it. The words: tests/compat/test_error_texts.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.config import ContainerCreate
from engine.errors import InvalidParameter
from node.api.checks import check_container, problems

GOOD: list[dict[str, Any]] = [
    {},
    {"Healthcheck": {}},
    {"Healthcheck": {"Test": ["NONE"]}},
    {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000, "Timeout": 0, "Retries": 3}},
    {"Healthcheck": {"Test": ["CMD-SHELL", "x"]}},
    {"ExposedPorts": {"80": {}, "80/tcp": {}, "53/udp": {}, "8000-8010/sctp": {}}},
    {"HostConfig": {"PortBindings": {"80/tcp": None, "81": [], "82/udp": [{"HostIp": "", "HostPort": ""}]}}},
    {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "::1", "HostPort": "8000-8010"}]}}},
    {"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "0"}]}}},
    {"HostConfig": {"Dns": ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]}},
    {"HostConfig": {"ExtraHosts": ["a:192.0.2.1", "b:2001:db8::1", "c:[2001:db8::1]", "d:host-gateway"]}},
    {"HostConfig": {"CpusetCpus": "0-3,5", "CpusetMems": "0", "CpuPeriod": 100_000, "CpuQuota": -1}},
    {"HostConfig": {"MemorySwappiness": -1, "OomScoreAdj": -1000, "BlkioWeight": 1000, "CpuShares": 2}},
    {
        "HostConfig": {
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}, {"Name": "core", "Soft": -1, "Hard": -1}]
        }
    },
    {"HostConfig": {"Ulimits": [{"Name": "memlock", "Soft": 5, "Hard": -1}]}},
    {"HostConfig": {"NetworkMode": "container:x", "Devices": [{"CgroupPermissions": "rwm"}]}},
    {"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}},
]


@pytest.mark.parametrize("body", GOOD)
def test_good_configuration_passes(body: dict[str, Any]) -> None:
    check_container(msgspec.convert(body, ContainerCreate))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"ExposedPorts": {"8010-8000/tcp": {}}}, "8010-8000/tcp"),
    ({"ExposedPorts": {"": {}}}, "ExposedPorts"),
    ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "1-70000"}]}}}, "1-70000"),
    ({"HostConfig": {"ExtraHosts": [":1.2.3.4"]}}, ":1.2.3.4"),
    ({"HostConfig": {"ExtraHosts": ["a=1.2.3.4"]}}, "a=1.2.3.4"),
    ({"HostConfig": {"ExtraHosts": ["a:b"]}}, '"b"'),
    ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 5}]}}, "-1 > 5"),
    ({"HostConfig": {"CpusetCpus": "0-"}}, "0-"),
    ({"HostConfig": {"CpuShares": -1}}, "-1"),
]


@pytest.mark.parametrize(("body", "words"), BAD)
def test_bad_configuration_is_named(body: dict[str, Any], words: str) -> None:
    (problem,) = problems(msgspec.convert(body, ContainerCreate))
    assert words in problem


def test_first_problem_is_the_error() -> None:
    body = {"ExposedPorts": {"x": {}}, "HostConfig": {"Dns": ["x"]}}
    with pytest.raises(InvalidParameter, match="ExposedPorts: x"):
        check_container(msgspec.convert(body, ContainerCreate))


@pytest.mark.parametrize("size", [[24], [1, 2, 3], [-1, 80], [65536, 80]])
def test_sizes_that_no_terminal_has(size: list[int]) -> None:
    body = msgspec.convert({"HostConfig": {"ConsoleSize": size}}, ContainerCreate)
    with pytest.raises(InvalidParameter, match="ConsoleSize"):
        check_container(body)


@pytest.mark.parametrize("size", [None, [], [0, 0], [24, 80]])
def test_sizes_of_terminals(size: list[int] | None) -> None:
    check_container(msgspec.convert({"HostConfig": {"ConsoleSize": size}}, ContainerCreate))
