"""`python -m node.lab VERB ...`: what `swarmctl lab VERB ...` runs. Parses arguments and prints; decides nothing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from node.lab import lifecycle, power
from node.lab.model import DEFAULT_NAME, Lab, LabError, LabNode, all_labs, load, locked


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        _say("error: a lab needs root (network namespaces, cgroups, mounts)\nhint: sudo swarmctl lab ...")
        return 1
    try:
        run: Callable[[argparse.Namespace], int | None] = options.run
        return run(options) or 0
    except LabError as error:
        _say(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
        return 1
    except KeyboardInterrupt:
        return 130


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


# --- verbs ---


def _up(options: argparse.Namespace) -> None:
    lab = lifecycle.up(
        options.name,
        nodes=options.nodes,
        managers=options.managers if options.managers is not None else min(options.nodes, 3),
        joined=options.joined,
        keep=options.keep,
        say=_say,
    )
    name = "" if lab.name == DEFAULT_NAME else f" --name {lab.name}"
    _print(f'lab "{lab.name}" is up. Next: swarmctl lab exec{name} n1 swarmctl info; swarmctl lab down{name}')


def _status(options: argparse.Namespace) -> None:
    with locked(options.name):
        lab = load(options.name)
        reports = lifecycle.status(lab)
        lab.save()
    if options.format == "json":
        _print(json.dumps([asdict(report) for report in reports], indent=2))
        return
    lines: list[tuple[str, ...]] = [("NAME", "ROLE", "STATE", "ADDRESS", "PIDS", "SOCKET")]
    for report in reports:
        pids = ",".join(map(str, report.pids)) or "-"
        lines.append((report.name, report.role, report.state, report.address, pids, report.socket))
    _table(lines)
    for source, target in lab.cuts:
        _print(f"cut: {source} -> {target}")


def _ls(options: argparse.Namespace) -> None:
    labs = all_labs()
    if options.format == "json":
        _print(
            json.dumps(
                [{"name": lab.name, "nodes": [node.name for node in lab.nodes]} for lab in labs], indent=2
            )
        )
        return
    lines: list[tuple[str, ...]] = [("NAME", "NODES", "ADDRESSES")]
    lines += [(lab.name, str(len(lab.nodes)), f"10.77.{lab.index}.0/24") for lab in labs]
    _table(lines)


def _table(lines: list[tuple[str, ...]]) -> None:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        _print("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _exec(options: argparse.Namespace) -> None:
    node = load(options.name).node(options.node)
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise LabError("no command given", hint=f"swarmctl lab exec {node.name} swarmctl ps")
    if not node.netns_path.exists():
        raise LabError(f"{node.name} has no network namespace", hint=f"swarmctl lab start {node.name}")
    environment = os.environ | {
        "DOCKER_HOST": node.host,
        "SWARMCTL_HOST": node.host,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
    }
    sys.stdout.flush()
    try:
        os.execvpe("nsenter", ["nsenter", f"--net={node.netns_path}", "--", *words], environment)
    except OSError as error:
        raise LabError(f"nsenter: {error.strerror}", hint="./dev install adds what is missing") from error


def _env(options: argparse.Namespace) -> None:
    node = load(options.name).node(options.node)
    _print(f"export DOCKER_HOST={node.host}")
    _print(f"export SWARMCTL_HOST={node.host}")
    if sys.stdout.isatty():
        _say(f'# run: eval "$(swarmctl lab env {node.name})"')


def _kill(options: argparse.Namespace) -> None:
    with locked(options.name):
        lab = load(options.name)
        for node in _nodes(options):
            power.kill(lab, node, daemon_only=options.daemon_only, say=_say)


def _start(options: argparse.Namespace) -> None:
    with locked(options.name):
        lab = load(options.name)
        power.start(lab, _nodes(options), _say)


def _nodes(options: argparse.Namespace) -> list[LabNode]:
    lab = load(options.name)
    return [lab.node(name) for name in options.nodes]


def _cut(options: argparse.Namespace) -> None:
    with locked(options.name):
        lifecycle.cut(load(options.name), options.first, options.second, one_way=options.one_way)
    arrow = "->" if options.one_way else "<->"
    _say(f"packets {options.first} {arrow} {options.second} are dropped")


def _heal(options: argparse.Namespace) -> None:
    with locked(options.name):
        lab: Lab = load(options.name)
        count = lifecycle.heal(lab, options.nodes)
    _say(f"healed {count} direction{'' if count == 1 else 's'}")


def _down(options: argparse.Namespace) -> int:
    names = [lab.name for lab in all_labs()] if options.all else [options.name]
    for name in names:
        if not lifecycle.down(name, _say):
            _say(f'there is no lab "{name}"')
    return 0


# --- arguments ---


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swarmctl lab", description="Several nodes on this machine.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--name",
        default=os.environ.get("SWARMCTL_LAB", DEFAULT_NAME),
        help=f"which lab (default: $SWARMCTL_LAB or {DEFAULT_NAME})",
    )

    def verb(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str
    ) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(run=run)
        return added

    up = verb("up", _up, "Start the nodes of a lab")
    up.add_argument("--nodes", type=int, default=3, help="how many nodes (default 3)")
    up.add_argument(
        "--managers", type=int, help="how many of them become managers with --joined (default up to 3)"
    )
    up.add_argument("--joined", action="store_true", help="make one swarm of them")
    up.add_argument(
        "--keep", action="store_true", help="leave everything in place when a node does not come up"
    )
    status = verb("status", _status, "Show the nodes of a lab")
    status.add_argument("--format", choices=["table", "json"], default="table")
    listing = verb("ls", _ls, "List the labs of this machine")
    listing.add_argument("--format", choices=["table", "json"], default="table")
    execute = verb("exec", _exec, "Run a command in a node's network, its daemon chosen by DOCKER_HOST")
    execute.add_argument("node")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="[--] COMMAND [ARG...]")
    env = verb("env", _env, "Print the shell lines that point swarmctl and docker to a node")
    env.add_argument("node")
    kill = verb("kill", _kill, "Cut the power of nodes: kill -9 of supervisor, swarmd and containers")
    kill.add_argument("nodes", nargs="+", metavar="node")
    kill.add_argument("--daemon-only", action="store_true", help="spare the supervisor and the containers")
    start = verb("start", _start, "Power nodes on again (after --daemon-only: only swarmd)")
    start.add_argument("nodes", nargs="+", metavar="node")
    cut = verb("cut", _cut, "Drop the packets between two nodes")
    cut.add_argument("first", metavar="node")
    cut.add_argument("second", metavar="other-node")
    cut.add_argument("--one-way", action="store_true", help="only what the first node sends to the second")
    heal = verb("heal", _heal, "Let packets pass again: all of the lab, of one node, or between two nodes")
    heal.add_argument("nodes", nargs="*", metavar="node")
    down = verb("down", _down, "Remove a lab with everything in it")
    down.add_argument("--all", action="store_true", help="all labs of this machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
