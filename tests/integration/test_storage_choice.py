"""Which driver a daemon takes, on real file systems; the quotas of btrfs; fuse-overlayfs when its process dies."""

from __future__ import annotations

import errno
import io
import os
import secrets
import subprocess
import tarfile
from pathlib import Path

import pytest

from engine.errors import EngineFailure, InvalidParameter
from engine.storage.btrfs import BtrfsDriver
from engine.storage.choice import choose_driver
from engine.storage.driver import DriverUnusable, open_driver
from tests.conftest import processes

pytestmark = pytest.mark.root

CONTAINER = "fuse-test-" + secrets.token_hex(8)  # not a container of somebody else
LAYER = "sha256:" + "a" * 64


def one_file() -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("f"))
    buffer.seek(0)
    return buffer


def test_overlay_is_the_first_choice(tmp_path: Path) -> None:
    assert choose_driver(tmp_path).name == "overlay2"


@pytest.mark.parametrize("name", ["fuse-overlayfs", "overlay2"])
def test_the_driver_of_last_time_wins(tmp_path: Path, name: str) -> None:
    choose_driver(tmp_path, name).add_layer(LAYER, None, one_file())
    again = choose_driver(tmp_path)
    assert (again.name, again.has_layer(LAYER)) == (name, True)


def test_vfs_is_not_taken_because_of_what_it_left(tmp_path: Path) -> None:
    choose_driver(tmp_path, "vfs").add_layer(LAYER, None, one_file())
    assert choose_driver(tmp_path).name == "overlay2"


def test_two_drivers_of_last_time_need_a_word(tmp_path: Path) -> None:
    for name in ("overlay", "fuse-overlayfs"):
        choose_driver(tmp_path, name).add_layer(LAYER, None, one_file())
    with pytest.raises(
        InvalidParameter, match="several valid storage drivers: overlay, fuse-overlayfs; clean up"
    ):
        choose_driver(tmp_path)
    assert choose_driver(tmp_path, "overlay").name == "overlay2"


def test_a_driver_of_last_time_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "btrfs/layers/x").mkdir(parents=True)
    with pytest.raises(
        EngineFailure, match=r"prior storage driver btrfs failed: .* must be on a btrfs file system"
    ):
        choose_driver(tmp_path)


def test_over_overlay_the_next_one_serves(tmp_path: Path) -> None:
    """The kernel takes no upper directory that is on an overlay itself."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "merged")], check=True)
    try:
        with pytest.raises(
            DriverUnusable, match=r"'overlay2' is not supported over overlayfs .*fuse-overlayfs or vfs"
        ):
            choose_driver(tmp_path / "merged", "overlay")
        assert choose_driver(tmp_path / "merged").name == "fuse-overlayfs"
        assert not list((tmp_path / "merged/overlay/tmp").iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path / "merged")], check=True)


@pytest.mark.parametrize("name", ["overlay", "fuse-overlayfs", "vfs"])
def test_options_of_other_drivers_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"unknown option btrfs\.min_space"):
        choose_driver(tmp_path, name, ["btrfs.min_space=1G"])
    with pytest.raises(InvalidParameter, match="must be NAME=VALUE"):
        choose_driver(tmp_path, name, ["size"])


def test_overlay_says_what_a_size_would_need(tmp_path: Path) -> None:
    driver = choose_driver(tmp_path)
    with pytest.raises(InvalidParameter, match=r"over xfs with 'pquota' mount option \(this"):
        driver.create_rootfs("c1", None, {"size": "1G"})


def written(folder: Path, megabytes: int) -> int:
    """How many of them go in before the quota says no."""
    descriptor = os.open(folder / "big", os.O_WRONLY | os.O_CREAT)
    try:
        for _ in range(megabytes):
            os.write(descriptor, os.urandom(1 << 20))
            os.fsync(descriptor)
    except OSError as error:
        assert error.errno == errno.EDQUOT
    finally:
        os.close(descriptor)
    return (folder / "big").stat().st_size >> 20


def test_a_size_on_btrfs_holds(btrfs: Path) -> None:
    driver = choose_driver(btrfs / "quota", "", ["btrfs.min_space=4m"])
    assert driver.name == "btrfs" and ["Backing Filesystem", "btrfs"] in driver.status()
    driver.add_layer(LAYER, None, one_file())
    with pytest.raises(InvalidParameter, match=r"cannot be less than 4194304 bytes"):
        driver.create_rootfs("small", LAYER, {"size": "3m"})
    driver.create_rootfs("limited", LAYER, {"size": "8M"})
    driver.create_rootfs("free", LAYER)
    with driver.mounted("limited") as root:
        assert 4 <= written(root, 16) < 9
    with driver.mounted("free") as root:
        assert written(root, 16) == 16
    for container in ("limited", "free"):
        driver.remove_rootfs(container)


def test_a_subvolume_that_a_container_made_goes_with_it(btrfs: Path) -> None:
    driver = BtrfsDriver(btrfs / "nested")
    driver.create_rootfs("c1", None)
    with driver.mounted("c1") as root:
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(root / "own")], check=True)
        (root / "own/f").touch()
    driver.remove_rootfs("c1")
    assert not list((btrfs / "nested/tmp").iterdir()) and not list((btrfs / "nested/containers").iterdir())


def test_fuse_overlayfs_refuses_a_root_that_it_would_misread(tmp_path: Path) -> None:
    with pytest.raises(DriverUnusable, match="colon"):
        open_driver("fuse-overlayfs", tmp_path / "with:colon")


def test_fuse_overlayfs_is_mounted_anew_when_its_process_died(tmp_path: Path) -> None:
    folder = tmp_path / "with,comma and space"
    folder.mkdir()
    driver = open_driver("fuse-overlayfs", folder)
    driver.add_layer(LAYER, None, one_file())
    driver.create_rootfs(CONTAINER, LAYER)
    merged = Path(driver.rootfs(CONTAINER).upper)
    try:
        (merged / "mine").touch()
        for pid in processes(f"fuse-overlayfs|{CONTAINER}"):
            os.kill(pid, 9)
        merged = Path(driver.rootfs(CONTAINER).upper)
        assert sorted(path.name for path in merged.iterdir()) == ["f", "mine"]
    finally:
        driver.remove_rootfs(CONTAINER)
    assert str(merged) not in Path("/proc/self/mountinfo").read_text()
