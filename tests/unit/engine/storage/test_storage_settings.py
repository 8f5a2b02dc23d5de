"""What people write about storage: sizes, options, names of drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.storage.btrfs import parse_bytes
from engine.storage.choice import choose_driver, parse_options
from engine.storage.driver import open_driver
from engine.storage.file_system import file_system_name, is_mount_point


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("8M", 8 << 20),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        ("1 TB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes("size", text) == size


@pytest.mark.parametrize("text", ["", "-1", "many", "1x", "1..5g", "g"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"of btrfs\.min_space: use a number"):
        parse_bytes("btrfs.min_space", text)


def test_options() -> None:
    assert parse_options(["Btrfs.Min_Space=1G", "a=b=c"]) == {"btrfs.min_space": "1G", "a": "b=c"}


@pytest.mark.parametrize("name", ["aufs", "devicemapper"])
def test_drivers_of_the_past_say_what_replaces_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"overlay \(the default\) replaces it"):
        choose_driver(tmp_path, name)


def test_an_option_that_nobody_takes(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"dm\.basesize=1G: btrfs\.min_space is the only option"):
        choose_driver(tmp_path, "", ["dm.basesize=1G"])


def test_the_failure_of_a_trial_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter):
        open_driver("vfs", tmp_path / "vfs", {"x": "y"})
    assert not (tmp_path / "vfs").exists()


def test_the_table_of_mounts() -> None:
    assert file_system_name(Path("/proc/self")) == "proc"
    assert is_mount_point(Path("/proc")) and not is_mount_point(Path("/proc/self"))
