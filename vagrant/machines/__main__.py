"""`vagrant/lab VERB`: machines under plain QEMU. Exit code 1 and one line on stderr when something fails."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from machines.lab import MACHINES_MAX, Lab
from machines.machine import Image, MachineError

CACHE = Path(__file__).resolve().parents[2] / ".cache"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="vagrant/lab", description="Test machines under plain QEMU.")
    top.add_argument("--folder", type=Path, default=CACHE / "lab", help="the lab's state (%(default)s)")
    top.add_argument(
        "--image", type=Path, default=CACHE / "machines", help="what vagrant/build-image made (%(default)s)"
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="boot N machines and the switch between them")
    up.add_argument(
        "count", type=int, nargs="?", default=3, metavar="N", help=f"1 to {MACHINES_MAX} (%(default)s)"
    )
    up.add_argument("--memory", type=int, default=448, metavar="MB", help="of each machine (%(default)s)")
    up.add_argument("--base-port", type=int, default=22_100, help="first loopback port (%(default)s)")
    verbs.add_parser("list", help="machines, power, addresses, ssh ports")
    ssh = verbs.add_parser("ssh", help="a shell, or one command, as root")
    ssh.add_argument("node")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("save", help="keep the state of all machines")
    verbs.add_parser("restore", help="go back to the saved state")
    cut = verbs.add_parser("cut", help="no frames between two machines, or between one and all others")
    cut.add_argument("node")
    cut.add_argument("other", nargs="?", default="")
    cut.add_argument("--one-way", action="store_true", help="only from the first to the other")
    verbs.add_parser("heal", help="undo every cut and loss")
    loss = verbs.add_parser("loss", help="lose a share of one machine's frames")
    loss.add_argument("node")
    loss.add_argument("percent", type=float)
    for verb, words in (
        ("reboot", "restart in order, wait until it answers"),
        ("kill", "pull the plug"),
        ("start", "power on again, wait until it answers"),
    ):
        verbs.add_parser(verb, help=words).add_argument("node")
    verbs.add_parser("down", help="end everything and delete the lab's folder")
    return top


def main() -> int:
    given = parser().parse_args()
    lab = Lab(given.folder.absolute(), Image(given.image.absolute()))
    started = time.monotonic()
    try:
        run(lab, given)
    except (MachineError, OSError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    if given.verb in ("up", "save", "restore", "reboot", "start"):
        print(f"{given.verb}: {time.monotonic() - started:.1f} s")
    return 0


def run(lab: Lab, given: argparse.Namespace) -> None:
    match given.verb:
        case "up":
            lab.up(given.count, given.memory, given.base_port)
        case "list":
            for machine in lab.machines():
                power = "on" if machine.is_on() else "off"
                print(f"{machine.name}  {power:3}  {machine.address}  ssh port {machine.ssh_port}")
        case "ssh":
            command = lab.machine(given.node).ssh_command(given.command)
            os.execvp(command[0], command)
        case "save":
            lab.save()
        case "restore":
            lab.restore()
        case "cut":
            lab.cut(given.node, given.other, given.one_way)
        case "heal":
            lab.heal()
        case "loss":
            lab.loss(given.node, given.percent / 100)
        case "reboot":
            reboot(lab, given.node)
        case "kill":
            lab.machine(given.node).power_off()
        case "start":
            machine = lab.machine(given.node)
            machine.power_on()
            machine.wait_for_ssh()
        case "down":
            lab.down()


def reboot(lab: Lab, name: str) -> None:
    """In order, as an administrator does it; returns when the new life answers."""
    machine = lab.machine(name)
    boot_id = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = machine.ssh(boot_id).stdout
    machine.ssh(["systemctl", "reboot"], check=False)
    deadline = time.monotonic() + 300
    while machine.ssh(boot_id, check=False, timeout_s=20).stdout in ("", before):
        if time.monotonic() > deadline:
            raise MachineError(f"{machine.name} did not come back within 300 s")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
