"""`swarmctl run` and `create`.

Exit status of run: the container's own, 125 when swarmctl or the daemon failed, 126 when the command cannot be
executed, 127 when it does not exist.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from cli.attach import check_terminal, converse, forwarder, resizer
from cli.client import Client, Response
from cli.command import command, report, stop_at_first_argument, switch
from cli.commands.container import container_path
from cli.container_body import container_options, create_body
from cli.errors import ApiError, CliError, SilentExit, UsageError
from cli.output import show, warn
from cli.parse import tagged
from cli.terminal import DEFAULT_DETACH_KEYS

_USAGE = "IMAGE [COMMAND] [ARG...]"
_STREAMS = ("stdin", "stdout", "stderr")


@command(_USAGE, context_settings=stop_at_first_argument())
@container_options
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(client: Client, /, image: str, words: tuple[str, ...], **options: Any) -> None:
    """Create a new container"""
    show(_create(client, options, create_body(options, image, words)))


@command(_USAGE, context_settings=stop_at_first_argument())
@click.option("-d", "--detach", is_flag=True, help="Run container in background and print container ID")
@click.option("--detach-keys", default=DEFAULT_DETACH_KEYS, help="Override the key sequence for detaching")
@switch("--sig-proxy", default=True, help="Proxy received signals to the process")
@container_options
@click.argument("image")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    client: Client,
    /,
    detach: bool,
    detach_keys: str,
    sig_proxy: bool,
    image: str,
    words: tuple[str, ...],
    **options: Any,
) -> None:
    """Create and run a new container from an image"""
    try:
        status = _run(client, detach, detach_keys, sig_proxy, create_body(options, image, words), options)
    except CliError as error:
        report(error, command=_named())
        raise SilentExit(125) from error
    raise SilentExit(status)


def _named() -> str:
    """`swarmctl run`, also for `swarmctl container run`."""
    return click.get_current_context().command_path.replace(" container", "")


def _create(client: Client, options: dict[str, Any], body: dict[str, Any]) -> str:
    if options["pull"] not in ("always", "missing", "never"):
        raise UsageError(
            f'invalid pull option: \'{options["pull"]}\': must be one of "always", "missing" or "never"'
        )
    if options["cidfile"] and Path(options["cidfile"]).exists():
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {options['cidfile']}"
        )
    query = {"name": options["name"], "platform": options["platform"]}
    if options["pull"] == "always":
        _pull(client, body["Image"], options)
    try:
        answer = client.post("/containers/create", body, query)
    except ApiError as error:
        if error.status != 404 or "no such image" not in error.reason.lower() or options["pull"] == "never":
            raise
        warn(f"Unable to find image '{tagged(body['Image'])}' locally")
        _pull(client, body["Image"], options)
        answer = client.post("/containers/create", body, query)
    for warning in answer.get("Warnings") or []:
        warn(f"WARNING: {warning}")
    if options["cidfile"]:
        _write_new_file(options["cidfile"], answer["Id"])
    return str(answer["Id"])


def _pull(client: Client, image: str, options: dict[str, Any]) -> None:
    from cli.progress import pull_image

    try:
        pull_image(client, image, platform=options["platform"], quiet=options["quiet"], out=sys.stderr)
    except CliError as error:
        error.hint = error.hint or f"load it from a file (swarmctl load -i FILE), or check the name: {image}"
        raise


def _write_new_file(path: str, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        raise UsageError(f"cannot write the container ID file {path}: {error.strerror}") from error


def _wanted_streams(options: dict[str, Any]) -> set[str]:
    """-a names them; without, stdout and stderr, and stdin with -i."""
    chosen = {name.lower() for name in options["attach"]}
    if unknown := chosen - set(_STREAMS):
        raise UsageError(f"invalid --attach value: {sorted(unknown)[0]}", hint="valid: STDIN, STDOUT, STDERR")
    return chosen or {"stdout", "stderr"} | ({"stdin"} if options["interactive"] else set())


def _run(
    client: Client,
    detach: bool,
    detach_keys: str,
    sig_proxy: bool,
    body: dict[str, Any],
    options: dict[str, Any],
) -> int:
    streams = set() if detach else _wanted_streams(options)
    if detach and options["attach"]:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    tty, stdin = bool(options["tty"]), "stdin" in streams
    if not detach:
        check_terminal(tty, stdin)
    body |= {"AttachStdin": stdin, "AttachStdout": "stdout" in streams, "AttachStderr": "stderr" in streams}
    body["StdinOnce"] = stdin
    identifier = _create(client, options, body)
    if detach:
        status = _start(client, identifier, options)
        if not status:
            show(identifier)
        return status
    query = {"stream": True, **dict.fromkeys(streams, True), "detachKeys": detach_keys}
    connection, initial, _ = client.upgrade(container_path(identifier, "attach"), query)
    # The wait has to be known to the daemon before the start: a short command would be over too soon.
    waiting = _wait(client, identifier, options["auto_remove"])
    if status := _start(client, identifier, options):
        connection.close()
        return status
    detached = converse(
        connection,
        initial,
        tty=tty,
        stdin=stdin,
        detach_keys=detach_keys,
        resize=resizer(client, container_path(identifier, "resize")),
        forward=forwarder(client, container_path(identifier, "kill")) if sig_proxy else None,
    )
    return 0 if detached else _exit_code(waiting)


def _wait(client: Client, identifier: str, removed: bool) -> Response:
    condition = "removed" if removed else "next-exit"
    return client.stream("POST", container_path(identifier, "wait"), {"condition": condition})


def _exit_code(waiting: Response) -> int:
    answer = waiting.json() or {}
    if (answer.get("Error") or {}).get("Message"):
        warn(f"error waiting for container: {answer['Error']['Message']}")
        return 125
    return int(answer.get("StatusCode", 125))


def _start(client: Client, identifier: str, options: dict[str, Any]) -> int:
    """0, or the exit status of run when the container could not be started (it is reported)."""
    try:
        client.post(container_path(identifier, "start"))
    except ApiError as error:
        report(error, command=_named())
        if options["auto_remove"]:
            with contextlib.suppress(CliError):
                client.delete(container_path(identifier), {"v": True, "force": True})
        return start_failure_status(error.reason)
    return 0


def start_failure_status(message: str) -> int:
    """127: no such command; 126: it cannot be executed; 125: anything else."""
    if "executable file not found" in message or "no such file or directory" in message.lower():
        return 127
    if os.strerror(13).lower() in message.lower() or os.strerror(21).lower() in message.lower():
        return 126
    return 125
