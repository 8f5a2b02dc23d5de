"""Where COPY and ADD read from, and how what they copy is told apart: finding sources, and their digest.

Paths are resolved inside a root (the build context, or another image's files): a link that points elsewhere leads
to that place below the root. The digest covers names, modes, links and content, not times: so the cache holds
when a file was only touched.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.errors import InvalidParameter
from engine.storage.layer_export import xattr_headers

CHUNK_BYTES = 1 << 20
_LINKS_MAX = 255
_WILDCARDS = frozenset("*?[")


class Source(msgspec.Struct, frozen=True):
    """`path` is on this host, links resolved; `name` the last part of what was asked for."""

    path: Path
    name: str

    @property
    def is_directory(self) -> bool:
        return self.path.is_dir()


def resolve_inside(root: Path, path: str) -> Path:
    """The place of `path` as a process with that root sees it, whether it exists or not."""
    pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
    parts: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            parts = parts[:-1]
            continue
        here = root.joinpath(*parts, part)
        if not here.is_symlink():
            parts.append(part)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise InvalidParameter(f"too many levels of symbolic links: {path}")
        target = str(here.readlink())
        parts = [] if target.startswith("/") else parts
        pending += [step for step in target.split("/") if step not in ("", ".")][::-1]
    return root.joinpath(*parts)


def find_sources(root: Path, pattern: str, *, is_context: bool) -> list[Source]:
    """What one source word stands for, in order of names. InvalidParameter in Docker's words."""
    if is_context and posixpath.normpath(pattern).startswith(".."):
        raise InvalidParameter(f"forbidden path outside the build context: {pattern} ()")
    normal = posixpath.normpath(posixpath.join("/", pattern)).lstrip("/")
    names = _matches(root, normal) if _WILDCARDS & set(normal) else [normal]
    sources = []
    for name in names:
        found = resolve_inside(root, name)
        if not os.path.lexists(found):
            where = "file not found in build context or excluded by .dockerignore: " if is_context else ""
            raise InvalidParameter(f"{where}stat {name}: file does not exist")
        sources.append(Source(found, posixpath.basename(name)))
    return sources


def _matches(root: Path, pattern: str) -> Iterator[str]:
    """Paths below the root that match part by part, links not followed: no wildcard stands for a slash."""
    found = ["."]
    for part in pattern.split("/"):
        below = []
        for folder in found:
            place = root / folder
            if place.is_dir() and not place.is_symlink():
                names = sorted(entry.name for entry in place.iterdir())
                below += [f"{folder}/{name}" for name in names if fnmatch.fnmatchcase(name, part)]
        found = below
    yield from (path.removeprefix("./") for path in found)


def digest_of(sources: list[Source], *, owners: bool) -> str:
    """file:..., dir:... or multi:... and a SHA-256. `owners`: they are kept, so they count."""
    digest = hashlib.sha256()
    for source in sources:
        _add_entry(digest, source.path, "" if source.is_directory else source.name, owners)
        if source.is_directory:
            for path in _below(source.path):
                _add_entry(digest, path, str(path.relative_to(source.path)), owners)
    kind = "multi" if len(sources) != 1 else "dir" if sources[0].is_directory else "file"
    return f"{kind}:{digest.hexdigest()}"


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _add_entry(digest: hashlib._Hash, path: Path, name: str, owners: bool) -> None:
    status = path.lstat()
    facts: list[object] = [name, status.st_mode]
    if owners:
        facts += [status.st_uid, status.st_gid]
    if stat.S_ISLNK(status.st_mode):
        facts.append(str(path.readlink()))
    elif stat.S_ISREG(status.st_mode):
        facts += [status.st_size, xattr_headers(path)]
    elif not stat.S_ISDIR(status.st_mode):
        facts.append(status.st_rdev)
    encoded = repr(facts).encode("utf-8", "surrogateescape")
    digest.update(f"{len(encoded)}:".encode() + encoded)
    if stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
