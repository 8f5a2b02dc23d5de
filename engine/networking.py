"""Network side of one container's life: its sandbox, its published ports, its name resolution files.

Translates the container's configuration into plain requests for the `NetworkProvider` and writes
/etc/hosts, /etc/hostname and /etc/resolv.conf into the container's folder.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Iterator

import msgspec

from engine.config import EndpointConfig, PortBinding
from engine.container import Container, Link
from engine.endpoint_wishes import endpoint_request
from engine.errors import Conflict, Forbidden, InvalidParameter, NotFound
from engine.links import link_addresses, link_environment
from engine.name_files import HostFiles, addresses_of, hosts_text, own_names, resolv_text
from engine.networks import EndpointRequest, NetworkProvider, Publish, Sandbox, SandboxRequest
from engine.settings import EngineSettings

# As Docker's: any user of a container may use low ports, and ping.
_OPEN_TO_ALL = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


class NetworkFiles(msgspec.Struct, frozen=True):
    """Host paths of the files that are shown in the container; "" is not shown."""

    hostname: str
    hosts: str
    resolv: str


class ContainerNetworking:
    """Makes and releases the network of containers; holds no state of its own."""

    def __init__(
        self,
        settings: EngineSettings,
        provider: NetworkProvider,
        find: Callable[[str], Container],
        everyone: Callable[[], Iterable[Container]] = tuple,
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._find = find
        self._everyone = everyone

    async def prepare(self, container: Container) -> str:
        """The network namespace for a start: a path, or "host". Everything else is attached already."""
        mode = container.network_mode
        if mode == "host":
            return "host"
        if mode.startswith("container:"):
            return self._shared_namespace(mode)
        request = self._request(container)
        sandbox = await self._provider.create_sandbox(request)
        return sandbox.netns_path

    async def release(self, container: Container) -> None:
        """Undo `prepare`; nothing happens when there is no sandbox."""
        if self._provider.sandbox(container.id) is not None:
            await self._provider.remove_sandbox(container.id)

    def sandbox(self, container: Container) -> Sandbox | None:
        return self._provider.sandbox(container.id)

    def write_files(self, container: Container, hostname: str) -> NetworkFiles:
        """Write the three files as they must be at this start."""
        mode = container.network_mode
        if mode.startswith("container:"):
            folder = self._settings.container_dir(self._find(mode.partition(":")[2]).id)
        else:
            folder = self._settings.container_dir(container.id)
            sandbox = None if mode == "host" else self.sandbox(container)
            inherited = HostFiles.read()
            hosts = hosts_text(container, hostname, sandbox, inherited, self._link_addresses(container))
            (folder / "hosts").write_text(hosts)
            (folder / "resolv.conf").write_text(resolv_text(container, sandbox, inherited))
        own = self._settings.container_dir(container.id) / "hostname"
        own.write_text(hostname + "\n")
        return NetworkFiles(str(own), str(folder / "hosts"), str(folder / "resolv.conf"))

    def link_environment(self, container: Container) -> list[str]:
        """ALIAS_* variables of the linked containers. Conflict when one does not run, where it has to."""
        environment: list[str] = []
        for link, other in self._linked(container):
            sandbox = self.sandbox(other)
            if container.network_mode == "bridge":
                if not other.is_running:
                    raise Conflict(f"Cannot link to a non running container: /{other.name} AS {link.alias}")
                address, _ = link_addresses(container, link.alias, other, sandbox)
                environment += link_environment(container, link.alias, other, address)
        return environment

    def refresh_links(self, container: Container) -> None:
        """`container` starts, perhaps with another address: who is linked to it learns of it, and nothing else in
        its file changes. Written in place, because the file is mounted in the container."""
        for other in self._everyone():
            if other.is_running and any(link.container_id == container.id for link in other.links):
                path = self._settings.container_dir(other.id) / "hosts"
                current = {names: address for address, names in self._link_addresses(other) if address}
                lines = (line.partition("\t") for line in path.read_text().splitlines())
                path.write_text("".join(f"{current.get(n, a)}{tab}{n}\n" for a, tab, n in lines))

    def update_hosts(self, container: Container, before: Sandbox | None) -> None:
        """Its networks have changed while it runs: their addresses go and come, what its user wrote stays."""
        folder, after = self._settings.container_dir(container.id), self.sandbox(container)
        path, old, new = folder / "hosts", addresses_of(before), addresses_of(after)
        lines = path.read_text().splitlines()
        kept = [line for line in lines if line.partition("\t")[0] not in {*old} - {*new}]
        names = own_names(container, (folder / "hostname").read_text().strip())
        kept += [f"{address}\t{names}" for address in new if address not in old]
        kept += [f"{a}\t{n}" for a, n in self._link_addresses(container) if a and f"{a}\t{n}" not in kept]
        path.write_text("".join(f"{line}\n" for line in kept))  # in place: it is mounted in the container

    def _linked(self, container: Container) -> Iterator[tuple[Link, Container]]:
        for link in container.links:
            with contextlib.suppress(NotFound):  # removed meanwhile
                yield link, self._find(link.container_id)

    def _link_addresses(self, container: Container) -> list[tuple[str, str]]:
        return [
            link_addresses(container, link.alias, other, self.sandbox(other))
            for link, other in self._linked(container)
        ]

    def _shared_namespace(self, mode: str) -> str:
        other = self._find(mode.partition(":")[2])
        if not other.is_running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return f"/proc/{other.state.pid}/ns/net"

    def _request(self, container: Container) -> SandboxRequest:
        host = container.host_config
        wished = {name: value for name, value in (host.sysctls or {}).items() if name.startswith("net.")}
        sysctls = {**_OPEN_TO_ALL, **wished}
        if container.network_mode == "none" or container.config.network_disabled:
            return SandboxRequest(id=container.id, name=container.name, sysctls=sysctls)
        endpoints = [self._endpoint(container, ref, wish) for ref, wish in container.endpoints.items()]
        endpoints += [
            EndpointRequest(network=e.network, cidr=e.cidr, mac=e.mac, aliases=e.aliases)
            for e in container.task_endpoints
        ]
        return SandboxRequest(
            id=container.id,
            name=container.name,
            endpoints=tuple(endpoints),
            publishes=tuple(publishes(container)),
            dns_servers=tuple(host.dns or ()),
            ndots_set=_has_ndots(host.dns_options or ()),
            sysctls=sysctls,
        )

    def _endpoint(self, container: Container, ref: str, wish: EndpointConfig) -> EndpointRequest:
        return endpoint_request(self._provider.find(ref).id, wish, self._provider)


def publishes(container: Container) -> Iterable[Publish]:
    """Every published port of the container. InvalidParameter names a bad one."""
    host = container.host_config
    bindings = dict(host.port_bindings or {})
    if host.publish_all_ports:
        for port in container.config.exposed_ports or {}:
            bindings.setdefault(port, [PortBinding()])
    for port, wishes in bindings.items():
        number, protocol = parse_port(port)
        for wish in wishes or [PortBinding()]:
            yield Publish(
                container_port=number,
                protocol=protocol,
                host_ip=_host_ip(wish.host_ip),
                host_port=_host_port(wish.host_port),
            )


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` -> (80, "tcp"); the protocol defaults to tcp."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp"):
        raise InvalidParameter(f"invalid port specification: {text}: protocol must be tcp or udp")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) < 65536:
        raise InvalidParameter(f"invalid port specification: {text}: port must be 1 to 65535")
    return int(number), protocol


def _host_ip(text: str) -> str:
    """ "" for every address; 0.0.0.0 and :: for every one of that family."""
    if not text:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidParameter(f"invalid IP address to publish at: {text}") from error


def _host_port(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise InvalidParameter(f'invalid port specification: "{text}": host port must be 0 to 65535')
    return int(text)


def _has_ndots(options: Iterable[str]) -> bool:
    return any(option.startswith("ndots:") for option in options)


def checked_networks(
    provider: NetworkProvider, mode: str, endpoints: dict[str, EndpointConfig]
) -> dict[str, EndpointConfig]:
    """The networks of a new container: NetworkMode's, then the others.

    That one is missing is said at the start, as Docker does: a client takes 404 of a creation for a missing image.
    """
    if mode in ("host", "none") or mode.startswith("container:"):
        return {}
    chosen = dict(endpoints)
    if mode not in chosen:
        known = next((ref for ref in chosen if _same_network(provider, ref, mode)), None)
        if known is None:
            chosen = {mode: EndpointConfig(), **chosen}
    for ref in chosen:
        with contextlib.suppress(NotFound):
            if provider.find(ref).spec.config_only:
                raise Forbidden(f"network {ref} is a configuration only: no container can be on it")
    return chosen


def _same_network(provider: NetworkProvider, first: str, second: str) -> bool:
    try:
        return provider.find(first).id == provider.find(second).id
    except NotFound:
        return False
