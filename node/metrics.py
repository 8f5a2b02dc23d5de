"""Prometheus metrics of the daemon at an address of their own (--metrics-addr), in the text format 0.0.4.

Names are dockerd's and swarmkit's where they mean the same. Only numbers that are at hand: nothing is counted for this.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aiohttp import web

from engine.engine import Engine
from engine.timings import BUCKETS_S, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STARTED = time.time()
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Swarm(Protocol):
    async def info(self) -> dict[str, Any]: ...


class Family(NamedTuple):
    """`samples`: (end of the name, labels, value)."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Mapping[str, str], float]]


async def start(address: str, engine: Engine, swarm: Swarm) -> web.AppRunner:
    """Serve GET /metrics; stop with `cleanup`. OSError when the address cannot be had."""

    async def answer(_request: web.Request) -> web.Response:
        text = rendered(_engine(engine, await engine.host.info()))
        text += rendered(_swarm(await swarm.info())) + rendered(_process())
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


def rendered(families: Iterator[Family]) -> str:
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for end, labels, value in family.samples:
            shown = ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())
            lines.append(
                f"{family.name}{end}{{{shown}}} {value:g}" if shown else f"{family.name}{end} {value:.17g}"
            )
    return "\n".join(lines) + "\n"


def _gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, "gauge", help_text, [("", {}, value)])


def _counter(name: str, help_text: str, value: float) -> Family:
    return Family(name, "counter", help_text, [("", {}, value)])


def _engine(engine: Engine, info: Mapping[str, Any]) -> Iterator[Family]:
    prefix = "engine_daemon"
    facts = {
        "architecture": info["Architecture"],
        "commit": "",
        "daemon_id": info["ID"],
        "graphdriver": info["Driver"],
        "kernel": info["KernelVersion"],
        "os": info["OperatingSystem"],
        "os_type": info["OSType"],
        "os_version": info["OSVersion"],
        "version": info["ServerVersion"],
    }
    yield Family(f"{prefix}_engine_info", "gauge", "The engine and the machine it runs on", [("", facts, 1)])
    yield _gauge(f"{prefix}_engine_cpus_cpus", "Processors of the machine", info["NCPU"])
    yield _gauge(f"{prefix}_engine_memory_bytes", "Memory of the machine", info["MemTotal"])
    states: list[tuple[str, Mapping[str, str], float]] = [
        ("", {"state": state}, count) for state, count in engine.host.container_states().items()
    ]
    yield Family(f"{prefix}_container_states_containers", "gauge", "Containers in each state", states)
    yield _counter(f"{prefix}_events_total", "Events since the daemon started", engine.events_bus.published)
    yield _gauge(f"{prefix}_events_subscribers_total", "Who listens to events", engine.events_bus.subscribers)
    timed = [
        sample
        for action, histogram in engine.timings.histograms.items()
        for sample in _buckets({"action": action}, histogram)
    ]
    yield Family(
        f"{prefix}_container_actions_seconds", "histogram", "How long an action on a container takes", timed
    )


def _buckets(
    labels: Mapping[str, str], histogram: Histogram
) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Each bucket has the smaller ones in it."""
    total = 0
    for limit, count in zip((*BUCKETS_S, None), histogram.counts, strict=True):
        total += count
        yield "_bucket", {**labels, "le": "+Inf" if limit is None else f"{limit:g}"}, total
    yield "_sum", labels, histogram.sum_s
    yield "_count", labels, total


def _swarm(info: Mapping[str, Any]) -> Iterator[Family]:
    yield _gauge("swarm_node_manager", "Whether this node is a manager", bool(info.get("ControlAvailable")))
    if not info.get("NodeID"):
        return
    cluster = (info.get("Cluster") or {}).get("ID", "")
    labels = {"node_id": info["NodeID"], "swarm_id": cluster}
    yield Family("swarm_node_info", "gauge", "This node of the swarm", [("", labels, 1)])
    if info.get("ControlAvailable"):
        yield _gauge("swarm_manager_managers_total", "Managers of the swarm", info.get("Managers") or 0)
        yield _gauge("swarm_manager_nodes_total", "Nodes of the swarm", info.get("Nodes") or 0)


def _process() -> Iterator[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    yield _counter(
        "process_cpu_seconds_total", "Processor time of the daemon", usage.ru_utime + usage.ru_stime
    )
    yield _gauge("process_resident_memory_bytes", "Memory of the daemon", pages * os.sysconf("SC_PAGE_SIZE"))
    yield _gauge("process_open_fds", "Open descriptors of the daemon", descriptors)
    yield _gauge("process_start_time_seconds", "When the daemon started", _STARTED)
