"""Containers and services: one host, then a lab of three nodes, and other runtimes where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import cluster, host, starts

ROOT = Path(__file__).parent.parent


def measure() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "hello.tar"
        subprocess.run([sys.executable, ROOT / "examples/hello/build.py", archive], check=True)
        lab = cluster.BenchLab(f"bench{os.getpid()}", archive)
        try:
            figures = host.measure(lab.name, lab.nodes()["n3"])
            figures |= host.others()
            figures |= starts.commands(lab.nodes()["n1"]["socket"], lab.name)
            figures |= cluster.measure(lab)
        finally:
            lab.lab("down")
    return figures | starts.measure()
