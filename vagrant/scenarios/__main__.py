"""`vagrant/scenarios/run NAME...|--quick|--list`: plays scenarios one after the other, and says what came of each.

Exit code 1 when one failed. All machines, and all that belongs to them, are gone at the end; a failed scenario leaves
what its machines said in a folder of its own.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from types import FrameType, ModuleType

from machines.lab import Lab
from machines.machine import Image, MachineError

from scenarios import join
from scenarios.swarm import Swarm, Unexpected

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
# In the order in which they are played; `join` makes the swarm that the others begin with.
NAMES = (
    "join",
    "spread",
    "machine_lost",
    "leader_lost",
    "partition",
    "drain_and_update",
    "upgrade",
    "reboot",
    "cgroup_v2",
    "engine_suite",
)
EXIT_FAILED = 1


@dataclass(frozen=True)
class Result:
    """`at_first`: what went wrong before it was played again."""

    name: str
    failure: str
    seconds: float
    at_first: str = ""

    def __str__(self) -> str:
        told = f"FAILED: {_first_line(self.failure)}" if self.failure else "passed"
        return f"{told} (played again; at first: {_first_line(self.at_first)})" if self.at_first else told


def _first_line(text: str) -> str:
    return text.splitlines()[0]


def scenario(name: str) -> ModuleType:
    return importlib.import_module(f"scenarios.{name}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="vagrant/scenarios/run", description="Scenarios on several machines.")
    top.add_argument("names", nargs="*", metavar="NAME", help="see --list; all of them when none is given")
    top.add_argument("--list", action="store_true", help="what there is, and what each shows")
    top.add_argument("--quick", action="store_true", help="those that continuous integration plays")
    top.add_argument(
        "--again",
        action="store_true",
        help="play a scenario that failed once more: a busy host starves emulated machines",
    )
    top.add_argument(
        "--keep", action="store_true", help="leave the machines running, and use them the next time"
    )
    top.add_argument(
        "--image", type=Path, default=CACHE / "machines", help="what vagrant/build-image made (%(default)s)"
    )
    top.add_argument(
        "--folder", type=Path, default=CACHE / "scenarios", help="machines and evidence (%(default)s)"
    )
    top.add_argument("--memory", type=int, default=448, metavar="MB", help="of each machine (%(default)s)")
    top.add_argument("--base-port", type=int, default=22_600, help="first loopback port (%(default)s)")
    return top


class Stage:
    """The machines that the scenarios share, brought to the state in which each of them begins."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._content = (given.image / "content").read_text() if (given.image / "content").exists() else ""
        self.lab = Lab(given.folder.absolute() / "lab", Image(given.image.absolute()))

    def machines(self, count: int, memory_mb: int = 0) -> Swarm:
        """Freshly booted; `memory_mb` of each unless the user wants more."""
        self.lab.down()
        self.lab.up(count, max(memory_mb, self._given.memory), self._given.base_port)
        return Swarm(self.lab)

    def swarm(self, count: int) -> Swarm:
        """All managers, with the image `hello`, and nothing else. Made once, then restored."""
        if self._formed(count):
            self.lab.restore()
            return Swarm(self.lab)
        swarm = self.machines(count)
        join.play(swarm)
        self.keep(swarm)
        return swarm

    def keep(self, swarm: Swarm) -> None:
        """The state that `swarm` restores."""
        swarm.step("Every machine loads the image of a small web server, built there from busybox")
        program = (ROOT / "examples/hello/build.py").read_text()
        swarm.on_all("python3 - hello.tar && swarmctl load -i hello.tar", stdin=program)
        self.lab.save()
        self._mark.write_text(f"{len(swarm.names)} {self._content}")

    @property
    def _mark(self) -> Path:
        return self.lab.folder / "formed"

    def _formed(self, count: int) -> bool:
        return self._mark.exists() and self._mark.read_text() == f"{count} {self._content}"


def play(name: str, stage: Stage, evidence: Path) -> Result:
    module = scenario(name)
    title = (module.__doc__ or "").strip()
    sys.stdout.write(f"\n=== {name}: {title}\n")
    start = time.monotonic()
    failure = ""
    try:
        if module.NEEDS_SWARM:
            swarm = stage.swarm(module.MACHINES)
        else:
            swarm = stage.machines(module.MACHINES, getattr(module, "MEMORY_MB", 0))
        module.play(swarm)
    except (
        Unexpected,
        MachineError,
        OSError,
        RuntimeError,
        LookupError,
        ValueError,
        SubprocessError,
    ) as error:
        failure = str(error) if isinstance(error, Unexpected | MachineError) else repr(error)
        sys.stdout.write(f"  FAILED: {failure}\n")
        where = [
            frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
        ]
        if where:
            sys.stdout.write(f"  at {where[-1].filename}:{where[-1].lineno}: {where[-1].line}\n")
        keep_evidence(stage, evidence / name)
    return Result(name, failure, time.monotonic() - start)


def play_again(result: Result, stage: Stage, evidence: Path) -> Result:
    """What failed at first stays in the result."""
    second = play(result.name, stage, evidence / "again")
    return Result(result.name, second.failure, result.seconds + second.seconds, at_first=result.failure)


def keep_evidence(stage: Stage, folder: Path) -> None:
    try:
        Swarm(stage.lab).keep_evidence(folder)
        sys.stdout.write(f"  the machines' journals are in {folder}\n")
    except (MachineError, OSError) as error:
        sys.stdout.write(f"  the machines' journals could not be kept: {error}\n")


def table(results: list[Result]) -> str:
    rows = [("scenario", "result", "seconds"), ("---", "---", "---")]
    rows += [(result.name, str(result), f"{result.seconds:.0f}") for result in results]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def chosen(given: argparse.Namespace) -> list[str]:
    """SystemExit for a name that there is not."""
    for name in given.names:
        if name not in NAMES:
            sys.exit(f"error: there is no scenario {name}: vagrant/scenarios/run --list")
    if given.quick:
        return [name for name in NAMES if scenario(name).QUICK]
    return [name for name in NAMES if name in given.names] or list(NAMES)


def main() -> int:
    given = parser().parse_args()
    if given.list:
        for name in NAMES:
            print(
                f"{name:18} {'quick' if scenario(name).QUICK else '':6} {(scenario(name).__doc__ or '').strip()}"
            )
        return 0
    names = chosen(given)
    stage = Stage(given)

    def end(number: int, _frame: FrameType | None) -> None:
        if not given.keep:
            stage.lab.down()  # first, because threads that wait for a machine end with it
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    results: list[Result] = []
    try:
        evidence = given.folder.absolute() / "evidence"
        for name in names:
            result = play(name, stage, evidence)
            results.append(play_again(result, stage, evidence) if result.failure and given.again else result)
    finally:
        if not given.keep:
            stage.lab.down()
        print(f"\n{table(results)}")
    return EXIT_FAILED if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
