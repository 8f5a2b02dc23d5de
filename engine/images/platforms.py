"""Platforms of images: what is asked for, what this host is, and which of a list fits best. Pure.

Source: OCI image specification (image-index.md), and the order in which Docker prefers variants.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from engine.errors import InvalidParameter, NotFound
from engine.images.views import host_architecture

_WORD = re.compile(r"[A-Za-z0-9_.-]+")
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


class Platform(msgspec.Struct, frozen=True):
    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    return Platform("linux", host_architecture())


def parse_platform(text: str) -> Platform | None:
    """os[/arch[/variant]], or an architecture alone. None when nothing is asked for."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_WORD.fullmatch(part) for part in parts):
        raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
    if len(parts) == 1:
        parts = [parts[0], host_architecture()] if parts[0] == "linux" else ["linux", parts[0]]
    architecture, variant = _ALIASES.get(parts[1], (parts[1], ""))
    return Platform(parts[0], architecture, parts[2] if len(parts) > 2 else variant)


def platform_of(shown: dict[str, Any]) -> Platform:
    """From a descriptor's `platform` or an image's configuration."""
    architecture = str(shown.get("architecture", ""))
    architecture, variant = _ALIASES.get(architecture, (architecture, ""))
    return Platform(str(shown.get("os") or "linux"), architecture, str(shown.get("variant") or variant))


def fits(wanted: Platform, offered: Platform) -> bool:
    """A variant that is not asked for, or not told, is the architecture's usual one or an older one."""
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return False
    usual = _DEFAULT_VARIANT.get(wanted.architecture, "")
    have = offered.variant or usual
    return have == wanted.variant if wanted.variant else have <= usual


def check_platform(config: dict[str, Any], name: str, wanted: Platform | None) -> None:
    """NotFound, in Docker's words, when the image of that configuration is for another platform."""
    offered = platform_of(config)
    if wanted is not None and not fits(wanted, offered):
        raise NotFound(
            f"image with reference {name} was found but does not provide the specified platform ({wanted}): "
            f"it is for {offered}"
        )


def best(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """Index of the best one: it fits, with the newest variant. None: nothing does."""
    fitting = [(p.variant, -at) for at, p in enumerate(offered) if p is not None and fits(wanted, p)]
    return -max(fitting)[1] if fitting else None
