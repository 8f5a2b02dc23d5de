"""Images as the Docker Engine API shows them, and the filters of `docker images`. Pure."""

from __future__ import annotations

import datetime
import fnmatch
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import InvalidParameter
from engine.images.config import Image

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def host_architecture() -> str:
    """The architecture in the words of image configurations."""
    return _MACHINES.get(platform.machine(), platform.machine())


def unix_time(rfc3339: str) -> int:
    try:
        moment = datetime.datetime.fromisoformat(rfc3339[:19]).replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0
    return int(moment.timestamp()) if moment.year > 1 else 0


def summary(image: Image, containers: int) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
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
    images: list[Image], filters: Mapping[str, list[str]], resolve: Callable[[str], Image]
) -> list[Image]:
    """InvalidParameter names an unknown filter."""
    for key, values in filters.items():
        if key == "dangling":
            wanted = values[0] in ("true", "1")
            images = [image for image in images if (not image.repo_tags) == wanted]
        elif key == "label":
            images = [image for image in images if all(_has_label(image, value) for value in values)]
        elif key == "reference":
            images = [image for image in images if any(_refers(image, value) for value in values)]
        elif key in ("before", "since"):
            limits = [unix_time(resolve(value).created) for value in values]
            images = [image for image in images if _in_time(image, key, limits)]
        elif key != "until":
            raise InvalidParameter(f"invalid filter '{key}'")
    return images


def _in_time(image: Image, key: str, limits: list[int]) -> bool:
    created = unix_time(image.created)
    return all(created < limit if key == "before" else created > limit for limit in limits)


def _has_label(image: Image, wanted: str) -> bool:
    name, separator, value = wanted.partition("=")
    labels = image.config.labels
    return name in labels and (not separator or labels[name] == value)


def _refers(image: Image, pattern: str) -> bool:
    return any(
        fnmatch.fnmatchcase(tag, pattern) or fnmatch.fnmatchcase(tag.rpartition(":")[0], pattern)
        for tag in image.repo_tags
    )
