from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import InvalidParameter
from engine.images.config import chain_ids, parse_image_config

FULL = {
    "architecture": "amd64",
    "os": "linux",
    "unknown": {"kept": True},
    "config": {
        "Entrypoint": ["/init"],
        "Cmd": ["serve"],
        "Env": ["A=1"],
        "WorkingDir": "/srv",
        "User": "web",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"a": "b"},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    },
    "rootfs": {"type": "layers", "diff_ids": ["sha256:aa"]},
}


def test_typed_view_and_what_we_do_not_know() -> None:
    raw, config, diff_ids = parse_image_config(json.dumps(FULL).encode())
    assert raw == FULL
    assert (config.entrypoint, config.cmd, config.env) == (("/init",), ("serve",), ("A=1",))
    assert (config.working_dir, config.user, config.stop_signal) == ("/srv", "web", "SIGINT")
    assert (config.exposed_ports, config.volumes, config.labels) == (("80/tcp",), ("/data",), {"a": "b"})
    assert config.healthcheck is not None and config.healthcheck.interval == 1_000_000_000
    assert diff_ids == ("sha256:aa",)


@pytest.mark.parametrize("config", [None, {}, dict.fromkeys(FULL["config"])])  # type: ignore[call-overload]
def test_nothing_and_null_mean_the_same(config: Any) -> None:
    _, typed, diff_ids = parse_image_config(
        json.dumps({"config": config, "rootfs": {"diff_ids": None}}).encode()
    )
    assert (typed.cmd, typed.env, typed.labels, typed.user, diff_ids) == ((), (), {}, "", ())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"rootfs": {"diff_ids": "x"}}',
        b'{"rootfs": {}, "config": {"Env": "A=1"}}',
        b'{"rootfs": {}, "config": {"Cmd": [1]}}',
        b'{"rootfs": {}, "os": "\xff"}',
        b'{"a":' * 100_000,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid image configuration: "):
        parse_image_config(data)


def test_chain_ids_of_the_specification() -> None:
    first, second = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    assert chain_ids([]) == ()
    assert chain_ids([first]) == (first,)
    assert chain_ids([first, second]) == (
        first,
        "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5",
    )
