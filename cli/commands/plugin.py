"""`swarmctl plugin`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from cli.client import Client
from cli.command import command, filter_option, for_each, format_option, no_trunc_option, quiet_option
from cli.commands.container import inspect_each
from cli.errors import SilentExit, UsageError
from cli.output import emit, shorten, show, warn
from cli.parse import filters
from cli.urls import quote

_ID_WIDTH, _DESCRIPTION_WIDTH = 12, 45


def plugin_path(name: str, verb: str = "") -> str:
    if not name:
        raise UsageError('invalid plugin name: value is empty ("")')
    return f"/plugins/{quote(name, keep='/')}" + (f"/{verb}" if verb else "")


@command("", name="ls")
@filter_option
@format_option
@no_trunc_option
@quiet_option("Only display plugin IDs")
@click.pass_obj
def ls(client: Client, filter_values: tuple[str, ...], form: str, no_trunc: bool, quiet: bool) -> None:
    """List plugins"""
    plugins = client.get("/plugins", {"filters": filters(filter_values)})
    rows = [
        {
            "ID": plugin["Id"] if no_trunc else plugin["Id"][:_ID_WIDTH],
            "Name": plugin["Name"],
            "Description": _description(plugin["Config"]["Description"], no_trunc),
            "Enabled": str(plugin["Enabled"]).lower(),
            "PluginReference": plugin.get("PluginReference", ""),
        }
        for plugin in plugins
    ]
    columns = (("ID", "ID"), ("NAME", "Name"), ("DESCRIPTION", "Description"), ("ENABLED", "Enabled"))
    emit(rows, columns, form=form, quiet="ID" if quiet else "")


def _description(text: str, no_trunc: bool) -> str:
    line = text.replace("\n", "").replace("\r", "")
    return line if no_trunc else shorten(line, _DESCRIPTION_WIDTH)


@command("PLUGIN [PLUGIN...]")
@click.argument("plugins", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Enabled}}'")
@click.pass_obj
def inspect(client: Client, plugins: tuple[str, ...], form: str) -> None:
    """Display detailed information on one or more plugins"""
    inspect_each(client, list(plugins), form, lambda name: client.get(plugin_path(name, "json")))


@command("PLUGIN PLUGIN-DATA-DIR")
@click.argument("plugin")
@click.argument("folder")
@click.option("--compress", is_flag=True, help="Compress the context using gzip")
@click.pass_obj
def create(client: Client, plugin: str, folder: str, compress: bool) -> None:
    """Create a plugin from a rootfs and configuration"""
    with _archive(folder, compress=compress) as archive:
        query = {"name": plugin}
        client.stream("POST", "/plugins/create", query, archive, content_type="application/x-tar").read()
    show(plugin)


@contextlib.contextmanager
def _archive(folder: str, *, compress: bool) -> Iterator[IO[bytes]]:
    """The folder's config.json and rootfs as a tar file."""
    import tarfile
    import tempfile
    from pathlib import Path

    top = Path(folder)
    if not (top / "config.json").is_file() or not (top / "rootfs").is_dir():
        raise UsageError(f"{folder} is no plugin's folder", hint="it has config.json and rootfs/")
    with tempfile.TemporaryFile() as file:
        try:
            with tarfile.open(fileobj=file, mode="w:gz" if compress else "w") as tar:
                for name in ("config.json", "rootfs"):
                    tar.add(top / name, name)
        except OSError as error:
            raise UsageError(f"cannot read {error.filename}: {error.strerror}") from error
        file.seek(0)
        yield file


@command("PLUGIN")
@click.argument("plugin")
@click.option("--timeout", type=int, default=30, help="HTTP client timeout (in seconds) (default 30)")
@click.pass_obj
def enable(client: Client, plugin: str, timeout: int) -> None:
    """Enable a plugin"""
    if timeout < 0:
        raise UsageError(f"negative timeout {timeout} is invalid")
    client.post(plugin_path(plugin, "enable"), query={"timeout": timeout})
    show(plugin)


@command("PLUGIN")
@click.argument("plugin")
@click.option("-f", "--force", is_flag=True, help="Force the disable of an active plugin")
@click.pass_obj
def disable(client: Client, plugin: str, force: bool) -> None:
    """Disable a plugin"""
    client.post(plugin_path(plugin, "disable"), query={"force": force or None})
    show(plugin)


@command("PLUGIN KEY=VALUE [KEY=VALUE...]", name="set")
@click.argument("plugin")
@click.argument("values", nargs=-1, required=True)
@click.pass_obj
def set_(client: Client, plugin: str, values: tuple[str, ...]) -> None:
    """Change settings for a plugin"""
    client.post(plugin_path(plugin, "set"), list(values))


@command("PLUGIN [PLUGIN...]")
@click.argument("plugins", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Force the removal of an active plugin")
@click.pass_obj
def rm(client: Client, plugins: tuple[str, ...], force: bool) -> None:
    """Remove one or more plugins"""
    for_each(plugins, lambda name: client.delete(plugin_path(name), {"force": force or None}))


@command("PLUGIN [KEY=VALUE...]")
@click.argument("plugin")
@click.argument("values", nargs=-1)
@click.option("--alias", default="", help="Local name for plugin")
@click.option("--disable", is_flag=True, help="Do not enable the plugin on install")
@click.option("--disable-content-trust", is_flag=True, default=True, hidden=True)
@click.option(
    "--grant-all-permissions", "grant", is_flag=True, help="Grant all permissions necessary to run the plugin"
)
@click.pass_obj
def install(
    client: Client,
    plugin: str,
    values: tuple[str, ...],
    alias: str,
    disable: bool,
    disable_content_trust: bool,
    grant: bool,
) -> None:
    """Install a plugin"""
    asked = _agreed(client, plugin, grant)
    query = {"remote": plugin, "name": alias or None}
    _transfer(client, "/plugins/pull", query, asked)
    name = alias or plugin
    if values:
        client.post(plugin_path(name, "set"), list(values))
    if not disable:
        client.post(plugin_path(name, "enable"), query={"timeout": 0})
    show(f"Installed plugin {plugin}")


@command("PLUGIN [REMOTE]")
@click.argument("plugin")
@click.argument("remote", default="")
@click.option("--disable-content-trust", is_flag=True, default=True, hidden=True)
@click.option(
    "--grant-all-permissions", "grant", is_flag=True, help="Grant all permissions necessary to run the plugin"
)
@click.option(
    "--skip-remote-check", is_flag=True, help="Do not check if specified remote plugin matches existing one"
)
@click.pass_obj
def upgrade(
    client: Client,
    plugin: str,
    remote: str,
    disable_content_trust: bool,
    grant: bool,
    skip_remote_check: bool,
) -> None:
    """Upgrade an existing plugin"""
    known = client.get(plugin_path(plugin, "json"))
    if known["Enabled"]:
        raise UsageError("the plugin must be disabled before upgrading", hint=f"plugin disable {plugin}")
    old = known.get("PluginReference", "")
    remote = remote or old
    if not remote:
        raise UsageError(f"{plugin} came from no registry", hint=f"plugin upgrade {plugin} REMOTE")
    show(f"Upgrading plugin {known['Name']} from {old or 'here'} to {remote}")
    if old != remote and not skip_remote_check:
        _ask("Plugin images do not match, are you sure?")
    _transfer(client, plugin_path(plugin, "upgrade"), {"remote": remote}, _agreed(client, remote, grant))
    show(f"Upgraded plugin {plugin} to {remote}")


@command("PLUGIN[:TAG]")
@click.argument("plugin")
@click.option("--disable-content-trust", is_flag=True, default=True, hidden=True)
@click.pass_obj
def push(client: Client, plugin: str, disable_content_trust: bool) -> None:
    """Push a plugin to a registry"""
    _transfer(client, plugin_path(plugin, "push"), {}, None)


def _agreed(client: Client, remote: str, grant: bool) -> list[dict[str, Any]]:
    """What the plugin asks for, when the user agrees to it."""
    from cli.credentials import auth_headers

    asked: list[dict[str, Any]] = (
        client.call("GET", "/plugins/privileges", {"remote": remote}, headers=auth_headers(remote)) or []
    )
    if asked and not grant:
        warn(f'Plugin "{remote}" is requesting the following privileges:')
        for privilege in asked:
            warn(f" - {privilege['Name']}: [{' '.join(privilege['Value'])}]")
        _ask("Do you grant the above permissions?")
    return asked


def _ask(question: str) -> None:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        warn("canceled")
        raise SilentExit(1)


def _transfer(client: Client, path: str, query: dict[str, Any], body: object) -> None:
    from cli.progress import show_progress

    show_progress(client.stream("POST", path, query, body).documents(), sys.stdout)
