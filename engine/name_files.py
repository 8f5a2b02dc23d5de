"""The content of a container's /etc/hosts and /etc/resolv.conf. Pure but for reading the host's own files."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.container import Container
from engine.errors import InvalidParameter
from engine.networks import Sandbox

EMBEDDED_DNS = "127.0.0.11"
# Where systemd-resolved listens, and where it writes the servers that it asks.
_STUB_DNS = "127.0.0.53"
_LOCALHOST = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
)


class HostFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What containers inherit; a missing file is empty."""

    hosts: str = ""
    resolv: str = ""

    @classmethod
    def read(cls, etc: Path = Path("/etc"), run: Path = Path("/run")) -> HostFiles:
        resolv = _text(etc / "resolv.conf")
        if _nameservers(resolv) == [_STUB_DNS]:
            resolv = _text(run / "systemd/resolve/resolv.conf") or resolv
        return cls(hosts=_text(etc / "hosts"), resolv=resolv)


def hosts_text(
    container: Container,
    hostname: str,
    sandbox: Sandbox | None,
    inherited: HostFiles,
    links: Iterable[tuple[str, str]] = (),
) -> str:
    """The host's own file in its network, else localhost; then --add-host, links, and the container's addresses.

    `links`: (address, names) of linked containers.
    """
    endpoints = sandbox.endpoints if sandbox else ()
    is_host = container.network_mode == "host"
    text = (inherited.hosts if is_host else "") or _LOCALHOST
    lines = [text if text.endswith("\n") else f"{text}\n"]
    gateway = next((endpoint.gateway for endpoint in endpoints if endpoint.gateway), "127.0.0.1")
    for entry in container.host_config.extra_hosts or ():
        name, address = parse_extra_host(entry)
        lines.append(f"{address or gateway}\t{name}\n")
    lines += [f"{address}\t{names}\n" for address, names in links if address]
    names = own_names(container, hostname)
    lines += [f"{address}\t{names}\n" for address in addresses_of(sandbox)]
    return "".join(lines)


def own_names(container: Container, hostname: str) -> str:
    domain = container.config.domainname
    return f"{hostname}.{domain} {hostname}" if domain else hostname


def addresses_of(sandbox: Sandbox | None) -> list[str]:
    """Of all its interfaces, of both families."""
    endpoints = sandbox.endpoints if sandbox else ()
    return [
        cidr.partition("/")[0] for endpoint in endpoints for cidr in (endpoint.cidr, endpoint.cidr6) if cidr
    ]


def resolv_text(container: Container, sandbox: Sandbox | None, inherited: HostFiles) -> str:
    """--dns, --dns-search and --dns-option over the host's file; our own server where networks have names."""
    host = container.host_config
    servers = list(host.dns or ())
    if not servers:
        servers = _nameservers(inherited.resolv)
        if container.network_mode != "host":
            servers = [server for server in servers if _is_reachable_from_inside(server)]
    search = list(host.dns_search or ()) or _values(inherited.resolv, "search")
    options = list(host.dns_options or ()) or _values(inherited.resolv, "options")
    if sandbox is not None and sandbox.embedded_dns:
        servers = [EMBEDDED_DNS]
        if not any(option.startswith("ndots:") for option in options):
            options.append("ndots:0")
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def parse_extra_host(entry: str) -> tuple[str, str]:
    """`name:address` -> (name, address); the address is "" for host-gateway."""
    name, separator, address = entry.partition(":")
    if name.strip() and separator and address == "host-gateway":
        return name, ""
    try:
        ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise InvalidParameter(
            f'bad format for add-host: "{entry}": invalid IP address "{address}"'
        ) from error
    if not name or name.split() != [name]:
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    return name, address.removeprefix("[").removesuffix("]")


def _nameservers(text: str) -> list[str]:
    """One for each line; a comment may follow."""
    lines = [line.split() for line in text.splitlines()]
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _is_reachable_from_inside(server: str) -> bool:
    """Not what is no address, nor what means another interface or loopback inside the container."""
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return not address.is_loopback and getattr(address, "scope_id", None) is None


def _values(text: str, keyword: str) -> list[str]:
    return [
        word
        for line in text.splitlines()
        if (words := line.split()) and words[0] == keyword
        for word in words[1:]
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
