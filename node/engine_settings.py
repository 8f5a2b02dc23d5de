"""From the daemon's settings to the engine's, with the checks that only the engine can make."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.bundle import SecurityOptions
from engine.config import HostConfig, LogConfig
from engine.errors import EngineError
from engine.foreign import check_runtime
from engine.log_settings import log_settings
from engine.runtime.user_namespaces import check_kernel, parse_remapping
from engine.settings import EngineSettings
from node.config import VERSION, ConfigError, NodeConfig
from node.hosts import TcpHost
from node.tls_files import ApiTls


def engine_settings(config: NodeConfig) -> EngineSettings:
    """They share `live`. ConfigError names a value that no container could have."""
    defaults = config.live.defaults
    try:
        check_runtime(defaults.runtime, config.live.runtimes)
        log_settings(LogConfig(type=defaults.log_driver, config=defaults.log_options))
        if defaults.seccomp_profile not in ("", "builtin"):
            SecurityOptions.parse(HostConfig(security_opt=[f"seccomp={defaults.seccomp_profile}"]))
    except EngineError as error:
        raise ConfigError(f"defaults of containers: {error}") from error
    try:
        if parse_remapping(config.userns_remap) is not None:
            check_kernel(os.uname().release)
    except EngineError as error:
        raise ConfigError(str(error)) from error
    return EngineSettings(
        root=config.root,
        run_dir=config.run_dir,
        cgroup_parent=config.cgroup_parent,
        hostname=config.name,
        storage_driver=config.storage_driver,
        storage_options=config.storage_options,
        userns_remap=config.userns_remap,
        live=config.live,
        engine_version=VERSION,
        warnings=tuple(_warnings(config)),
    )


def _warnings(config: NodeConfig) -> Iterator[str]:
    for host in config.api_hosts:
        if isinstance(host, TcpHost) and (config.tls is None or not config.tls.verify):
            without = "encryption" if config.tls is None else "asking for a certificate"
            yield f"WARNING: the API is accessible on {host} without {without}: whoever reaches it is root on this host"


def check(config: NodeConfig) -> None:
    """What a start would refuse, as far as it can be known without starting."""
    engine_settings(config)
    if config.tls is not None and any(isinstance(host, TcpHost) for host in config.api_hosts):
        ApiTls(config.tls)
