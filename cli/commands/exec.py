"""`swarmctl exec`, `attach` and `start`: commands that lend the user's terminal to a process in a container."""

from __future__ import annotations

from typing import Any

import click

from cli.attach import check_terminal, converse, forwarder, resizer
from cli.client import Client
from cli.command import command, for_each, refused, repeated, stop_at_first_argument, switch
from cli.commands.container import container_path
from cli.errors import SilentExit, UsageError
from cli.parse import environment
from cli.terminal import DEFAULT_DETACH_KEYS, window_size
from cli.urls import quote

_FAILED = "Error: failed to start containers:"
_NO_CHECKPOINTS = "containers cannot be frozen to disk; start it anew"


@command("CONTAINER COMMAND [ARG...]", name="exec", context_settings=stop_at_first_argument())
@click.option("-d", "--detach", is_flag=True, help="Detached mode: run command in the background")
@click.option("--detach-keys", default=DEFAULT_DETACH_KEYS, help="Override the key sequence for detaching")
@repeated("-e", "--env", help="Set environment variables")
@repeated("--env-file", help="Read in a file of environment variables")
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY")
@click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>])")
@click.option("-w", "--workdir", default="", help="Working directory inside the container")
@click.argument("container")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(client: Client, /, container: str, words: tuple[str, ...], **options: Any) -> None:
    """Execute a command in a running container"""
    tty, stdin, detach = options["tty"], options["interactive"], options["detach"]
    if not detach:
        check_terminal(tty, stdin)
    body: dict[str, Any] = {
        "Cmd": list(words),
        "Env": environment(options["env"], options["env_file"]),
        "User": options["user"],
        "WorkingDir": options["workdir"],
        "Privileged": options["privileged"],
        "Tty": tty,
        "AttachStdin": stdin and not detach,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "DetachKeys": options["detach_keys"],
    }
    rows, columns = window_size()
    if tty and rows:
        body["ConsoleSize"] = [rows, columns]
    identifier = client.post(container_path(container, "exec"), body)["Id"]
    path = f"/exec/{quote(identifier)}"
    start: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if detach:
        client.post(f"{path}/start", start)
        return
    if "ConsoleSize" in body:
        start["ConsoleSize"] = body["ConsoleSize"]
    connection, initial, _ = client.upgrade(f"{path}/start", body=start)
    detached = converse(
        connection,
        initial,
        tty=tty,
        stdin=stdin,
        detach_keys=options["detach_keys"],
        resize=resizer(client, f"{path}/resize"),
    )
    if not detached:
        raise SilentExit(int(client.get(f"{path}/json").get("ExitCode") or 0))


@command("CONTAINER")
@click.option("--detach-keys", default=DEFAULT_DETACH_KEYS, help="Override the key sequence for detaching")
@click.option("--no-stdin", is_flag=True, help="Do not attach STDIN")
@switch("--sig-proxy", default=True, help="Proxy all received signals to the process")
@click.argument("container")
@click.pass_obj
def attach(client: Client, container: str, detach_keys: str, no_stdin: bool, sig_proxy: bool) -> None:
    """Attach local standard input, output, and error streams to a running container"""
    details = client.get(container_path(container, "json"))
    if not details["State"]["Running"]:
        raise UsageError("You cannot attach to a stopped container, start it first")
    if details["State"].get("Paused"):
        raise UsageError("You cannot attach to a paused container, unpause it first")
    _attach_running(client, container, details, detach_keys, not no_stdin, sig_proxy)


def _attach_running(
    client: Client, container: str, details: dict[str, Any], detach_keys: str, stdin: bool, sig_proxy: bool
) -> None:
    tty = bool(details["Config"]["Tty"])
    stdin = stdin and bool(details["Config"]["OpenStdin"])
    check_terminal(tty, stdin)
    waiting = client.stream("POST", container_path(container, "wait"))
    query = {
        "stream": True,
        "stdin": stdin or None,
        "stdout": True,
        "stderr": True,
        "detachKeys": detach_keys,
    }
    connection, initial, _ = client.upgrade(container_path(container, "attach"), query)
    detached = converse(
        connection,
        initial,
        tty=tty,
        stdin=stdin,
        detach_keys=detach_keys,
        resize=resizer(client, container_path(container, "resize")),
        forward=forwarder(client, container_path(container, "kill")) if sig_proxy else None,
    )
    raise SilentExit(0 if detached else int((waiting.json() or {}).get("StatusCode", 0)))


@command("CONTAINER [CONTAINER...]")
@refused("--checkpoint", reason=_NO_CHECKPOINTS)
@refused("--checkpoint-dir", reason=_NO_CHECKPOINTS)
@click.option("-a", "--attach", "attached", is_flag=True, help="Attach STDOUT/STDERR and forward signals")
@click.option("--detach-keys", default=DEFAULT_DETACH_KEYS, help="Override the key sequence for detaching")
@click.option("-i", "--interactive", is_flag=True, help="Attach container's STDIN")
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def start(
    client: Client, containers: tuple[str, ...], attached: bool, detach_keys: str, interactive: bool
) -> None:
    """Start one or more stopped containers"""
    if not (attached or interactive):
        for_each(containers, lambda ref: client.post(container_path(ref, "start")), ending=_FAILED)
        return
    if len(containers) > 1:
        raise UsageError("you cannot start and attach multiple containers at once")
    _start_attached(client, containers[0], detach_keys, interactive)


def _start_attached(client: Client, container: str, detach_keys: str, interactive: bool) -> None:
    details = client.get(container_path(container, "json"))
    identifier, tty = details["Id"], bool(details["Config"]["Tty"])
    stdin = interactive and bool(details["Config"]["OpenStdin"])
    check_terminal(tty, stdin)
    query = {
        "stream": True,
        "stdin": stdin or None,
        "stdout": True,
        "stderr": True,
        "detachKeys": detach_keys,
    }
    connection, initial, _ = client.upgrade(container_path(identifier, "attach"), query)
    condition = "removed" if details["HostConfig"].get("AutoRemove") else "next-exit"
    waiting = client.stream("POST", container_path(identifier, "wait"), {"condition": condition})
    client.post(container_path(identifier, "start"))
    detached = converse(
        connection,
        initial,
        tty=tty,
        stdin=stdin,
        detach_keys=detach_keys,
        resize=resizer(client, container_path(identifier, "resize")),
        forward=forwarder(client, container_path(identifier, "kill")),
    )
    raise SilentExit(0 if detached else int((waiting.json() or {}).get("StatusCode", 0)))
