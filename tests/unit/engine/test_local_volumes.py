from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.local_volumes import MS_BIND, MS_RDONLY, is_mount, is_mounted, parsed_flags
from engine.name_locks import NameLocks
from engine.runtime.syscalls import MS_REC, MS_SHARED


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", (0, 0, "")),
        ("bind", (MS_BIND, 0, "")),
        ("rbind,ro,rshared", (MS_BIND | MS_REC | MS_RDONLY, MS_SHARED | MS_REC, "")),
        ("ro,rw", (0, 0, "")),
        ("size=100m,uid=1000,nosuid", (2, 0, "size=100m,uid=1000")),
        ("addr=10.0.0.1,vers=4", (0, 0, "addr=10.0.0.1,vers=4")),
    ],
)
def test_options_of_mount(text: str, parsed: tuple[int, int, str]) -> None:
    assert parsed_flags(text) == parsed


def test_what_is_a_mount_and_what_is_mounted(tmp_path: Path) -> None:
    assert is_mount({"type": "tmpfs", "device": "tmpfs"})
    assert not is_mount({})
    assert is_mounted(Path("/proc"))
    assert not is_mounted(tmp_path)


def test_work_on_one_name_is_done_one_after_the_other() -> None:
    locks, order = NameLocks(), []
    inside, going_on = threading.Event(), threading.Event()

    def first() -> None:
        with locks.held("a"), locks.held("a"):
            inside.set()
            going_on.wait(10)
            order.append("first")

    def second() -> None:
        with locks.held("a"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    with locks.held("b"):
        order.append("another name")
    going_on.set()
    for thread in threads:
        thread.join(10)
    assert order == ["another name", "first", "second"]
