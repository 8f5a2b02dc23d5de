from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.runtime.user_namespaces import Remapping, check_kernel, parse_remapping, running_remapping


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "subuid").write_text(
        "# by hand\nsmall:100000:1000\ndockremap:100000:65536\nroot:500000:70000\n"
    )
    (tmp_path / "subgid").write_text("dockremap:200000:65536\n0:600000:65536\n")
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "remapping"),
    [
        ("", None),
        ("default", Remapping(uid=100_000, gid=200_000)),
        ("dockremap:dockremap", Remapping(uid=100_000, gid=200_000)),
        ("root", Remapping(uid=500_000, gid=600_000, uids=70_000)),
        ("0:dockremap", Remapping(uid=500_000, gid=200_000, uids=70_000)),
    ],
)
def test_settings(etc: Path, setting: str, remapping: Remapping | None) -> None:
    assert parse_remapping(setting, etc) == remapping


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (":", "invalid userns-remap"),
        ("root:", "invalid userns-remap"),
        ("nosuchuser", "add a line such as nosuchuser:100000:65536"),
        ("small", "65536 ids from above 0"),
    ],
)
def test_settings_that_cannot_be(etc: Path, setting: str, problem: str) -> None:
    with pytest.raises(InvalidParameter, match=problem):
        parse_remapping(setting, etc)


def test_a_host_without_the_files_is_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"dockremap:100000:65536 to .*/subuid"):
        parse_remapping("default", tmp_path)


def test_kernels() -> None:
    check_kernel("6.1.0-13-amd64")
    with pytest.raises(InvalidParameter, match=r"needs Linux 5\.19"):
        check_kernel("5.15.0")


def test_a_process_of_the_host_is_not_remapped() -> None:
    assert running_remapping(os.getpid()) is None
