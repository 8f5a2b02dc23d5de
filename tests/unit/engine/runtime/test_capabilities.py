from __future__ import annotations

import pytest

from engine.errors import InvalidParameter
from engine.runtime import capabilities
from engine.runtime.capabilities import DEFAULT, NUMBERS, container_capabilities

EVERYTHING = (1 << len(NUMBERS)) - 1


def test_default_is_dockers_set() -> None:
    names = container_capabilities(available=EVERYTHING)
    assert capabilities.mask_of(names) == 0xA80425FB  # CapBnd of a container of Docker
    assert sorted(names) == sorted(DEFAULT)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["net_admin"], [], {*DEFAULT, "CAP_NET_ADMIN"}),
        ([], ["CAP_KILL"], {*DEFAULT} - {"CAP_KILL"}),
        ([], ["ALL"], set()),
        (["CHOWN"], ["all"], {"CAP_CHOWN"}),
        (["ALL"], [], set(NUMBERS)),
        (["ALL"], ["SYS_ADMIN"], set(NUMBERS) - {"CAP_SYS_ADMIN"}),
        (["ALL"], ["ALL"], set(NUMBERS)),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], expected: set[str]) -> None:
    assert set(container_capabilities(add=add, drop=drop, available=EVERYTHING)) == expected


def test_what_the_host_lacks_is_left_out() -> None:
    without = EVERYTHING & ~(1 << NUMBERS["CAP_SYS_RESOURCE"])
    names = container_capabilities(privileged=True, available=without)
    assert set(names) == set(NUMBERS) - {"CAP_SYS_RESOURCE"}


def test_unknown_name() -> None:
    with pytest.raises(InvalidParameter, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        container_capabilities(add=["FLY"], available=EVERYTHING)


def test_masks_ignore_names_of_younger_kernels() -> None:
    assert capabilities.mask_of(["CAP_KILL", "CAP_FROM_THE_FUTURE"]) == 1 << 5
