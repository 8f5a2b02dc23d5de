"""How one daemon is set up: from its settings (flags and file), checked. Only `live` changes afterwards, by SIGHUP."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.settings import SHUTDOWN_TIMEOUT_S, ContainerDefaults, DefaultUlimit, LiveSettings
from node.hosts import Host, InvalidHost, TcpHost, UnixHost, parse_host
from node.options import BY_KEY

DEFAULT_ROOT = Path("/var/lib/swarmctl")
DEFAULT_RUN_DIR = Path("/run/swarmctl")
DEFAULT_CERTIFICATES = Path("/etc/swarmctl")
DEFAULT_PORT = 2377
VERSION = "0.1.0"
LEVELS = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "warning": "WARNING"}
LEVELS |= {"error": "ERROR", "fatal": "CRITICAL"}
_SIZE = re.compile(r"(\d+)([kmgt]?)b?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class ConfigError(Exception):
    """A setting is wrong; the message names it and says what to do."""


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`verify`: clients need a certificate of `ca`."""

    certificate: Path
    key: Path
    ca: Path
    verify: bool


class AddressPool(msgspec.Struct, frozen=True):
    """Subnets of `size` bits out of `base`."""

    base: str
    size: int


IPV6_PREFIX_MAX = 126


class BridgeDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """Of the default bridge and of networks that name no subnet. Empty and 0: what the data plane does anyway."""

    bip: str = ""
    mtu: int = 0
    pools: tuple[AddressPool, ...] = ()
    icc: bool = True
    ipv6: bool = False
    fixed_cidr_v6: str = ""


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`root` survives a reboot, `run_dir` need not. `advertise_address` is an IP, "" chooses one."""

    root: Path = DEFAULT_ROOT
    run_dir: Path = DEFAULT_RUN_DIR
    hosts: tuple[Host, ...] = ()
    tls: TlsSettings | None = None
    advertise_address: str = ""
    listen_port: int = DEFAULT_PORT
    cgroup_parent: str = "swarmctl"
    hostname: str = ""
    storage_driver: str = ""
    storage_options: tuple[str, ...] = ()
    userns_remap: str = ""
    bridge: BridgeDefaults = BridgeDefaults()
    group: str = ""
    log_level: str = "info"
    metrics_address: str = ""
    live: LiveSettings = msgspec.field(default_factory=LiveSettings)

    @property
    def name(self) -> str:
        return self.hostname or socket.gethostname()

    @property
    def labels(self) -> dict[str, str]:
        return self.live.labels

    @property
    def api_hosts(self) -> tuple[Host, ...]:
        return self.hosts or (UnixHost(self.run_dir / "swarmd.sock"),)


def node_config(given: Mapping[str, Any]) -> NodeConfig:
    """From settings in the form of the file (node.options). ConfigError names the one that is wrong."""
    for key, value in given.items():
        _check_only(key, value)
    tls = _tls(given)
    try:
        hosts = tuple(parse_host(text, tls=tls is not None) for text in given.get("hosts", ()))
    except InvalidHost as error:
        raise ConfigError(str(error)) from error
    _refuse_plain_tcp(hosts, given, tls)
    level = given.get("log-level", "info")
    if level not in LEVELS:
        raise ConfigError(f"invalid logging level: {level}: use one of {', '.join(LEVELS)}")
    port = given.get("listen-port", DEFAULT_PORT)
    if not 0 < port < 65536:
        raise ConfigError(f"--listen-port {port}: must be 1 to 65535")
    metrics = given.get("metrics-addr", "")
    if metrics and not re.fullmatch(r".+:\d{1,5}", metrics, re.ASCII):
        raise ConfigError(f"--metrics-addr {metrics}: must be ADDRESS:PORT, such as 127.0.0.1:9323")
    return NodeConfig(
        root=Path(given.get("data-root", DEFAULT_ROOT)).absolute(),
        run_dir=Path(given.get("exec-root", DEFAULT_RUN_DIR)).absolute(),
        hosts=hosts,
        tls=tls,
        advertise_address=given.get("advertise-addr", ""),
        listen_port=port,
        cgroup_parent=given.get("cgroup-parent", "swarmctl").strip("/"),
        hostname=given.get("hostname", ""),
        storage_driver=given.get("storage-driver", ""),
        storage_options=_key_values(given, "storage-opts"),
        userns_remap=given.get("userns-remap", ""),
        bridge=_bridge(given),
        group=given.get("group", ""),
        log_level=level,
        metrics_address=metrics,
        live=live_settings(given),
    )


def live_settings(given: Mapping[str, Any]) -> LiveSettings:
    """The part that SIGHUP may change, with what goes with it into containers' defaults."""
    for key in ("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"):
        if given.get(key, 1) < 1:
            raise ConfigError(f"invalid {key.replace('-', ' ')}: {given[key]}: must be 1 or more")
    timeout_s = float(given.get("shutdown-timeout", SHUTDOWN_TIMEOUT_S))
    return LiveSettings(
        labels=dict(_pair("labels", text) for text in given.get("labels", ())),
        debug=given.get("debug", False),
        defaults=_container_defaults(given),
        runtimes=given.get("runtimes", {}),
        registry_mirrors=tuple(_mirror(url) for url in given.get("registry-mirrors", ())),
        insecure_registries=tuple(given.get("insecure-registries", ())),
        max_concurrent_downloads=given.get("max-concurrent-downloads", 3),
        max_concurrent_uploads=given.get("max-concurrent-uploads", 5),
        max_download_attempts=given.get("max-download-attempts", 5),
        shutdown_timeout_s=timeout_s,
    )


def _check_only(key: str, value: object) -> None:
    only = BY_KEY[key].only
    if only is not None and value != only[0]:
        shown = str(value).lower() if isinstance(value, bool) else value
        raise ConfigError(f"{key}: {shown} is not supported: {only[1]}: leave it out")


def _tls(given: Mapping[str, Any]) -> TlsSettings | None:
    """TLS is meant by any of its settings, as in Docker, unless it is switched off in so many words."""
    verify = given.get("tlsverify", False)
    if not verify and not given.get("tls", False):
        return None
    return TlsSettings(
        certificate=Path(given.get("tlscert", DEFAULT_CERTIFICATES / "cert.pem")),
        key=Path(given.get("tlskey", DEFAULT_CERTIFICATES / "key.pem")),
        ca=Path(given.get("tlscacert", DEFAULT_CERTIFICATES / "ca.pem")),
        verify=verify,
    )


def _refuse_plain_tcp(hosts: tuple[Host, ...], given: Mapping[str, Any], tls: TlsSettings | None) -> None:
    """Who reaches an API without TLS is root on this machine: Docker's way to ask for it is to say --tls=false."""
    if tls is not None or "tls" in given or "tlsverify" in given:
        return
    for host in hosts:
        if isinstance(host, TcpHost):
            raise ConfigError(
                f"--host {host}: without TLS everybody who reaches this address is root on this machine: use "
                "--tlsverify with --tlscacert, --tlscert and --tlskey, or allow it explicitly with --tls=false"
            )


def _container_defaults(given: Mapping[str, Any]) -> ContainerDefaults:
    for key, words in (
        ("default-ipc-mode", ("private", "shareable")),
        ("default-cgroupns-mode", ("private", "host")),
    ):
        if given.get(key, words[0]) not in words:
            raise ConfigError(f"{key}: {given[key]}: use {' or '.join(words)}")
    for address in (*given.get("dns", ()), given.get("ip", "0.0.0.0")):
        _checked_address(address)
    return ContainerDefaults(
        log_driver=given.get("log-driver", "json-file"),
        log_options=given.get("log-opts", {}),
        ulimits=tuple(_ulimit(name, limit) for name, limit in given.get("default-ulimits", {}).items()),
        shm_size=_size("default-shm-size", given.get("default-shm-size", 0)),
        ipc_mode=given.get("default-ipc-mode", ""),
        cgroupns_mode=given.get("default-cgroupns-mode", ""),
        runtime=given.get("default-runtime", ""),
        init=given.get("init", False),
        no_new_privileges=given.get("no-new-privileges", False),
        seccomp_profile=_profile(given.get("seccomp-profile", "")),
        dns=tuple(given.get("dns", ())),
        dns_options=tuple(given.get("dns-opts", ())),
        dns_search=tuple(given.get("dns-search", ())),
        publish_address=given.get("ip", ""),
    )


def _bridge(given: Mapping[str, Any]) -> BridgeDefaults:
    bip = given.get("bip", "")
    try:
        if bip:
            ipaddress.IPv4Interface(bip)
        pools = tuple(
            AddressPool(str(pool["base"]), int(pool["size"]))
            for pool in given.get("default-address-pools", ())
        )
        for pool in pools:
            if not ipaddress.IPv4Network(pool.base).prefixlen <= pool.size <= 30:
                raise ValueError(f"size {pool.size} does not fit into {pool.base}")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"invalid bip or default-address-pools: {error}: write 10.1.0.1/16, base and size"
        ) from error
    mtu = given.get("mtu", 0)
    if mtu and not 576 <= mtu <= 65535:
        raise ConfigError(f"invalid mtu: {mtu}: must be 576 to 65535")
    subnet6, ipv6 = given.get("fixed-cidr-v6", ""), given.get("ipv6", False)
    try:
        if subnet6 and ipaddress.IPv6Network(subnet6).prefixlen > IPV6_PREFIX_MAX:
            raise ValueError(f"{subnet6} has no room for containers")
    except ValueError as error:
        raise ConfigError(f"invalid fixed-cidr-v6: {error}: write a subnet such as fd00:1::/64") from error
    if subnet6 and not ipv6:
        raise ConfigError('fixed-cidr-v6 needs "ipv6": true')
    return BridgeDefaults(
        bip=bip, mtu=mtu, pools=pools, icc=given.get("icc", True), ipv6=ipv6, fixed_cidr_v6=subnet6
    )


def _ulimit(name: str, limit: object) -> DefaultUlimit:
    if not isinstance(limit, dict) or not {"Soft", "Hard"} <= set(limit) <= {"Name", "Soft", "Hard"}:
        raise ConfigError(
            f'default-ulimits: {name}: must be {{"Name": "{name}", "Soft": NUMBER, "Hard": NUMBER}}'
        )
    soft, hard = limit["Soft"], limit["Hard"]
    if not (type(soft) is int and type(hard) is int) or (soft > hard != -1):
        raise ConfigError(
            f"default-ulimits: {name}: ulimit soft limit must be less than or equal to hard limit"
        )
    return DefaultUlimit(name, soft, hard)


def _profile(profile: str) -> str:
    """The JSON of a file; the words builtin and unconfined stay."""
    if profile in ("", "builtin", "unconfined"):
        return profile
    try:
        return Path(profile).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"opening seccomp profile ({profile}) failed: {error}") from error


def _size(key: str, value: int | str) -> int:
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ConfigError(f"{key}: invalid size: '{value}': use a number with k, m or g, such as 64m")
    return int(match[1]) * _UNITS[match[2].lower()]


def _mirror(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(
            f"invalid mirror: \"{url}\": no scheme specified: must use either 'https://' or 'http://'"
        )
    if parts.query or parts.fragment or parts.username:
        raise ConfigError(f'invalid mirror: "{url}": no user, query or fragment may be in it')
    return url.rstrip("/") + "/"


def _key_values(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple("=".join(_pair(key, text)) for text in given.get(key, ()))


def _pair(key: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise ConfigError(f"{BY_KEY[key].flags[-1]} {text}: must be KEY=VALUE")
    return name, value


def _checked_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(f"{text} is not an ip address: write one such as 10.0.0.1") from error


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
