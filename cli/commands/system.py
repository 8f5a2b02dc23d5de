"""`swarmctl version` and `info`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from cli.client import Client
from cli.command import DEBUG, command, report
from cli.contexts import current_name
from cli.errors import CliError, SilentExit
from cli.output import json_line, show, warn

API_VERSION = "1.51"  # what our requests mean: they name no version, which is the newest


def _formatted(value: Any, form: str) -> bool:
    """Prints `value` as --format asks; False when no format was given."""
    if not form:
        return False
    if form == "json":
        show(json_line(value))
        return True
    from cli.template import Template

    show(Template(form).render(value))
    return True


@command("")
@click.option(
    "-f", "--format", "form", default="", help="json or a Go template such as '{{.Server.Version}}'"
)
@click.pass_obj
def version(client: Client, form: str) -> None:
    """Show the swarmctl version information"""
    import platform

    from cli.main import VERSION

    ours = {
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "PythonVersion": platform.python_version(),
        "BuildTime": "",
        "Os": platform.system().lower(),
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "Context": current_name(os.environ),
    }
    failure: CliError | None = None
    server: dict[str, Any] | None = None
    try:
        server = client.get("/version")
    except CliError as error:
        failure = error
    if not _formatted({"Client": ours, "Server": server}, form):
        show(f"Client:\n{_lines(ours, ('Version', 'ApiVersion', 'PythonVersion', 'Context'))}")
        if server is not None:
            fields = ("Version", "ApiVersion", "MinAPIVersion", "PythonVersion", "KernelVersion", "BuildTime")
            show(f"\nServer:\n{_lines(server, fields)}")
    if failure is not None:
        sys.stdout.flush()
        report(failure)
        raise SilentExit(1)


_LABELS = {
    "ApiVersion": "API version",
    "MinAPIVersion": "Minimum API version",
    "PythonVersion": "Python version",
    "KernelVersion": "Kernel version",
    "BuildTime": "Built",
}


def _lines(values: dict[str, Any], fields: tuple[str, ...]) -> str:
    lines = [f" {_LABELS.get(name, name) + ':':<20} {values[name]}" for name in fields if values.get(name)]
    return "\n".join([*lines, f" {'OS/Arch:':<20} {values.get('Os', '')}/{values.get('Arch', '')}"])


@command("")
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Swarm.NodeID}}'")
@click.pass_obj
def info(client: Client, form: str) -> None:
    """Display system-wide information"""
    from cli.host_info import lines
    from cli.main import VERSION

    ours = {"Version": VERSION, "Context": current_name(os.environ), "Debug": bool(os.environ.get(DEBUG))}
    answer = client.get("/info")
    if _formatted({**answer, "ClientInfo": ours}, form):
        return
    show(
        f"Client:\n Version:    {VERSION}\n Context:    {ours['Context']}\n Debug Mode: {str(ours['Debug']).lower()}\n"
    )
    show("\n".join(lines(answer)))
    for warning in answer.get("Warnings") or []:
        warn(warning)
