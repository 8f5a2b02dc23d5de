"""What a lab is: its name, nodes, addresses and folders, and the file that remembers them.

Owns the naming of everything a lab leaves in the system, so that `down` can find all of it even when the file is
gone. Names are chosen such that one lab's things are never mistaken for another's: lab names have no dots, node
names are n1, n2, ...
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

RUN_ROOT = Path("/run/swarmctl/labs")
STATE_ROOT = Path("/var/lib/swarmctl/labs")
NETNS_ROOT = Path("/run/netns")
DEFAULT_NAME = "demo"
NODES_MAX = 100
LABS_MAX = 256
MARKER = "SWARMCTL_LAB_NODE"  # in the environment of every process of a node's daemon: LAB/NODE
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")


class LabError(Exception):
    """Something the user can do something about; `hint` says what."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass
class LabNode:
    lab: str
    name: str
    address: str
    role: str = "none"  # as last seen: manager, worker or none

    @property
    def netns(self) -> str:
        return f"swarmctl.{self.lab}.{self.name}"

    @property
    def netns_path(self) -> Path:
        return NETNS_ROOT / self.netns

    @property
    def mac(self) -> str:
        """The same after a power cut, as a machine's: the others remember it."""
        return "02:77:" + ":".join(f"{int(number):02x}" for number in self.address.split("."))

    @property
    def state_dir(self) -> Path:
        return STATE_ROOT / self.lab / self.name

    @property
    def run_dir(self) -> Path:
        return RUN_ROOT / self.lab / self.name

    @property
    def log(self) -> Path:
        return STATE_ROOT / self.lab / f"{self.name}.log"

    @property
    def socket(self) -> Path:
        return self.run_dir / "swarmd.sock"

    @property
    def cgroup(self) -> str:
        """Below the mount point of each controller."""
        return f"swarmctl/{self.lab}-{self.name}"

    @property
    def marker(self) -> str:
        return f"{self.lab}/{self.name}"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"


@dataclass
class Lab:
    """`index` is the third number of all addresses; `cuts` are (from, to) pairs whose packets are dropped."""

    name: str
    index: int
    managers: int
    nodes: list[LabNode]
    cuts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def underlay(self) -> str:
        """The network namespace of the bridge that joins the nodes."""
        return f"swarmctl.{self.name}.underlay"

    @property
    def file(self) -> Path:
        return RUN_ROOT / self.name / "lab.json"

    def node(self, name: str) -> LabNode:
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise LabError(f'lab "{self.name}" has no node "{name}"', hint=f"its nodes: {known}")

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".new")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(self.file)


def new_lab(name: str, node_count: int, managers: int) -> Lab:
    """Chooses a /24 that no other lab uses; nothing is created. Call it with the lock of all labs held."""
    check_name(name)
    if not 1 <= node_count <= NODES_MAX:
        raise LabError(f"--nodes {node_count}: a lab has 1 to {NODES_MAX} nodes")
    if not 1 <= managers <= node_count:
        raise LabError(f"--managers {managers}: must be from 1 to the number of nodes ({node_count})")
    taken = {lab.index for lab in all_labs()}
    index = next((number for number in range(LABS_MAX) if number not in taken), None)
    if index is None:
        raise LabError(
            "no free address range for another lab", hint="remove one: swarmctl lab down --name NAME"
        )
    nodes = [LabNode(name, f"n{at}", f"10.77.{index}.{10 + at}") for at in range(1, node_count + 1)]
    return Lab(name, index, managers, nodes)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise LabError(
            f'invalid lab name "{name}"',
            hint="1 to 20 characters of a-z, 0-9 and -, not at the beginning or end",
        )


def load(name: str) -> Lab:
    check_name(name)
    found = find(name)
    if found is None:
        others = ", ".join(lab.name for lab in all_labs())
        hint = (
            f"labs on this machine: {others} (choose with --name)" if others else "make one: swarmctl lab up"
        )
        raise LabError(f'there is no lab "{name}"', hint=hint)
    return found


def find(name: str) -> Lab | None:
    """None when the lab does not exist or its file cannot be read (`down` removes the rest of such a lab)."""
    try:
        data = json.loads((RUN_ROOT / name / "lab.json").read_text())
        nodes = [LabNode(**node) for node in data["nodes"]]
        cuts = [(str(source), str(target)) for source, target in data["cuts"]]
        return Lab(data["name"], data["index"], data["managers"], nodes, cuts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def all_labs() -> list[Lab]:
    names = sorted(path.parent.name for path in RUN_ROOT.glob("*/lab.json"))
    return [lab for name in names if (lab := find(name)) is not None]


@contextlib.contextmanager
def locked(what: str) -> Iterator[None]:
    """One change at a time, of the list of labs ("") or of one lab; waits for the other one to finish."""
    RUN_ROOT.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(RUN_ROOT / f".{what}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
