"""What other runtimes are told, and how what they say is understood. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.foreign import check_runtime, foreign_spec
from engine.runtime.client import ContainerStart
from engine.runtime.replies import foreign_error
from engine.storage.driver import Rootfs


def started(netns: str) -> ContainerStart:
    linux = {"namespaces": [{"type": "mount"}], "maskedPaths": ["/proc/kcore"]}
    spec = {"ociVersion": "1.1.0", "root": {"path": "rootfs", "readonly": True}, "linux": linux}
    return ContainerStart(id="c1", spec=spec, rootfs=Rootfs(), netns=netns, cgroup="swarmctl/c1")


@pytest.mark.parametrize(
    ("netns", "network"),
    [("host", []), ("", [{"type": "network"}]), ("/run/n", [{"type": "network", "path": "/run/n"}])],
)
def test_the_configuration_is_whole(netns: str, network: list[dict[str, str]]) -> None:
    start = started(netns)
    made = foreign_spec(start, Path("/merged"))
    assert made["root"] == {"path": "/merged", "readonly": True}
    assert made["linux"]["namespaces"] == [{"type": "mount"}, *network]
    assert (made["linux"]["cgroupsPath"], made["linux"]["maskedPaths"]) == ("/swarmctl/c1", ["/proc/kcore"])
    assert start.spec["linux"] == {"namespaces": [{"type": "mount"}], "maskedPaths": ["/proc/kcore"]}, (
        "untouched"
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ("exec: /etc: Permission denied", 126),
        ("cannot set up cgroups", 128),
    ],
)
def test_exit_codes_of_what_a_runtime_says(text: str, code: int) -> None:
    error = foreign_error(text)
    assert error.exit_code == code
    assert "No such" not in error.message and "Permission" not in error.message, (
        "clients look for runc's spelling"
    )


def test_runtimes_that_are_unknown() -> None:
    for name in ("", "swarmctl"):
        check_runtime(name, {})
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: kata"):
        check_runtime("kata", {"kata": {}})
    check_runtime("kata", {"kata": {"path": "/usr/bin/kata"}})
