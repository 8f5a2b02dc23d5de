"""One COPY or ADD: what it takes, from where, to where, and in which manner."""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.building.copying import Manner, copy_sources
from engine.building.fetching import download, is_url, url_file_name
from engine.building.instructions import Instruction
from engine.building.sources import Source, digest_of, find_sources
from engine.building.words import expand
from engine.errors import InvalidParameter
from engine.runtime.users import resolve_user
from engine.storage.driver import Rootfs

_OCTAL = re.compile(r"[0-7]{1,4}", re.ASCII)


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """`destination` is absolute; `downloads` are the URLs of an ADD, fetched already, in order."""

    keyword: str
    patterns: tuple[str, ...]
    destination: str
    owner: str = ""
    mode: int | None = None
    is_from_image: bool = False
    downloads: tuple[Source, ...] = ()

    def found(self, root: Path) -> tuple[list[Source], str]:
        """The sources below `root`, and the words for the history, with the digest of what is copied."""
        sources = [
            source
            for pattern in self.patterns
            for source in find_sources(root, pattern, is_context=not self.is_from_image)
        ]
        sources += self.downloads
        if not sources:
            raise InvalidParameter("no source files were specified")
        if len(sources) > 1 and not self.destination.endswith("/"):
            raise InvalidParameter(
                f"When using {self.keyword} with more than one source file, the destination must be a directory "
                "and end with a /"
            )
        flags = f"--chown={self.owner} " if self.owner else ""
        flags += "" if self.mode is None else f"--chmod={self.mode:o} "
        digest = digest_of(sources, owners=self.is_from_image and not self.owner)
        return sources, f"{self.keyword} {flags}{digest} in {self.destination} "

    def carry_out(self, target: Path, rootfs: Rootfs, sources: list[Source]) -> None:
        keeps_owner = self.is_from_image and not self.owner
        owner = None if keeps_owner else _owner(self.owner, rootfs)
        manner = Manner(owner=owner, mode=self.mode, unpacks=False)
        local = sources[: len(sources) - len(self.downloads)]
        unpacking = Manner(owner=owner, mode=self.mode, unpacks=self.keyword == "ADD")
        copy_sources(target, local, self.destination, unpacking)
        copy_sources(target, self.downloads, self.destination, manner)


async def prepare_transfer(
    instruction: Instruction, config: Mapping[str, Any], variables: Mapping[str, str], folder: Path
) -> Transfer:
    """Variables substituted, the destination made absolute, URLs fetched into `folder`."""
    *patterns, wanted = (expand(word, variables, instruction.escape) for word in instruction.words)
    if not wanted:
        raise InvalidParameter("the destination is empty")
    destination = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "", wanted))
    if wanted.endswith(("/", "/.")) or wanted in (".", ".."):
        destination = destination.rstrip("/") + "/"
    urls = [pattern for pattern in patterns if instruction.keyword == "ADD" and is_url(pattern)]
    if instruction.keyword == "COPY" and any(is_url(pattern) for pattern in patterns):
        raise InvalidParameter("source can't be a URL for COPY")
    return Transfer(
        keyword=instruction.keyword,
        patterns=tuple(pattern for pattern in patterns if pattern not in urls),
        destination=destination if destination.startswith("/") else f"/{destination}",
        owner=expand(instruction.flags.get("chown", ""), variables, instruction.escape),
        mode=_mode(expand(instruction.flags.get("chmod", ""), variables, instruction.escape)),
        is_from_image="from" in instruction.flags,
        downloads=tuple([await _downloaded(url, destination, folder) for url in urls]),
    )


async def _downloaded(url: str, destination: str, folder: Path) -> Source:
    name = url_file_name(url)
    if not name and destination.endswith("/"):
        raise InvalidParameter(f"cannot determine filename from url: {url}")
    target = folder / f"download-{secrets.token_hex(8)}"
    await download(url, target)
    return Source(target, name)


def _owner(text: str, rootfs: Rootfs) -> tuple[int, int]:
    """USER[:GROUP] of --chown, by the image's own accounts; without a group the one of the user's name."""
    if not text:
        return (0, 0)
    user, _, group = text.partition(":")
    try:
        found = resolve_user(f"{user}:{group or user}", rootfs)
    except LookupError as error:
        raise InvalidParameter(f"unable to convert uid/gid chown string to host mapping: {error}") from error
    return found.uid, found.gid


def _mode(text: str) -> int | None:
    if not text:
        return None
    if not _OCTAL.fullmatch(text):
        raise InvalidParameter(f'invalid chmod parameter: "{text}": use an octal number such as 755')
    return int(text, 8)
