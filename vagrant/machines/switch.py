"""An Ethernet switch in user space: one loopback UDP port per machine, faults on demand.

QEMU's `dgram` netdev sends each frame as one datagram. The switch learns addresses, floods what it does not know, and
never returns a frame to its sender. Links between two machines can be cut in one or both directions, and a machine can
lose a share of what it sends and gets. Commands are JSON datagrams on a Unix socket, each answered by one:
{"cut": [[1, 2]]} (from machine 1 to machine 2), {"heal": true}, {"loss": {"1": 0.1}}, {"status": true}.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import sys
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
FRAME_BYTES_MAX = 65_536
_BURST = 64


class Faults:
    """What must not pass. `loss`: machine -> share of its frames that vanish, 0 to 1."""

    def __init__(self, random_source: random.Random) -> None:
        self._random = random_source
        self.cut: set[tuple[int, int]] = set()
        self.loss: dict[int, float] = {}

    def passes(self, source: int, target: int) -> bool:
        if (source, target) in self.cut:
            return False
        return all(self._random.random() >= self.loss.get(machine, 0.0) for machine in (source, target))

    def command(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Apply and say what is in force. ValueError, KeyError and TypeError for nonsense."""
        self.cut |= {(int(source), int(target)) for source, target in wanted.get("cut", ())}
        if wanted.get("heal"):
            self.cut.clear()
            self.loss.clear()
        for machine, share in wanted.get("loss", {}).items():
            if not 0 <= float(share) <= 1:
                raise ValueError(f"loss {share} is not between 0 and 1")
            self.loss[int(machine)] = float(share)
        return {"cut": sorted(self.cut), "loss": self.loss}


class Table:
    """Which machine an address was last seen at. Pure."""

    def __init__(self, machines: list[int]) -> None:
        self._machines = machines
        self._seen: dict[bytes, int] = {}

    def targets(self, source: int, frame: bytes) -> list[int]:
        """Where a frame has to go; the lowest bit of the first byte says that it is for many."""
        if len(frame) < 14:
            return []
        destination, sender = frame[:6], frame[6:12]
        self._seen[sender] = source
        known = None if destination[0] & 1 else self._seen.get(destination)
        if known is None:
            return [machine for machine in self._machines if machine != source]
        return [known] if known != source else []


class Switch:
    """`ports`: machine -> (the UDP port it sends to, the UDP port it listens on)."""

    def __init__(self, ports: dict[int, tuple[int, int]], control: Path) -> None:
        self.faults = Faults(random.Random())
        self._table = Table(sorted(ports))
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[int, socket.socket] = {}
        for machine, (inward, outward) in ports.items():
            endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            endpoint.setblocking(False)
            endpoint.bind((HOST, inward))
            # Connected: takes datagrams from this machine's QEMU only.
            endpoint.connect((HOST, outward))
            self._sockets[machine] = endpoint
            self._selector.register(endpoint, selectors.EVENT_READ, machine)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._control.setblocking(False)
        control.unlink(missing_ok=True)
        self._control.bind(str(control))
        self._selector.register(self._control, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Until the process is ended."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._obey()
                else:
                    self._forward(key.data)

    def _forward(self, source: int) -> None:
        endpoint = self._sockets[source]
        for _ in range(_BURST):
            try:
                frame = endpoint.recv(FRAME_BYTES_MAX)
            except (BlockingIOError, ConnectionRefusedError):
                return  # nothing more, or that machine is not running
            for target in self._table.targets(source, frame):
                if self.faults.passes(source, target):
                    self._send(target, frame)

    def _send(self, target: int, frame: bytes) -> None:
        try:
            self._sockets[target].send(frame)
        except (BlockingIOError, ConnectionRefusedError):
            return  # as a switch with a full buffer, or a machine without power

    def _obey(self) -> None:
        data, client = self._control.recvfrom(FRAME_BYTES_MAX)
        try:
            answer = self.faults.command(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            answer = {"error": str(error)}
        if client:
            self._control.sendto(json.dumps(answer).encode(), client)


def ask(control: Path, command: dict[str, Any], timeout_s: float = 5.0) -> dict[str, Any]:
    """Send a command to a running switch. RuntimeError with its reason, OSError when there is none."""
    own = control.with_name(f"ask-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.bind(str(own))
        try:
            client.sendto(json.dumps(command).encode(), str(control))
            answer: dict[str, Any] = json.loads(client.recv(FRAME_BYTES_MAX))
        finally:
            own.unlink()
    if "error" in answer:
        raise RuntimeError(f"the switch refuses: {answer['error']}")
    return answer


def main() -> None:
    """argv: control socket, then machine:inward:outward for each machine."""
    control, *machines = sys.argv[1:]
    ports = {}
    for text in machines:
        machine, inward, outward = (int(part) for part in text.split(":"))
        ports[machine] = (inward, outward)
    Switch(ports, Path(control)).serve()


if __name__ == "__main__":
    main()
