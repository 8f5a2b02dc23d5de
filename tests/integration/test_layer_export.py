"""What a container wrote, as a layer: unpacked over the same image it gives the same files again."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from engine.storage.driver import StorageDriver, open_driver
from engine.storage.layer_export import write_layer
from tests.images import tar_of

pytestmark = pytest.mark.root

BASE = {
    "etc": None,
    "etc/a": b"a",
    "etc/b": b"b",
    "gone/x": b"x",
    "anew/old": b"old",
    "deep/er/file": b"f",
    "link": "etc",
}
CHAIN = "sha256:" + "1" * 64


@pytest.fixture(params=["overlay", "vfs", "fuse-overlayfs"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> StorageDriver:
    driver = open_driver(request.param, tmp_path)
    driver.add_layer(CHAIN, None, io.BytesIO(tar_of(BASE)))  # type: ignore[arg-type]
    return driver


def change(root: Path) -> None:
    (root / "etc/a").write_text("changed")
    os.chown(root / "etc/a", 5, 6)
    (root / "etc/a").chmod(0o4750)
    (root / "etc/b").unlink()
    for path in (root / "gone", root / "anew"):
        for entry in path.iterdir():
            entry.unlink()
        path.rmdir()
    (root / "anew").mkdir(mode=0o700)
    (root / "anew/new").write_text("new")
    (root / "one").write_text("linked")
    os.link(root / "one", root / "two")
    (root / "sym").symlink_to("nowhere")
    (root / "deep/er").chmod(0o711)
    os.mkfifo(root / "pipe")
    os.setxattr(root / "one", "user.note", b"\xff\x00binary")


def shown(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, links, content)
    return found


def test_a_layer_holds_every_change(driver: StorageDriver) -> None:
    driver.create_rootfs("c" * 64, CHAIN)
    with driver.mounted("c" * 64) as root:
        change(root)
        expected = shown(root)
    layer = io.BytesIO()
    assert write_layer(driver, "c" * 64, layer)
    merged = driver.places("c" * 64).get("MergedDir", "/nowhere")
    assert not os.path.ismount(merged), "a container that does not run was left mounted"
    layer.seek(0)
    above = "sha256:" + "2" * 64
    driver.add_layer(above, CHAIN, layer)  # type: ignore[arg-type]
    driver.create_rootfs("d" * 64, above)
    with driver.mounted("d" * 64) as root:
        assert shown(root) == expected
        assert os.getxattr(root / "two", "user.note") == b"\xff\x00binary"
    layer.seek(0)
    with tarfile.open(fileobj=layer) as archive:
        names = archive.getnames()
    assert "etc/.wh.b" in names and "deep/er/file" not in names and not any("gone/" in name for name in names)
    for name in ("c" * 64, "d" * 64):
        driver.remove_rootfs(name)


def test_nothing_written_is_no_layer(driver: StorageDriver) -> None:
    driver.create_rootfs("c" * 64, CHAIN)
    with driver.mounted("c" * 64) as root:
        (root / "etc/a").read_text()
    assert not write_layer(driver, "c" * 64, io.BytesIO())
    driver.remove_rootfs("c" * 64)


def test_without_an_image_everything_is_the_layer(driver: StorageDriver) -> None:
    driver.create_rootfs("c" * 64, None)
    with driver.mounted("c" * 64) as root:
        (root / "a").mkdir()
        (root / "a/b").write_text("b")
    layer = io.BytesIO()
    assert write_layer(driver, "c" * 64, layer)
    layer.seek(0)
    with tarfile.open(fileobj=layer) as archive:
        assert archive.getnames() == ["a", "a/b"]
    driver.remove_rootfs("c" * 64)
