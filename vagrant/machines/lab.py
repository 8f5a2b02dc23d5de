"""A set of machines and the switch between them, kept in one folder so that every command finds them again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machines import switch
from machines.machine import BASE, Image, Machine, MachineError

MACHINES_MAX = 9


class Lab:
    """`folder` exists exactly while the lab does."""

    def __init__(self, folder: Path, image: Image) -> None:
        self.folder = folder
        self.image = image

    # ---- the set ----

    def machines(self) -> list[Machine]:
        """MachineError when there is no lab."""
        try:
            said = json.loads((self.folder / "lab.json").read_text())
        except FileNotFoundError as error:
            raise MachineError(f"there is no lab in {self.folder}: vagrant/lab up") from error
        return [
            Machine(number, self.folder / f"node{number}", self.image, said["base_port"], said["memory_mb"])
            for number in range(1, said["machines"] + 1)
        ]

    def machine(self, name: str) -> Machine:
        """By number or name."""
        for machine in self.machines():
            if name in (machine.name, str(machine.number)):
                return machine
        raise MachineError(f"there is no machine {name}: vagrant/lab list")

    def up(self, count: int, memory_mb: int, base_port: int) -> None:
        """Boot all at once; returns when each answers. What runs already stays."""
        if not 1 <= count <= MACHINES_MAX:
            raise MachineError(f"{count} machines: must be 1 to {MACHINES_MAX}")
        self.image.require()
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "lab.json").exists():
            said = {"machines": count, "memory_mb": memory_mb, "base_port": base_port}
            (self.folder / "lab.json").write_text(json.dumps(said))
            self._keep_base()
        machines = self.machines()
        if len(machines) != count:
            raise MachineError(f"the lab has {len(machines)} machines: vagrant/lab down first")
        self._start_switch(machines)
        self._start(machines)

    def _keep_base(self) -> None:
        """The disks are differences to the image as it is now: a newer one under them would be damage."""
        base = self.image.folder / "disk.raw"
        try:
            (self.folder / BASE).hardlink_to(base)
        except OSError:  # another file system
            subprocess.run(["cp", "--sparse=always", base, self.folder / BASE], check=True)

    def restore(self) -> None:
        """All machines as they were when `save` ran; nothing is cut or lost."""
        machines = self.machines()
        for machine in machines:
            machine.power_off()
        self._start_switch(machines)
        self.heal()
        for machine in machines:
            machine.power_on(restore=True)
        for machine in machines:
            machine.go_on()
        _each(machines, Machine.wait_for_ssh)
        _each(machines, Machine.set_clock)

    def save(self) -> None:
        """All stand still meanwhile: no machine's state knows of something that another's has yet to do."""
        machines = self.machines()
        for machine in machines:
            if not machine.is_on():
                raise MachineError(f"{machine.name} is off: only running machines can be saved")
        try:
            for machine in machines:
                machine.pause()
            for machine in machines:
                machine.save()
        finally:
            for machine in machines:
                machine.go_on()

    def down(self) -> None:
        """End all of it, whatever state it is in."""
        if (self.folder / "lab.json").exists():
            for machine in self.machines():
                machine.power_off()
        self._stop_switch()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, machines: Iterable[Machine]) -> None:
        started = [machine for machine in machines if not machine.is_on()]
        for machine in started:
            machine.power_on()
        _each(started, Machine.wait_for_ssh)

    # ---- the network ----

    @property
    def _control(self) -> Path:
        return self.folder / "switch.sock"

    def cut(self, one: str, other: str = "", one_way: bool = False) -> None:
        """Between two machines, or between one and all others."""
        source = self.machine(one)
        targets = [self.machine(other)] if other else [m for m in self.machines() if m != source]
        pairs = [(source.number, target.number) for target in targets]
        if not one_way:
            pairs += [(target, number) for number, target in pairs]
        switch.ask(self._control, {"cut": pairs})

    def heal(self) -> None:
        switch.ask(self._control, {"heal": True})

    def loss(self, name: str, share: float) -> None:
        switch.ask(self._control, {"loss": {str(self.machine(name).number): share}})

    def _switch_pid(self) -> int | None:
        try:
            pid = int((self.folder / "switch.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if str(self._control).encode() in command else None

    def _start_switch(self, machines: list[Machine]) -> None:
        if self._switch_pid() is not None:
            return
        ports = [":".join(map(str, (machine.number, *machine.switch_ports))) for machine in machines]
        with (self.folder / "switch.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, switch.__file__, str(self._control), *ports],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / "switch.pid").write_text(str(process.pid))
        deadline = time.monotonic() + 10
        while not self._control.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"the switch does not start: see {self.folder / 'switch.log'}")
            time.sleep(0.05)

    def _stop_switch(self) -> None:
        pid = self._switch_pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)


def _each(machines: Iterable[Machine], action: Callable[[Machine], object]) -> None:
    """At the same time for all of them."""
    with ThreadPoolExecutor(MACHINES_MAX) as pool:
        list(pool.map(action, machines))
