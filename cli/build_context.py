"""The build context as an archive: a folder without what .dockerignore leaves out, and a Dockerfile from anywhere.

The Dockerfile and .dockerignore are always sent: the daemon needs them, and takes them out again when they are left
out. Owners are not sent. The archive goes to a temporary file first, so that a file that cannot be read is an
error before anything is asked of the daemon.
"""

from __future__ import annotations

import gzip
import io
import os
import secrets
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

from cli.errors import UsageError
from cli.ignore import IgnorePatterns

DOCKERFILE = "Dockerfile"
IGNORE_FILE = ".dockerignore"
_ARCHIVE_MAGICS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_TAR_MAGIC_AT = 257


def pack_folder(folder: Path, dockerfile: str, *, compress: bool) -> tuple[IO[bytes], str]:
    """(the archive, the name of the Dockerfile in it). `dockerfile`: a path, "-" for stdin, "" for the usual one."""
    if not folder.is_dir():
        raise UsageError(
            f'unable to prepare context: path "{folder}" not found', hint="name a folder, a URL or -"
        )
    ignore_text = _ignore_text(folder)
    name, outside = _place_of(folder, dockerfile)
    if outside is not None:
        name = f".dockerfile.{secrets.token_hex(10)}"
        ignore_text = f"{ignore_text}\n{name}\n" + (
            "" if (folder / IGNORE_FILE).exists() else f"{IGNORE_FILE}\n"
        )
    target: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    packed = gzip.GzipFile(fileobj=target, mode="wb", mtime=0) if compress else target
    try:
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add_files(archive, folder, IgnorePatterns(ignore_text), {name, IGNORE_FILE}, outside is not None)
            if outside is not None:
                _add_text(archive, name, outside)
                _add_text(archive, IGNORE_FILE, ignore_text.encode())
        if compress:
            packed.close()
    except OSError as error:
        target.close()
        raise UsageError(f"cannot read the build context: {error.strerror}: {error.filename}") from error
    target.seek(0)
    return target, name


def pack_stdin(source: IO[bytes]) -> IO[bytes]:
    """A context that is an archive is sent as it comes; anything else is a Dockerfile without a context."""
    target: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's to close
    head = source.read(512)
    if head.startswith(_ARCHIVE_MAGICS) or head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        target.write(head)
        while block := source.read(1 << 20):
            target.write(block)
    else:
        with tarfile.open(fileobj=target, mode="w|") as archive:
            _add_text(archive, DOCKERFILE, head + source.read())
    target.seek(0)
    return target


def _ignore_text(folder: Path) -> str:
    try:
        return (folder / IGNORE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {folder / IGNORE_FILE}: {error}") from error


def _place_of(folder: Path, dockerfile: str) -> tuple[str, bytes | None]:
    """(its name in the context, None), or ("", its content) when it lies outside."""
    if dockerfile == "-":
        import sys

        return "", sys.stdin.buffer.read()
    if not dockerfile:
        lower = not (folder / DOCKERFILE).exists() and (folder / DOCKERFILE.lower()).exists()
        return DOCKERFILE.lower() if lower else DOCKERFILE, None
    path = Path(dockerfile)
    if not path.is_absolute() and not path.exists():
        path = folder / dockerfile
    try:
        inside = os.path.relpath(path.parent.resolve() / path.name, folder.resolve())
        return (inside, None) if not inside.startswith("..") else ("", path.read_bytes())
    except OSError as error:
        raise UsageError(f"unable to evaluate the Dockerfile path: {dockerfile}: {error.strerror}") from error


def _add_files(
    archive: tarfile.TarFile, root: Path, patterns: IgnorePatterns, always: set[str], replaces_ignore: bool
) -> None:
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        inside = "" if relative == "." else f"{relative}/"
        for name in sorted((*folders, *files)):
            path = inside + name
            if path == IGNORE_FILE and replaces_ignore:
                continue
            if path in always or not patterns.excludes(path):
                _add_file(archive, f"{folder}/{name}", path)
        folders[:] = [
            name
            for name in sorted(folders)
            if not patterns.excludes(inside + name)
            or patterns.takes_back
            or any(needed.startswith(f"{inside}{name}/") for needed in always)
        ]


def _add_file(archive: tarfile.TarFile, source: str, path: str) -> None:
    info: Any = archive.gettarinfo(source, path)
    if info is None:  # a socket
        return
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = int(info.mtime)
    if info.isreg():
        with open(source, "rb") as file:
            archive.addfile(info, file)
    else:
        archive.addfile(info)


def _add_text(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o600
    archive.addfile(info, io.BytesIO(content))
