"""`swarmctl secret` and `swarmctl config`: named files that the swarm gives to tasks. One set of verbs for both."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import command, filter_option, for_each, format_option, quiet_option, repeated
from cli.commands.container import inspect_each
from cli.errors import UsageError
from cli.output import emit, labels_text, show
from cli.parse import filters, labels
from cli.urls import quote


def _path(kind: str, reference: str) -> str:
    if not reference:
        raise UsageError(f'invalid {kind} name or ID: value is empty ("")')
    return f"/{kind}s/{quote(reference)}"


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"error reading from {path}: open {path}: {why}") from error


def _driver_option(kind: str) -> Callable[[Any], Any]:
    if kind == "config":
        return lambda function: function
    return click.option("-d", "--driver", default="", help="Secret driver")


def _create(kind: str) -> click.Command:
    @command(f"{kind.upper()} [file|-]", name="create")
    @click.argument("name")
    @click.argument("file", required=False)
    @repeated("-l", "--label", help=f"{kind.capitalize()} labels")
    @click.option("--template-driver", default="", help="Template driver")
    @_driver_option(kind)
    @click.pass_obj
    def create(
        client: Client,
        name: str,
        file: str | None,
        label: tuple[str, ...],
        template_driver: str,
        driver: str = "",
    ) -> None:
        body: dict[str, Any] = {"Name": name, "Labels": labels(label)}
        if driver and file is not None:
            raise UsageError("when using secret driver secret data must be empty")
        if driver:
            body["Driver"] = {"Name": driver}
        else:
            body["Data"] = base64.b64encode(_read("-" if file is None else file)).decode()
        if template_driver:
            body["Templating"] = {"Name": template_driver}
        show(client.post(f"/{kind}s/create", body)["ID"])

    create.help = f"Create a {kind} from a file or STDIN"
    return create


def _ls(kind: str) -> click.Command:
    @command("", name="ls")
    @filter_option
    @format_option
    @quiet_option()
    @click.pass_obj
    def ls(client: Client, filter_values: tuple[str, ...], form: str, quiet: bool) -> None:
        items = client.get(f"/{kind}s", {"filters": filters(filter_values)})
        driver = (("DRIVER", "Driver"),) if kind == "secret" else ()
        rows = [
            {
                "ID": item["ID"],
                "Name": item["Spec"]["Name"],
                **({"Driver": (item["Spec"].get("Driver") or {}).get("Name", "")} if driver else {}),
                "CreatedAt": humanize.ago(item["CreatedAt"]),
                "UpdatedAt": humanize.ago(item["UpdatedAt"]),
                "Labels": labels_text(item["Spec"].get("Labels")),
            }
            for item in sorted(items, key=lambda item: item["Spec"]["Name"])
        ]
        columns = (
            ("ID", "ID"),
            ("NAME", "Name"),
            *driver,
            ("CREATED", "CreatedAt"),
            ("UPDATED", "UpdatedAt"),
        )
        emit(rows, columns, form=form, quiet="ID" if quiet else "")

    ls.help = f"List {kind}s"
    return ls


def _inspect(kind: str) -> click.Command:
    usage = f"{kind.upper()} [{kind.upper()}...]"

    @command(usage, name="inspect")
    @click.argument("names", nargs=-1, required=True)
    @click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Spec.Name}}'")
    @click.option("--pretty", is_flag=True, help="Print the information in a human friendly format")
    @click.pass_obj
    def inspect(client: Client, names: tuple[str, ...], form: str, pretty: bool) -> None:
        if pretty and form:
            raise UsageError("--format is incompatible with human friendly format")
        if pretty:
            show("\n".join(_pretty(kind, client.get(_path(kind, name))) for name in names))
            return
        inspect_each(client, list(names), form, lambda name: client.get(_path(kind, name)))

    inspect.help = f"Display detailed information on one or more {kind}s"
    return inspect


def _pretty(kind: str, item: dict[str, Any]) -> str:
    spec = item["Spec"]
    labels = [f" - {key}={value}" for key, value in sorted((spec.get("Labels") or {}).items())]
    labels = ["Labels:", *labels] if labels else []
    created, updated = (
        humanize.local_time(item[name]).replace("UTC", "utc") for name in ("CreatedAt", "UpdatedAt")
    )
    if kind == "config":
        times = [f"Created at:            \t{created}", f"Updated at:            \t{updated}"]
        data = base64.b64decode(spec.get("Data") or "").decode(errors="replace")
        return "\n".join(
            [f"ID:\t\t\t{item['ID']}", f"Name:\t\t\t{spec['Name']}", *labels, *times, "Data:", data]
        )
    driver = (spec.get("Driver") or {}).get("Name", "")
    first = [f"ID:              {item['ID']}", f"Name:              {spec['Name']}", *labels]
    times = [f"Created at:        {created}", f"Updated at:        {updated}"]
    return "\n".join([*first, f"Driver:            {driver}", *times])


def _rm(kind: str) -> click.Command:
    @command(f"{kind.upper()} [{kind.upper()}...]", name="rm")
    @click.argument("names", nargs=-1, required=True)
    @click.pass_obj
    def rm(client: Client, names: tuple[str, ...]) -> None:
        for_each(names, lambda name: client.delete(_path(kind, name)))

    rm.help = f"Remove one or more {kind}s"
    return rm


secret_create, config_create = _create("secret"), _create("config")
secret_ls, config_ls = _ls("secret"), _ls("config")
secret_inspect, config_inspect = _inspect("secret"), _inspect("config")
secret_rm, config_rm = _rm("secret"), _rm("config")
