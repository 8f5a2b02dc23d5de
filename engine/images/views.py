"""Images as the Docker Engine API shows them, and the filters of `docker images`. Pure."""

from __future__ import annotations

import datetime
import fnmatch
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import InvalidParameter
from engine.filter_values import has_label, is_spared, moment, truth
from engine.images.config import Image

_FRACTION = re.compile(r"\.\d+", re.ASCII)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def host_architecture() -> str:
    """The architecture in the words of image configurations."""
    return _MACHINES.get(platform.machine(), platform.machine())


def unix_time(rfc3339: str) -> int:
    """0 for what is no time, and for Go's zero time."""
    try:
        parsed = datetime.datetime.fromisoformat(_FRACTION.sub("", rfc3339))
    except ValueError:
        return 0
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)
    return int(aware.timestamp()) if aware.year > 1 else 0


def summary(image: Image, containers: int, references: Sequence[str] = ()) -> dict[str, Any]:
    """With the names that match one of the patterns; without patterns all of them."""

    def shown(names: list[str]) -> list[str]:
        return [n for n in names if not references or any(_names(n, pattern) for pattern in references)]

    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": shown(image.repo_tags),
        "RepoDigests": shown(image.repo_digests),
        "Created": unix_time(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }


def inspect(image: Image, driver: str) -> dict[str, Any]:
    raw = image.raw
    return {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": raw.get("comment", ""),
        "Created": image.created,
        "DockerVersion": raw.get("docker_version", ""),
        "Author": raw.get("author", ""),
        "Config": raw.get("config") or {},
        "Architecture": image.architecture,
        "Variant": raw.get("variant", ""),
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": driver, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {
            "LastTagTime": datetime.datetime.fromtimestamp(image.loaded_at, datetime.UTC).isoformat()
        },
    }


def history(image: Image, layer_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Newest first; only the entries that made a layer have a size."""
    sizes = list(layer_sizes)
    entries = image.raw.get("history") or [{"created": image.created} for _ in sizes]
    rows = []
    for entry in entries:
        size = 0 if entry.get("empty_layer") or not sizes else sizes.pop(0)
        rows.append(
            {
                "Id": "<missing>",
                "Created": unix_time(str(entry.get("created", ""))),
                "CreatedBy": entry.get("created_by", ""),
                "Tags": None,
                "Size": size,
                "Comment": entry.get("comment", ""),
            }
        )
    if rows:
        rows[-1] |= {"Id": image.id, "Tags": image.repo_tags or None}
    return rows[::-1]


def filtered(
    images: list[Image], filters: Mapping[str, list[str]], resolve: Callable[[str], Image], now: float
) -> list[Image]:
    """`now` in Unix seconds, for durations of `until`. InvalidParameter names a filter that is wrong."""
    for key, values in filters.items():
        if key == "dangling":
            wanted = truth(key, values)
            images = [image for image in images if (not image.repo_tags) == wanted]
        elif key == "label":
            images = [
                image for image in images if all(has_label(image.config.labels, value) for value in values)
            ]
        elif key == "label!":
            images = [image for image in images if not is_spared(image.config.labels, values)]
        elif key == "reference":
            images = [image for image in images if any(_refers(image, value) for value in values)]
        elif key in ("before", "since"):
            limits: list[float] = [unix_time(resolve(value).created) for value in values]
            images = [image for image in images if _in_time(image, key, limits)]
        elif key == "until":
            limits = [moment(value, now) for value in values]
            images = [image for image in images if _in_time(image, "before", limits)]
        else:
            raise InvalidParameter(f"invalid filter '{key}'")
    return images


def _in_time(image: Image, key: str, limits: Sequence[float]) -> bool:
    created = unix_time(image.created)
    return all(created < limit if key == "before" else created > limit for limit in limits)


def _refers(image: Image, pattern: str) -> bool:
    return any(_names(name, pattern) for name in (*image.repo_tags, *image.repo_digests))


def _names(name: str, pattern: str) -> bool:
    """Does the pattern mean the name, or its repository?"""
    repository = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return _matches(name, pattern) or _matches(repository, pattern)


def _matches(name: str, pattern: str) -> bool:
    """As in a file system: no wildcard stands for a slash."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
