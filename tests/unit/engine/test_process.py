from __future__ import annotations

from typing import Any

import pytest

from engine.config import ContainerConfig, ContainerCreate, HealthConfig
from engine.errors import InvalidParameter
from engine.images.config import ImageConfig
from engine.process import (
    DEFAULT_PATH,
    merged_config,
    merged_environment,
    process_args,
    runtime_environment,
)

IMAGE = ImageConfig(
    entrypoint=("/entry",),
    cmd=("serve",),
    env=("PATH=/image", "A=image"),
    working_dir="/app",
    user="app",
    exposed_ports=("80/tcp",),
    volumes=("/data",),
    labels={"a": "image", "b": "image"},
    stop_signal="SIGINT",
    healthcheck=HealthConfig(test=["CMD", "check"], interval=5, retries=2),
)
PLAIN = ImageConfig(cmd=("sh",))


@pytest.mark.parametrize(
    ("image", "request_", "args"),
    [
        (IMAGE, {}, ["/entry", "serve"]),
        (IMAGE, {"cmd": []}, ["/entry", "serve"]),
        (IMAGE, {"cmd": ["other", "x"]}, ["/entry", "other", "x"]),
        (IMAGE, {"cmd": "other x"}, ["/entry", "other x"]),
        (IMAGE, {"entrypoint": ["/mine"]}, ["/mine"]),
        (IMAGE, {"entrypoint": "/mine", "cmd": ["x"]}, ["/mine", "x"]),
        (IMAGE, {"entrypoint": [""], "cmd": ["x"]}, ["x"]),
        (IMAGE, {"entrypoint": []}, ["serve"]),
        (IMAGE, {"entrypoint": [], "cmd": ["x"]}, ["x"]),
        (PLAIN, {"entrypoint": None, "cmd": None}, ["sh"]),
    ],
)
def test_what_is_executed(image: ImageConfig, request_: dict[str, Any], args: list[str]) -> None:
    assert process_args(merged_config(ContainerCreate(**request_), image)) == args


@pytest.mark.parametrize(
    ("image", "request_"),
    [(ImageConfig(), {}), (IMAGE, {"entrypoint": [""]}), (ImageConfig(entrypoint=("",)), {})],
)
def test_nothing_to_execute(image: ImageConfig, request_: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter, match="no command specified"):
        process_args(merged_config(ContainerCreate(**request_), image))


def test_the_request_over_the_image() -> None:
    body = ContainerCreate(
        env=["A=request", "C=3"],
        user="root",
        labels={"b": "request"},
        exposed_ports={"443/tcp": {}},
        volumes={"/more": {}},
        stop_signal="SIGTERM",
        working_dir="/srv",
    )
    config = merged_config(body, IMAGE)
    assert config.env == ["PATH=/image", "A=request", "C=3"]
    assert (config.user, config.working_dir, config.stop_signal) == ("root", "/srv", "SIGTERM")
    assert config.labels == {"a": "image", "b": "request"}
    assert list(config.exposed_ports or ()) == ["80/tcp", "443/tcp"]
    assert list(config.volumes or ()) == ["/data", "/more"]
    assert body.labels == {"b": "request"}


def test_the_image_where_the_request_is_silent() -> None:
    config = merged_config(ContainerCreate(), IMAGE)
    assert (config.user, config.working_dir, config.stop_signal) == ("app", "/app", "SIGINT")
    assert config.healthcheck == IMAGE.healthcheck


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (HealthConfig(retries=7), HealthConfig(test=["CMD", "check"], interval=5, retries=7)),
        (HealthConfig(test=["NONE"]), HealthConfig(test=["NONE"], interval=5, retries=2)),
        (
            HealthConfig(test=[], timeout=9),
            HealthConfig(test=["CMD", "check"], interval=5, timeout=9, retries=2),
        ),
    ],
)
def test_a_health_check_is_merged_field_by_field(request_: HealthConfig, expected: HealthConfig) -> None:
    assert merged_config(ContainerCreate(healthcheck=request_), IMAGE).healthcheck == expected


def test_a_health_check_without_a_test_is_none() -> None:
    config = merged_config(ContainerCreate(healthcheck=HealthConfig(retries=7)), ImageConfig())
    assert config.healthcheck is None


def test_variables() -> None:
    assert merged_environment(["A=1", "B=2", "A=3"], ["B=x=y", "C="]) == ["A=3", "B=x=y", "C="]
    assert merged_environment(["A=1", "B=2"], ["A"]) == ["B=2"]
    with pytest.raises(InvalidParameter, match="invalid environment variable: =x"):
        merged_environment([], ["=x"])


def test_what_every_process_finds_in_its_environment() -> None:
    assert runtime_environment(ContainerConfig(env=["A=1"]), "h") == [
        f"PATH={DEFAULT_PATH}",
        "HOSTNAME=h",
        "A=1",
    ]
    own = ["PATH=/x", "HOSTNAME=mine", "TERM=dumb"]
    assert runtime_environment(ContainerConfig(env=own, tty=True), "h") == own
    assert "TERM=xterm" in runtime_environment(ContainerConfig(tty=True), "h")
