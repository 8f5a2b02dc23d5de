"""`swarmctl stack`: services of a compose file, deployed together under one name."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import click

from cli.client import Client
from cli.command import (
    command,
    filter_option,
    format_option,
    no_trunc_option,
    quiet_option,
    repeated,
    report,
    switch,
)
from cli.errors import CliError, SilentExit, UsageError
from cli.output import emit, warn
from cli.parse import choice, filters

_NAME = re.compile(r"[a-z0-9A-Z]([a-z0-9A-Z_.-]*)", re.ASCII)


def _checked(stack: str) -> str:
    if not stack.strip():
        raise UsageError("invalid stack name: ''", hint="a stack has a name")
    if not _NAME.fullmatch(stack):
        raise UsageError(
            f'invalid stack name: "{stack}"',
            hint="letters, digits, dots, dashes and underscores, such as shop",
        )
    return stack


_compose_option = repeated("-c", "--compose-file", help='Path to a Compose file, or "-" to read from stdin')


@command("STACK")
@click.argument("stack")
@_compose_option
@switch(
    "-d", "--detach", default=True, help="Exit immediately instead of waiting for the services to converge"
)
@click.option("--prune", is_flag=True, help="Prune services that are no longer referenced")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.option(
    "--resolve-image",
    default="always",
    help='Query the registry to resolve images ("always", "changed", "never")',
)
@click.option(
    "--with-registry-auth", is_flag=True, help="Send registry authentication details to Swarm agents"
)
@click.pass_obj
def deploy(
    client: Client,
    stack: str,
    compose_file: tuple[str, ...],
    detach: bool,
    prune: bool,
    quiet: bool,
    resolve_image: str,
    with_registry_auth: bool,
) -> None:
    """Deploy a new stack or update an existing stack"""
    from cli.stack.compose_file import folder_of, load, warnings
    from cli.stack.deploy import Deployment

    _checked(stack)
    if not compose_file:
        raise UsageError("Specify a Compose file (with --compose-file)")
    choice(resolve_image, ("always", "changed", "never"), "resolve-image")
    document = load(compose_file, os.environ)
    for warning in warnings(document):
        warn(warning)
    if not client.get("/info")["Swarm"].get("ControlAvailable"):
        raise CliError(
            'this node is not a swarm manager. Use "swarmctl swarm init" or "swarmctl swarm join" to connect this '
            "node to swarm and try again"
        )
    deployment = Deployment(client, stack, document, folder_of(compose_file))
    services = deployment.run(prune=prune, resolve_image=resolve_image, with_registry_auth=with_registry_auth)
    if not detach:
        from cli.converge import follow

        for identifier in services:
            follow(client, identifier, quiet=quiet)


@command("")
@_compose_option
@click.option("--skip-interpolation", is_flag=True, help="Skip interpolation and output only merged config")
def config(compose_file: tuple[str, ...], skip_interpolation: bool) -> None:
    """Outputs the final config file, after doing merges and interpolations"""
    import yaml

    from cli.stack.compose_file import load

    if not compose_file:
        raise UsageError("Specify a Compose file (with --compose-file)")
    document = load(compose_file, None if skip_interpolation else os.environ)
    sys.stdout.write(yaml.safe_dump({key: value for key, value in document.items() if value}, sort_keys=True))


@command("")
@format_option
@click.pass_obj
def ls(client: Client, form: str) -> None:
    """List stacks"""
    from cli.stack.services import NAMESPACE

    counts: dict[str, int] = {}
    for service in client.get("/services", {"filters": {"label": [NAMESPACE]}}) or []:
        name = service["Spec"]["Labels"][NAMESPACE]
        counts[name] = counts.get(name, 0) + 1
    rows = [{"Name": name, "Services": str(count)} for name, count in sorted(counts.items())]
    emit(rows, (("NAME", "Name"), ("SERVICES", "Services")), form=form)


@command("STACK")
@click.argument("stack")
@filter_option
@format_option
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names")
@no_trunc_option
@quiet_option("Only display task IDs")
@click.pass_obj
def ps(
    client: Client,
    stack: str,
    filter_values: tuple[str, ...],
    form: str,
    no_resolve: bool,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List the tasks in the stack"""
    from cli.commands.service import with_node_ids
    from cli.stack.deploy import of_stack
    from cli.tasks import Names, show_tasks

    services = [service["ID"] for service in of_stack(client, "services", _checked(stack))]
    chosen = with_node_ids(client, filters(filter_values))
    tasks = client.get("/tasks", {"filters": {**chosen, "service": services}}) if services else []
    if not tasks:
        raise CliError(f"nothing found in stack: {stack}")
    show_tasks(tasks, Names(client, resolve=not no_resolve), form=form, quiet=quiet, no_trunc=no_trunc)


@command("STACK [STACK...]")
@click.argument("stacks", nargs=-1, required=True)
@switch("-d", "--detach", default=True, help="Do not wait for stack removal")
@click.pass_obj
def rm(client: Client, stacks: tuple[str, ...], detach: bool) -> None:
    """Remove one or more stacks"""
    from cli.stack.deploy import remove_stack

    failed = False
    for stack in stacks:
        try:
            remove_stack(client, _checked(stack), wait=not detach)
        except CliError as error:
            sys.stdout.flush()
            report(error)
            failed = True
    if failed:
        raise SilentExit(1)


@command("STACK")
@click.argument("stack")
@filter_option
@format_option
@quiet_option()
@click.pass_obj
def services(client: Client, stack: str, filter_values: tuple[str, ...], form: str, quiet: bool) -> None:
    """List the services in the stack"""
    from cli.commands.service import show_services
    from cli.stack.services import NAMESPACE

    chosen: dict[str, Any] = filters(filter_values)
    chosen["label"] = [*chosen.get("label", []), f"{NAMESPACE}={_checked(stack)}"]
    found = client.get("/services", {"filters": chosen, "status": True})
    if not found:
        warn(f"Nothing found in stack: {stack}")
        return
    show_services(found, form, quiet)
