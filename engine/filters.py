"""The filters of `docker ps` and of `docker container prune`. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from engine.container import Container
from engine.errors import InvalidParameter

KNOWN = (
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)
PRUNE_KNOWN = ("label", "label!", "until")


def container_filter(
    filters: Mapping[str, list[str]], find: Callable[[str], Container]
) -> Callable[[Container], bool]:
    """A predicate for all filters at once. InvalidParameter names an unknown one."""
    for key in filters:
        if key not in KNOWN:
            raise InvalidParameter(f"invalid filter '{key}'")
    references = {key: [find(ref) for ref in filters.get(key, ())] for key in ("before", "since")}

    def matches(container: Container) -> bool:
        for key, values in filters.items():
            if not values:
                continue
            if key in references and not _by_time(container, key, references[key]):
                return False
            if key not in references and not _matches(container, key, values):
                return False
        return True

    return matches


def prune_filter(filters: Mapping[str, list[str]]) -> Callable[[Container], bool]:
    """Which containers a prune may take. `until`: Unix seconds. InvalidParameter names an unknown filter."""
    for key in filters:
        if key not in PRUNE_KNOWN:
            raise InvalidParameter(f"invalid filter '{key}'")
    wanted, unwanted = filters.get("label", ()), filters.get("label!", ())
    until = min((float(value) for value in filters.get("until", ())), default=math.inf)

    def matches(container: Container) -> bool:
        if not all(_has_label(container.labels, value) for value in wanted):
            return False
        if unwanted and all(_has_label(container.labels, value) for value in unwanted):
            return False
        return container.created_at < until

    return matches


def _by_time(container: Container, key: str, others: list[Container]) -> bool:
    if key == "before":
        return all(container.created_at < other.created_at for other in others)
    return all(container.created_at > other.created_at for other in others)


def _matches(container: Container, key: str, values: list[str]) -> bool:
    if key == "id":
        return any(container.id.startswith(value) for value in values)
    if key == "name":
        return any(value.removeprefix("/") in container.name for value in values)
    if key == "label":
        return all(_has_label(container.labels, value) for value in values)
    if key == "status":
        return str(container.state.status) in values
    if key == "exited":
        return (
            container.state.finished_at > 0
            and not container.is_running
            and str(container.state.exit_code) in values
        )
    if key == "ancestor":
        return any(
            value in (container.image, f"{container.image}:latest", container.image_id)
            or container.image == f"{value}:latest"
            or container.image_id.removeprefix("sha256:").startswith(value)
            for value in values
        )
    if key == "health":
        health = container.state.health
        return (health.status if health else "none") in values
    if key == "volume":
        return any(value in (m.name, m.target, m.source) for m in container.mounts for value in values)
    if key == "network":
        return any(value in container.endpoints or value == container.network_mode for value in values)
    if key == "is-task":
        is_task = "com.docker.swarm.task.id" in container.labels
        return is_task == (values[0] in ("true", "1"))
    ports = container.config.exposed_ports if key == "expose" else container.host_config.port_bindings
    return any(value in (port, port.partition("/")[0]) for port in ports or {} for value in values)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    return name in labels and (not separator or labels[name] == value)
