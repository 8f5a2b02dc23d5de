from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.config import SecretFile
from engine.errors import EngineFailure
from engine.memory_files import MemoryFiles


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryFiles:
    """On a plain folder that passes for the tmpfs."""
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "secrets")
    (tmp_path / "secrets").mkdir()
    return MemoryFiles(tmp_path / "secrets")


def secret(target: str, data: bytes, mode: int = 0o444) -> SecretFile:
    return SecretFile(target=target, data=data, uid=os.getuid(), gid=os.getgid(), mode=mode)


def test_files_have_their_content_and_mode(files: MemoryFiles) -> None:
    files.write("c1", [secret("/run/secrets/key", b"k" * 500_000, 0o400), secret("/etc/app.conf", b"")])
    paths = files.paths("c1")
    assert [target for _, target in paths] == ["/run/secrets/key", "/etc/app.conf"]
    assert [Path(path).read_bytes() for path, _ in paths] == [b"k" * 500_000, b""]
    assert [stat.S_IMODE(Path(path).stat().st_mode) for path, _ in paths] == [0o400, 0o444]
    assert stat.S_IMODE(Path(paths[0][0]).parent.stat().st_mode) == 0o700


def test_removal_takes_the_files_of_one_container(files: MemoryFiles, tmp_path: Path) -> None:
    for container in ("c1", "c2"):
        files.write(container, [secret("/run/secrets/key", b"x")])
    files.remove("c1")
    assert files.paths("c1") == ()
    assert [folder.name for folder in (tmp_path / "secrets").iterdir()] == ["c2"]


def test_files_of_a_creation_that_was_cut_off_go_at_the_next_start(
    files: MemoryFiles, tmp_path: Path
) -> None:
    for container in ("known", "half-made"):
        files.write(container, [secret("/run/secrets/key", b"x")])
    MemoryFiles(tmp_path / "secrets").recover({"known"})
    assert [folder.name for folder in (tmp_path / "secrets").iterdir()] == ["known"]


def test_what_does_not_fit_is_told_by_name(files: MemoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, uid: int, gid: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchown", full)
    with pytest.raises(EngineFailure, match=r"cannot keep /run/secrets/key .* No space left"):
        files.write("c1", [secret("/run/secrets/key", b"x")])
    assert files.paths("c1") == ()
