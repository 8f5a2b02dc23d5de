"""Published ports: which are taken by whom, and which are free.

Owns the cluster-wide port numbers of ingress mode; host-mode ports belong to nodes and are the filters'
business. Invariant: one (protocol, number) is published through the ingress by at most one service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from raft import defaults
from raft.objects.service import Endpoint, EndpointMode, PortConfig, PublishMode, Service, ServiceSpec

Published = tuple[str, int]


def ingress_ports(service: Service) -> list[Published]:
    """What a service holds: as allocated, and as its spec demands."""
    allocated = service.endpoint.ports if service.endpoint else ()
    ports = (*allocated, *service.spec.endpoint.ports)
    return [(p.protocol, p.published) for p in ports if p.mode is PublishMode.INGRESS and p.published]


def has_ingress(spec: ServiceSpec) -> bool:
    return any(port.mode is PublishMode.INGRESS for port in spec.endpoint.ports)


def wants_vip(spec: ServiceSpec) -> bool:
    return spec.endpoint.mode is EndpointMode.VIP


def conflict(spec: ServiceSpec, service_id: str, services: Iterable[Service]) -> str:
    """Docker's sentence about the first wanted port that another service has; "" when all are free."""
    wanted = {(p.protocol, p.published): p.mode for p in spec.endpoint.ports if p.published}
    if not wanted:
        return ""
    for service in services:
        if service.id == service_id or service.pending_delete:
            continue
        allocated = service.endpoint.ports if service.endpoint else ()
        for port in (*service.spec.endpoint.ports, *allocated):
            mode = wanted.get((port.protocol, port.published)) if port.published else None
            # Host-mode ports of two services may share a number: they can be on different nodes.
            if mode is None or (mode is PublishMode.HOST and port.mode is PublishMode.HOST):
                continue
            kind = "an ingress port" if port.mode is PublishMode.INGRESS else "a host-published port"
            name = service.spec.annotations.name
            return f"port '{port.published}' is already in use by service '{name}' ({service.id}) as {kind}"
    return ""


def number(ports: Sequence[PortConfig], before: Endpoint | None, taken: set[Published]) -> list[PortConfig]:
    """The ports with numbers; one that was chosen before stays, 0 when none is free. Fills `taken`."""
    earlier = {}
    for wish, got in zip(before.spec.ports, before.ports, strict=False) if before else ():
        if not wish.published:
            earlier[wish.protocol, wish.target, wish.mode] = got.published
    numbered = []
    for port in ports:
        if port.published or port.mode is PublishMode.HOST:
            numbered.append(port)
            continue
        published = earlier.pop((port.protocol, port.target, port.mode), 0) or _free(port.protocol, taken)
        taken.add((port.protocol, published))
        numbered.append(msgspec.structs.replace(port, published=published))
    return numbered


def _free(protocol: str, taken: set[Published]) -> int:
    candidates = range(defaults.PUBLISHED_PORT_FIRST, defaults.PUBLISHED_PORT_LAST + 1)
    return next((port for port in candidates if (protocol, port) not in taken), 0)
