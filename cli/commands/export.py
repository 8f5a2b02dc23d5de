"""`swarmctl export`: a container's file system as a tar archive."""

from __future__ import annotations

import sys

import click

from cli.client import Client
from cli.command import command
from cli.commands.container import container_path
from cli.errors import UsageError
from cli.terminal import is_terminal


@command("CONTAINER")
@click.option("-o", "--output", "target", default="", help="Write to a file, instead of STDOUT")
@click.argument("container")
@click.pass_obj
def export(client: Client, container: str, target: str) -> None:
    """Export a container's filesystem as a tar archive"""
    from pathlib import Path

    if not target and is_terminal(1):
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    response = client.stream("GET", container_path(container, "export"))
    if not target:
        for block in response.blocks():
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    # An archive that was cut short must not look like a whole one: it gets its name when it is complete.
    partial = Path(f"{target}.part")
    try:
        with open(partial, "wb") as out:
            for block in response.blocks():
                out.write(block)
        partial.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
