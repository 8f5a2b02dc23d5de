"""A process' own wall clock: off by what the file says, while the others' and monotonic time stay true."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from chaos.clocks import settable_clocks
from node.lab.model import MARKER, LabNode

NODE = LabNode("lab", "n1", "")
TIMES = (
    "import time, datetime, sys\n"
    "for _ in sys.stdin:\n"
    "    print(time.time(), datetime.datetime.now().timestamp(), time.monotonic(), flush=True)\n"
)


def started(marker: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TIMES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {MARKER: marker},
    )


def offsets(process: subprocess.Popen[str]) -> tuple[int, ...]:
    """Of its clocks to ours, in whole minutes."""
    assert process.stdin is not None and process.stdout is not None
    print(file=process.stdin, flush=True)
    theirs = map(float, process.stdout.readline().split())
    ours = (time.time(), time.time(), time.monotonic())
    return tuple(round((their - our) / 60) for their, our in zip(theirs, ours, strict=True))


def test_a_clock_that_is_set_steps_in_the_running_process() -> None:
    environment = dict(os.environ)
    with settable_clocks() as clocks:
        clocks.set(NODE, 0)
        with started(NODE.marker) as process:
            assert offsets(process) == (0, 0, 0)
            clocks.set(NODE, 3600)
            assert offsets(process) == (60, 60, 0)
            clocks.set(NODE, -1800)
            assert offsets(process) == (-30, -30, 0)
    assert os.environ == environment


def test_other_processes_keep_the_true_time() -> None:
    with settable_clocks() as clocks:
        clocks.set(NODE, 3600)
        with started("lab/n2") as process:
            assert offsets(process) == (0, 0, 0)
