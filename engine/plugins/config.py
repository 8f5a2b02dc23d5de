"""What a managed plugin says of itself (config.json) and what its user set, in the API's field names.

Source: docs.docker.com/engine/extend/config and the schema Plugin of the Docker Engine API. Writers of config.json
do not agree about upper case, and Docker does not mind: neither do we.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from engine.config import ApiStruct
from engine.errors import InvalidParameter

CONFIG_BYTES_MAX = 1 << 20
CAPABILITIES = {
    "volumedriver": "VolumeDriver",
    "networkdriver": "NetworkDriver",
    "ipamdriver": "IpamDriver",
    "logdriver": "LogDriver",
    "authz": "authz",
    "metricscollector": "MetricsCollector",
}


class PluginMount(ApiStruct):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    source: str | None = None
    destination: str = ""
    type: str = ""
    options: list[str] | None = None


class PluginDevice(ApiStruct):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    path: str | None = None


class PluginEnv(ApiStruct):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    value: str | None = None


class PluginArgs(ApiStruct):
    name: str = ""
    description: str = ""
    settable: list[str] | None = None
    value: list[str] | None = None


class PluginInterface(ApiStruct):
    """`types` such as docker.volumedriver/1.0."""

    types: list[str] = []
    socket: str = ""
    protocol_scheme: str = ""


class PluginLinux(ApiStruct):
    capabilities: list[str] | None = None
    allow_all_devices: bool = False
    devices: list[PluginDevice] | None = None


class PluginNetwork(ApiStruct):
    type: str = ""


class PluginUser(ApiStruct):
    uid: int = field(default=0, name="UID")
    gid: int = field(default=0, name="GID")


class PluginConfig(ApiStruct):
    description: str = ""
    documentation: str = ""
    interface: PluginInterface = field(default_factory=PluginInterface)
    entrypoint: list[str] = []
    work_dir: str = ""
    user: PluginUser = field(default_factory=PluginUser)
    network: PluginNetwork = field(default_factory=PluginNetwork)
    linux: PluginLinux = field(default_factory=PluginLinux)
    propagated_mount: str = ""
    ipc_host: bool = False
    pid_host: bool = False
    mounts: list[PluginMount] | None = None
    env: list[PluginEnv] | None = None
    args: PluginArgs = field(default_factory=PluginArgs)
    rootfs: dict[str, Any] | None = field(default=None, name="rootfs")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """In the words of Plugin.Activate."""
        kinds = [text.partition("/")[0].rpartition(".")[2] for text in self.interface.types]
        return tuple(CAPABILITIES.get(kind, kind) for kind in kinds)


class PluginSettings(ApiStruct):
    mounts: list[PluginMount] = []
    env: list[str] = []
    args: list[str] = []
    devices: list[PluginDevice] = []


def parse_config(data: bytes) -> PluginConfig:
    """InvalidParameter names what is wrong."""
    try:
        decoded = msgspec.json.decode(data)
        config = msgspec.convert(_canonical(decoded), PluginConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"invalid plugin config.json: {error}") from error
    if not config.interface.types or not config.interface.socket:
        raise InvalidParameter("invalid plugin config.json: it needs interface.types and interface.socket")
    if "/" in config.interface.socket or config.interface.socket in (".", ".."):
        raise InvalidParameter("invalid plugin config.json: interface.socket must be a plain file name")
    if config.interface.protocol_scheme not in ("", "moby.plugins.http/v1"):
        raise InvalidParameter(
            f"invalid plugin config.json: protocol {config.interface.protocol_scheme} is not known: "
            "use moby.plugins.http/v1"
        )
    if not config.entrypoint:
        raise InvalidParameter("invalid plugin config.json: it needs an entrypoint")
    if config.propagated_mount and not config.propagated_mount.startswith("/"):
        raise InvalidParameter("invalid plugin config.json: propagatedMount must be an absolute path")
    if config.network.type not in ("", "host", "bridge", "none"):
        raise InvalidParameter(
            f"invalid plugin config.json: network type {config.network.type}: use host, bridge or none"
        )
    return config


def first_settings(config: PluginConfig) -> PluginSettings:
    return PluginSettings(
        mounts=list(config.mounts or ()),
        env=[f"{env.name}={env.value}" for env in config.env or () if env.value is not None],
        args=list(config.args.value or ()),
        devices=list(config.linux.devices or ()),
    )


def privileges(config: PluginConfig) -> list[dict[str, Any]]:
    """What a user must agree to before it is installed, in Docker's words and order."""
    asked: list[tuple[str, str, list[str]]] = []
    if config.network.type not in ("", "none", "bridge"):
        asked.append(("network", "permissions to access a network", [config.network.type]))
    if config.ipc_host:
        asked.append(("host ipc namespace", "allow access to host ipc namespace", ["true"]))
    if config.pid_host:
        asked.append(("host pid namespace", "allow access to host pid namespace", ["true"]))
    asked += [("mount", "host path to mount", [m.source]) for m in config.mounts or () if m.source]
    asked += [("device", "host device to access", [d.path]) for d in config.linux.devices or () if d.path]
    if config.linux.allow_all_devices:
        asked.append(("allow-all-devices", "allow 'rwm' access to all devices", ["true"]))
    if config.linux.capabilities:
        asked.append(
            ("capabilities", "list of additional capabilities required", list(config.linux.capabilities))
        )
    return [{"Name": name, "Description": text, "Value": value} for name, text, value in asked]


def _names() -> dict[str, str]:
    kinds = (PluginConfig, PluginMount, PluginEnv, PluginArgs, PluginInterface, PluginLinux, PluginUser)
    return {
        known.encode_name.lower(): known.encode_name
        for kind in kinds
        for known in msgspec.structs.fields(kind)
    } | {"path": "Path"}


_CANONICAL = _names()


def _canonical(value: Any) -> Any:
    """Keys as the API writes them; a null is as good as nothing."""
    if isinstance(value, dict):
        return {
            _CANONICAL.get(str(key).lower(), str(key)): _canonical(item)
            for key, item in value.items()
            if item is not None
        }
    return [_canonical(item) for item in value] if isinstance(value, list) else value
