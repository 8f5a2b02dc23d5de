"""A managed plugin as a container of our own runtime. Pure, but for the ids of devices.

Source: docs.docker.com/engine/extend/config. Its socket is in a folder of ours that it sees as /run/docker/plugins;
what it mounts below PropagatedMount reaches the host.
"""

from __future__ import annotations

import posixpath
import resource
from pathlib import Path
from typing import Any

from engine.bundle import BundleContext, build_spec
from engine.config import ContainerConfig, DeviceMapping, HostConfig
from engine.container import Container, ResolvedMount, State
from engine.errors import InvalidParameter
from engine.plugins.store import Plugin

SOCKETS_INSIDE = "/run/docker/plugins"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_BIND_WORDS = frozenset({"bind", "rbind", "ro", "rw"})


def plugin_spec(plugin: Plugin, *, sockets: Path, propagated: Path) -> dict[str, Any]:
    """The OCI configuration. InvalidParameter for a setting that is missing."""
    config, settings = plugin.config, plugin.settings
    host = HostConfig(
        cap_add=list(config.linux.capabilities or ()),
        pid_mode="host" if config.pid_host else "",
        ipc_mode="host" if config.ipc_host else "",
        network_mode=config.network.type or "none",
        devices=_devices(plugin),
        device_cgroup_rules=["a *:* rwm"] if config.linux.allow_all_devices else None,
    )
    container = Container(
        id=plugin.id,
        name=plugin.name,
        created_at=0.0,
        image="",
        image_id="",
        config=ContainerConfig(working_dir=config.work_dir or "/"),
        host_config=host,
        endpoints={},
        mounts=_mounts(plugin, sockets, propagated),
        process_args=[*config.entrypoint, *settings.args],
        state=State(),
    )
    uses_host = config.network.type == "host"
    context = BundleContext(
        uid=config.user.uid,
        gid=config.user.gid,
        groups=(),
        environment=(PATH, *settings.env),
        hostname=plugin.id[:12],
        hostname_path="",
        hosts_path="/etc/hosts" if uses_host else "",
        resolv_path="/etc/resolv.conf" if uses_host else "",
        open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        pid_namespace="host" if config.pid_host else "",
        ipc_namespace="host" if config.ipc_host else "",
    )
    return build_spec(container, context)


def path_on_host(plugin: Plugin, path: str, *, rootfs: Path, propagated: Path) -> str:
    """Where the host finds what the plugin calls `path`."""
    inside = posixpath.normpath("/" + path.lstrip("/"))
    shared = plugin.config.propagated_mount.rstrip("/")
    if shared and (inside == shared or inside.startswith(f"{shared}/")):
        return str(propagated) + inside[len(shared) :]
    return str(rootfs) + inside


def _devices(plugin: Plugin) -> list[DeviceMapping] | None:
    devices = []
    for device in plugin.settings.devices:
        if not device.path:
            raise InvalidParameter(
                f"plugin {plugin.name}: the device {device.name} has no path: set {device.name}.path"
            )
        devices.append(DeviceMapping(path_on_host=device.path, path_in_container=device.path))
    return devices or None


def _mounts(plugin: Plugin, sockets: Path, propagated: Path) -> list[ResolvedMount]:
    mounts = [
        ResolvedMount(kind="bind", source=str(sockets), target=SOCKETS_INSIDE),
    ]
    if plugin.config.propagated_mount:
        mounts.append(
            ResolvedMount(
                kind="bind",
                source=str(propagated),
                target=plugin.config.propagated_mount,
                propagation="rshared",
            )
        )
    if plugin.config.linux.allow_all_devices:
        mounts.append(ResolvedMount(kind="bind", source="/dev", target="/dev"))
    mounts += [_mount(plugin, mount.name, mount) for mount in plugin.settings.mounts]
    return sorted(mounts, key=lambda mount: mount.target.count("/"))


def _mount(plugin: Plugin, name: str, mount: Any) -> ResolvedMount:
    options = [str(option) for option in mount.options or ()]
    if not mount.destination.startswith("/"):
        raise InvalidParameter(f"plugin {plugin.name}: the mount {name} needs an absolute destination")
    if mount.type == "tmpfs":
        return ResolvedMount(kind="tmpfs", source="", target=mount.destination, options=options)
    if mount.type not in ("bind", "") or not set(options) <= _BIND_WORDS | _PROPAGATION:
        raise InvalidParameter(
            f"plugin {plugin.name}: the mount {name} ({mount.type}, {','.join(options)}) is not supported: "
            "use bind with ro, rw and a propagation, or tmpfs"
        )
    if not mount.source:
        raise InvalidParameter(f"plugin {plugin.name}: the mount {name} has no source: set {name}.source")
    return ResolvedMount(
        kind="bind",
        source=mount.source,
        target=posixpath.normpath(mount.destination),
        read_only="ro" in options,
        propagation=next((option for option in options if option in _PROPAGATION), ""),
        non_recursive="bind" in options and "rbind" not in options,
    )
