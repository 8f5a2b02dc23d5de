"""`swarmctl commit`."""

from __future__ import annotations

import click

from cli.client import Client
from cli.command import command, repeated
from cli.output import show
from cli.parse import reference


@command("CONTAINER [REPOSITORY[:TAG]]")
@click.option("-a", "--author", default="", help='Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")')
@repeated("-c", "--change", help="Apply Dockerfile instruction to the created image")
@click.option("-m", "--message", default="", help="Commit message")
@click.option("-p", "--pause", is_flag=True, default=True, help="Pause container during commit")
@click.argument("container")
@click.argument("name", default="")
@click.pass_obj
def commit(
    client: Client, author: str, change: tuple[str, ...], message: str, pause: bool, container: str, name: str
) -> None:
    """Create a new image from a container's changes"""
    repository, tag = reference(name) if name else ("", "")
    query = {
        "container": container,
        "repo": repository,
        "tag": tag,
        "author": author,
        "comment": message,
        "changes": list(change),
        "pause": pause,
    }
    show(client.post("/commit", query=query)["Id"])
