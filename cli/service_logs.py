"""Lines of a service's log with the task and node they come from, as `docker service logs` prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cli.client import Client
from cli.errors import ApiError
from cli.stdcopy import STDERR, STDOUT, Demultiplexer, write_all
from cli.tasks import Names, task_name
from cli.urls import quote, unquote

_TASK, _NODE, _SERVICE = (f"com.docker.swarm.{kind}.id" for kind in ("task", "node", "service"))
Label = Callable[[dict[str, str]], str]


def task_labels(
    client: Client, tasks: list[dict[str, Any]], names: Names, *, task_ids: bool, truncate: bool
) -> Label:
    """A function from a line's details to `web.1.<task id>@<node>`, padded to one width."""
    known = {task["ID"]: task for task in tasks}
    width = 0

    def label(details: dict[str, str]) -> str:
        nonlocal width
        identifier = details.get(_TASK, "")
        if identifier not in known:
            known[identifier] = _task(client, identifier, details)
        name = task_name(known[identifier], names)
        if task_ids:
            name += f".{identifier[:12] if truncate else identifier}"
        text = f"{name}@{names.node(details.get(_NODE, ''))}"
        width = max(width, len(text))
        return f"{text:<{width}}    | "

    return label


def _task(client: Client, identifier: str, details: dict[str, str]) -> dict[str, Any]:
    """A task that is not in the list, or (when it is gone) as much as the line itself tells of it."""
    try:
        return dict(client.get(f"/tasks/{quote(identifier)}"))
    except ApiError as error:
        if error.status != 404:
            raise
    return {"ServiceID": details.get(_SERVICE, ""), "NodeID": details.get(_NODE, ""), "ID": identifier}


def split_line(line: bytes, *, timestamps: bool) -> tuple[bytes, dict[str, str], bytes]:
    """(timestamp with a blank or nothing, details, message) of one line that was asked for with details."""
    stamp = b""
    if timestamps:
        stamp, blank, line = line.partition(b" ")
        stamp += blank
    head, blank, message = line.partition(b" ")
    details = {}
    for pair in head.decode(errors="replace").split(","):
        key, equals, value = pair.partition("=")
        if not equals:
            return stamp, {}, line
        details[unquote(key)] = unquote(value)
    return (stamp, details, message) if _TASK in details or blank else (stamp, {}, line)


def copy_lines(blocks: Iterable[bytes], label: Label, *, timestamps: bool, details: bool) -> None:
    """Whole lines to our stdout and stderr; the last one also without its newline."""
    demultiplexer = Demultiplexer()
    partial = {STDOUT: b"", STDERR: b""}

    def write(stream: int, line: bytes) -> None:
        stamp, found, message = split_line(line, timestamps=timestamps)
        prefix = label(found).encode() if _TASK in found else b""
        rest = {key: value for key, value in found.items() if key not in (_TASK, _NODE, _SERVICE)}
        shown = ",".join(f"{key}={value}" for key, value in sorted(rest.items())) if details else ""
        write_all(stream, stamp + prefix + (f"{shown} ".encode() if shown else b"") + message)

    for block in blocks:
        for stream, payload in demultiplexer.feed(block):
            target = STDERR if stream >= STDERR else STDOUT
            *lines, partial[target] = (partial[target] + payload).split(b"\n")
            for line in lines:
                write(target, line + b"\n")
    for target, line in partial.items():
        if line:
            write(target, line + b"\n")
