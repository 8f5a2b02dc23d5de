"""Docker's list filters: which keys a kind of object has, and when an object passes them.

Values of one key are alternatives, keys must all match; `label` values must all match. Ids and names match
by prefix, as Docker's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from raft.errors import InvalidArgument
from raft.objects.base import ObjectRecord

R = TypeVar("R", bound=ObjectRecord)
Filters = Mapping[str, list[str]]
Test = Callable[[R, list[str]], bool]


def passing(objects: Iterable[R], filters: Filters, tests: Mapping[str, Test[R]]) -> list[R]:
    """The objects that pass, oldest first. Raises InvalidArgument for a key without a test."""
    for key in filters:
        if key not in tests:
            raise InvalidArgument(f"invalid filter '{key}'")
    used = [(tests[key], values) for key, values in filters.items() if values]
    found = [obj for obj in objects if all(test(obj, values) for test, values in used)]
    return sorted(found, key=lambda obj: (obj.meta.created_at, obj.id))


def by_id(obj: ObjectRecord, values: list[str]) -> bool:
    return has_prefix(obj.id, values)


def has_prefix(text: str, values: list[str]) -> bool:
    return any(text.startswith(value) for value in values)


def has_labels(labels: Mapping[str, str], values: list[str]) -> bool:
    """Every value is `key` or `key=value`."""
    for wanted in values:
        key, has_value, value = wanted.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    return True


def one_of(key: str, allowed: Iterable[str], values: list[str]) -> set[str]:
    """The values, if all are known words. Raises InvalidArgument."""
    words = set(allowed)
    for value in values:
        if value not in words:
            raise InvalidArgument(f"invalid filter '{key}={value}'")
    return set(values)
