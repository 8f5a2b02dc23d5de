"""Placement constraints: `node.labels.rack == a`, `node.role != manager`, `node.ip == 10.0.0.0/8`.

Owns the grammar and its meaning for a node; raft.validate decides what a user may write. A constraint that
cannot be read matches no node, so that a task is never placed against its owner's will.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from raft.objects.node import Node

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """`key` in lower case except for the label's own name; `value` as written."""

    key: str
    equal: bool
    value: str


@lru_cache(maxsize=4096)
def parse(text: str) -> Constraint | None:
    """None when the text is not `key == value` or `key != value`."""
    for operator in ("==", "!="):
        key, found, value = text.partition(operator)
        if found:
            key, value = key.strip(), value.strip()
            return Constraint(_canonical(key), operator == "==", value) if key and value else None
    return None


def satisfied(constraints: tuple[str, ...], node: Node) -> bool:
    return all(_matches(parse(text), node) for text in constraints)


def normal_architecture(name: str) -> str:
    """x86_64 and amd64 are one architecture; Docker uses the second name."""
    return _ARCHITECTURES.get(name.lower(), name.lower())


def attribute(node: Node, key: str) -> str | None:
    """The node's value for a constraint or spread key; None for a key that does not exist. Lacking: ""."""
    if key.startswith(NODE_LABEL):
        return node.spec.annotations.labels.get(key.removeprefix(NODE_LABEL), "")
    if key.startswith(ENGINE_LABEL):
        return node.description.engine_labels.get(key.removeprefix(ENGINE_LABEL), "")
    match key:
        case "node.id":
            return node.id
        case "node.hostname":
            return node.description.hostname
        case "node.role":
            return node.role.value
        case "node.platform.os":
            return node.description.platform.os
        case "node.platform.arch":
            return normal_architecture(node.description.platform.architecture)
        case _:
            return None


def _canonical(key: str) -> str:
    for prefix in (NODE_LABEL, ENGINE_LABEL):
        if key.lower().startswith(prefix):
            return prefix + key[len(prefix) :]
    return key.lower()


def _matches(constraint: Constraint | None, node: Node) -> bool:
    if constraint is None:
        return False
    if constraint.key == "node.ip":
        return _in_range(node.status.address, constraint.value) is constraint.equal
    actual = attribute(node, constraint.key)
    if actual is None:
        return False
    wanted = constraint.value
    if constraint.key == "node.platform.arch":
        wanted = normal_architecture(wanted)
    return (actual.lower() == wanted.lower()) is constraint.equal


def _in_range(address: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
