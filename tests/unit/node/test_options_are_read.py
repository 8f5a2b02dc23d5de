"""No setting is taken and then forgotten: each changes what the daemon was told, and code that does something reads that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.settings import ContainerDefaults, LiveSettings
from node.config import NodeConfig, node_config
from node.options import OPTIONS

ROOT = Path(__file__).parents[3]
# These only hand settings on, or show them.
HANDED_ON_BY = {
    *("node/config.py", "node/engine_settings.py", "node/reload.py", "node/options.py"),
    *("engine/settings.py", "engine/host_facts.py"),
}
RECEIVERS = {"config", "settings", "live", "defaults"}
READ_AS = {"hosts": "api_hosts", "registry_mirrors": "mirrors"}
FIELDS = {
    *NodeConfig.__struct_fields__,
    *LiveSettings.__struct_fields__,
    *ContainerDefaults.__struct_fields__,
}
VALUES: dict[str, Any] = {
    "hosts": ["unix:///tmp/x.sock"],
    "group": "x",
    "tls": True,
    "tlsverify": True,
    "tlscacert": "/x",
    "tlscert": "/x",
    "tlskey": "/x",
    "labels": ["a=b"],
    "debug": True,
    "log-level": "warn",
    "listen-port": 1234,
    "storage-opts": ["size=1G"],
    "log-opts": {"max-size": "1m"},
    "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
    "default-shm-size": "1m",
    "default-ipc-mode": "shareable",
    "default-cgroupns-mode": "host",
    "runtimes": {"other": {"path": "/x"}},
    "init": True,
    "no-new-privileges": True,
    "seccomp-profile": "unconfined",
    "registry-mirrors": ["https://m.example"],
    "insecure-registries": ["r.example"],
    "max-concurrent-downloads": 1,
    "max-concurrent-uploads": 1,
    "max-download-attempts": 1,
    "dns": ["10.0.0.1"],
    "dns-opts": ["ndots:1"],
    "dns-search": ["example"],
    "ip": "127.0.0.1",
    "bip": "10.1.0.1/16",
    "icc": False,
    "ipv6": True,
    "fixed-cidr-v6": "fd00:1::/64",
    "mtu": 1400,
    "default-address-pools": [{"base": "10.2.0.0/16", "size": 24}],
    "metrics-addr": "127.0.0.1:9323",
    "shutdown-timeout": 1,
}
WITH: dict[str, dict[str, Any]] = {key: {"tls": True} for key in ("tlscacert", "tlscert", "tlskey")}
WITH["fixed-cidr-v6"] = {"ipv6": True}
HONOURED = [option.key for option in OPTIONS if option.only is None]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from leaves(getattr(value, name), (*path, name))
    else:
        yield path, value


def changed_by(key: str) -> set[str]:
    """The innermost settings of ours that differ when `key` is given."""
    base = WITH.get(key, {})
    before = dict(leaves(node_config(base)))
    after = dict(leaves(node_config(base | {key: VALUES.get(key, "text")})))
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {[name for name in path if name in FIELDS][-1] for path in paths}


def read_in_code() -> set[str]:
    found: set[str] = set()
    for path in (*(ROOT / "node").rglob("*.py"), *(ROOT / "engine").rglob("*.py")):
        if str(path.relative_to(ROOT)) in HANDED_ON_BY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                holder = node.value.func if isinstance(node.value, ast.Call) else node.value
                name = getattr(holder, "attr", getattr(holder, "id", ""))
                if name.lstrip("_") in RECEIVERS:
                    found.add(node.attr)
    return found


@pytest.fixture(scope="module")
def readers() -> set[str]:
    return read_in_code()


@pytest.mark.parametrize("key", HONOURED)
def test_a_setting_has_an_effect(key: str, readers: set[str]) -> None:
    changed = changed_by(key)
    assert changed, f"{key} changes nothing"
    assert {READ_AS.get(name, name) for name in changed} & readers, (
        f"nobody reads what {key} sets: {sorted(changed)}"
    )


def test_what_nobody_reads_is_found(readers: set[str]) -> None:
    assert "storage_driver" in readers
    assert not {"no_such_setting", "userns_remap_"} & readers
