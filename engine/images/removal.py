"""May an image be removed? Containers and other references speak against it, in Docker's words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import Conflict
from engine.images.config import Image


def check_removal(
    image: Image, ref: str, users: Sequence[tuple[str, bool]], *, by_id: bool, force: bool
) -> None:
    """Conflict, in Docker's words, when containers or other names stand against the removal."""
    short = image.id[7:19]
    if not by_id:
        if users and not force and _is_single(image):
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                f"{users[0][0][:12]} is using its referenced image {short}"
            )
        return
    running = next((container for container, is_running in users if is_running), None)
    if running is not None:
        raise Conflict(
            f"conflict: unable to delete {short} (cannot be forced) - image is being used by "
            f"running container {running[:12]}"
        )
    if users and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is being used by "
            f"stopped container {users[0][0][:12]}"
        )
    if not _is_single(image) and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )


def _is_single(image: Image) -> bool:
    """One tag at most, and every digest in the same repository."""
    repositories = {digest.partition("@")[0] for digest in image.repo_digests}
    repositories |= {tag.rpartition(":")[0] for tag in image.repo_tags}
    return len(image.repo_tags) <= 1 and len(repositories) <= 1
