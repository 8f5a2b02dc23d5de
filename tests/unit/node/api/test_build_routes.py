"""The query of POST /build as options; what is wrong in it is a 400 that names the parameter."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp.test_utils import make_mocked_request

from engine.build_config import BuildOptions
from engine.config import Ulimit
from engine.errors import InvalidParameter
from node.api.build import build_options


def options(pairs: list[tuple[str, str]], **headers: str) -> BuildOptions:
    return build_options(make_mocked_request("POST", f"/build?{urlencode(pairs)}", headers=headers))


def test_defaults_are_dockers() -> None:
    assert options([]) == BuildOptions(version="")
    assert options([("rm", "")]).rm and not options([("rm", "False")]).rm


def test_every_parameter() -> None:
    header = base64.urlsafe_b64encode(json.dumps({"reg": {"username": "u"}}).encode()).decode()
    given: list[tuple[str, str]] = [
        *(
            ("dockerfile", "d/F"),
            ("t", "a"),
            ("t", "b:1"),
            ("remote", "http://x"),
            ("q", "1"),
            ("nocache", "1"),
        ),
        *(
            ("cachefrom", '["c"]'),
            ("pull", "1"),
            ("rm", "0"),
            ("forcerm", "1"),
            ("buildargs", '{"A":"1","B":null}'),
        ),
        *(("labels", '{"l":"v"}'), ("target", "t"), ("platform", "linux/arm64"), ("networkmode", "none")),
        *(
            ("extrahosts", "a:1"),
            ("extrahosts", "b:2"),
            ("memory", "9"),
            ("memswap", "-1"),
            ("cpushares", "2"),
        ),
        *(("cpuperiod", "3"), ("cpuquota", "4"), ("cpusetcpus", "0"), ("cpusetmems", "1"), ("shmsize", "5")),
        *(("ulimits", '[{"Name":"nofile","Soft":1,"Hard":2}]'), ("cgroupparent", "p"), ("squash", "1")),
        *(("securityopt", '["x"]'), ("isolation", "i"), ("outputs", "o"), ("version", "2")),
    ]
    assert options(given, **{"X-Registry-Config": header.rstrip("=")}) == BuildOptions(
        dockerfile="d/F",
        tags=["a", "b:1"],
        remote="http://x",
        quiet=True,
        no_cache=True,
        cache_from=["c"],
        pull=True,
        rm=False,
        force_rm=True,
        build_args={"A": "1", "B": None},
        labels={"l": "v"},
        target="t",
        platform="linux/arm64",
        network_mode="none",
        extra_hosts=["a:1", "b:2"],
        memory=9,
        memory_swap=-1,
        cpu_shares=2,
        cpu_period=3,
        cpu_quota=4,
        cpuset_cpus="0",
        cpuset_mems="1",
        shm_size=5,
        ulimits=[Ulimit(name="nofile", soft=1, hard=2)],
        cgroup_parent="p",
        squash=True,
        security_options=["x"],
        isolation="i",
        outputs="o",
        version="2",
        credentials={"reg": {"username": "u"}},
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("buildargs", "{", "error reading buildargs"),
        ("labels", '{"a": 1}', "error reading labels"),
        ("ulimits", '[{"Name":"nosuch"}]', "invalid ulimit type: nosuch"),
        ("ulimits", '[{"Name":"nofile","Soft":2,"Hard":1}]', "soft limit must be less"),
        ("memory", "much", '"memory".*"much"|memory: "much"'),
    ],
)
def test_wrong_parameters_are_named(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        options([(name, value)])


@pytest.mark.parametrize("header", ["%%%", "e30x", base64.urlsafe_b64encode(b'{"a": 1}').decode()])
def test_a_damaged_registry_header(header: str) -> None:
    fields: dict[str, Any] = {"X-Registry-Config": header}
    with pytest.raises(InvalidParameter, match="X-Registry-Config"):
        options([], **fields)
