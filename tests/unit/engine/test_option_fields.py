"""Every field of the API's container options (tests/data/container_fields.json, from the Docker Engine API 1.56) is
honoured, or refused by name, or listed here as one that has no effect on Linux; none is ignored in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import (
    ContainerConfig,
    ContainerCreate,
    EndpointConfig,
    EndpointIpam,
    HostConfig,
    MountPoint,
)
from engine.creation import checked_host_config
from engine.endpoint_wishes import check_endpoint
from engine.errors import EngineError
from engine.mounts import parse_mount
from engine.networks import Sandbox
from engine.runtime.limit_support import LimitSupport
from engine.settings import EngineSettings
from engine.update import apply_update
from engine.views import container_inspect, container_summary
from tests.records import container_record, running

FIELDS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "data/container_fields.json").read_text()
)

# A value that must be refused, in words that name it.
REFUSED: dict[str, Any] = {
    "Cgroup": "container:x",
    "CpuCount": 1,
    "CpuPercent": 1,
    "IOMaximumIOps": 1,
    "IOMaximumBandwidth": 1,
    "CpuRealtimePeriod": 1000,
    "CpuRealtimeRuntime": 1000,
    "DeviceRequests": [{"Driver": "nvidia", "Capabilities": [["gpu"]]}],
    "Isolation": "hyperv",
}
REFUSED_WORDS = {
    "CpuRealtimePeriod": "real-time",
    "CpuRealtimeRuntime": "real-time",
    "DeviceRequests": "could not select device driver",
}
ENDPOINT_REFUSED: dict[str, EndpointConfig] = {
    "DriverOpts": EndpointConfig(driver_opts={"a": "b"}),
}
# What a network tells about an endpoint; nothing that can be wished.
ENDPOINT_ANSWERS = {
    *("NetworkID", "EndpointID", "Gateway", "IPAddress", "IPPrefixLen", "IPv6Gateway", "GlobalIPv6Address"),
    *("GlobalIPv6PrefixLen", "DNSNames"),
}
SAMPLES: dict[str, Any] = {
    "Env": ["A=1"],
    "Cmd": ["run"],
    "Entrypoint": ["start"],
    "OnBuild": ["RUN x"],
    "Shell": ["/bin/sh", "-c"],
    "Healthcheck": {"Test": ["CMD", "true"]},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 100}],
    "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "r"}],
    "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]},
    "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
    "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
    "ConsoleSize": [24, 80],
    "Links": ["db:store"],
    **{
        f"BlkioDevice{kind}": [{"Path": "/dev/sda", "Rate": 5}]
        for kind in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")
    },
}
SHOWN_OTHERWISE = {"Links": ["/db:/web/store"]}


def sample(name: str, kind: str) -> Any:
    if name in SAMPLES:
        return SAMPLES[name]
    plain = {"string": "host", "integer": 300, "boolean": True, "array": ["x=1"], "object": {"a": "b"}}
    return plain[kind.removesuffix("|null")]


def inspected(**body: Any) -> dict[str, Any]:
    made = msgspec.convert({"Image": "shop/web:1", **body}, ContainerCreate)
    config = msgspec.convert(msgspec.to_builtins(made), ContainerConfig)
    container = container_record(config=config, host=made.host_config or HostConfig())
    settings = EngineSettings(root=Path("/var/lib/x"), run_dir=Path("/run/x"))
    return container_inspect(container, Sandbox(id="s", netns_path="/n"), settings)


def contains(shown: Any, given: Any) -> bool:
    """`given`, perhaps with defaults added."""
    if isinstance(given, dict):
        return isinstance(shown, dict) and all(
            contains(shown.get(key), value) for key, value in given.items()
        )
    if isinstance(given, list):
        return isinstance(shown, list) and all(map(contains, shown, given)) and len(shown) == len(given)
    return bool(shown == given)


@pytest.mark.parametrize("name", sorted(set(FIELDS["ContainerConfig"]) - {"Image"}))
def test_a_field_of_the_configuration_is_kept_and_shown(name: str) -> None:
    given = sample(name, FIELDS["ContainerConfig"][name])
    assert contains(inspected(**{name: given})["Config"].get(name), given)


@pytest.mark.parametrize("name", sorted(set(FIELDS["HostConfig"]) - set(REFUSED)))
def test_a_field_of_the_host_configuration_is_kept_and_shown(name: str) -> None:
    given = sample(name, FIELDS["HostConfig"][name])
    shown = inspected(HostConfig={name: given})["HostConfig"].get(name)
    assert contains(shown, SHOWN_OTHERWISE.get(name, given))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    assert name in FIELDS["HostConfig"]
    host = msgspec.convert({name: REFUSED[name]}, HostConfig)
    with pytest.raises(EngineError, match=f"(?i){REFUSED_WORDS.get(name, name)}"):
        checked_host_config(host, ContainerConfig(), LimitSupport())


def test_every_field_that_is_kept_is_honoured_by_somebody() -> None:
    """A field that only travels from the request into inspect would be ignored in silence: the code must read it."""
    engine = Path(__file__).parents[3] / "engine"
    readers = [path for path in engine.rglob("*.py") if path.name not in ("config.py", "views.py")]
    text = "\n".join(path.read_text() for path in readers)
    kept_for_others = {
        "args_escaped",  # of Windows
        "on_build",  # for builds on the image that is committed
        "shell",  # the same
        "container_id_file",  # where the client wrote the id
    }
    structs = (ContainerConfig, HostConfig)
    unread = {
        n for kind in structs for n in kind.__struct_fields__ if f".{n}" not in text and f'"{n}"' not in text
    }
    assert unread - kept_for_others - {"attach_stdin", "attach_stdout", "attach_stderr"} == set()


@pytest.mark.parametrize("name", sorted({*FIELDS["EndpointSettings"], *FIELDS["EndpointIPAMConfig"]}))
def test_a_field_of_an_endpoint_is_known_or_refused(name: str) -> None:
    if name in ENDPOINT_REFUSED:
        with pytest.raises(EngineError, match=name):
            check_endpoint("net", ENDPOINT_REFUSED[name])
    elif name not in ENDPOINT_ANSWERS:
        fields = {
            f.encode_name for kind in (EndpointConfig, EndpointIpam) for f in msgspec.structs.fields(kind)
        }
        assert name in fields


def test_every_field_of_a_mount_is_known() -> None:
    known = {field.encode_name: field for field in msgspec.structs.fields(MountPoint)}
    assert set(FIELDS["Mount"]) - set(known) == set()
    with pytest.raises(EngineError, match='mount type unknown: "image"'):
        parse_mount(MountPoint(type="image", source="x", target="/x", image_options={"Subpath": "a"}))
    for part in ("BindOptions", "VolumeOptions", "TmpfsOptions"):
        kind = next(
            t for t in known[part].type.__args__ if isinstance(t, type) and issubclass(t, msgspec.Struct)
        )
        names = {field.encode_name for field in msgspec.structs.fields(kind)}
        assert set(FIELDS[f"Mount.{part}"]) - names == set()


KINDS = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "PortMap": dict}
# Docker shows null for these too while nothing is set, whatever the specification says.
NULL = {
    *("Binds", "CapAdd", "CapDrop", "DeviceCgroupRules", "DeviceRequests", "ExtraHosts", "GroupAdd", "Links"),
    *(
        "MemorySwappiness",
        "PidsLimit",
        "SecurityOpt",
        "VolumesFrom",
        "Cmd",
        "Entrypoint",
        "OnBuild",
        "Volumes",
    ),
    *("ExecIDs",),
}
LEFT_OUT = {
    *("ImageManifestDescriptor", "Storage", "SizeRw", "SizeRootFs", "Health"),
    *("Annotations", "Init", "Mounts", "StorageOpt", "Sysctls", "Tmpfs"),
    *("ArgsEscaped", "ExposedPorts", "Healthcheck", "NetworkDisabled", "Shell", "StopSignal", "StopTimeout"),
}


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ("ContainerInspectResponse", ""),
        ("ContainerState", "State"),
        ("ContainerConfig", "Config"),
        ("HostConfig", "HostConfig"),
        ("NetworkSettings", "NetworkSettings"),
    ],
)
def test_an_untouched_container_is_shown_whole(definition: str, path: str) -> None:
    whole = inspected()
    shown = whole[path] if path else whole
    for name, kind in FIELDS[definition].items():
        if name in LEFT_OUT and name not in shown:
            continue
        if name in NULL and shown[name] is None:
            continue
        expected = KINDS.get(kind.removesuffix("|null"))
        assert name in shown and (expected is None or type(shown[name]) is expected), (name, shown.get(name))


def test_a_row_of_the_list_is_whole() -> None:
    row = container_summary(container_record(state=running()), None)
    missing = set(FIELDS["ContainerSummary"]) - set(row) - LEFT_OUT
    assert missing == set()


@pytest.mark.parametrize("name", ["CgroupParent", "OomKillDisable", "Ulimits", "MemorySwappiness", "Devices"])
def test_what_an_update_cannot_change_is_refused(name: str) -> None:
    given = sample(name, FIELDS["HostConfig"][name])
    with pytest.raises(EngineError, match=f"{name} of a container cannot be updated"):
        apply_update(container_record(), {name: given}, LimitSupport())
