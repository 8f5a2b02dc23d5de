"""Host devices given to a container (`--device`)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from engine.errors import InvalidParameter


def host_device(path: str, target: str) -> dict[str, Any]:
    """The OCI description of a device node of the host, shown at `target` (default: the same path)."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": {error.strerror}'
        ) from error
    if stat.S_ISCHR(status.st_mode):
        kind = "c"
    elif stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        raise InvalidParameter(
            f'error gathering device information while adding custom device "{path}": not a device node'
        )
    return {
        "path": target or path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }
