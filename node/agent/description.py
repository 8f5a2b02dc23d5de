"""What this node tells the cluster about itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from raft.objects.base import Platform
from raft.objects.node import NodeDescription
from raft.objects.service import Resources

PLUGINS = (
    ("Log", "json-file"),
    ("Log", "none"),
    ("Network", "bridge"),
    ("Network", "host"),
    ("Network", "null"),
    ("Network", "overlay"),
    ("Volume", "local"),
)


def describe(*, hostname: str, engine_version: str, labels: Mapping[str, str]) -> NodeDescription:
    """CPUs that this process may use, and the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return NodeDescription(
        hostname=hostname,
        platform=Platform(os="linux", architecture=platform.machine()),
        resources=Resources(nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000, memory_bytes=memory),
        engine_version=engine_version,
        engine_labels=dict(labels),
        plugins=PLUGINS,
    )
