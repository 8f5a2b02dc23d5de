"""How one daemon is set up: from the command line, never changed afterwards."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import msgspec

DEFAULT_ROOT = Path("/var/lib/swarmctl")
DEFAULT_RUN_DIR = Path("/run/swarmctl")
DEFAULT_PORT = 2377
VERSION = "0.1.0"


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what to do."""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`root` survives a reboot, `run_dir` need not. `advertise_address` is an IP, "" chooses one."""

    root: Path = DEFAULT_ROOT
    run_dir: Path = DEFAULT_RUN_DIR
    sockets: tuple[Path, ...] = ()
    advertise_address: str = ""
    listen_port: int = DEFAULT_PORT
    cgroup_parent: str = "swarmctl"
    hostname: str = ""
    storage_driver: str = "overlay"
    userns_remap: str = ""
    labels: dict[str, str] = {}
    group: str = ""
    log_level: str = "info"

    @property
    def name(self) -> str:
        return self.hostname or socket.gethostname()

    @property
    def api_sockets(self) -> tuple[Path, ...]:
        return self.sockets or (self.run_dir / "swarmd.sock",)


def parse_host(text: str) -> Path:
    """`unix:///path` -> path. ConfigError for anything else."""
    if not text.startswith("unix://") or not text.removeprefix("unix://").startswith("/"):
        raise ConfigError(f"--host {text}: only unix:///absolute/path is supported")
    return Path(text.removeprefix("unix://"))


def split_host_port(text: str, default_port: int) -> tuple[str, int]:
    """`10.0.0.1`, `10.0.0.1:2377` or `[::1]:2377` -> address and port. ConfigError names a bad one."""
    host, port = text, default_port
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ConfigError(f"invalid address {text}: write [::1] or [::1]:2377")
        port_text = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    else:
        port_text = ""
    if port_text:
        if not (port_text.isascii() and port_text.isdecimal()) or not 0 < int(port_text) < 65536:
            raise ConfigError(f"invalid address {text}: the port must be 1 to 65535")
        port = int(port_text)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError as error:
        raise ConfigError(f"invalid address {text}: must be an IP address with an optional port") from error
