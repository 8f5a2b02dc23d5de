"""`swarmctl stats`: how much CPU, memory, network and disk containers use, live."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import command, format_option, no_trunc_option
from cli.commands.container import container_path
from cli.errors import ApiError, CliError
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
_THREADS_MAX = 32
_FULL_ID = 64


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
    if no_stream:
        references = list(containers) or _listed(client, all_)
        with ThreadPoolExecutor(_THREADS_MAX) as pool:
            samples = list(pool.map(lambda ref: _one_sample(client, ref), references))
        rows = [
            {**stats_row(sample, no_trunc), **({"Container": reference} if containers else {})}
            for reference, sample in zip(references, samples, strict=True)
            if sample is not None
        ]
        sys.stdout.write(list_rows(rows, _COLUMNS, form=form))
        return
    watch = _Watch(client)
    for reference in containers:
        watch.add(reference)
    _show(watch, (lambda: _listed(client, all_)) if not containers else None, form, no_trunc)


def _listed(client: Client, all_: bool) -> list[str]:
    return [item["Id"] for item in client.get("/containers/json", {"all": all_})]


def _one_sample(client: Client, reference: str) -> dict[str, Any] | None:
    """None for one that was listed and is gone by now."""
    one = Client(client.host)
    try:
        return dict(one.get(container_path(reference, "stats"), {"stream": False}))
    except ApiError as error:
        if error.status == 404 and len(reference) == _FULL_ID:
            return None
        raise


class _Watch:
    """One connection and thread for each container; the newest sample of each."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._threads: dict[str, threading.Thread] = {}
        self._latest: dict[str, dict[str, Any]] = {}
        self.errors: list[CliError] = []
        self.changed = threading.Event()

    def add(self, reference: str) -> None:
        if reference not in self._threads:
            thread = threading.Thread(target=self._collect, args=(reference,), daemon=True)
            self._threads[reference] = thread
            thread.start()

    def keep(self, references: list[str]) -> None:
        """Exactly these."""
        for reference in references:
            self.add(reference)
        for gone in set(self._threads) - set(references):
            self._latest.pop(gone, None)
            if not self._threads[gone].is_alive():
                del self._threads[gone]

    @property
    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads.values())

    def samples(self, shown: list[str] | None) -> list[dict[str, Any]]:
        """In the order of `shown`, or in which they were added."""
        return [self._latest[ref] for ref in shown or tuple(self._threads) if ref in self._latest]

    def _collect(self, reference: str) -> None:
        try:
            response = self._client.stream("GET", container_path(reference, "stats"), {"stream": True})
            for sample in response.documents():
                self._latest[reference] = sample
                self.changed.set()
        except CliError as error:
            self.errors.append(error)
        self._latest.pop(reference, None)
        self.changed.set()


def _show(watch: _Watch, listed: Callable[[], list[str]] | None, form: str, no_trunc: bool) -> None:
    """Twice a second. `listed`: who is to be shown, asked anew each time; without it, until all have gone."""
    live = sys.stdout.isatty()
    is_first = True
    while listed is not None or watch.is_alive:
        shown = None
        if listed is not None:
            shown = listed()
            watch.keep(shown)
        if is_first and (shown is None or shown):
            watch.changed.wait(_FIRST_SAMPLE_SECONDS)
            is_first = False
        rows = [stats_row(sample, no_trunc) for sample in watch.samples(shown)]
        sys.stdout.write(("\x1b[H\x1b[J" if live else "") + list_rows(rows, _COLUMNS, form=form))
        sys.stdout.flush()
        watch.changed.clear()
        watch.changed.wait(_REFRESH_SECONDS)
    if watch.errors:
        raise watch.errors[0]


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
