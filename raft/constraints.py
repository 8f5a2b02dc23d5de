"""Placement constraints: their syntax, parsed once for validation and for the scheduler's filter.

A constraint is `KEY==VALUE` or `KEY!=VALUE`. Keys: node.id, node.hostname, node.role, node.ip (an address
or CIDR), node.platform.os, node.platform.arch, node.labels.NAME, engine.labels.NAME. Values are compared
without regard to case. Pure; knows no nodes.
"""

from __future__ import annotations

import re

from raft.errors import InvalidArgument
from raft.objects.base import Record

_KEY = re.compile(r"^[a-z0-9]([a-z0-9\-_.]*[a-z0-9])?$", re.IGNORECASE)
_VALUE = re.compile(r"^[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+$", re.IGNORECASE)
_PLAIN_KEYS = frozenset(
    {"node.id", "node.hostname", "node.role", "node.ip", "node.platform.os", "node.platform.arch"}
)
_LABEL_PREFIXES = ("node.labels.", "engine.labels.")


class Constraint(Record, frozen=True):
    """`equal` False is `!=`. `key` keeps the case of a label's name."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"


def parse(text: str) -> Constraint:
    """Raises InvalidArgument with Docker's wording."""
    for operator in ("==", "!="):
        key, found, value = text.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.match(key) or not _known(key):
            raise InvalidArgument(f"key '{key}' is invalid")
        if not _VALUE.match(value):
            raise InvalidArgument(f"value '{value}' is invalid")
        return Constraint(key=key, equal=operator == "==", value=value)
    raise InvalidArgument("constraint expected one operator from ==, !=")


def _known(key: str) -> bool:
    lowered = key.lower()
    return lowered in _PLAIN_KEYS or any(
        lowered.startswith(prefix) and len(lowered) > len(prefix) for prefix in _LABEL_PREFIXES
    )
