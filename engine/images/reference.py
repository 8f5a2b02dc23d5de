"""Names of images: parsing, normal and familiar forms. Pure. Source: the distribution reference grammar."""

from __future__ import annotations

import re

import msgspec

from engine.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
NAME_LENGTH_MAX = 255


class Reference(msgspec.Struct, frozen=True):
    """`name` is complete (docker.io/library/hello); tag or digest may be empty."""

    name: str
    tag: str = ""
    digest: str = ""

    @property
    def familiar_name(self) -> str:
        short = self.name.removeprefix(f"{DEFAULT_DOMAIN}/")
        official = short != self.name and short.count("/") == 1
        return short.removeprefix(OFFICIAL) if official else short

    @property
    def familiar(self) -> str:
        """As `docker images` shows it."""
        text = self.familiar_name
        if self.tag:
            text += f":{self.tag}"
        return f"{text}@{self.digest}" if self.digest else text


def parse_reference(text: str, *, default_tag: str = "latest") -> Reference:
    """`hello` -> docker.io/library/hello:latest. InvalidParameter in Docker's words."""
    if _ID.fullmatch(text):
        raise InvalidParameter(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    remainder, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidParameter("invalid reference format")
    head, separator, last = remainder.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidParameter("invalid reference format")
    name = _normal_name(f"{head}{separator}{last}")
    return Reference(name, tag or ("" if digest else default_tag), digest)


def is_image_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _normal_name(name: str) -> str:
    first, separator, rest = name.partition("/")
    if separator and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first):
        domain, path = first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain in (DEFAULT_DOMAIN, _LEGACY_DOMAIN):
        domain, path = DEFAULT_DOMAIN, path if "/" in path else OFFICIAL + path
    if path.lower() != path:
        raise InvalidParameter(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain):
        raise InvalidParameter("invalid reference format")
    if len(path) > NAME_LENGTH_MAX:
        raise InvalidParameter(f"repository name must not be more than {NAME_LENGTH_MAX} characters")
    return f"{domain}/{path}"
