"""`swarmctl service create`, `update`, `scale` and `rollback`: send a spec, then show how the service converges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.client import Client
from cli.command import command, stop_at_first_argument
from cli.commands.service import service_path
from cli.errors import ApiError, CliError, UsageError
from cli.output import show, warn
from cli.resolver import ApiResolver
from cli.service_flags import create_options, update_options
from cli.service_spec import new_spec

_ATTEMPTS = 4


@command("IMAGE [COMMAND] [ARG...]", context_settings=stop_at_first_argument())
@create_options
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(client: Client, /, image: str, words: tuple[str, ...], **options: Any) -> None:
    """Create a new service"""
    spec = new_spec(options, image, words, ApiResolver(client, "swarm"))
    answer = client.post("/services/create", spec, headers=_registry_auth(options, spec))
    _warnings(answer)
    show(answer["ID"])
    _converge(client, answer["ID"], options["detach"], options["quiet"])


@command("SERVICE")
@click.argument("service")
@update_options
@click.pass_obj
def update(client: Client, /, service: str, **options: Any) -> None:
    """Update a service"""
    from cli.service_update import change_spec

    if options["rollback"]:
        _send(client, service, lambda spec: None, rollback=True)
    else:
        resolver = ApiResolver(client, "swarm")
        _send(client, service, lambda spec: change_spec(spec, options, resolver), options=options)
    show(service)
    _converge(client, service, options["detach"], options["quiet"])


@command("SERVICE")
@click.argument("service")
@click.option("-d", "--detach", is_flag=True, help="Exit immediately instead of waiting for the service")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.pass_obj
def rollback(client: Client, service: str, detach: bool, quiet: bool) -> None:
    """Revert changes to a service's configuration"""
    _send(client, service, lambda spec: None, rollback=True)
    show(service)
    _converge(client, service, detach, quiet)


@command("SERVICE=REPLICAS [SERVICE=REPLICAS...]")
@click.argument("scales", nargs=-1, required=True)
@click.option("-d", "--detach", is_flag=True, help="Exit immediately instead of waiting for the services")
@click.pass_obj
def scale(client: Client, scales: tuple[str, ...], detach: bool) -> None:
    """Scale one or multiple replicated services"""
    from cli.service_update import set_replicas

    wanted = [_scale(text) for text in scales]
    for name, count in wanted:
        try:
            _send(client, name, lambda spec, count=count: set_replicas(spec, count))  # type: ignore[misc]
        except CliError as error:
            raise CliError(f"{name}: {error.message}", hint=error.hint) from error
        show(f"{name} scaled to {count}")
    for name, _ in wanted:
        _converge(client, name, detach, False)


def _scale(text: str) -> tuple[str, int]:
    name, equals, count = text.partition("=")
    if not (name and equals):
        raise UsageError(f"invalid scale specifier '{text}'", hint="such as web=3")
    if not (count.isascii() and count.isdigit()):
        raise UsageError(f"{name}: invalid replicas value {count}", hint="a number such as 3")
    return name, int(count)


def _send(
    client: Client,
    name: str,
    change: Callable[[dict[str, Any]], None],
    *,
    rollback: bool = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Reads, changes and writes; when somebody else wrote in between, once more from the beginning."""
    for attempt in range(1, _ATTEMPTS + 1):
        service = client.get(service_path(name))
        change(service["Spec"])
        query = {"version": service["Version"]["Index"], "rollback": "previous" if rollback else None}
        headers = _registry_auth(options or {}, service["Spec"])
        try:
            _warnings(client.post(service_path(service["ID"], "update"), service["Spec"], query, headers))
            return
        except ApiError as error:
            if "out of sequence" not in error.reason or attempt == _ATTEMPTS:
                raise


def _registry_auth(options: dict[str, Any], spec: dict[str, Any]) -> dict[str, str]:
    """--with-registry-auth: the account at the image's registry, for all nodes."""
    if not options.get("with_registry_auth"):
        return {}
    from cli.credentials import auth_headers

    return auth_headers(spec["TaskTemplate"]["ContainerSpec"]["Image"])


def _warnings(answer: dict[str, Any] | None) -> None:
    for warning in (answer or {}).get("Warnings") or []:
        warn(f"WARNING: {warning}")


def _converge(client: Client, name: str, detach: bool, quiet: bool) -> None:
    if detach:
        return
    from cli.converge import follow

    identifier = client.get(service_path(name))["ID"]
    follow(client, identifier, quiet=quiet)
