"""`--link`: another container of this host under further names, and its address in variables. Pure.

As Docker's: on the default bridge the linked container must run at the start; its names stand in /etc/hosts, and its
exposed ports and environment come as ALIAS_* variables. On a network of the user the names stand in /etc/hosts too,
which follow when the linked container starts again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from engine.config import EndpointConfig, HostConfig
from engine.container import Container, Link
from engine.errors import Conflict, InvalidParameter, NotFound
from engine.networks import Sandbox

_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_OWN_VARIABLES = ("HOME", "PATH")


def parse_link(text: str) -> tuple[str, str]:
    """`NAME[:ALIAS]`, also as inspect shows it: `/NAME:/CONTAINER/ALIAS`."""
    name, _, alias = text.partition(":")
    name, alias = name.strip("/"), alias.rpartition("/")[2]
    if not name or not _ALIAS.fullmatch(alias or name) or ":" in alias:
        raise InvalidParameter(f"bad format for links: {text}: use NAME or NAME:ALIAS")
    return name, alias or name


def checked_links(host: HostConfig, find: Callable[[str], Container]) -> list[Link]:
    """The links of a new container; InvalidParameter names a container that is not there."""
    links: dict[str, Link] = {}
    for text in host.links or ():
        name, alias = parse_link(text)
        try:
            other = find(name)
        except NotFound as error:
            raise InvalidParameter(f"could not get container for {name}: {error}") from error
        if host.network_mode == "host" or other.network_mode == "host":
            raise InvalidParameter("conflicting options: host type networking can't be used with links")
        links[alias] = Link(container_id=other.id, alias=alias)
    return list(links.values())


def endpoint_links(wishes: Iterable[EndpointConfig], find: Callable[[str], Container]) -> list[Link]:
    """The links that a container's places on networks name."""
    texts = [text for wish in wishes for text in wish.links or ()]
    return checked_links(HostConfig(links=texts), find)


def without_link(ref: str, find: Callable[[str], Container]) -> Container:
    """`CONTAINER/ALIAS` -> the container, whose record is changed. NotFound when it has no such link."""
    parent, _, alias = ref.strip("/").rpartition("/")
    if not parent:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    container = find(parent)
    links = [link for link in container.links if link.alias != alias]
    if len(links) == len(container.links):
        raise NotFound(f"No such link: {alias} of container {container.name}")
    container.links = links
    asked = container.host_config.links or ()
    container.host_config.links = [text for text in asked if parse_link(text)[1] != alias] or None
    return container


def link_addresses(
    container: Container, alias: str, other: Container, sandbox: Sandbox | None
) -> tuple[str, str]:
    """(address, names) of a linked container for /etc/hosts; the address is "" when it has none."""
    names = dict.fromkeys((alias, other.short_id, other.name))
    endpoints = sandbox.endpoints if sandbox else ()
    shared = (e for e in endpoints if {e.network, e.network_name} & {*container.endpoints})
    endpoint = next(shared, None) or next(iter(endpoints), None)
    return (endpoint.cidr.partition("/")[0] if endpoint else ""), " ".join(names)


def link_environment(container: Container, alias: str, other: Container, address: str) -> Iterator[str]:
    """ALIAS_NAME, ALIAS_PORT..., ALIAS_ENV_...: what Docker gives on its default bridge."""
    prefix = alias.upper().replace("-", "_")
    yield f"{prefix}_NAME=/{container.name}/{alias}"
    exposed = [(*_port(port), port) for port in other.config.exposed_ports or {}]
    for position, (number, protocol, _) in enumerate(sorted(exposed)):
        url = f"{protocol}://{address}:{number}"
        if position == 0:
            yield f"{prefix}_PORT={url}"
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        yield f"{name}={url}"
        yield f"{name}_ADDR={address}"
        yield f"{name}_PORT={number}"
        yield f"{name}_PROTO={protocol}"
    for entry in other.config.env or ():
        name, _, value = entry.partition("=")
        if name not in _OWN_VARIABLES:
            yield f"{prefix}_ENV_{name}={value}"


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"
