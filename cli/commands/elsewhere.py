"""Words of docker that are no commands of ours: a plugin when it is installed, else what to use instead."""

from __future__ import annotations

import os

import click

from cli.command import command
from cli.contexts import Flags, endpoint
from cli.errors import CliError
from cli.plugins import become, find
from cli.registry import ELSEWHERE


def elsewhere(name: str) -> click.Command:
    @command(
        "[ARG...]",
        name=name,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        add_help_option=False,
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def run(ctx: click.Context, words: tuple[str, ...]) -> None:
        found = find(name, os.environ)
        if found is None:
            raise CliError(f"swarmctl has no command {name}", hint=ELSEWHERE[name])
        path, first = found
        become(path, [*first, *words], _daemon(ctx.find_root().params))

    return run


def _daemon(given: dict[str, object]) -> dict[str, str]:
    """The daemon that is meant, as a program of docker's finds it in the environment."""
    words = {name: given.get(name) for name in ("tls", "tlsverify", "tlscacert", "tlscert", "tlskey")}
    hosts = given.get("hosts")
    host = hosts[0] if isinstance(hosts, tuple) and hosts else None
    meant = endpoint(Flags(host, given.get("context_name"), **words), os.environ)  # type: ignore[arg-type]
    settings = {"DOCKER_HOST": meant.host}
    if meant.tls is not None:
        settings |= {"DOCKER_TLS": "1", "DOCKER_TLS_VERIFY": "1" if meant.tls.verify else ""}
        settings["DOCKER_CERT_PATH"] = os.path.dirname(meant.tls.ca or meant.tls.certificate)
    return settings
