"""The switch between test machines: what it forwards, learns and cuts."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

VAGRANT = Path(__file__).resolve().parents[3] / "vagrant"
sys.path.insert(0, str(VAGRANT))

from machines import switch  # noqa: E402
from machines.switch import Faults, Table  # noqa: E402

ONE, TWO, THREE = b"\x52\0\0\0\0\1", b"\x52\0\0\0\0\2", b"\x52\0\0\0\0\3"
ALL = b"\xff" * 6


def frame(destination: bytes, source: bytes) -> bytes:
    return destination + source + b"\x08\0payload"


def test_unknown_and_many_are_flooded_known_is_not() -> None:
    table = Table([1, 2, 3])
    assert table.targets(1, frame(TWO, ONE)) == [2, 3]
    assert table.targets(2, frame(ONE, TWO)) == [1]
    assert table.targets(1, frame(TWO, ONE)) == [2]
    assert table.targets(1, frame(ALL, ONE)) == [2, 3]
    assert table.targets(1, frame(ONE, ONE)) == [], "never back to where it came from"
    assert table.targets(3, frame(TWO, ONE)) == [2]
    assert table.targets(2, frame(ONE, TWO)) == [3], "the address has moved"
    assert table.targets(1, b"short") == []


def test_cuts_have_a_direction_and_heal() -> None:
    faults = Faults(random.Random(1))
    faults.command({"cut": [[1, 2]]})
    assert not faults.passes(1, 2)
    assert faults.passes(2, 1)
    faults.command({"loss": {"3": 1.0}})
    assert not faults.passes(3, 1)
    assert not faults.passes(1, 3)
    assert faults.command({"heal": True}) == {"cut": [], "loss": {}}
    assert faults.passes(1, 2) and faults.passes(3, 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        faults.command({"loss": {"1": 2}})


def free_ports(count: int) -> list[int]:
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in held:
            one.bind((switch.HOST, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, dict[int, socket.socket]]]:
    """A switch as a process, and the machines' ends of its links."""
    ports = free_ports(6)
    machines = {number: (ports[2 * number - 2], ports[2 * number - 1]) for number in (1, 2, 3)}
    ends = {}
    for number, (inward, outward) in machines.items():
        ends[number] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ends[number].bind((switch.HOST, outward))
        ends[number].connect((switch.HOST, inward))
        ends[number].settimeout(20)
    control = tmp_path / "switch.sock"
    words = [f"{number}:{inward}:{outward}" for number, (inward, outward) in machines.items()]
    process = subprocess.Popen([sys.executable, switch.__file__, str(control), *words])
    try:
        deadline = time.monotonic() + 20
        while not control.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield control, ends
    finally:
        process.terminate()
        process.wait()
        for end in ends.values():
            end.close()


def test_frames_go_through_a_running_switch(running: tuple[Path, dict[int, socket.socket]]) -> None:
    control, ends = running
    ends[1].send(frame(ALL, ONE))
    assert ends[2].recv(100) == ends[3].recv(100) == frame(ALL, ONE)
    assert switch.ask(control, {"cut": [[1, 3]]}) == {"cut": [[1, 3]], "loss": {}}
    ends[1].send(frame(THREE, ONE))
    ends[1].send(frame(ALL, ONE))
    # What machine 2 gets last was sent after what machine 3 must not get.
    assert ends[2].recv(100) == frame(THREE, ONE)
    assert ends[2].recv(100) == frame(ALL, ONE)
    ends[3].send(frame(ONE, THREE))
    assert ends[1].recv(100) == frame(ONE, THREE)
    switch.ask(control, {"heal": True})
    ends[1].send(frame(THREE, ONE))
    assert ends[3].recv(100) == frame(THREE, ONE)
    with pytest.raises(RuntimeError, match="refuses"):
        switch.ask(control, {"loss": {"1": -1}})
