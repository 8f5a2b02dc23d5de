"""`swarmctl export`: a container's file system as a tar archive."""

from __future__ import annotations

import click

from cli.archive_output import refuse_terminal, write_archive
from cli.client import Client
from cli.command import command
from cli.commands.container import container_path


@command("CONTAINER")
@click.option("-o", "--output", "target", default="", help="Write to a file, instead of STDOUT")
@click.argument("container")
@click.pass_obj
def export(client: Client, container: str, target: str) -> None:
    """Export a container's filesystem as a tar archive"""
    refuse_terminal(target)
    write_archive(client.stream("GET", container_path(container, "export")).blocks(), target)
