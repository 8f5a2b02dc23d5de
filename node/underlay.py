"""Which of this machine's addresses the other nodes should use."""

from __future__ import annotations

import ipaddress
import socket

import msgspec

from node.config import ConfigError, NodeConfig, split_host_port
from node.identity import NodeIdentity
from raft.errors import InvalidArgument

PROBE_PORT = 9


def choose_address(toward: str = "") -> str:
    """The source address on the way to `toward`, or the only address there is.

    Nothing is sent: connecting a UDP socket only asks the routing table. LookupError says what to give.
    """
    if toward:
        with socket.socket(socket.AF_INET6 if ":" in toward else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((toward, PROBE_PORT))
            except OSError as error:
                raise LookupError(f"no route to {toward}: {error.strerror}; give --advertise-addr") from error
            return str(probe.getsockname()[0])
    addresses = _host_addresses()
    if len(addresses) == 1:
        return addresses[0]
    if not addresses:
        raise LookupError("this machine has no address but loopback: give --advertise-addr")
    raise LookupError(
        "could not choose an IP address to advertise since this system has multiple addresses "
        f"({', '.join(addresses)}) - specify one with --advertise-addr"
    )


def _host_addresses() -> list[str]:
    """IPv4 addresses that are not loopback, from the kernel's own routing table of local addresses."""
    found: list[str] = []
    address = ""
    with open("/proc/net/fib_trie") as table:
        for line in table:
            words = line.split()
            if words[0] in ("|--", "+--"):
                address = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"] and not address.startswith("127."):
                found.append(address)
    return sorted(set(found))


def own_address(config: NodeConfig, advertise: str, listen: str, toward: str = "") -> tuple[str, int]:
    """This node's address for the others, and the port it listens on. Raises InvalidArgument."""
    try:
        listen_host, port = split_host_port(listen or "0.0.0.0", config.listen_port)
        text = advertise or config.advertise_address
        if text:
            return split_host_port(text, port)
        if not ipaddress.ip_address(listen_host).is_unspecified:
            return listen_host, port
        return choose_address(toward), port
    except (ConfigError, LookupError) as error:
        raise InvalidArgument(str(error)) from error


def followed(identity: NodeIdentity, config: NodeConfig) -> NodeIdentity:
    """The identity at the address that the daemon was started with, when that is another than before.

    An address that was given to `swarm init` or `swarm join` stays until the daemon's own settings change.
    Raises InvalidArgument.
    """
    address, port = identity.address, identity.port
    if identity.configured_port not in (0, config.listen_port):
        port = config.listen_port
    if config.advertise_address not in ("", identity.configured_address) and identity.configured_port:
        address, port = own_address(config, config.advertise_address, f"0.0.0.0:{port}")
    return msgspec.structs.replace(
        identity,
        address=address,
        port=port,
        configured_address=config.advertise_address,
        configured_port=config.listen_port,
    )


def remote_address(config: NodeConfig, text: str) -> str:
    """host:port of a manager that was named with or without a port. Raises InvalidArgument."""
    try:
        host, port = split_host_port(text, config.listen_port)
    except ConfigError as error:
        raise InvalidArgument(str(error)) from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
