"""`swarmctl completion SHELL`: the script that completes commands and flags (made by click)."""

from __future__ import annotations

import click

from cli.client import Client
from cli.command import command
from cli.errors import UsageError

_SHELLS = ("bash", "zsh", "fish")


@command("bash|zsh|fish")
@click.argument("shell")
@click.pass_obj
def completion(client: Client, shell: str) -> None:
    """Generate the completion script for a shell

    bash: source <(swarmctl completion bash)
    """
    from click.shell_completion import get_completion_class

    from cli.main import root

    found = get_completion_class(shell) if shell in _SHELLS else None
    if found is None:
        raise UsageError(f'unknown shell "{shell}"', hint="one of: " + ", ".join(_SHELLS))
    click.echo(found(root, {}, "swarmctl", "_SWARMCTL_COMPLETE").source())
