"""All drivers under one suite, and archives that mean harm: on the real file system, as root."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from engine.errors import InvalidParameter
from engine.storage.driver import ADDED, DELETED, MODIFIED, StorageDriver

pytestmark = pytest.mark.root

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def layer(*entries: tuple[str, bytes | str | None]) -> io.BytesIO:
    """(name, content), (name, None) for a directory, ("link -> target", "") for links: -> symbolic, => hard."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in entries:
            path, arrow, target = name.partition(" -> " if " -> " in name else " => ")
            info = tarfile.TarInfo(path)
            info.mode = 0o755
            if arrow:
                info.type = tarfile.SYMTYPE if arrow == " -> " else tarfile.LNKTYPE
                info.linkname = target
                tar.addfile(info)
            elif content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                data = content if isinstance(content, bytes) else content.encode()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def test_layers_stack_and_whiteouts_hide(driver: StorageDriver) -> None:
    driver.add_layer(
        A, None, layer(("etc", None), ("etc/a", "1"), ("etc/b", "1"), ("old", None), ("old/x", "1"))
    )
    driver.add_layer(B, A, layer(("etc/a", "2"), ("etc/.wh.b", ""), ("old/y", "2"), ("old/.wh..wh..opq", "")))
    driver.create_rootfs("c1", B)
    with driver.mounted("c1") as root:
        assert (root / "etc/a").read_text() == "2"
        assert not (root / "etc/b").exists()
        assert sorted(p.name for p in (root / "old").iterdir()) == ["y"]


def test_changes_of_a_container(driver: StorageDriver) -> None:
    driver.add_layer(A, None, layer(("etc", None), ("etc/a", "1"), ("etc/b", "1")))
    driver.create_rootfs("c1", A)
    with driver.mounted("c1") as root:
        (root / "etc/a").write_text("changed")
        (root / "etc/b").unlink()
        (root / "new").write_text("12345")
    changes = dict(driver.changes("c1"))
    assert (changes["/etc/a"], changes["/etc/b"], changes["/new"]) == (MODIFIED, DELETED, ADDED)
    assert driver.usage("c1") >= 5
    driver.remove_rootfs("c1")
    assert driver.usage("c1") == 0


def test_recover_removes_what_nobody_knows(driver: StorageDriver) -> None:
    driver.add_layer(A, None, layer(("f", "1")))
    driver.add_layer(B, None, layer(("g", "1")))
    driver.create_rootfs("kept", A)
    driver.create_rootfs("orphan", A)
    driver.recover({A}, {"kept"})
    assert (driver.has_layer(A), driver.has_layer(B)) == (True, False)
    assert driver.rootfs("kept").upper
    with pytest.raises(Exception, match="no root file system"):
        driver.rootfs("orphan")


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ((("../escape", "x"),), "../escape"),
        ((("a/../../escape", "x"),), "a/../../escape"),
        ((("hard => ../../etc/passwd", ""),), "etc/passwd"),
        ((("hard => missing", ""),), "missing"),
        ((("d", None), ("hard => d", "")), "hard"),
        (((".wh...", ""),), ".wh..."),
        ((("n" * 300, "x"),), "n" * 300),
    ],
)
def test_hostile_entries_are_refused_and_leave_no_layer(
    driver: StorageDriver, storage_root: Path, entries: tuple[tuple[str, str], ...], named: str
) -> None:
    with pytest.raises(InvalidParameter, match=named.replace(".", r"\.")):
        driver.add_layer(A, None, layer(*entries))
    assert not driver.has_layer(A)
    assert not list(storage_root.rglob("escape"))


def test_links_lead_nowhere_outside(driver: StorageDriver, storage_root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(InvalidParameter, match="way"):
        driver.add_layer(A, None, layer((f"way -> {outside}", ""), ("way/planted", "x")))
    assert list(outside.iterdir()) == []
    driver.add_layer(B, None, layer(("up -> ../../../..", ""), ("up/t", "x")))
    driver.create_rootfs("c1", B)
    with driver.mounted("c1") as root:
        assert (root / "t").read_text() == "x"
    assert not (tmp_path / "t").exists() and not (storage_root.parent / "t").exists()


def test_hard_links_across_many_folders(driver: StorageDriver) -> None:
    """More folders than are kept open: every link still lands where it belongs."""
    entries: list[tuple[str, bytes | str | None]] = [("src", None), ("src/file", "content")]
    for number in range(300):
        entries += [(f"d{number}", None), (f"d{number}/own", "x"), (f"d{number}/link => src/file", "")]
    driver.add_layer(A, None, layer(*entries))
    driver.create_rootfs("c1", A)
    with driver.mounted("c1") as root:
        assert all((root / f"d{number}/link").read_text() == "content" for number in range(300))


def test_garbage_is_no_layer(driver: StorageDriver) -> None:
    with pytest.raises(InvalidParameter, match="tar"):
        driver.add_layer(A, None, io.BytesIO(b"garbage" * 1000))
