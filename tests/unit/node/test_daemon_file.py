"""daemon.json: Docker's words for what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node.config import ConfigError, node_config
from node.daemon_file import FileProblem, settings
from node.options import BY_KEY, REFUSED


def read(folder: Path, text: str, **flags: Any) -> dict[str, Any]:
    path = folder / "daemon.json"
    path.write_text(text)
    return settings(
        path, must_exist=True, flags={key.replace("_", "-"): value for key, value in flags.items()}
    )


def test_a_file_need_not_be_there_unless_it_is_named(tmp_path: Path) -> None:
    assert settings(tmp_path / "none.json", must_exist=False, flags={"debug": True}) == {"debug": True}
    with pytest.raises(
        FileProblem, match=r"unable to configure the daemon with file .*none.json: open .*no such file"
    ):
        settings(tmp_path / "none.json", must_exist=True, flags={})


@pytest.mark.parametrize("text", ["", " \n", "{}", "\ufeff{}"])
def test_a_file_may_be_empty(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == {}


def test_file_and_flags_are_put_together(tmp_path: Path) -> None:
    assert read(tmp_path, '{"labels": ["a=b"]}', debug=True) == {"labels": ["a=b"], "debug": True}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"b": 1, "a": 2}', "the following directives don't match any configuration option: a, b"),
        ('{"bridge": "br0"}', "bridge is not supported yet: leave it out"),
        ('{"debug": "yes"}', "debug: must be true or false"),
        ('{"debug": true, "debug": false}', "given twice: debug"),
        ('{"mtu": true}', "mtu: must be a number"),
        ('{"labels": "a=b"}', "labels: must be a list of strings"),
        ('{"labels": [1]}', "labels: must be a list of strings"),
        ('{"log-opts": {"max-file": 3}}', "log-opts: must be an object of strings"),
        ('{"default-shm-size": true}', "default-shm-size: must be a number of bytes or a string"),
        ("[]", "must be a JSON object"),
        ("{", "invalid JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FileProblem, match=r"unable to configure the daemon with file") as caught:
        read(tmp_path, text)
    assert words in str(caught.value)


def test_what_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileProblem) as caught:
        read(tmp_path, '{"debug": false, "labels": ["x=y"]}', debug=True, labels=["a=b", "c=d"])
    assert str(caught.value).endswith(
        "the following directives are specified both as a flag and in the configuration file: "
        "debug: (from flag: true, from file: false), labels: (from flag: [a=b c=d], from file: [x=y])"
    )


def test_no_key_is_both_known_and_refused() -> None:
    assert set(BY_KEY) & REFUSED == set()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ipv6": True, "fixed-cidr-v6": "10.0.0.0/8"}, "invalid fixed-cidr-v6"),
        ({"fixed-cidr-v6": "fd00:1::/64"}, "needs"),
        ({"userland-proxy": True}, "userland-proxy: true is not supported"),
        ({"default-ulimits": {"nofile": {"Soft": 5}}}, "default-ulimits: nofile"),
        ({"default-ulimits": {"nofile": {"Soft": 5, "Hard": 4}}}, "soft limit must be less than or equal"),
        ({"default-address-pools": [{"base": "10.0.0.0/8"}]}, "default-address-pools"),
        ({"bip": "10.0.0.300/8"}, "bip"),
        ({"mtu": 9}, "invalid mtu: 9"),
        ({"seccomp-profile": "/nowhere.json"}, r"opening seccomp profile \(/nowhere.json\) failed"),
        ({"default-ipc-mode": "host"}, "default-ipc-mode: host: use private or shareable"),
        ({"labels": ["x"]}, "--label x: must be KEY=VALUE"),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        node_config(given)


def test_values_as_docker_writes_them() -> None:
    config = node_config(json.loads("""{
        "live-restore": true, "icc": true, "registry-mirrors": ["https://m.example"], "shutdown-timeout": 15,
        "default-shm-size": "64M", "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": -1}},
        "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}], "ip": "127.0.0.1"
    }"""))  # fmt: skip
    live = config.live
    assert (live.registry_mirrors, live.shutdown_timeout_s) == (("https://m.example/",), 15.0)
    assert (live.defaults.shm_size, live.defaults.ulimits[0].hard) == (64 << 20, -1)
    assert (config.bridge.pools[0].size, live.defaults.publish_address) == (24, "127.0.0.1")
