"""docs/bench.md, made from docs/bench.json: a table for each part. What stands under "Notes" is kept as it is."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import msgspec

from bench.raft import report
from bench.raft.result import Result

DOCS = Path(__file__).parent.parent / "docs"
FIGURES, PAGE = DOCS / "bench.json", DOCS / "bench.md"
NOTES = "\n## Notes\n"

# Docker 20.10 on such a machine (3 nodes in network namespaces, 2 shared cores), and what ours should reach.
GOALS: dict[str, tuple[str, str]] = {
    "create to exit, no network (ms)": ("162", "<= 20"),
    "create to exit, bridge (ms)": ("222", "<= 35"),
    "exec (ms)": ("39", "<= 8"),
    "runs per second, 8 at once, no network": ("11.8", ">= 100"),
    "memory per running container (MB PSS)": ("2.95", "<= 0.1"),
    "memory of daemon and supervisor (MB PSS)": ("97-148", "<= 75"),
    "replicas 3 to all running, no network (s)": ("0.63", "<= 0.15"),
    "replicas 3 to all running, overlay (s)": ("1.23", "<= 0.25"),
    "40 replicas, no network (s)": ("3.6", "<= 1.2"),
    "100 replicas, overlay (s)": ("13.5", "<= 4"),
    "node killed to 6 of 6 running elsewhere (s)": ("13.3", "<= 3"),
    "leader killed to next accepted write (s)": ("11-12.5", "<= 1.5"),
    "log written (MB/s)": ("65", ">= 80"),
    "log read (MB/s)": ("38", ">= 80"),
}


class Made(msgspec.Struct, frozen=True):
    """When and where a part was measured."""

    date: str
    kernel: str
    cores: int
    python: str


class Part(msgspec.Struct, frozen=True):
    made: Made
    figures: dict[str, Any]


def made_now() -> Made:
    today = datetime.date.today().isoformat()
    return Made(today, platform.release(), os.cpu_count() or 1, platform.python_version())


def stored() -> dict[str, Part]:
    return msgspec.json.decode(FIGURES.read_bytes(), type=dict[str, Part]) if FIGURES.exists() else {}


def store(parts: dict[str, Part]) -> None:
    """Write both files."""
    FIGURES.write_bytes(msgspec.json.format(msgspec.json.encode(parts), indent=1) + b"\n")
    notes = PAGE.read_text().partition(NOTES)[2] if PAGE.exists() else ""
    sections = ["# Figures\n"]
    if "nodes" in parts:
        sections.append(_origin("nodes", parts["nodes"].made) + _nodes(parts["nodes"].figures))
    for name, title in (("images", "Images"), ("builds", "Builds, and many containers")):
        if name in parts:
            sections.append(
                f"## {title}\n\n" + _origin(name, parts[name].made) + _compared(parts[name].figures)
            )
    if "raft" in parts:
        text = report.section(msgspec.convert(parts["raft"].figures, Result))
        sections.append("## The managers' store\n\n" + _origin("raft", parts["raft"].made) + text)
    PAGE.write_text("\n".join(sections) + (NOTES + notes if notes else ""))


def _origin(name: str, made: Made) -> str:
    return (
        f"Made by `./dev bench {name}` on {made.date}: Linux {made.kernel}, {made.cores} cores,\n"
        f"Python {made.python}. Medians where a figure is repeated; all in one run.\n\n"
    )


def _compared(figures: dict[str, float]) -> str:
    """`WHO: NAME` stands beside NAME."""
    others = sorted({name.partition(": ")[0] for name in figures if ": " in name})
    lines = [f"| | {' | '.join(['swarmctl', *others])} |", "|---" * (len(others) + 2) + "|"]
    for name, value in figures.items():
        if ": " not in name:
            beside = [figures.get(f"{other}: {name}") for other in others]
            shown = [report.number(value), *("" if v is None else report.number(v) for v in beside)]
            lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _nodes(figures: dict[str, float]) -> str:
    lines = ["| | Docker 20.10 | goal | measured |", "|---|---|---|---|"]
    for name, value in figures.items():
        docker, goal = GOALS.get(name, ("", ""))
        lines.append(f"| {name} | {docker} | {goal} | {report.number(value)} |")
    return "\n".join(lines) + "\n"
