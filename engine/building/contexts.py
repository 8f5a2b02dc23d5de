"""The build context on this host: received, fetched or cloned into the build's own folder, and its Dockerfile.

Invariant: everything lies below the folder that the caller gave and will remove.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from engine.build_config import CLASSIC_ONLY
from engine.building import git
from engine.building.archives import is_archive, unpack
from engine.building.dockerfile import DOCKERFILE_BYTES_MAX
from engine.building.fetching import download, is_url
from engine.building.ignore import IgnorePatterns
from engine.building.sources import resolve_inside
from engine.completion import to_its_end
from engine.errors import InvalidParameter, NotImplementedHere

DOCKERFILE_NAME = "Dockerfile"


class BuildContext(msgspec.Struct, frozen=True):
    root: Path
    dockerfile: str


async def open_context(
    folder: Path, remote: str, dockerfile: str, body: AsyncIterator[bytes]
) -> BuildContext:
    """InvalidParameter when it cannot be had, or has no Dockerfile of that name."""
    root = folder / "context"
    if remote == "client-session":
        raise NotImplementedHere(CLASSIC_ONLY)
    if remote and git.is_git(remote):
        root = await git.clone(remote, root)
    else:
        archive = folder / "archive"
        await (_fetched(remote, archive) if remote else _received(body, archive))
        root.mkdir(mode=0o755)
        await to_its_end(lambda: _unpacked(archive, root, is_remote=bool(remote)))
    return await to_its_end(lambda: _opened(root, dockerfile, is_remote=bool(remote)))


async def _received(body: AsyncIterator[bytes], archive: Path) -> None:
    with archive.open("xb") as file:
        async for chunk in body:
            await asyncio.to_thread(file.write, chunk)


async def _fetched(remote: str, archive: Path) -> None:
    if not is_url(remote):
        raise InvalidParameter(f"invalid remote context {remote}: use http://, https:// or a git address")
    await download(remote, archive)


def _unpacked(archive: Path, root: Path, *, is_remote: bool) -> None:
    if is_remote and not is_archive(archive):
        archive.rename(root / DOCKERFILE_NAME)
        return
    with archive.open("rb") as file:
        unpack(file, root, "build context")
    archive.unlink()


def _opened(root: Path, dockerfile: str, *, is_remote: bool) -> BuildContext:
    name = dockerfile or DOCKERFILE_NAME
    if os.path.normpath(name).startswith(".."):
        raise InvalidParameter(f"the Dockerfile ({name}) must be within the build context")
    path = resolve_inside(root, name)
    if name == DOCKERFILE_NAME and not path.is_file():
        name = name.lower()
        path = resolve_inside(root, name)
    if not path.is_file():
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {dockerfile or DOCKERFILE_NAME}")
    if path.stat().st_size > DOCKERFILE_BYTES_MAX:
        raise InvalidParameter(f"the Dockerfile ({name}) is larger than {DOCKERFILE_BYTES_MAX >> 20} MiB")
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        raise InvalidParameter(f"the Dockerfile ({name}) cannot be empty")
    _leave_out(root, name, is_remote=is_remote)
    return BuildContext(root, text)


def _leave_out(root: Path, dockerfile: str, *, is_remote: bool) -> None:
    """A client has left out what .dockerignore names, except for the two files that the daemon needed."""
    ignore = root / ".dockerignore"
    if not ignore.is_file():
        return
    patterns = IgnorePatterns(ignore.read_text(encoding="utf-8", errors="replace"))
    if not is_remote:
        for name in (os.path.normpath(dockerfile), ".dockerignore"):
            if patterns.excludes(name):
                (root / name).unlink(missing_ok=True)
        return
    for folder, folders, files in os.walk(root, topdown=False):
        for name in (*files, *folders):
            path = Path(folder, name)
            if not patterns.excludes(str(path.relative_to(root))):
                continue
            if not path.is_dir() or path.is_symlink():
                path.unlink()
            elif not any(path.iterdir()):
                path.rmdir()
