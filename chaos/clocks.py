"""The wall clocks of the managers, each of which can be set: the host's is never touched.

A small library (clock.c) is preloaded into the daemons; it adds an offset that this module writes into a file
of each node. Time namespaces do not cover the wall clock. Monotonic time stays true, as on a machine whose
clock somebody sets.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from node.lab.model import LabError, LabNode

_SOURCE = Path(__file__).with_name("clock.c")
_COMPILE_SECONDS = 60.0


class Clocks:
    """Offsets of the nodes' wall clocks, in seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, node: LabNode, offset_s: float) -> None:
        """Written in place: the daemon has mapped it."""
        path = self._folder / node.marker
        path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(descriptor, struct.pack("=q", round(offset_s * 1e9)), 0)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def settable_clocks() -> Iterator[Clocks]:
    """Daemons that this process starts meanwhile, of nodes whose clock was `set` before, have such a clock."""
    with tempfile.TemporaryDirectory(prefix="chaos-clocks-") as folder:
        library = _compiled(Path(folder))
        names = {"LD_PRELOAD": str(library), "CHAOS_CLOCKS": folder}
        before = {name: os.environ.get(name) for name in names}
        os.environ.update(names)
        try:
            yield Clocks(Path(folder))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _compiled(folder: Path) -> Path:
    library = folder / "clock.so"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except FileNotFoundError as error:
        raise LabError("gcc is not installed", hint="./dev install adds what is missing") from error
    if done.returncode:
        raise LabError(f"{_SOURCE.name} cannot be compiled: {done.stderr.strip()}")
    return library
