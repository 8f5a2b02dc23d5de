"""What the daemon's settings add to a new container whose creator left things open. Pure.

It is written into the container's own configuration, so that later settings change only containers made later.
"""

from __future__ import annotations

from engine.config import ContainerCreate, HostConfig, LogConfig, Ulimit
from engine.settings import ContainerDefaults


def complete(body: ContainerCreate, defaults: ContainerDefaults) -> None:
    """Changes `body.host_config`, which is made when it is missing."""
    host = body.host_config = body.host_config or HostConfig()
    _complete_log(host, defaults)
    _complete_ulimits(host, defaults)
    _complete_security(host, defaults)
    _complete_names(host, defaults)
    host.shm_size = host.shm_size or defaults.shm_size
    host.ipc_mode = host.ipc_mode or defaults.ipc_mode
    host.cgroupns_mode = host.cgroupns_mode or defaults.cgroupns_mode
    host.runtime = host.runtime or defaults.runtime
    if host.init is None and defaults.init:
        host.init = True
    if defaults.publish_address:
        for binding in (b for bindings in (host.port_bindings or {}).values() for b in bindings or ()):
            binding.host_ip = binding.host_ip or defaults.publish_address


def _complete_log(host: HostConfig, defaults: ContainerDefaults) -> None:
    """The options belong to the driver: another driver starts without any, as in Docker."""
    log = host.log_config = host.log_config or LogConfig()
    if log.type and log.type != defaults.log_driver:
        return
    log.type = defaults.log_driver
    log.config = {**defaults.log_options, **(log.config or {})}


def _complete_ulimits(host: HostConfig, defaults: ContainerDefaults) -> None:
    named = {limit.name for limit in host.ulimits or ()}
    added = [Ulimit(name=d.name, soft=d.soft, hard=d.hard) for d in defaults.ulimits if d.name not in named]
    if added:
        host.ulimits = [*(host.ulimits or ()), *added]


def _complete_security(host: HostConfig, defaults: ContainerDefaults) -> None:
    """A privileged container has no seccomp anyway."""
    options = list(host.security_opt or ())
    names = {option.replace(":", "=", 1).partition("=")[0] for option in options}
    if defaults.no_new_privileges and "no-new-privileges" not in names:
        options.append("no-new-privileges")
    if defaults.seccomp_profile not in ("", "builtin") and "seccomp" not in names and not host.privileged:
        options.append(f"seccomp={defaults.seccomp_profile}")
    if options:
        host.security_opt = options


def _complete_names(host: HostConfig, defaults: ContainerDefaults) -> None:
    host.dns = host.dns or list(defaults.dns) or None
    host.dns_options = host.dns_options or list(defaults.dns_options) or None
    host.dns_search = host.dns_search or list(defaults.dns_search) or None
