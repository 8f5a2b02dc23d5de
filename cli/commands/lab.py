"""`swarmctl lab`: hands over to `python -m node.lab`, since a lab is made on this machine and not through the API."""

from __future__ import annotations

import os
import sys

import click

from cli.command import Command

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


def _verb(name: str, text: str) -> click.Command:
    @click.command(name=name, cls=Command, help=text, context_settings=_PASS_ON, usage="[ARG...]")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "node.lab", name, *arguments])

    return run


up = _verb("up", "Start the nodes of a lab")
status = _verb("status", "Show the nodes of a lab")
ls = _verb("ls", "List the labs of this machine")
exec_ = _verb("exec", "Run a command as if on a node")
env = _verb("env", "Print the shell line that points swarmctl and docker to a node")
kill = _verb("kill", "Cut the power of nodes (kill -9 of everything)")
start = _verb("start", "Power nodes on again")
cut = _verb("cut", "Drop the packets between two nodes")
heal = _verb("heal", "Let packets pass again")
down = _verb("down", "Remove a lab with everything in it")
