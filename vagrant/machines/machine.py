"""One machine: a QEMU process, its disk, its ssh. Everything about it is in one folder.

The processor is emulated unless SWARMCTL_ACCEL says otherwise: a /dev/kvm that exists may still be unable to run a
kernel. Machine N has 10.77.0.N on the network between the machines and ssh on a loopback port of the host.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
BOOT_TIMEOUT_S = 300.0
SSH_TIMEOUT_S = 120.0
SNAPSHOT = "lab"
_NICENESS = -10
# In the lab's folder: the disk that those of its machines began with.
BASE = "base.raw"
# ssh adds 17 characters of its own to the 108 that the kernel takes.
_SOCKET_PATH_MAX = 108 - 1 - 17
_APPEND = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet systemd.hostname=node{number}"


class MachineError(Exception):
    """The message says which machine, what it was asked, and what it said."""


@dataclass(frozen=True)
class Image:
    """What `vagrant/build-image` made."""

    folder: Path

    def require(self) -> None:
        missing = [
            n for n in ("disk.raw", "vmlinuz", "initrd.img", "ssh-key") if not (self.folder / n).exists()
        ]
        if missing:
            raise MachineError(f"{self.folder} lacks {', '.join(missing)}: run vagrant/build-image first")


@dataclass(frozen=True)
class Machine:
    """`base_port`: the lab's first port; each machine uses four of them."""

    number: int
    folder: Path
    image: Image
    base_port: int
    memory_mb: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def ssh_port(self) -> int:
        return self.base_port + 4 * self.number

    @property
    def switch_ports(self) -> tuple[int, int]:
        """(the port it sends to, the port it listens on)."""
        return self.ssh_port + 1, self.ssh_port + 2

    # ---- power ----

    def power_on(self, restore: bool = False) -> None:
        """Start QEMU; returns before the machine has booted. `restore`: from the saved state, not running yet."""
        if self.is_on():
            raise MachineError(f"{self.name} is running already")
        self.folder.mkdir(parents=True, exist_ok=True)
        disk = self.folder / "disk.qcow2"
        if not disk.exists():
            base = self.folder.parent / BASE
            _run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(disk)])
        _run(self._command(disk, restore))
        self._hurry()

    def _hurry(self) -> None:
        """Before what else the host does, if that is allowed: a machine that does not run looks like a dead one."""
        pid = self.pid()
        if pid is None or os.geteuid() != 0:
            return
        for thread in Path(f"/proc/{pid}/task").iterdir():  # the emulated processor is a thread of its own
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICENESS)
        # Its session is a group of its own for the kernel's scheduler, which shares time between groups first.
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(str(_NICENESS))

    def _command(self, disk: Path, restore: bool) -> list[str]:
        inward, outward = self.switch_ports
        accelerator = os.environ.get("SWARMCTL_ACCEL", "tcg")
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg,tb-size=128" if accelerator == "tcg" else accelerator),
            *("-M", "q35", "-cpu", "max", "-smp", "1", "-m", str(self.memory_mb)),
            *("-nodefaults", "-display", "none", "-daemonize", "-name", self.name),
            *("-pidfile", str(self.folder / "pid"), "-serial", f"file:{self.folder / 'console'}"),
            *("-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"),
            *(
                "-kernel",
                str(self.image.folder / "vmlinuz"),
                "-initrd",
                str(self.image.folder / "initrd.img"),
            ),
            *("-append", _APPEND.format(number=self.number)),
            *("-drive", f"file={disk},if=virtio,cache=unsafe,discard=unmap"),
            *("-device", "virtio-rng-pci"),
            *("-netdev", f"user,id=management,restrict=on,hostfwd=tcp:{HOST}:{self.ssh_port}-:22"),
            *("-device", "virtio-net-pci,netdev=management"),
            "-netdev",
            "dgram,id=lab,"
            f"local.type=inet,local.host={HOST},local.port={outward},"
            f"remote.type=inet,remote.host={HOST},remote.port={inward}",
            *("-device", f"virtio-net-pci,netdev=lab,mac=52:54:00:77:00:{self.number:02x}"),
            *(("-S", "-loadvm", SNAPSHOT) if restore else ()),
        ]

    def pid(self) -> int | None:
        """Of its QEMU, None when it is off."""
        try:
            pid = int((self.folder / "pid").read_text())
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if str(self.folder).encode() in name else None

    def is_on(self) -> bool:
        return self.pid() is not None

    def power_off(self) -> None:
        """As by pulling the plug: what the guest had not written is gone."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        self._forget_connection()
        _wait(lambda: not self.is_on(), 10, f"{self.name} does not end")

    def wait_for_ssh(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        def answers() -> bool:
            if not self.is_on():
                raise MachineError(f"{self.name} went off while booting: see {self.folder / 'console'}")
            return self.ssh(["true"], check=False, timeout_s=20).returncode == 0

        _wait(answers, timeout_s, f"{self.name} cannot be reached by ssh: see {self.folder / 'console'}")

    # ---- inside ----

    def ssh_command(self, command: Sequence[str]) -> list[str]:
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=10",
            "ServerAliveInterval=10",
            *self._shared_connection(),
        )
        return [
            *("ssh", "-i", str(self.image.folder / "ssh-key"), "-p", str(self.ssh_port)),
            *(part for option in options for part in ("-o", option)),
            f"root@{HOST}",
            *command,
        ]

    def _shared_connection(self) -> tuple[str, ...]:
        """Options: commands share one connection, because an emulated processor needs a second for each handshake."""
        path = self.folder / "ssh"
        if len(str(path)) > _SOCKET_PATH_MAX:
            return ()
        return "ControlMaster=auto", f"ControlPath={path}", "ControlPersist=300"

    def _forget_connection(self) -> None:
        """End the process that holds it: what it leads to is gone."""
        if (self.folder / "ssh").exists():
            subprocess.run([*self.ssh_command([])[:-1], "-O", "exit", f"root@{HOST}"], capture_output=True)

    def ssh(
        self,
        command: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float = SSH_TIMEOUT_S,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root. MachineError when it fails (unless `check` is False) or takes too long."""
        try:
            done = subprocess.run(
                self.ssh_command(command),
                capture_output=True,
                text=True,
                timeout=timeout_s,
                input=stdin if stdin is not None else "",
            )
        except subprocess.TimeoutExpired as error:
            if not check:
                return subprocess.CompletedProcess(error.cmd, 255, "", "timed out")
            raise MachineError(f"{self.name}: {' '.join(command)}: no end after {timeout_s:g} s") from error
        if check and done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise MachineError(f"{self.name}: {' '.join(command)}: exit code {done.returncode}: {said}")
        return done

    def unpack(self, folder: Path, target: str) -> None:
        """Copy what is in a folder of the host into one of the machine, over what is there."""
        packed = subprocess.run(
            ["tar", "-C", str(folder), "-cf", "-", "."], check=True, stdout=subprocess.PIPE
        )
        command = self.ssh_command([f"tar -C {target} --no-same-owner -xf -"])
        done = subprocess.run(command, input=packed.stdout, capture_output=True, timeout=SSH_TIMEOUT_S)
        if done.returncode != 0:
            raise MachineError(f"{self.name}: copying {folder} to {target}: {done.stderr.decode().strip()}")

    # ---- saved states ----

    def monitor(self, command: str, timeout_s: float = 120.0) -> str:
        """One command of QEMU's monitor. MachineError with what it answered when that is an error."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(self.folder / "qmp"))
            stream = connection.makefile("rwb")
            _qmp(stream, {"execute": "qmp_capabilities"})
            answer = _qmp(
                stream, {"execute": "human-monitor-command", "arguments": {"command-line": command}}
            )
        if answer.strip():
            raise MachineError(f"{self.name}: {command}: {answer.strip()}")
        return answer

    def pause(self) -> None:
        self.monitor("stop")

    def go_on(self) -> None:
        self.monitor("cont")

    def save(self) -> None:
        self.monitor(f"savevm {SNAPSHOT}")

    def set_clock(self) -> None:
        """A restored machine lives in the past."""
        self.ssh(["date", "--utc", "--set", f"@{time.time():.3f}"])


def _qmp(stream: Any, command: dict[str, Any]) -> str:
    stream.write(json.dumps(command).encode() + b"\n")
    stream.flush()
    while line := stream.readline():
        message = json.loads(line)
        if "error" in message:
            raise MachineError(f"QEMU refuses {command}: {message['error']['desc']}")
        if "return" in message:
            return str(message["return"] or "")
    raise MachineError(f"QEMU closed its monitor at {command}")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError as error:
        raise MachineError(
            f"{command[0]} is missing: apt-get install --no-install-recommends qemu-system-x86 qemu-utils"
        ) from error
    if done.returncode != 0:
        raise MachineError(f"{' '.join(command[:2])}: {done.stderr.strip()}")


def _wait(condition: Callable[[], bool], timeout_s: float, problem: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise MachineError(f"{problem} (waited {timeout_s:g} s)")
        time.sleep(0.2)
