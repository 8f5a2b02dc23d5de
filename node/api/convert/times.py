"""Times and versions as every object shows them."""

from __future__ import annotations

import datetime
from typing import Any

from raft.objects.base import ObjectRecord

ZERO_TIME = "0001-01-01T00:00:00Z"


def rfc3339(seconds: float) -> str:
    """Unix seconds -> RFC 3339 with nine digits; 0 is Go's zero time."""
    if not seconds:
        return ZERO_TIME
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def head(record: ObjectRecord) -> dict[str, Any]:
    """ID, Version and the two times."""
    return {
        "ID": record.id,
        "Version": {"Index": record.meta.version},
        "CreatedAt": rfc3339(record.meta.created_at),
        "UpdatedAt": rfc3339(record.meta.updated_at),
    }
