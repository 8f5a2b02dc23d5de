"""`swarmctl inspect`: an object of any kind, found by trying the kinds in order."""

from __future__ import annotations

from typing import Any

import click

from cli.client import Client
from cli.command import command
from cli.commands.container import container_path, inspect_each
from cli.commands.image import image_path
from cli.errors import ApiError, CliError, UsageError
from cli.output import warn
from cli.urls import quote

_PATHS = {
    "container": lambda ref: container_path(ref, "json"),
    "image": lambda ref: image_path(ref, "json"),
    "network": lambda ref: f"/networks/{quote(ref)}",
    "volume": lambda ref: f"/volumes/{quote(ref)}",
    "node": lambda ref: f"/nodes/{quote(ref)}",
    "service": lambda ref: f"/services/{quote(ref)}",
    "task": lambda ref: f"/tasks/{quote(ref)}",
    "secret": lambda ref: f"/secrets/{quote(ref)}",
    "config": lambda ref: f"/configs/{quote(ref)}",
    "plugin": lambda ref: f"/plugins/{quote(ref)}/json",
}
_SWARM_KINDS = ("node", "service", "task", "secret", "config")


@command("NAME|ID [NAME|ID...]")
@click.argument("names", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Id}}'")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes if the type is container")
@click.option("--type", "kind", default="", help="Only inspect objects of the given type")
@click.pass_obj
def inspect(client: Client, names: tuple[str, ...], form: str, size: bool, kind: str) -> None:
    """Return low-level information on objects of any kind"""
    if kind and kind not in _PATHS:
        known = ", ".join(f'"{name}"' for name in sorted(_PATHS))
        raise UsageError(f'unknown type: "{kind}": must be one of {known}')
    inspect_each(client, list(names), form, lambda name: _find(client, name, kind, size))


def _find(client: Client, name: str, kind: str, size: bool) -> Any:
    for candidate in [kind] if kind else _PATHS:
        query = {"size": True} if size and candidate == "container" else None
        try:
            found = client.get(_PATHS[candidate](name), query)
        except ApiError as error:
            # A node that is no manager answers 503 for all that only the swarm knows.
            missing = error.status == 404 or (error.status == 503 and candidate in _SWARM_KINDS)
            if not missing or kind:
                raise
            continue
        if size and candidate != "container":
            warn(f"WARNING: --size ignored for {candidate}")
        return found
    raise CliError(f"Error: No such object: {name}")
