"""Tests that run on both sides, each with what is expected of it."""

from __future__ import annotations

import pytest


def on_both(names: str, *, stock: object, ours: object) -> pytest.MarkDecorator:
    """The fixture `world` is PySyncObj, then ours; `names` get the values that belong to it."""
    wanted = names.split(", ")

    def case(side: str, values: object) -> tuple[object, ...]:
        return (side, *values) if len(wanted) > 1 and isinstance(values, tuple) else (side, values)

    return pytest.mark.parametrize(
        ("world", *wanted),
        [case("stock", stock), case("ours", ours)],
        indirect=["world"],
        ids=["stock", "ours"],
    )
