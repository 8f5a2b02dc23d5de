"""Values for a schema: such as a client would send, and such as no client should.

What reaches the machine outside of the daemon's own folders is kept out by `harmless`, whatever else was drawn: no
path of the host but the test's own folder, no namespace of the host, no cgroup parent, no device but /dev/null.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.shapes import DEFINITIONS, Schema, resolved

DEPTH_MAX = 6
NESTED = 100_000
# Stands in a value for what json.dumps cannot write.
RAW = {
    "@deep-list@": b"[" * NESTED + b"]" * NESTED,
    "@deep-object@": b'{"a":' * NESTED + b"1" + b"}" * NESTED,
    "@open@": b"[" * NESTED,
    "@1e400@": b"1e400",
    "@nan@": b"NaN",
    "@digits@": b"9" * 5000,
    "@not-utf-8@": b'"\xff\xfe\xc3("',
    "@surrogate@": b'"\\ud800"',
}
STRINGS = (
    "", " ", "a", "x" * 300, "y" * 70_000, "nul\0inside", "\0", "../../../../etc/passwd", "..", ".", "a/../b",
    "%00", "%2e%2e%2f", "a b\tc\nd\r\n", "é日本語\u202e", "\U0001f600", "-1", "0", "true", "null", "{}", "[]",
    "*", "a,b=c", "=", ":", "a:b:c:d", "sha256:" + "a" * 64, "a" * 64, "f" * 12, "'; echo", "$(id)", "${HOME}",
    "99999999999999999999", "1e9", "10.0.0.1", "::1", "10.0.0.0/33", "1.2.3.4.5", "fe80::1%lo", "tcp", "65536",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    255,
    65535,
    65536,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**63 - 1,
    2**63,
    -(2**63),
    10**30,
)
OTHERS: tuple[Any, ...] = (None, True, False, 0.5, -1.5e300, [], {}, [None], {"": None}, [[]], *RAW)

_NEEDED = ("image", "name", "data", "cmd", "tasktemplate")  # without them little is understood
Maker = Callable[[random.Random], Any]
COMMANDS = (
    ["sleep", "1000"],
    ["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"],
    ["true"],
    ["nosuch"],
)


def _one(*choices: Any) -> Maker:
    """The first one is what nobody refuses: most of what is meant well has it."""
    return lambda random_: choices[0] if random_.random() < 0.9 else random_.choice(choices)


_TASK = DEFINITIONS["TaskSpec"]["properties"]
_REST_OF_TASK: Schema = {
    "properties": {
        name: _TASK[name] for name in ("Resources", "RestartPolicy", "Placement", "ForceUpdate", "LogDriver")
    }
}
# By the field's name in lower case: what makes sense there, and may be served.
MEANT: dict[str, Maker] = {
    "image": _one("hello", "hello:latest", "nosuch"),
    "cmd": _one(*COMMANDS),
    "command": _one(*COMMANDS),
    "args": _one(["sleep", "1000"], None, ["a"]),
    "entrypoint": _one(None, None, [], ["sh", "-c"]),
    "shell": _one(None, ["sh", "-c"]),
    "env": _one(["A=b", "C"], ["=x"], ["A"], None, ["A=" + "b" * 5000]),
    "user": _one("", "", "0", "1000:1000", "nobody", "nosuch", "-1", "99999999999"),
    "workingdir": _one("", "/", "/tmp", "/new/folder", "relative"),
    "networkmode": _one("bridge", "none", "default", "", "unknown"),
    "pidmode": _one("", "", "container:nosuch", "unknown"),
    "ipcmode": _one("", "private", "shareable", "none", "container:nosuch", "unknown"),
    "utsmode": _one("", "unknown"),
    "usernsmode": _one("", "unknown"),
    "cgroupnsmode": _one("", "private", "unknown"),
    "runtime": _one("", "", "", "nosuch"),
    "iomaximumbandwidth": _one(0, 1),
    "iomaximumiops": _one(0, 1),
    "templating": _one(None, {}),
    "isolation": _one("", "default", "hyperv"),
    "logconfig": _one(
        None, {"Type": "json-file", "Config": {"max-size": "1k"}}, {"Type": "none"}, {"Type": "nosuch"}, {"Type": "local"},
        {"Type": "json-file", "Config": {"max-size": "-1", "max-file": "x"}},
    ),
    "restartpolicy": _one({"Name": "no"}, {"Name": "on-failure", "MaximumRetryCount": 1}, None, {"Name": "unknown"}),
    "memory": _one(0, 0, 64 << 20, 6 << 20, 1, -1, 2**62),
    "nanocpus": _one(0, 0, 10**8, -5, 10**18),
    "sysctls": _one(None, {"net.ipv4.ip_forward": "0"}, {"net.nosuch": "1"}, {"": ""}),
    "capadd": _one(None, ["NET_ADMIN"], ["ALL"], ["NOSUCH"]),
    "capdrop": _one(None, ["ALL"], ["CHOWN"], ["NOSUCH"]),
    "securityopt": _one(None, ["no-new-privileges"], ["seccomp=unconfined"], ["nosuch"], ["seccomp={"], ["label:x"]),
    "devicerequests": _one(None, None, [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]),
    "deviceidmappings": _one(None),
    "volumes": _one(None, {"/v": {}}, {"relative": {}}, {"/": {}}),
    "storageopt": _one(None, None, {"size": "10M"}, {"nosuch": "1"}),
    "tmpfs": _one(None, {"/t": "size=1m"}, {"/t": "nosuch"}, {"relative": ""}),
    "exposedports": _one(None, {"80/tcp": {}}, {"99999/tcp": {}}, {"x": {}}),
    "portbindings": _one(
        None, {"80/tcp": [{"HostPort": "0"}]}, {"80/tcp": [{"HostIp": "9.9.9.9", "HostPort": "1"}]}, {"80/tcp": None}
    ),
    "networkingconfig": _one(
        None, {"EndpointsConfig": {"bridge": {}}}, {"EndpointsConfig": {"nosuch": None}},
        {"EndpointsConfig": {"fuzz-net": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}}},
    ),
    "container": _one("fuzz-run", "fuzz-idle", "nosuch"),
    "subnet": _one("10.67.0.0/24", "10.66.0.0/24", "10.66.0.0/30", "10.67.0.0/24", "x", "0.0.0.0/0", "fd00:66::/64", ""),
    "gateway": _one("", "10.66.0.1", "10.66.0.0", "x", ""),
    "iprange": _one("", "10.66.0.128/25", "x"),
    "driver": _one("", "", "local", "bridge", "overlay", "nosuch"),
    "driveropts": _one(None, {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, {"nosuch": "x"}),
    "ipam": _one(None, {"Driver": "default", "Config": [{"Subnet": "10.66.0.0/24"}]}, {"Config": [{"Subnet": "x"}]}),
    "data": _one("YQ==", "", "not base64!", "YQ" * 600_000),
    "listenaddr": _one("127.0.0.1:2377", "", "x", "127.0.0.1:99999"),
    "advertiseaddr": _one("127.0.0.1", "", "nosuch.invalid"),
    "remoteaddrs": _one(["127.0.0.1:1"], [], ["x"], None),
    "jointoken": _one("SWMTKN-1-" + "a" * 50 + "-" + "b" * 25, "", "x"),
    "identitytoken": _one(""),
    "serveraddress": _one("127.0.0.1:1", "", "x y"),
    "configfrom": _one(None, {"Network": "nosuch"}),
    "clustervolumespec": _one(None, {}),
    "target": _one("/m", "relative", "/"),
    "spec": _one(None, {}),
    "externalcas": _one(None, [], [{"URL": "https://127.0.0.1:1"}]),
    "replicas": _one(1, 0,  -1, 2**40),
    "name": lambda random_: f"fuzz-{random_.randrange(1000)}",
    "tasktemplate": lambda random_: {
        "ContainerSpec": _object(_TASK["ContainerSpec"], random_, 2)
        | {"Image": "hello", "Command": ["sleep", "1000"]},
        **_object(_REST_OF_TASK, random_, 2),
    },
    "healthcheck": _one(None, {"Test": ["NONE"]}, {"Test": ["CMD", "true"], "Interval": 10**9}, {"Test": ["x"]}),
    "stopsignal": _one("", "SIGTERM", "9", "SIGNOSUCH", "-1", "0", "99999999999"),
    "stoptimeout": _one(None, 0, 1, -1),
}  # fmt: skip


def valid(schema: Schema, random_: random.Random, name: str = "", depth: int = 0) -> Any:
    """What looks like the schema; `name` is the field's."""
    schema = resolved(schema)
    kind = schema.get("type")
    if name.lower() in MEANT:
        value = MEANT[name.lower()](random_)
        if value is None or isinstance(value, str) == (kind == "string"):  # some names mean two things
            return value
    if schema.get("null") and random_.random() < 0.3:
        return None
    if schema.get("enum"):
        return random_.choice(schema["enum"]) if random_.random() < 0.3 else None
    if kind == "array":
        count = random_.choice((0, 0, 0, 1, 2)) if depth < DEPTH_MAX else 0
        return [valid(schema.get("items", {}), random_, "", depth + 1) for _ in range(count)]
    if kind == "object" or "properties" in schema:
        return _object(schema, random_, depth)
    if kind in ("integer", "number"):
        return random_.choice((0, 0, 0, 0, 0, 0, 0, 0, 1, 10, 1000))
    if kind == "boolean":
        return random_.random() < 0.15
    return random_.choice(("", "", "", "", "", "", "", "", "a", f"fuzz-{random_.randrange(100)}"))


def _object(schema: Schema, random_: random.Random, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    share = random_.choice((0.05, 0.1, 0.3, 0.8))
    made = {
        name: valid(entry, random_, name, depth + 1)
        for name, entry in properties.items()
        if depth < DEPTH_MAX and (name in required or name.lower() in _NEEDED or random_.random() < share)
    }
    if "values" in schema and depth < DEPTH_MAX:
        for _ in range(random_.choice((0, 0, 0, 1, 2))):
            made[f"key{random_.randrange(10)}"] = valid(schema["values"], random_, "", depth + 1)
    return made


def hostile(random_: random.Random) -> Any:
    return random_.choice(random_.choice((STRINGS, NUMBERS, OTHERS)))


def twisted(value: Any, random_: random.Random) -> Any:
    """The value with something else at one place, at any depth."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        name = random_.choice(sorted(value))
        if random_.random() < 0.1:
            return {**value, random_.choice(STRINGS): hostile(random_)}
        return {**value, name: twisted(value[name], random_)}
    if isinstance(value, list) and value and random_.random() < 0.7:
        at = random_.randrange(len(value))
        return [*value[:at], twisted(value[at], random_), *value[at + 1 :]]
    return hostile(random_)


def harmless(value: Any, folder: str, name: str = "") -> Any:
    """The value without what would reach the machine itself. `folder` is the test's own."""
    name = name.lower()
    if name in ("cgroupparent", "cgroup"):
        return ""
    if name in ("devices", "devicecgrouprules", "blkioweightdevice") or name.startswith("blkiodevice"):
        return (
            [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/fuzz"}]
            if name == "devices" and value
            else None
        )
    if name == "binds":
        return (
            [bind for bind in value if _own(str(bind).partition(":")[0], folder)]
            if isinstance(value, list)
            else None
        )
    if isinstance(value, dict):
        return {key: harmless(entry, folder, key) for key, entry in value.items()}
    if isinstance(value, list):
        return [harmless(entry, folder, name) for entry in value]
    if isinstance(value, str):
        if value.lower() == "host":
            return "none"
        if name in ("source", "device", "pathonhost", "o", "mountpoint") and not _own(value, folder):
            return folder
    return value


def _own(path: str, folder: str) -> bool:
    return path == folder or (not path.startswith(("/", ".")) and ".." not in path)


def encoded(value: Any) -> bytes:
    """As JSON; what RAW names stands there as it is."""
    text = json.dumps(value).encode()
    for mark, raw in RAW.items():
        text = text.replace(b'"' + mark.encode() + b'"', raw)
    return text
