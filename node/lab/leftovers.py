"""What a node that lost its power leaves behind in the system: mounts, cgroups and the run folder.

A real machine forgets these by rebooting; a lab node shares its kernel with others, so they are removed by hand.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from node.lab.model import LabNode
from node.lab.processes import remove_cgroups
from node.lab.underlay import command


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, in the order they were made (`/proc` escapes blanks as octal numbers)."""
    prefix = str(folder)
    points = [
        line.split()[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    return [point for point in points if point == prefix or point.startswith(f"{prefix}/")]


def unmount_below(folder: Path) -> None:
    for point in reversed(mounts_below(folder)):
        command("umount", "--lazy", "--no-mtab", point, check=False)


def remove_folder(folder: Path) -> None:
    """Unmounts all below it first: removing must never reach into what is mounted there."""
    unmount_below(folder)
    if mounts_below(folder):
        return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def forget_boot(node: LabNode) -> None:
    """All that a reboot would have taken away; the state folder stays."""
    remove_folder(node.run_dir)
    unmount_below(node.state_dir)
    remove_cgroups(node)
