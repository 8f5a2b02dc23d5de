"""The filters of `docker ps` and of pruning containers. Pure: what else must be known comes in as `Lookups`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from engine.container import Container, Status
from engine.errors import InvalidParameter, NotFound
from engine.filter_values import check_filters, has_label, is_spared, matches_pattern, moment, truth
from engine.networks import Network, Sandbox

LISTING = (
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)
ISOLATION = ("default", "process", "hyperv")
PRUNING = ("label", "label!", "until")
HEALTH = ("none", "starting", "healthy", "unhealthy")
_PORTS = re.compile(r"(\d+)(?:-(\d+))?(?:/(\w+))?", re.ASCII)
Predicate = Callable[[Container], bool]


class Lookups(msgspec.Struct, frozen=True, kw_only=True):
    """`container` and `network` raise NotFound; `image_family` is the ids of an image and of all that stand on it."""

    container: Callable[[str], Container]
    image_family: Callable[[str], Collection[str]]
    network: Callable[[str], Network]
    sandbox: Callable[[str], Sandbox | None]


def listing_filter(filters: Mapping[str, list[str]], lookups: Lookups) -> Predicate:
    """A predicate for all filters at once. InvalidParameter names a filter or a value that is not known."""
    check_filters(filters, LISTING)
    predicates = [_predicate(key, values, lookups) for key, values in filters.items() if values]
    ports = {key: filters[key] for key in ("publish", "expose") if filters.get(key)}
    if ports:
        predicates.append(_by_port(ports, lookups))
    return lambda container: all(matches(container) for matches in predicates)


def prune_filter(filters: Mapping[str, list[str]], now: float) -> Predicate:
    """Which containers may go; `now` in Unix seconds, for durations of `until`."""
    check_filters(filters, PRUNING)
    limits = [moment(value, now) for value in filters.get("until", ())]

    def matches(container: Container) -> bool:
        return (
            all(container.created_at < limit for limit in limits)
            and all(has_label(container.labels, wanted) for wanted in filters.get("label", ()))
            and not is_spared(container.labels, filters.get("label!", ()))
        )

    return matches


def _predicate(key: str, values: list[str], lookups: Lookups) -> Predicate:
    if key in ("publish", "expose"):
        return lambda container: True  # together: they are alternatives
    if key in ("before", "since"):
        times = [lookups.container(value).created_at for value in values]
        if key == "before":
            return lambda container: all(container.created_at < time for time in times)
        return lambda container: all(container.created_at > time for time in times)
    if key == "ancestor":
        family = {image for value in values for image in lookups.image_family(value)}
        return lambda container: container.image_id in family
    if key == "network":
        return _by_network(values, lookups)
    if key == "is-task":
        wanted = truth(key, values)
        return lambda container: ("com.docker.swarm.task.id" in container.labels) == wanted
    _check_values(key, values)
    return lambda container: _matches(container, key, values)


def _check_values(key: str, values: Sequence[str]) -> None:
    known: Collection[str] = {
        "status": tuple(Status),
        "health": HEALTH,
        "isolation": ISOLATION,
    }.get(key, values)
    for value in values:
        if value not in known or (key == "exited" and not value.removeprefix("-").isdecimal()):
            raise InvalidParameter(f"invalid filter '{key}={value}'")


def _matches(container: Container, key: str, values: list[str]) -> bool:
    state = container.state
    if key == "id":
        return any(container.id.startswith(value) for value in values)
    if key == "name":
        names = (container.name, f"/{container.name}")
        return any(matches_pattern(name, value) for name in names for value in values)
    if key == "label":
        return all(has_label(container.labels, value) for value in values)
    if key == "status":
        return str(state.status) in values
    if key == "exited":
        is_down = state.started_at > 0 and not state.status.is_up
        return is_down and state.exit_code in [int(value) for value in values]
    if key == "isolation":
        return "default" in values  # the only one outside Windows
    if key == "health":
        return (state.health.status if state.health else "none") in values
    return any(value in (m.name, m.target, m.source) for m in container.mounts for value in values)


def _by_network(values: list[str], lookups: Lookups) -> Predicate:
    wanted = set(values)
    for value in values:
        try:
            network = lookups.network(value)
        except NotFound:
            continue
        wanted |= {network.id, network.spec.name}

    def matches(container: Container) -> bool:
        attached = {*container.endpoints, *(endpoint.network for endpoint in container.task_endpoints)}
        return bool(wanted & (attached | {container.network_mode}))

    return matches


def _by_port(wanted: Mapping[str, list[str]], lookups: Lookups) -> Predicate:
    """`publish` looks at the host's ports, `expose` at the container's; one match of either is enough."""
    ranges = {key: [_port_range(key, value) for value in values] for key, values in wanted.items()}

    def is_wanted(key: str, number: int, protocol: str) -> bool:
        return any(first <= number <= last and protocol == kind for first, last, kind in ranges.get(key, ()))

    def matches(container: Container) -> bool:
        sandbox = lookups.sandbox(container.id)
        return any(is_wanted("expose", *port) for port in _exposed(container)) or any(
            is_wanted("publish", publish.host_port, publish.protocol)
            or is_wanted("expose", publish.container_port, publish.protocol)
            for publish in (sandbox.ports if sandbox else ())
        )

    return matches


def _exposed(container: Container) -> Iterator[tuple[int, str]]:
    for port in container.config.exposed_ports or {}:
        number, _, protocol = port.partition("/")
        if number.isdecimal():
            yield int(number), protocol or "tcp"


def _port_range(key: str, value: str) -> tuple[int, int, str]:
    """`80`, `80/udp`, `8000-8010/tcp`."""
    match = _PORTS.fullmatch(value)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if match is None or not first <= last < 65536:
        raise InvalidParameter(
            f"invalid filter '{key}={value}': use port, port/protocol or first-last/protocol"
        )
    return first, last, match[3] or "tcp"
