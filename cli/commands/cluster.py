"""`swarmctl cluster`: back up, restore and check a whole swarm. swarmctl's own; Docker has no such commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from cli import humanize
from cli.client import Client
from cli.command import command
from cli.errors import SilentExit, UsageError
from cli.new_file import refuse_existing, write_new
from cli.output import emit_objects, render_table, short_id, show, warn
from cli.parse import choice
from cli.passphrase import passphrase
from cli.stdcopy import STDOUT, write_all
from cli.terminal import is_terminal

ANSWER_SECONDS = 900.0  # the daemon moves, encrypts and checks the whole state
_PATH = "/swarmctl/cluster"
_AVAILABILITY = ("active", "pause", "drain")

_passphrase_option = click.option(
    "--passphrase-file", default="", help="File that holds the passphrase (or $SWARMCTL_BACKUP_PASSPHRASE)"
)


@command("FILE|-")
@click.argument("file")
@_passphrase_option
@click.option("-f", "--force", is_flag=True, help="Replace FILE when it exists")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing when all went well")
@click.pass_obj
def backup(client: Client, file: str, passphrase_file: str, force: bool, quiet: bool) -> None:
    """Write an encrypted backup of the swarm to a file, and verify it"""
    if file == "-":
        if is_terminal(STDOUT):
            raise UsageError(
                "a backup is not written to a terminal", hint="name a file, or redirect the output"
            )
        for block in _make(client, passphrase(passphrase_file, twice=True)):
            write_all(STDOUT, block)
        return
    path = Path(file)
    refuse_existing(path, force)
    secret = passphrase(passphrase_file, twice=True)
    found: list[dict[str, Any]] = []
    size = write_new(
        path, _make(client, secret), lambda written: found.append(_inspect(client, written, secret))
    )
    if not quiet:
        show(f"Backup written and verified: {file} ({humanize.size(size)})")
        _show_about(found[0])


@command("FILE", name="inspect-backup")
@click.argument("file")
@_passphrase_option
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.ClusterID}}'")
@click.pass_obj
def inspect_backup(client: Client, file: str, passphrase_file: str, form: str) -> None:
    """Verify a backup completely and show what is in it; any node will do"""
    with _opened(file):
        pass
    about = _inspect(client, Path(file), passphrase(passphrase_file, twice=False))
    if form:
        emit_objects([about], form)
        return
    show("The backup is whole.")
    _show_about(about)


@command("FILE")
@click.argument("file")
@_passphrase_option
@click.option("--advertise-addr", default="", help="Advertised address (format: <ip>[:port])")
@click.option("--listen-addr", default="", help="Listen address (format: <ip>[:port])")
@click.option(
    "--availability",
    default="",
    help='Availability of this node ("active", "pause", "drain"; default: as the node it replaces)',
)
@click.option("--dry-run", is_flag=True, help="Check everything and show what would be founded")
@click.pass_obj
def restore(
    client: Client,
    file: str,
    passphrase_file: str,
    advertise_addr: str,
    listen_addr: str,
    availability: str,
    dry_run: bool,
) -> None:
    """Found the swarm of a backup anew, with this node as its only manager"""
    options = {
        "AdvertiseAddr": advertise_addr,
        "ListenAddr": listen_addr,
        "Availability": choice(availability, _AVAILABILITY, "availability") if availability else "",
        "DryRun": dry_run,
    }
    with _opened(file):
        pass
    options["Passphrase"] = passphrase(passphrase_file, twice=False)
    _show_founding(_send_file(client, "restore", options, Path(file)))


@command("")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON")
@click.pass_obj
def check(client: Client, as_json: bool) -> None:
    """Compare the managers' states and verify their files"""
    report = client.stream("POST", f"{_PATH}/check", timeout=ANSWER_SECONDS).json()
    if as_json:
        show(json.dumps(report, indent=4, ensure_ascii=False))
    else:
        _show_report(report)
    if not report["Healthy"]:
        raise SilentExit(1)


# --- calls ---


class _LineAndFile:
    """A request body: one line of JSON, then a file."""

    def __init__(self, line: dict[str, Any], file: BinaryIO) -> None:
        self._line = json.dumps(line).encode() + b"\n"
        self._file = file

    def read(self, count: int) -> bytes:
        if self._line:
            line, self._line = self._line, b""
            return line
        return self._file.read(count)


def _make(client: Client, secret: str) -> Iterator[bytes]:
    body = {"Passphrase": secret}
    return client.stream("POST", f"{_PATH}/backup", None, body, timeout=ANSWER_SECONDS).blocks()


def _inspect(client: Client, path: Path, secret: str) -> dict[str, Any]:
    return _send_file(client, "inspect-backup", {"Passphrase": secret}, path)


def _send_file(client: Client, verb: str, options: dict[str, Any], path: Path) -> dict[str, Any]:
    with _opened(str(path)) as file:
        body = _LineAndFile(options, file)
        answer = client.stream(
            "POST",
            f"{_PATH}/{verb}",
            None,
            body,
            content_type="application/octet-stream",
            timeout=ANSWER_SECONDS,
        )
    result: dict[str, Any] = answer.json()
    return result


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


# --- texts ---


def _show_about(about: dict[str, Any]) -> None:
    managers = ", ".join(manager["Addr"] for manager in about["Managers"])
    counts = ", ".join(
        f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in about["Counts"].items() if count
    )
    show(f"Cluster:   {about['ClusterID']}")
    show(f"Made:      {about['MadeAt']} by swarmctl {about['SwarmctlVersion']} on {about['Addr']}")
    show(f"Log entry: {about['Index']} (term {about['Term']})")
    show(f"Managers:  {managers}")
    show(f"Holds:     {counts or 'nothing'}")


def _show_founding(founding: dict[str, Any]) -> None:
    verb = "would be" if founding["DryRun"] else "is"
    show(f"The backup is whole. Cluster {founding['ClusterID']} {verb} founded anew:")
    show(f"This node: {founding['NodeID']} at {founding['Addr']}, the only manager")
    show(f"State:     of {founding['Backup']['MadeAt']}, {founding['Services']} services; goes on at log entry "
         f"{founding['Index']}")  # fmt: skip
    for node in founding["FormerNodes"]:
        name = node["Hostname"] or short_id(node["NodeID"])
        fate = (
            "is down, this node replaces it" if node["State"] == "down" else "becomes a worker if it connects"
        )
        show(f"Formerly:  {name} ({short_id(node['NodeID'])}, {node['Addr'] or 'no manager'}) {fate}")
    for warning in founding["Warnings"]:
        warn(f"WARNING: {warning}")


def _show_report(report: dict[str, Any]) -> None:
    lines = []
    for manager in report["Managers"]:
        bad = sum(bool(file["Problem"]) for file in manager["Files"])
        files = f"{bad} of {len(manager['Files'])} bad" if bad else f"{len(manager['Files'])} good"
        reachable = manager["Reachable"]
        lines.append(
            (
                manager["Hostname"] or short_id(manager["NodeID"]),
                "Leader" if manager["Leader"] else "Reachable" if reachable else "Unreachable",
                str(manager["AppliedIndex"]) if reachable else "-",
                manager["Digest"] or "-",
                files if reachable else "-",
                "bad" if manager["Problems"] else "ok",
            )
        )
    sys.stdout.write(render_table(("MANAGER", "STATUS", "APPLIED", "DIGEST", "FILES", "RESULT"), lines))
    if report["Problem"]:
        show(report["Problem"])
    for manager in report["Managers"]:
        for problem in manager["Problems"]:
            show(f"{manager['Hostname'] or short_id(manager['NodeID'])}: {problem}")
    show(
        f"States compared at log entry {report['Index']}: all is well."
        if report["Healthy"]
        else "Not all is well."
    )
