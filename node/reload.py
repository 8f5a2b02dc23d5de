"""SIGHUP: the settings are read again; what may change takes effect at once, the rest is named in the log.

Invariant: settings that are wrong change nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from engine.engine import Engine
from engine.settings import LiveSettings
from node.config import LEVELS, ConfigError, NodeConfig
from node.engine_settings import check
from node.tls_files import ApiTls

logger = logging.getLogger(__name__)


def set_log_level(level: str, *, debug: bool) -> None:
    logging.getLogger().setLevel("DEBUG" if debug else LEVELS[level])


class Reloader:
    def __init__(
        self, config: NodeConfig, read: Callable[[], NodeConfig], engine: Engine, tls: ApiTls | None
    ) -> None:
        self._config = config
        self._read = read
        self._engine = engine
        self._tls = tls

    async def reload(self) -> None:
        """Never raises for a wrong file: the daemon goes on as it was, and says so."""
        try:
            fresh = await asyncio.to_thread(self._checked)
        except ConfigError as error:
            logger.error("settings were not reloaded: %s", error)
            return
        stays = [name for name in unchangeable(self._config) if _differs(name, self._config, fresh)]
        if stays:
            logger.warning("a restart of swarmd is needed for changes of: %s", ", ".join(stays))
        self._config.live.take(fresh.live)
        set_log_level(self._config.log_level, debug=fresh.live.debug)
        attributes = reloaded(self._config.name, fresh.live)
        logger.info("reloaded settings: %s", json.dumps(attributes))
        self._engine.events_bus.publish("daemon", "reload", self._engine.host.id, attributes)

    def _checked(self) -> NodeConfig:
        fresh = self._read()
        check(fresh)
        if self._tls is not None:
            self._tls.reload()
        return fresh


def unchangeable(config: NodeConfig) -> list[str]:
    return [name for name in config.__struct_fields__ if name != "live"]


def _differs(name: str, old: NodeConfig, new: NodeConfig) -> bool:
    return bool(getattr(old, name) != getattr(new, name))


def reloaded(host: str, live: LiveSettings) -> dict[str, str]:
    """The attributes of Docker's `daemon reload` event."""
    lists = {
        "labels": [f"{name}={value}" for name, value in live.labels.items()],
        "registry-mirrors": live.registry_mirrors,
        "insecure-registries": live.insecure_registries,
    }
    return {
        "name": host,
        "debug": str(live.debug).lower(),
        "default-runtime": live.defaults.runtime or "swarmctl",
        "default-shm-size": str(live.defaults.shm_size),
        "live-restore": "true",
        "log-opts": json.dumps(live.defaults.log_options),
        "max-concurrent-downloads": str(live.max_concurrent_downloads),
        "max-concurrent-uploads": str(live.max_concurrent_uploads),
        "max-download-attempts": str(live.max_download_attempts),
        "runtimes": " ".join(sorted({"swarmctl", *live.runtimes})),
        "shutdown-timeout": f"{live.shutdown_timeout_s:g}",
        **{name: json.dumps(list(values)) for name, values in lists.items()},
    }
