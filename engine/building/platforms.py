"""`--platform`: which one is asked for, and whether an image is of it. Pure."""

from __future__ import annotations

import re

from engine.images.config import Image

_FORM = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+){0,2}", re.ASCII)
_SAME = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}


def platform_problem(platform: str) -> str:
    """Docker's words for one that cannot be built for here; "" when it can."""
    if not platform:
        return ""
    if not _FORM.fullmatch(platform):
        return f'"{platform}": invalid platform: use OS/ARCHITECTURE, such as linux/amd64'
    system = platform.split("/")[0].lower()
    if "/" in platform and system != "linux":
        return f'operating system is not supported: "{system}": only linux images are built here'
    return ""


def wanted_architecture(platform: str) -> str:
    """ "" when any will do. A single word other than `linux` is an architecture."""
    parts = platform.lower().split("/")
    name = parts[1] if len(parts) > 1 else ("" if parts[0] == "linux" else parts[0])
    return _SAME.get(name, name)


def matches_platform(image: Image, platform: str) -> bool:
    architecture = wanted_architecture(platform)
    if architecture and image.architecture and architecture != image.architecture:
        return False
    parts = platform.split("/")
    variant = str(image.raw.get("variant") or "")
    return len(parts) < 3 or not variant or parts[2].lower() == variant
