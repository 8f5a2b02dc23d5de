from __future__ import annotations

from pathlib import Path

import pytest

from engine.devices import block_device, device_rule
from engine.errors import InvalidParameter


def test_rules() -> None:
    assert device_rule("c 1:3 rw") == {"allow": True, "type": "c", "access": "rw", "major": 1, "minor": 3}
    assert device_rule("a *:* rwm") == {"allow": True, "type": "a", "access": "rwm"}
    assert device_rule("b 8:* r") == {"allow": True, "type": "b", "access": "r", "major": 8}


@pytest.mark.parametrize("text", ["", "c 1:3", "x 1:3 rwm", "c 1 rwm", "c 1:3 rwx", "c 1:3 rwm "])
def test_a_rule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"invalid device cgroup rule format: '{text}'"):
        device_rule(text)


def test_only_block_devices_have_rates(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="/dev/null: not a block device"):
        block_device("/dev/null")
    with pytest.raises(InvalidParameter, match="No such file"):
        block_device(str(tmp_path / "none"))
