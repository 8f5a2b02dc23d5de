"""What the classic builder does not do is refused by name, before anything of a build begins."""

from __future__ import annotations

from engine.build_config import CLASSIC_ONLY, BuildOptions
from engine.errors import InvalidParameter, NotImplementedHere
from engine.images.reference import parse_reference


def check_options(options: BuildOptions) -> None:
    """Refuse by name what the classic builder does not do. Names and tags are made whole."""
    if options.version == "2":
        raise NotImplementedHere(CLASSIC_ONLY)
    if options.version not in ("", "1"):
        raise InvalidParameter(f"invalid version {options.version}")
    if options.squash:
        raise InvalidParameter(
            "squash is only supported with experimental mode, which this engine does not have: use several stages "
            "and COPY --from to make an image small"
        )
    if options.outputs not in ("", "[]", "null"):
        raise InvalidParameter(
            "outputs require BuildKit: leave them out, and use `save` or `cp` on the image that was built"
        )
    if options.security_options:
        raise InvalidParameter(
            "The daemon on this platform does not support setting security options on build"
        )
    if options.isolation not in ("", "default"):
        raise InvalidParameter(f'isolation "{options.isolation}" is not supported on linux: use default')
    if options.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    names = {}
    for tag in options.tags:
        name = parse_reference(tag)
        if name.digest:
            raise InvalidParameter("build tag cannot contain a digest")
        names[name.familiar] = name
    options.tags = list(names)
