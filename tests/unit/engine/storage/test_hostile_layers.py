"""Layers that nobody vouches for: bombs, damaged and impossible entries."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidParameter
from engine.storage.layer_tree import LayerUnpacker

TIB = 1 << 40


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid = len(content), os.getuid(), os.getgid()
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def unpack(folder: Path, *members: bytes) -> LayerUnpacker:
    unpacker = LayerUnpacker(folder, "apply")
    unpacker.unpack(io.BytesIO(b"".join(members) + bytes(1024)))
    return unpacker


def sparse(name: str, size: int) -> bytes:
    """A file of `size` bytes of which the last five are there (GNU's form 1.0)."""
    table = b"1\n%d\n5\n" % (size - 5)
    content = table.ljust(512, b"\0") + b"tail!"
    headers = {"major": "1", "minor": "0", "name": name, "realsize": str(size)}
    return member("x", content, pax_headers={f"GNU.sparse.{key}": value for key, value in headers.items()})


def test_a_sparse_file_stays_sparse(tmp_path: Path) -> None:
    unpack(tmp_path, sparse("bomb", TIB))
    status = (tmp_path / "bomb").stat()
    assert status.st_size == TIB and status.st_blocks * 512 < 1 << 20
    with (tmp_path / "bomb").open("rb") as file:
        file.seek(TIB - 5)
        assert file.read() == b"tail!"
    assert (tmp_path / "bomb").unlink() is None


def test_a_file_larger_than_any_file_is_the_layers_fault(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="layer"):
        unpack(tmp_path, sparse("bomb", 1 << 63))


@pytest.mark.parametrize(
    "entry",
    [
        member("x", type=b"Z"),
        member("d", type=tarfile.CHRTYPE, devmajor=0o7777777, devminor=0o7777777),
        member("t", b"x", pax_headers={"mtime": "nan"}),
        member("/".join("d" * 3000), b"x"),
        member("n" * 300, b"x"),
        member("h", type=tarfile.LNKTYPE, linkname="../../../etc/passwd"),
        member("h", type=tarfile.LNKTYPE, linkname="nosuch"),
    ],
    ids=["type", "device", "time", "depth", "name", "link out", "link to nothing"],
)
def test_what_cannot_be_made_is_the_layers_fault(tmp_path: Path, entry: bytes) -> None:
    with pytest.raises(InvalidParameter, match=r"layer|archive entry"):
        unpack(tmp_path, entry)


def test_a_header_that_wants_all_memory_is_refused(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        info = tarfile.TarInfo("h")
        info.type, info.size = kind, 1 << 33
        with pytest.raises(InvalidParameter, match="extended header"):
            unpack(tmp_path, info.tobuf(tarfile.GNU_FORMAT), bytes(4096))


def test_long_names_without_end_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    with pytest.raises(InvalidParameter, match="not a valid tar archive"):
        unpack(tmp_path, (info.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 5000)


def test_rubbish_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="bad header"):
        unpack(tmp_path, member("a", b"x"), b"rubbish".ljust(512, b"!"), member("b", b"x"))


def test_memory_does_not_grow_with_the_number_of_entries(tmp_path: Path) -> None:
    entry = member("d", type=tarfile.DIRTYPE, mode=0o755)
    unpack(tmp_path, entry)
    tracemalloc.start()
    try:
        unpack(tmp_path, *([entry] * 3000))
        assert tracemalloc.get_traced_memory()[1] < len(entry) * 3000 * 3 + 1_500_000
    finally:
        tracemalloc.stop()
