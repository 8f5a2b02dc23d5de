"""`./dev bench`: runs everything once, prints the table, writes docs/bench.md and docs/bench.json."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import cluster, host

ROOT = Path(__file__).parent.parent

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


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "hello.tar"
        subprocess.run([sys.executable, ROOT / "examples/hello/build.py", archive], check=True)
        lab = cluster.BenchLab(f"bench{os.getpid()}", archive)
        try:
            figures = host.measure(lab.name, lab.nodes()["n3"])
            figures |= host.others()
            figures |= cluster.measure(lab)
        finally:
            lab.lab("down")
    docs = ROOT / "docs"
    docs.mkdir(exist_ok=True)
    (docs / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")
    text = table(figures)
    print(text)
    page = docs / "bench.md"
    notes = page.read_text().partition("\n## Notes\n")[2] if page.exists() else ""
    page.write_text(text + (f"\n## Notes\n{notes}" if notes else ""))
    return 0


def table(figures: dict[str, float]) -> str:
    cores = os.cpu_count()
    lines = [
        "# Figures",
        "",
        f"Made by `./dev bench` on {datetime.date.today().isoformat()}: Linux {platform.release()}, {cores} cores,",
        f"Python {platform.python_version()}. Medians where a figure is repeated; all in one run.",
        "",
        "| | Docker 20.10 | goal | measured |",
        "|---|---|---|---|",
    ]
    for name, value in figures.items():
        docker, goal = GOALS.get(name, ("", ""))
        lines.append(
            f"| {name} | {docker} | {goal} | {value:.3g} |"
            if value < 100
            else f"| {name} | {docker} | {goal} | {value:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
