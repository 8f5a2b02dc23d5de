"""A disk that is full, in a mount namespace of its own: PySyncObj's journal and our WAL, each in a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

STOCK = """
from pysyncobj.journal import FileJournal
journal = FileJournal("disk/journal")
for index in range(1, 1000):
    journal.add(b"x" * 1000, index, 1)
"""

OURS = """
import os
from pathlib import Path
from raft.wal import Entry, Wal
Path("disk/other").write_bytes(b"x" * 100_000)
wal, _ = Wal.open(Path("disk/wal"), b"k" * 32, "n")
durable = 0
try:
    for index in range(1, 1000):
        wal.append(Entry(index, 1, b"x" * 1000))
        wal.sync()
        durable = index
except OSError as err:
    print(err.strerror)
os.remove("disk/other")
wal.sync()
wal.close()
_, state = Wal.open(Path("disk/wal"), b"k" * 32, "n")
print(durable > 50, state.last[0] == durable + 1, {entry.command for entry in state.entries} == {b"x" * 1000})
"""


def on_a_small_disk(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """A tmpfs of 256 KiB; it goes with the namespace."""
    (folder / "disk").mkdir()
    script = 'mount -t tmpfs -o size=256k swarmctl-test disk && exec "$0" -c "$1"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable, program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_full_disk_kills_a_manager_on_the_stock_journal(tmp_path: Path):
    """Its file grows by a hole, and writing into the mapped hole is a bus error: no exception, no last word."""
    assert on_a_small_disk(tmp_path, STOCK).returncode == -signal.SIGBUS


def test_full_disk_is_an_error_for_our_log_which_goes_on_when_there_is_space(tmp_path: Path):
    ended = on_a_small_disk(tmp_path, OURS)
    assert ended.stdout == "No space left on device\nTrue True True\n"
