from __future__ import annotations

from typing import Any

import pytest

from engine.config import ContainerConfig, HostConfig
from engine.errors import InvalidParameter, NotFound
from engine.option_checks import check_options, check_platform


@pytest.mark.parametrize("platform", ["", "linux", "linux/amd64", "linux/x86_64", "amd64", "Linux/AMD64/v2"])
def test_platforms_that_the_image_is_for(platform: str) -> None:
    check_platform("web", platform, "amd64")


def test_an_image_for_another_platform_is_not_there() -> None:
    with pytest.raises(NotFound, match=r"its platform \(linux/amd64\) does not match .* \(linux/arm64\)"):
        check_platform("web", "linux/arm64", "amd64")
    with pytest.raises(NotFound):
        check_platform("web", "windows/amd64", "amd64")
    with pytest.raises(InvalidParameter, match="unknown operating system or architecture"):
        check_platform("web", "linux/bogus", "amd64")


@pytest.mark.parametrize(
    ("name", "host", "problem"),
    [
        ("vm.swappiness", {}, "not in a separate kernel namespace"),
        ("kernel.hostname", {}, "not in a separate kernel namespace"),
        ("net.core.somaxconn", {"network_mode": "host"}, "host network namespace"),
        ("kernel.shmmax", {"ipc_mode": "host"}, "host ipc namespace"),
        ("fs.mqueue.msg_max", {"ipc_mode": "host"}, "host ipc namespace"),
        ("kernel.domainname", {"uts_mode": "host"}, "host uts namespace"),
    ],
)
def test_settings_of_the_host_are_not_a_containers(name: str, host: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidParameter, match=problem):
        check_options(HostConfig(sysctls={name: "1"}, **host), ContainerConfig())


def test_settings_of_a_containers_own() -> None:
    names = ("net.ipv4.ip_forward", "kernel.shm_rmid_forced", "fs.mqueue.msg_max", "kernel.domainname")
    check_options(HostConfig(sysctls=dict.fromkeys(names, "1")), ContainerConfig())


@pytest.mark.parametrize(
    ("host", "config"),
    [
        ({"console_size": [1]}, {}),
        ({"console_size": [-1, 80]}, {}),
        ({"userns_mode": "container:x"}, {}),
        ({}, {"stop_timeout": -2}),
        ({}, {"stop_signal": "SIGNOT"}),
        ({}, {"working_dir": "relative"}),
    ],
)
def test_values_that_make_no_sense(host: dict[str, Any], config: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        check_options(HostConfig(**host), ContainerConfig(**config))
