"""What every driver must do alike, on the real file system: attributes, stacking, changes, crashes."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import InvalidParameter, NotFound
from engine.storage.driver import ADDED, DELETED, MODIFIED, StorageDriver, open_driver
from engine.storage.tree_copy import copy_tree
from engine.volumes import copy_up

pytestmark = pytest.mark.root

CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


class Layer:
    """An archive that is made member by member."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, data: bytes | None = b"", **fields: object) -> Layer:
        """A file, or with data None whatever `type` says (a folder by default)."""
        info = tarfile.TarInfo(name)
        info.mode, info.mtime = (0o755 if data is None else 0o644), 1_000_000_000
        if data is None:
            info.type = tarfile.DIRTYPE
        info.size = len(data or b"")
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info, io.BytesIO(data or b""))
        return self

    def finish(self) -> io.BytesIO:
        self._tar.close()
        self._buffer.seek(0)
        return self._buffer


def chain(number: int) -> str:
    return f"sha256:{number:064x}"


def stack(driver: StorageDriver, *layers: Layer) -> str:
    """The chain id of the top layer."""
    parent = None
    for number, layer in enumerate(layers):
        driver.add_layer(chain(number), parent, layer.finish())
        parent = chain(number)
    assert parent is not None
    return parent


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("name", ["aufs", "devicemapper", "zfs", ""])
def test_drivers_that_are_not_here_name_those_that_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"overlay.* vfs"):
        open_driver(name, tmp_path / "storage")


def test_attributes_arrive_as_they_were_packed(driver: StorageDriver) -> None:
    top = stack(
        driver,
        Layer()
        .add("bin", None, mode=0o1777, uid=5, gid=6)
        .add(
            "bin/su",
            b"x",
            mode=0o4755,
            uid=1000,
            gid=2000,
            pax_headers={
                "SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"),
                "SCHILY.xattr.user.note": "hi",
            },
        )
        .add("bin/hard", None, type=tarfile.LNKTYPE, linkname="bin/su")
        .add("bin/soft", None, type=tarfile.SYMTYPE, linkname="/etc/passwd")
        .add("null", None, type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        .add("pipe", None, type=tarfile.FIFOTYPE, mode=0o600),
    )
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        su, folder = (root / "bin/su").stat(), (root / "bin").stat()
        assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid, su.st_nlink) == (0o4755, 1000, 2000, 2)
        assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_gid) == (0o1777, 5, 6)
        assert (su.st_mtime, folder.st_mtime) == (1_000_000_000, 1_000_000_000)
        assert os.getxattr(root / "bin/su", "security.capability") == CAPABILITY
        assert os.getxattr(root / "bin/su", "user.note") == b"hi"
        assert (root / "bin/hard").samefile(root / "bin/su")
        assert str((root / "bin/soft").readlink()) == "/etc/passwd"
        null = (root / "null").lstat()
        assert stat.S_ISCHR(null.st_mode) and null.st_rdev == os.makedev(1, 3)
        assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)


def test_a_folder_left_out_of_an_archive_keeps_the_attributes_from_below(driver: StorageDriver) -> None:
    top = stack(
        driver,
        Layer().add("tmp", None, mode=0o1777, uid=7, gid=8).add("tmp/deep", None, mode=0o700),
        Layer().add("tmp/deep/file", b"x").add("new/file", b"x"),
    )
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        status = (root / "tmp").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1777, 7, 8)
        assert stat.S_IMODE((root / "tmp/deep").stat().st_mode) == 0o700
        assert stat.S_IMODE((root / "new").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "second",
    [
        lambda: Layer().add("d", None).add("d/.wh..wh..opq").add("d/new", b"x"),
        lambda: Layer().add("d", None).add("d/new", b"x").add("d/.wh..wh..opq"),
        lambda: Layer().add(".wh.d").add("d", None).add("d/new", b"x"),
    ],
    ids=["opaque first", "opaque last", "whited out and made again"],
)
def test_a_replaced_folder_shows_nothing_from_below(
    driver: StorageDriver, second: Callable[[], Layer]
) -> None:
    top = stack(driver, Layer().add("d", None).add("d/old", b"x").add("d/sub/old", b"x"), second())
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        assert tree(root) == ["d", "d/new"]


def test_kinds_replace_each_other(driver: StorageDriver) -> None:
    top = stack(
        driver,
        Layer()
        .add("a", None)
        .add("a/x", b"x")
        .add("b", b"x")
        .add("c", None, type=tarfile.SYMTYPE, linkname="a"),
        Layer().add("a", b"now a file").add("b", None).add("b/x", b"x").add("c", None).add("c/y", b"x"),
    )
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        assert tree(root) == ["a", "b", "b/x", "c", "c/y"]
        assert (root / "a").read_bytes() == b"now a file"


def test_a_tall_stack(driver: StorageDriver) -> None:
    """So many layers that their full paths would not fit into the options of one mount."""
    top = stack(
        driver, *(Layer().add(f"f{number}", b"x").add("last", b"%d" % number) for number in range(60))
    )
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        assert len(tree(root)) == 61 and (root / "last").read_bytes() == b"59"


def test_containers_do_not_see_each_other(driver: StorageDriver) -> None:
    top = stack(driver, Layer().add("f", b"image"))
    for name in ("c1", "c2"):
        driver.create_rootfs(name, top)
    with driver.mounted("c1") as root:
        (root / "f").write_text("changed")
    with driver.mounted("c2") as root:
        assert (root / "f").read_text() == "image"
    with driver.mounted("c1") as root:
        assert (root / "f").read_text() == "changed"
    driver.remove_rootfs("c1")
    driver.remove_rootfs("c1")
    with pytest.raises(NotFound, match="container c1 has no root file system"):
        driver.rootfs("c1")


def test_changes_are_told_alike(driver: StorageDriver) -> None:
    top = stack(
        driver,
        Layer()
        .add("etc", None)
        .add("etc/a", b"1")
        .add("etc/b", b"1")
        .add("gone", b"1")
        .add("same", None)
        .add("same/x", b"1"),
        Layer().add("etc/.wh.b").add(".wh.gone"),
    )
    driver.create_rootfs("c1", top)
    assert driver.changes("c1") == []
    with driver.mounted("c1") as root:
        (root / "etc/a").write_text("22")
        (root / "etc/b").write_text("the image had hidden it")
        (root / "gone").mkdir()
        (root / "gone/new").write_text("x")
        (root / "same/x").unlink()
    assert driver.changes("c1") == [
        ("/etc", MODIFIED),
        ("/etc/a", MODIFIED),
        ("/etc/b", ADDED),
        ("/gone", ADDED),
        ("/gone/new", ADDED),
        ("/same", MODIFIED),
        ("/same/x", DELETED),
    ]


def test_a_layer_appears_whole_or_not_at_all(driver: StorageDriver, storage_root: Path) -> None:
    data = Layer().add("a", b"x" * 100_000).add("b", b"x" * 100_000).finish().getvalue()
    with pytest.raises(InvalidParameter):
        driver.add_layer(chain(0), None, io.BytesIO(data[:150_000]))
    assert not driver.has_layer(chain(0))
    assert list((storage_root / "tmp").iterdir()) == []
    assert driver.add_layer(chain(0), None, io.BytesIO(data)) == 200_000
    assert driver.add_layer(chain(0), None, io.BytesIO(b"is not read: it is here")) == 0


def test_what_a_crash_left_is_removed_and_named(driver: StorageDriver, storage_root: Path) -> None:
    top = stack(driver, Layer().add("f", b"x"))
    (storage_root / "tmp/half/diff").mkdir(parents=True)
    (storage_root / "tmp/half/diff/f").write_text("x")
    said = driver.recover({top}, set())
    assert any("half" in line for line in said)
    assert list((storage_root / "tmp").iterdir()) == [] and driver.has_layer(top)


def test_nothing_stays_mounted(driver: StorageDriver, storage_root: Path) -> None:
    driver.create_rootfs("c1", stack(driver, Layer().add("f", b"x")))
    with pytest.raises(RuntimeError, match="in the middle"):
        with driver.mounted("c1") as root:
            (root / "f").write_text("y")
            raise RuntimeError("in the middle")
    assert f"{storage_root}/" not in Path("/proc/self/mountinfo").read_text()


def test_a_copied_tree_is_the_same_tree(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "d/e").mkdir(parents=True)
    (source / "d/file").write_text("x")
    os.chown(source / "d/file", 1000, 2000)
    (source / "d/file").chmod(0o4750)
    os.link(source / "d/file", source / "d/e/hard")
    (source / "soft").symlink_to("/nowhere")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(source / "d", "user.note", b"hi")
    os.utime(source / "d", (1, 1_000_000_000))
    source.chmod(0o700)
    target.mkdir()
    copy_tree(source, target)
    assert tree(target) == ["d", "d/e", "d/e/hard", "d/file", "null", "soft"]
    copied = (target / "d/file").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_uid, copied.st_gid) == (0o4750, 1000, 2000)
    assert (target / "d/e/hard").samefile(target / "d/file")
    assert str((target / "soft").readlink()) == "/nowhere"
    assert (target / "null").lstat().st_rdev == os.makedev(1, 3)
    assert os.getxattr(target / "d", "user.note") == b"hi"
    assert (target / "d").stat().st_mtime == 1_000_000_000
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_copy_up_fills_a_volume_from_the_image(driver: StorageDriver, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    top = stack(driver, Layer().add("data", None, mode=0o750, uid=33).add("data/f", b"x", uid=33))
    driver.create_rootfs("c1", top)
    with driver.mounted("c1") as root:
        copy_up(root / "data", volume)
    assert (volume / "f").read_bytes() == b"x" and (volume / "f").stat().st_uid == 33
    assert (volume.stat().st_uid, stat.S_IMODE(volume.stat().st_mode)) == (33, 0o750)


def test_usage_is_what_the_container_wrote(driver: StorageDriver) -> None:
    driver.create_rootfs("c1", stack(driver, Layer().add("big", b"x" * 100_000)))
    assert driver.usage("c1") == 0
    with driver.mounted("c1") as root:
        (root / "own").write_bytes(b"y" * 1000)
        os.link(root / "own", root / "again")
    assert driver.usage("c1") == 1000


def test_a_removed_container_tells_the_layers_that_it_stood_on(driver: StorageDriver) -> None:
    driver.create_rootfs("c1", stack(driver, Layer().add("f", b"x"), Layer().add("g", b"x")))
    assert not driver.remove_layer(chain(0)) and not driver.remove_layer(chain(1))
    assert driver.remove_rootfs("c1") == [chain(0), chain(1)]
    assert driver.remove_rootfs("c1") == []
    assert driver.remove_layer(chain(1)) and driver.remove_layer(chain(0))
    assert not driver.has_layer(chain(0))
    with pytest.raises(NotFound, match="is not here"):
        driver.create_rootfs("c2", chain(1))


def test_what_is_mounted_for_a_running_container_goes_at_its_end(
    driver: StorageDriver, storage_root: Path
) -> None:
    driver.create_rootfs("c1", stack(driver, Layer().add("f", b"x")))
    table = Path("/proc/self/mountinfo")
    upper = driver.rootfs("c1").upper
    assert (f"{storage_root}/" in table.read_text()) == driver.mounts_on_host
    if driver.mounts_on_host:
        with driver.mounted("c1") as root:
            (root / "f").write_text("y")
        assert Path(upper, "f").read_text() == "y", "still mounted"
    driver.release_rootfs("c1")
    driver.release_rootfs("c1")
    assert f"{storage_root}/" not in table.read_text()


@pytest.mark.parametrize("options", [{"dm.basesize": "1G"}, {"size": "many"}, {"size": "0"}])
def test_options_of_a_container_that_cannot_be_served_are_refused_by_name(
    driver: StorageDriver, storage_root: Path, options: dict[str, str]
) -> None:
    with pytest.raises(InvalidParameter, match="dm.basesize" if "dm.basesize" in options else "size"):
        driver.create_rootfs("c1", None, options)
    assert list((storage_root / "containers").iterdir()) == []
