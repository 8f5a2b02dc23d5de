"""Writes of 200 bytes, so many at once: ours, PySyncObj's and etcd's, in turns, medians of the turns."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import msgspec

from bench.raft import etcd, systems
from bench.raft.load import Figures
from bench.raft.systems import FOLLOWER, LEADER, System

ROUNDS = 3
SECONDS = 0.8
CLIENTS = (1, 64, 256)


class Row(msgspec.Struct, frozen=True):
    """One system at one place; `cells` by the number of clients, in the order of CLIENTS."""

    system: str
    place: str
    cells: list[Figures]


class Result(msgspec.Struct, frozen=True):
    """`note` says what is missing and why, "" when nothing is."""

    rows: list[Row]
    note: str = ""


OURS, ETCD = "ours", "etcd"


def measure() -> Result:
    """Without etcd, and with a note that says why, where it cannot be had."""
    found: dict[str, System] = {
        OURS: systems.ours,
        "PySyncObj, memory": systems.stock("memory", "batching"),
        "PySyncObj, memory, no batching": systems.stock("memory", "at-once"),
        "PySyncObj, FileJournal": systems.stock("journal", "batching"),
        "PySyncObj, FileJournal, no batching": systems.stock("journal", "at-once"),
    }
    try:
        program = etcd.program()
        etcds = {f"{ETCD} {etcd.version(program)}": systems.etcd_system(program)}
        return Result(_rounds(etcds | found))  # etcd first, so that its failure costs no time
    except etcd.Unavailable as error:
        return Result(_rounds(found), f"etcd was left out: {error}")


def _rounds(found: dict[str, System]) -> list[Row]:
    measured: dict[tuple[str, str], list[list[Figures]]] = {}
    for _ in range(ROUNDS):
        for name, system in found.items():
            for place, cells in _once(system).items():
                measured.setdefault((name, place), []).append(cells)
    rows = [Row(name, place, _medians(rounds)) for (name, place), rounds in measured.items()]
    return sorted(rows, key=lambda row: (row.place == FOLLOWER, row.system != OURS))


def _once(system: System) -> dict[str, list[Figures]]:
    with (
        tempfile.TemporaryDirectory(prefix="swarmctl-bench") as folder,
        system(Path(folder) / "s") as writers,
    ):
        return {
            place: [
                msgspec.convert(writers[place].ask("load", clients=clients, seconds=SECONDS), Figures)
                for clients in CLIENTS
            ]
            for place in (LEADER, FOLLOWER)
        }


def _medians(rounds: list[list[Figures]]) -> list[Figures]:
    return [
        Figures(
            *(statistics.median(getattr(cell, name) for cell in cells) for name in Figures.__struct_fields__)
        )
        for cells in zip(*rounds, strict=True)
    ]
