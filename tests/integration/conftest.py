"""A storage driver of each kind, on a file system that suits it; what was mounted for it is gone afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.storage.driver import StorageDriver, open_driver

DRIVERS = ("overlay", "fuse-overlayfs", "btrfs", "vfs")
BTRFS_BYTES = 256 << 20


@pytest.fixture(scope="session")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In a file behind a loop device, which the kernel takes away with the mount."""
    folder = tmp_path_factory.mktemp("btrfs")
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(BTRFS_BYTES)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-R", str(mounted)], check=True)
        image.unlink()


@pytest.fixture(params=DRIVERS)
def driver_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def storage_root(request: pytest.FixtureRequest, driver_name: str, tmp_path: Path) -> Iterator[Path]:
    if driver_name == "btrfs":
        yield request.getfixturevalue("btrfs") / tmp_path.name
        return
    yield tmp_path / "storage"
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{tmp_path}/"):
            subprocess.run(["umount", "-l", line.split()[4]], check=True)


@pytest.fixture
def driver(driver_name: str, storage_root: Path) -> StorageDriver:
    return open_driver(driver_name, storage_root)
