"""`swarmctl completion SHELL`: the script that completes commands, flags and names."""

from __future__ import annotations

import click

from cli.command import command
from cli.completion_scripts import SCRIPTS
from cli.errors import UsageError


@command("bash|zsh|fish")
@click.argument("shell")
def completion(shell: str) -> None:
    """Generate the completion script for a shell

    bash: source <(swarmctl completion bash)
    """
    if shell not in SCRIPTS:
        raise UsageError(f'unknown shell "{shell}"', hint="one of: " + ", ".join(SCRIPTS))
    click.echo(SCRIPTS[shell], nl=False)
