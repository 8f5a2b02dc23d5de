"""Containers as the Docker Engine API shows them. Pure: records in, JSON objects out."""

from __future__ import annotations

import datetime
import posixpath
import time
from collections.abc import Collection
from typing import Any

import msgspec

from engine.bundle import DEFAULT_SHM_BYTES, MASKED_PATHS, READONLY_PATHS, shown_paths
from engine.config import EndpointConfig
from engine.container import Container, Health, ResolvedMount, Status
from engine.links import parse_link
from engine.networks import Endpoint, Sandbox
from engine.settings import EngineSettings

ZERO_TIME = "0001-01-01T00:00:00Z"
# What Docker shows as an empty list, and what it leaves out, while nothing is set.
_LISTS = (
    *("Dns", "DnsOptions", "DnsSearch", "Devices", "Ulimits", "BlkioWeightDevice", "BlkioDeviceReadBps"),
    *("BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
)
_HOST_OMITTED = ("Annotations", "Init", "Mounts", "StorageOpt", "Sysctls", "Tmpfs")
_CONFIG_OMITTED = (
    *("ArgsEscaped", "ExposedPorts", "Healthcheck", "MacAddress", "NetworkDisabled", "Shell", "StopSignal"),
    *("StopTimeout",),
)


def rfc3339(seconds: float) -> str:
    """Unix seconds as Docker prints them; 0.0 is Go's zero time."""
    if not seconds:
        return ZERO_TIME
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def container_inspect(
    container: Container, sandbox: Sandbox | None, settings: EngineSettings
) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    folder = settings.container_dir(container.id)
    return {
        "Id": container.id,
        "Created": rfc3339(container.created_at),
        "Path": container.process_args[0],
        "Args": container.process_args[1:],
        "State": _state(container),
        "Image": container.image_id,
        "ResolvConfPath": str(folder / "resolv.conf"),
        "HostnamePath": str(folder / "hostname"),
        "HostsPath": str(folder / "hosts"),
        "LogPath": _log_path(container, settings),
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": container.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container),
        "GraphDriver": {"Name": container.driver, "Data": {}},
        "Mounts": _mounts(container),
        "Config": _config(container),
        "NetworkSettings": _network_settings(container, sandbox),
    }


def _log_path(container: Container, settings: EngineSettings) -> str:
    """Only of a file that others may read, as Docker tells it."""
    config = container.host_config.log_config
    is_json = config is None or config.type in ("", "json-file")
    return str(settings.log_path(container.id)) if is_json else ""


def container_summary(container: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    """One row of GET /containers/json."""
    networks = {e.network_name: _endpoint(e) for e in (sandbox.endpoints if sandbox else ())}
    if not networks:
        networks = dict.fromkeys(container.endpoints, _unattached())
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": _command_line(container.process_args),
        "Created": int(container.created_at),
        "Ports": _port_list(container, sandbox),
        "Labels": container.labels,
        "State": str(container.state.status),
        "Status": status_text(container, time.time()),
        "HostConfig": _summary_host_config(container),
        "NetworkSettings": {"Networks": networks},
        "Mounts": _mounts(container),
    }


def _summary_host_config(container: Container) -> dict[str, Any]:
    annotations = container.host_config.annotations
    shown: dict[str, Any] = {"NetworkMode": container.host_config.network_mode or "bridge"}
    return shown | ({"Annotations": annotations} if annotations else {})


def status_text(container: Container, now: float) -> str:
    """The STATUS column of `docker ps`."""
    state = container.state
    if state.status.has_process:
        text = f"Up {human_duration(now - state.started_at)}"
        if state.status is Status.PAUSED:
            return f"{text} (Paused)"
        if state.health is not None:
            shown = "health: starting" if state.health.status == "starting" else state.health.status
            return f"{text} ({shown})"
        return text
    if state.status is Status.RESTARTING:
        return f"Restarting ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
    if state.status is Status.EXITED:
        return f"Exited ({state.exit_code}) {human_duration(now - state.finished_at)} ago"
    return {Status.CREATED: "Created", Status.DEAD: "Dead", Status.REMOVING: "Removal In Progress"}[
        state.status
    ]


def human_duration(seconds: float) -> str:
    """go-units HumanDuration: `Less than a second`, `5 seconds`, `About a minute`, `3 hours`, ..."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds) // 3600 // 24 // 365} years"  # not rounded, as go-units


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    shown: dict[str, Any] = {
        "Status": str(state.status),
        "Running": state.status.is_up,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_at),
        "FinishedAt": rfc3339(state.finished_at),
    }
    if state.health is not None:
        shown["Health"] = _health(state.health)
    return shown


def _health(health: Health) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(probe.start),
                "End": rfc3339(probe.end),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def _config(container: Container) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(container.config)
    shown["Hostname"] = container.config.hostname or container.short_id
    shown["Image"] = container.image
    shown["Labels"] = container.labels
    shown["Env"] = shown["Env"] or []
    return _without_empty(shown, _CONFIG_OMITTED)


def _host_config(container: Container) -> dict[str, Any]:
    host = container.host_config
    shown: dict[str, Any] = msgspec.to_builtins(host)
    shown["NetworkMode"] = host.network_mode or "bridge"
    shown["RestartPolicy"] = {
        "Name": (host.restart_policy.name if host.restart_policy else "") or "no",
        "MaximumRetryCount": host.restart_policy.maximum_retry_count if host.restart_policy else 0,
    }
    shown["LogConfig"] = {
        "Type": (host.log_config.type if host.log_config else "") or "json-file",
        "Config": (host.log_config.config if host.log_config else None) or {},
    }
    shown["PortBindings"] = shown["PortBindings"] or {}
    shown["Runtime"] = host.runtime or "swarmctl"
    shown["ConsoleSize"] = host.console_size or [0, 0]
    shown["IpcMode"] = host.ipc_mode or "private"
    shown["CgroupnsMode"] = host.cgroupns_mode or "private"
    shown["ShmSize"] = host.shm_size or DEFAULT_SHM_BYTES
    shown["OomKillDisable"] = bool(host.oom_kill_disable)
    shown["MaskedPaths"] = shown_paths(host.masked_paths, MASKED_PATHS, host.privileged)
    shown["ReadonlyPaths"] = shown_paths(host.readonly_paths, READONLY_PATHS, host.privileged)
    shown["Links"] = _links(container)
    for name in _LISTS:
        shown[name] = shown[name] or []
    return _without_empty(shown, _HOST_OMITTED)


def _links(container: Container) -> list[str] | None:
    """As Docker keeps them: /NAME:/CONTAINER/ALIAS."""
    links = [parse_link(text) for text in container.host_config.links or ()]
    return [f"/{name}:/{container.name}/{alias}" for name, alias in links] or None


def _without_empty(shown: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Docker leaves these fields out while nothing is set."""
    return {name: value for name, value in shown.items() if value or name not in names}


def graph_driver_data(container: Container, places: dict[str, str]) -> dict[str, str] | None:
    """GraphDriver.Data. A union that exists inside its container only is seen from the host by its first process."""
    if places and "MergedDir" not in places and container.is_running:
        return {**places, "MergedDir": f"/proc/{container.state.pid}/root"}
    return places or None


def _network_settings(container: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    endpoints = sandbox.endpoints if sandbox else ()
    networks = {endpoint.network_name: _endpoint(endpoint) for endpoint in endpoints}
    for name, wish in container.endpoints.items():
        if name in networks:
            networks[name] |= _wished(wish)
    for name, wish in container.endpoints.items():
        if name not in networks and not endpoints:
            networks[name] = {**_unattached(), "Aliases": wish.aliases, **_wished(wish)}
    first = next((e for e in endpoints if e.network_name == "bridge"), None)
    return {
        "Bridge": "",
        "SandboxID": sandbox.id if sandbox else "",
        "SandboxKey": sandbox.netns_path if sandbox else "",
        "Ports": _port_map(container, sandbox),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.id if first else "",
        "Gateway": first.gateway if first else "",
        "GlobalIPv6Address": first.cidr6.partition("/")[0] if first else "",
        "GlobalIPv6PrefixLen": int(first.cidr6.partition("/")[2] or 0) if first else 0,
        "IPAddress": first.cidr.partition("/")[0] if first else "",
        "IPPrefixLen": int(first.cidr.partition("/")[2]) if first else 0,
        "IPv6Gateway": first.gateway6 if first else "",
        "MacAddress": first.mac if first else "",
        "Networks": networks,
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    address, _, prefix = endpoint.cidr.partition("/")
    address6, _, prefix6 = endpoint.cidr6.partition("/")
    return {
        **_unattached(),
        "Aliases": list(endpoint.aliases) or None,
        "MacAddress": endpoint.mac,
        "NetworkID": endpoint.network,
        "EndpointID": endpoint.id,
        "Gateway": endpoint.gateway,
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "DNSNames": list(endpoint.dns_names) or None,
    }


def _wished(wish: EndpointConfig) -> dict[str, Any]:
    ipam = wish.ipam_config
    given = None if ipam is None else {k: v for k, v in msgspec.to_builtins(ipam).items() if v}
    return {
        "IPAMConfig": given,
        "Links": wish.links,
        "DriverOpts": wish.driver_opts,
        "GwPriority": wish.gw_priority,
    }


def _unattached() -> dict[str, Any]:
    return {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": None,
        "MacAddress": "",
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _port_map(container: Container, sandbox: Sandbox | None) -> dict[str, Any]:
    ports: dict[str, Any] = {}
    if sandbox is None:
        return ports
    for exposed in container.config.exposed_ports or {}:
        ports[exposed if "/" in exposed else f"{exposed}/tcp"] = None
    for publish in sandbox.ports:
        key = f"{publish.container_port}/{publish.protocol}"
        everywhere = ("0.0.0.0", "::") if any(e.cidr6 for e in sandbox.endpoints) else ("0.0.0.0",)
        addresses = (publish.host_ip,) if publish.host_ip else everywhere
        bindings = [{"HostIp": address, "HostPort": str(publish.host_port)} for address in addresses]
        ports[key] = [*(ports.get(key) or ()), *bindings]
    return ports


def _port_list(container: Container, sandbox: Sandbox | None) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for key, bindings in _port_map(container, sandbox).items():
        number, _, protocol = key.partition("/")
        if not bindings:
            shown.append({"PrivatePort": int(number), "Type": protocol})
        for binding in bindings or ():
            shown.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol,
                }
            )
    return shown


def _mounts(container: Container) -> list[dict[str, Any]]:
    """All but --tmpfs, which HostConfig.Tmpfs shows."""
    elsewhere = {posixpath.normpath(target) for target in container.host_config.tmpfs or {}}
    return [_mount(mount) for mount in container.mounts if mount.target not in elsewhere]


def _mount(mount: ResolvedMount) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": mount.mode,
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind == "bind" else ""),
    }
    if mount.kind == "volume":
        shown |= {"Name": mount.name, "Driver": mount.driver}
    return shown


def _command_line(args: list[str]) -> str:
    path, *rest = args
    return " ".join([path, *(f"'{arg}'" if " " in arg else arg for arg in rest)])
