"""`swarmctl stats`: how much CPU, memory, network and disk containers use, live."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import command, format_option, no_trunc_option
from cli.commands.container import container_path
from cli.errors import CliError
from cli.output import Row, list_rows

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
_REFRESH_SECONDS = 0.5
_FIRST_SAMPLE_SECONDS = 5.0


@command("[CONTAINER...]")
@click.argument("containers", nargs=-1)
@click.option("-a", "--all", "all_", is_flag=True, help="Show all containers (default shows just running)")
@format_option
@click.option("--no-stream", is_flag=True, help="Disable streaming stats and only pull the first result")
@no_trunc_option
@click.pass_obj
def stats(
    client: Client, containers: tuple[str, ...], all_: bool, form: str, no_stream: bool, no_trunc: bool
) -> None:
    """Display a live stream of container(s) resource usage statistics"""
    references = list(containers) or [item["Id"] for item in client.get("/containers/json", {"all": all_})]
    if no_stream:
        samples = [_one_sample(client, reference) for reference in references]
        rows = [stats_row(sample, no_trunc) for sample in samples]
        sys.stdout.write(list_rows(rows, _COLUMNS, form=form))
        return
    _follow(client, references, form, no_trunc)


def _one_sample(client: Client, reference: str) -> dict[str, Any]:
    return dict(client.get(container_path(reference, "stats"), {"stream": False}))


def _follow(client: Client, references: list[str], form: str, no_trunc: bool) -> None:
    """One connection for each container; the newest sample of each is shown twice a second."""
    latest: dict[str, dict[str, Any]] = {}
    errors: list[CliError] = []
    first = threading.Event()

    def collect(reference: str) -> None:
        try:
            response = client.stream("GET", container_path(reference, "stats"), {"stream": True})
            for sample in response.documents():
                latest[reference] = sample
                first.set()
        except CliError as error:
            errors.append(error)
        latest.pop(reference, None)

    threads = [threading.Thread(target=collect, args=(ref,), daemon=True) for ref in references]
    for thread in threads:
        thread.start()
    first.wait(_FIRST_SAMPLE_SECONDS)
    live = sys.stdout.isatty()
    while any(thread.is_alive() for thread in threads):
        rows = [stats_row(latest[ref], no_trunc) for ref in references if ref in latest]
        sys.stdout.write(("\x1b[H\x1b[J" if live else "") + list_rows(rows, _COLUMNS, form=form))
        sys.stdout.flush()
        first.clear()
        first.wait(_REFRESH_SECONDS)
    if errors:
        raise errors[0]


def stats_row(sample: dict[str, Any], no_trunc: bool = False) -> Row:
    """One element of GET /containers/{id}/stats as a row."""
    memory = sample.get("memory_stats") or {}
    used, limit = _memory_used(memory), memory.get("limit") or 0
    networks = (sample.get("networks") or {}).values()
    read, written = _block_io(sample)
    received = sum(network.get("rx_bytes", 0) for network in networks)
    sent = sum(network.get("tx_bytes", 0) for network in networks)
    identifier = str(sample.get("id") or "")
    return {
        "ID": identifier if no_trunc else identifier[:12],
        "Container": identifier if no_trunc else identifier[:12],
        "Name": str(sample.get("name") or "--").removeprefix("/"),
        "CPUPerc": f"{cpu_percent(sample):.2f}%",
        "MemUsage": f"{humanize.binary_size(used)} / {humanize.binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{humanize.short_size(received)} / {humanize.short_size(sent)}",
        "BlockIO": f"{humanize.short_size(read)} / {humanize.short_size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current", 0)),
    }


def _memory_used(memory: dict[str, Any]) -> int:
    """Without the page cache that the kernel would give back at once (v1 and v2 name it differently)."""
    details = memory.get("stats") or {}
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    usage = int(memory.get("usage") or 0)
    return usage - inactive if inactive < usage else usage


def cpu_percent(sample: dict[str, Any]) -> float:
    """Of one CPU, between the two readings that the sample carries."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get(
        "total_usage", 0
    )
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or system <= 0:
        return 0.0
    return float(used / system * (now.get("online_cpus") or 1) * 100)


def _block_io(sample: dict[str, Any]) -> tuple[int, int]:
    read = written = 0
    for entry in (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        if entry["op"].lower() == "read":
            read += entry["value"]
        elif entry["op"].lower() == "write":
            written += entry["value"]
    return read, written
