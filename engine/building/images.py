"""The configuration of an image that one step makes out of another. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.images.config import Image
from engine.images.views import host_architecture

Describe = Callable[[Sequence[str], bool], dict[str, Any]]


def describe_step(
    parent: Image | None,
    config: Mapping[str, Any],
    created_by: str,
    *,
    author: str = "",
    comment: str = "",
    architecture: str = "",
) -> Describe:
    """A function of (diff ids, whether the last of them is new) to the whole configuration."""

    def describe(diff_ids: Sequence[str], has_layer: bool) -> dict[str, Any]:
        created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry: dict[str, Any] = {"created": created, "created_by": created_by}
        entry |= {name: value for name, value in (("author", author), ("comment", comment)) if value}
        entry |= {} if has_layer else {"empty_layer": True}
        raw = parent.raw if parent else {}
        kept = {name: raw[name] for name in ("architecture", "os", "variant", "os.version") if raw.get(name)}
        return {
            "architecture": architecture or host_architecture(),
            "os": "linux",
            **kept,
            **({"author": author} if author else {}),
            **({"comment": comment} if comment else {}),
            "created": created,
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [*(raw.get("history") or []), entry],
        }

    return describe
