"""kill -9 at every step of what a driver does, and what is left of it after the next start: all or nothing."""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.storage.driver import StorageDriver, open_driver

pytestmark = pytest.mark.root

BASE, TOP = "sha256:" + "a" * 64, "sha256:" + "b" * 64
STEPS_MAX = 2000
# What Python announces before it happens: the calls that change a file system, or start the program that does.
STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chown", "os.chmod", "os.utime", "os.link")
STEPS += ("os.symlink", "fcntl.ioctl", "subprocess.Popen", "shutil.rmtree", "os.setxattr", "open")


def archive(*names: str) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"12345"))
    buffer.seek(0)
    return buffer


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that dies at that step; False when it ended before."""
    child = os.fork()
    if child == 0:
        passed = 0

        def count(event: str, _: object) -> None:
            nonlocal passed
            if event in STEPS:
                passed += 1
                if passed == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the work itself failed"
    return os.WIFSIGNALED(status)


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def restarted(name: str, root: Path, layers: set[str], containers: set[str]) -> StorageDriver:
    """What the engine does at its start; after it nothing may be there that it does not know."""
    driver = open_driver(name, root)
    driver.recover(layers, containers)
    assert files(root / "tmp") == []
    assert set(files(root / "containers")) == containers
    assert f"{root}/tmp" not in Path("/proc/self/mountinfo").read_text()
    return driver


def test_unpacking_a_layer(driver: StorageDriver, driver_name: str, storage_root: Path) -> None:
    driver.add_layer(BASE, None, archive("base"))
    for step in range(1, STEPS_MAX):
        was_killed = killed_at(step, lambda: driver.add_layer(TOP, BASE, archive("one", "two", "d/.wh.x")))
        again = restarted(driver_name, storage_root, {BASE, TOP}, set())
        if again.has_layer(TOP):
            again.create_rootfs("c1", TOP)
            with again.mounted("c1") as root:
                assert files(root) == ["base", "d", "one", "two"]
            again.remove_rootfs("c1")
            again.remove_layer(TOP)
        if not was_killed:
            assert step > 10, "not one step was interrupted"
            break
    assert files(storage_root / "layers") == [BASE[7:]]


def test_making_a_container(driver: StorageDriver, driver_name: str, storage_root: Path) -> None:
    driver.add_layer(BASE, None, archive("base"))
    for step in range(1, STEPS_MAX):
        was_killed = killed_at(step, lambda: driver.create_rootfs("c1", BASE))
        again = restarted(driver_name, storage_root, {BASE}, set())
        assert again.remove_layer(BASE), "nobody stands on it"
        again.add_layer(BASE, None, archive("base"))
        if not was_killed:
            assert step > 3
            break


@pytest.mark.parametrize("what", ["container", "layer"])
def test_removing(driver: StorageDriver, driver_name: str, storage_root: Path, what: str) -> None:
    driver.add_layer(BASE, None, archive("base"))
    driver.create_rootfs("c2", BASE)
    for step in range(1, STEPS_MAX):
        driver.add_layer(TOP, BASE, archive("one", "d/two"))
        if what == "container":
            driver.create_rootfs("c1", TOP)
            with driver.mounted("c1") as root:
                (root / "own").touch()
        removal = (
            (lambda: driver.remove_rootfs("c1"))
            if what == "container"
            else (lambda: driver.remove_layer(TOP))
        )
        was_killed = killed_at(step, removal)
        again = restarted(driver_name, storage_root, {BASE}, {"c2"})
        assert files(storage_root / "layers") == [BASE[7:]]
        with again.mounted("c2") as root:
            assert files(root) == ["base"]
        if not was_killed:
            assert step > 2
            break
