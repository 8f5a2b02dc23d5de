"""`./dev chaos`: real managers, concurrent clients, faults, and a check of everything that was answered."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chaos import history, report
from chaos.cluster import Cluster
from chaos.nemesis import NEMESES
from chaos.run import Result, run
from node.lab.model import LabError

ROOT = Path(__file__).parent.parent
SECONDS = 20.0
MANAGERS_MAX = 7


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args([_as_option(word) for word in words])
    try:
        results = asyncio.run(_cancelled_by_sigterm(options))
    except LabError as error:
        _say(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    print(report.table(results), end="")
    if options.docs:
        block = report.block(results, options.seconds, options.seed)
        report.write_docs(ROOT / "docs" / "reliability.md", block)
    return 0 if all(result.is_right for result in results) else 1


async def _cancelled_by_sigterm(options: argparse.Namespace) -> list[Result]:
    """The lab is removed also when this process is told to end."""
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    results = []
    for managers in options.managers:
        results += await _against(managers, options)
    return results


async def _against(managers: int, options: argparse.Namespace) -> list[Result]:
    """All wanted nemeses, one after the other, on one cluster."""
    cluster = Cluster(f"{options.lab}-{managers}", managers)
    rng = random.Random(f"{options.seed}/{managers}")
    results = []
    try:
        _say(f"{managers} managers start, seed {options.seed}")
        await asyncio.to_thread(cluster.up)
        for number, name in enumerate(options.nemesis):
            nemesis = NEMESES[name](cluster, rng)
            result = await run(cluster, nemesis, options.seconds, f"p{number}", _say)
            results.append(result)
            _tell(result, cluster, options)
            if result.problems:
                break  # they may not be fit for more
    finally:
        await asyncio.to_thread(cluster.down)
    return results


def _tell(result: Result, cluster: Cluster, options: argparse.Namespace) -> None:
    for note in result.notes:
        _say(f"{result.nemesis}: {note}")
    if result.is_right:
        _say(f"{result.nemesis}: {result.acknowledged:,} acknowledged, nothing lost, linearizable")
        return
    folder = Path(options.history) / f"chaos-{result.managers}-{result.nemesis}-{options.seed}"
    history.save(result.history, folder / "history.jsonl")
    for node in cluster.lab.nodes:
        shutil.copy(node.log, folder / node.log.name)
    _say(f"{result.nemesis}: VIOLATED\n{report.problems(result)}\nhistory and logs: {folder}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- arguments ---


def _as_option(word: str) -> str:
    """NAME=VALUE, as `./dev` takes it, is --name=VALUE."""
    name, equals, value = word.partition("=")
    return f"--{name.lower()}={value}" if equals and name.isupper() else word


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in NEMESES:
            raise argparse.ArgumentTypeError(f'there is no nemesis "{name}"; there are: {", ".join(NEMESES)}')
    return names


def _counts(text: str) -> list[int]:
    counts = text.split(",")
    for count in counts:
        if not count.isdecimal() or not 3 <= int(count) <= MANAGERS_MAX:
            raise argparse.ArgumentTypeError(f'"{count}" managers: 3 to {MANAGERS_MAX} can be tried')
    return [int(count) for count in counts]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev chaos", description="Real managers under faults, checked.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each nemesis (default 20)")
    parser.add_argument(
        "--managers", type=_counts, default=[3], help="how many, such as 3 or 3,5 (default 3)"
    )
    parser.add_argument(
        "--nemesis", type=_names, default=list(NEMESES), help=f"which, of: {', '.join(NEMESES)} (default all)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="of all choices (default random)"
    )
    parser.add_argument("--history", default=tempfile.gettempdir(), help="where a violated history is kept")
    parser.add_argument(
        "--lab", default=f"chaos{os.getpid()}", help="name of the lab that is made and removed"
    )
    parser.add_argument("--docs", action="store_true", help="write the table into docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
