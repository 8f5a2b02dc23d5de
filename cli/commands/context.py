"""`swarmctl context`: names for daemons, so that -H need not be written again."""

from __future__ import annotations

import os
import re
import sys

import click

from cli.command import command, for_each, format_option, quiet_option
from cli.connection import Endpoint, TlsFiles
from cli.contexts import DEFAULT, Row, Store, current_name, default_endpoint
from cli.errors import CliError, UsageError
from cli.output import emit, emit_objects, show

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+", re.ASCII)
_WORDS = ("host", "ca", "cert", "key", "skip-tls-verify")
_docker_option = click.option(
    "--docker",
    "place",
    default="",
    help="The daemon: host=tcp://X:2376,ca=FILE,cert=FILE,key=FILE; or from=CONTEXT",
)


@command("CONTEXT")
@click.argument("name", metavar="CONTEXT")
@click.option("--description", default="", help="Description of the context")
@_docker_option
@click.option("--from", "source", default="", help="Create the context from a named context")
def create(name: str, description: str, place: str, source: str) -> None:
    """Create a context"""
    store = Store(os.environ)
    if source and place:
        raise UsageError("cannot use --docker flag when --from is set")
    row = _row_of(store, source) if source else _place(place, store)
    _new_name(store, name)
    store.rows[name] = {**row, "Description": description or row.get("Description", "")}
    store.save()
    show(name)
    click.echo(f'Successfully created context "{name}"', err=True)


def _new_name(store: Store, name: str) -> None:
    if name == DEFAULT:
        raise UsageError('"default" is a reserved context name', exit_code=1)
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'context name "{name}" is invalid, names are validated against regexp "^{_NAME.pattern}$"',
            exit_code=1,
        )
    if name in store.rows:
        raise CliError(f'context "{name}" already exists', hint="remove it first, or choose another name")


def _row_of(store: Store, name: str) -> Row:
    """The daemon and the files of a context, `default` included."""
    if name == DEFAULT:
        return {"Host": default_endpoint(os.environ), "TLS": None}
    return store.get(name)


@command("CONTEXT")
@click.argument("name", metavar="CONTEXT")
@click.option("--description", default=None, help="Description of the context")
@_docker_option
def update(name: str, description: str | None, place: str) -> None:
    """Update a context"""
    store = Store(os.environ)
    row = dict(store.get(name))
    if description is not None:
        row["Description"] = description
    if place:
        row |= _place(place, store)
    store.rows[name] = row
    store.save()
    show(name)
    click.echo(f'Successfully updated context "{name}"', err=True)


@command("CONTEXT [FILE|-]")
@click.argument("name", metavar="CONTEXT")
@click.argument("target", default="")
def export(name: str, target: str) -> None:
    """Export a context to a tar archive FILE or a tar stream on STDOUT."""
    from cli.context_archive import pack
    from cli.terminal import is_terminal

    if target == "-" and is_terminal(1):
        raise UsageError("cowardly refusing to export to a terminal, specify a file path")
    data = pack(name, _row_of(Store(os.environ), name))
    if target == "-":
        sys.stdout.buffer.write(data)
        return
    target = target or f"{name}.dockercontext"
    try:
        # The keys of TLS are in it.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise CliError(f"cannot write {target}: {error.strerror}") from error
    click.echo(f'Written file "{target}"', err=True)


@command("CONTEXT FILE|-", name="import")
@click.argument("name", metavar="CONTEXT")
@click.argument("source")
def import_(name: str, source: str) -> None:
    """Import a context from a tar or zip file"""
    from cli.context_archive import unpack

    store = Store(os.environ)
    _new_name(store, name)
    try:
        if source == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(source, "rb") as file:
                data = file.read()
    except OSError as error:
        raise CliError(f"cannot read {source}: {error.strerror}") from error
    store.rows[name] = unpack(data, store.tls_folder(name))
    store.save()
    show(name)
    click.echo(f'Successfully imported context "{name}"', err=True)


def _place(text: str, store: Store) -> Row:
    """What --docker says; nothing is the daemon that is meant now."""
    if not text:
        return {"Host": default_endpoint(os.environ), "TLS": None}
    words = dict(word.partition("=")[::2] for word in text.split(","))
    if set(words) == {"from"}:
        found = _row_of(store, words["from"])
        return {"Host": found["Host"], "TLS": found.get("TLS")}
    unknown = sorted(set(words) - set(_WORDS))
    if unknown or not words.get("host"):
        raise UsageError(
            f"--docker {text}: "
            + (f"unrecognized config keys: {', '.join(unknown)}" if unknown else "host is missing"),
            hint=f"write KEY=VALUE with commas between; keys are {', '.join(_WORDS)}",
            exit_code=1,
        )
    endpoint = Endpoint(words["host"])
    # Paths of other folders would be lost: relative ones are of the folder where the context is made.
    ca, cert, key = (
        os.path.abspath(words[name]) if words.get(name) else "" for name in ("ca", "cert", "key")
    )
    if not (ca or cert or key) and "skip-tls-verify" not in words:
        return {"Host": endpoint.host, "TLS": None}
    verify = words.get("skip-tls-verify", "false").lower() not in ("1", "t", "true")
    return {"Host": endpoint.host, "TLS": TlsFiles(ca, cert, key, verify)._asdict()}


@command("")
@format_option
@quiet_option("Only show context names")
def ls(form: str, quiet: bool) -> None:
    """List contexts"""
    store = Store(os.environ)
    current = current_name(os.environ)
    rows = [{"Name": DEFAULT, "Description": "Current DOCKER_HOST based configuration"}]
    rows[0]["DockerEndpoint"] = default_endpoint(os.environ)
    rows[0]["Error"] = ""
    for name, row in sorted(store.rows.items()):
        rows.append(
            {"Name": name, "Description": row["Description"], "DockerEndpoint": row["Host"], "Error": ""}
        )
    if quiet:
        show("\n".join(row["Name"] for row in rows))
        return
    shown = [{**row, "Name": row["Name"] + (" *" if row["Name"] == current else "")} for row in rows]
    columns = (
        ("NAME", "Name"),
        ("DESCRIPTION", "Description"),
        ("DOCKER ENDPOINT", "DockerEndpoint"),
        ("ERROR", "Error"),
    )
    if not form:
        emit(shown, columns, form=form)
        _warn_of_environment()
    else:
        emit([{**row, "Current": row["Name"] == current} for row in rows], columns, form=form)


@command("CONTEXT")
@click.argument("name", metavar="CONTEXT")
def use(name: str) -> None:
    """Set the default context"""
    store = Store(os.environ)
    if name != DEFAULT:
        store.get(name)
    store.current = name
    store.save()
    show(name)
    _warn_of_environment()


def _warn_of_environment() -> None:
    for name in ("SWARMCTL_HOST", "DOCKER_HOST"):
        if os.environ.get(name):
            click.echo(
                f"Warning: {name} environment variable overrides the active context. To use a context, either set the "
                f"global --context flag, or unset {name} environment variable.",
                err=True,
            )
            return


@command("[CONTEXT] [CONTEXT...]")
@click.argument("names", nargs=-1, metavar="[CONTEXT...]")
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Name}}'")
def inspect(names: tuple[str, ...], form: str) -> None:
    """Display detailed information on one or more contexts"""
    store = Store(os.environ)
    found: list[Row] = []
    for name in names or (current_name(os.environ),):
        row: Row = {"Host": default_endpoint(os.environ), "Description": ""}
        if name != DEFAULT:
            row = store.get(name)
        tls = row.get("TLS") or {}
        place = {"Host": row["Host"], "SkipTLSVerify": bool(tls) and not tls["verify"]}
        found.append(
            {
                "Name": name,
                "Metadata": {"Description": row["Description"]},
                "Endpoints": {"docker": place},
                "TLSMaterial": {"docker": [tls[key] for key in ("ca", "certificate", "key") if tls.get(key)]},
            }
        )
    emit_objects(found, form)


@command("CONTEXT [CONTEXT...]")
@click.argument("names", nargs=-1, required=True, metavar="CONTEXT...")
@click.option("-f", "--force", is_flag=True, help="Force the removal of a context in use")
def rm(names: tuple[str, ...], force: bool) -> None:
    """Remove one or more contexts"""

    def remove(name: str) -> None:
        store = Store(os.environ)
        if name == DEFAULT:
            raise CliError(f'context "{DEFAULT}" cannot be removed')
        if name not in store.rows:
            raise CliError(f'context "{name}" does not exist')
        if name == store.current:
            if not force:
                raise CliError(f'context "{name}" is in use, set -f flag to force remove')
            store.current = DEFAULT
        del store.rows[name]
        store.save()

    for_each(names, remove)


@command("")
def show_() -> None:
    """Print the name of the current context"""
    show(current_name(os.environ))
