from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from engine.errors import InvalidParameter
from engine.plugins.config import first_settings, parse_config, privileges
from engine.plugins.settings import changed

MINIMAL: dict[str, Any] = {
    "interface": {"types": ["docker.volumedriver/1.0"], "socket": "p.sock"},
    "entrypoint": ["/p"],
}


def config(**more: Any) -> Any:
    return parse_config(json.dumps(MINIMAL | more).encode())


def test_upper_and_lower_case_are_the_same() -> None:
    lower = config(propagatedmount="/mnt", linux={"allowalldevices": True, "devices": None}, ipchost=True)
    upper = config(PropagatedMount="/mnt", Linux={"AllowAllDevices": True}, IpcHost=True)
    assert lower == upper
    assert (lower.propagated_mount, lower.ipc_host, lower.capabilities) == ("/mnt", True, ("VolumeDriver",))
    shown = msgspec.to_builtins(lower)
    assert shown["Interface"]["Types"] == ["docker.volumedriver/1.0"]
    assert shown["Linux"]["AllowAllDevices"] is True


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"interface": {}}, "needs interface.types"),
        ({"interface": {"types": ["docker.volumedriver/1.0"], "socket": "../x"}}, "plain file name"),
        ({"entrypoint": []}, "needs an entrypoint"),
        ({"entrypoint": "text"}, "Entrypoint"),
        ({"propagatedmount": "mnt"}, "absolute path"),
        ({"network": {"type": "weird"}}, "use host, bridge or none"),
    ],
)
def test_what_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        config(**more)


def test_privileges_are_what_reaches_out() -> None:
    assert privileges(config(network={"type": "bridge"})) == []
    asked = privileges(
        config(
            network={"type": "host"},
            pidhost=True,
            mounts=[{"name": "a", "source": "/data", "settable": ["source"]}, {"name": "b"}],
            linux={
                "capabilities": ["CAP_SYS_ADMIN"],
                "devices": [{"path": "/dev/fuse"}],
                "allowAllDevices": True,
            },
        )
    )
    assert [(p["Name"], p["Value"]) for p in asked] == [
        ("network", ["host"]),
        ("host pid namespace", ["true"]),
        ("mount", ["/data"]),
        ("device", ["/dev/fuse"]),
        ("allow-all-devices", ["true"]),
        ("capabilities", ["CAP_SYS_ADMIN"]),
    ]


SETTABLE: dict[str, Any] = {
    "env": [
        {"name": "DEBUG", "value": "0", "settable": ["value"]},
        {"name": "UNSET", "settable": ["value"]},
        {"name": "FIXED", "value": "1"},
    ],
    "args": {"name": "args", "value": ["a"], "settable": ["value"]},
    "mounts": [{"name": "data", "source": "/old", "destination": "/d", "settable": ["source"]}],
    "linux": {"devices": [{"name": "disk", "path": "/dev/null", "settable": ["path"]}]},
}


def test_settings_begin_as_the_config_has_them_and_change() -> None:
    made = config(**SETTABLE)
    first = first_settings(made)
    assert (first.env, first.args) == (["DEBUG=0", "FIXED=1"], ["a"])
    wishes = ["DEBUG=a=b", "UNSET=2", "args=x y", "data.source=/new", "disk.path=/dev/zero"]
    now = changed(made, first, wishes)
    assert (now.env, now.args) == (["DEBUG=a=b", "FIXED=1", "UNSET=2"], ["x", "y"])
    assert (now.mounts[0].source, now.devices[0].path) == ("/new", "/dev/zero")
    assert first.env == ["DEBUG=0", "FIXED=1"] and first.mounts[0].source == "/old"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("FIXED=2", '"FIXED" is not settable'),
        ("data.destination=/x", '"data.destination" is not settable'),
        ("NO=1", 'setting "NO" not found in the plugin configuration'),
        ("DEBUG", "use NAME=VALUE"),
        ("=x", "use NAME=VALUE"),
    ],
)
def test_what_cannot_be_set(wish: str, words: str) -> None:
    made = config(**SETTABLE)
    with pytest.raises(InvalidParameter, match=words):
        changed(made, first_settings(made), [wish])
