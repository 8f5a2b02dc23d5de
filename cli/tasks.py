"""Tables of tasks, as `service ps` and `node ps` show them, and the names behind their ids."""

from __future__ import annotations

from typing import Any

from cli import humanize
from cli.client import Client
from cli.errors import ApiError
from cli.output import Row, emit, shorten
from cli.urls import quote

_COLUMNS = (
    ("ID", "ID"),
    ("NAME", "Name"),
    ("IMAGE", "Image"),
    ("NODE", "Node"),
    ("DESIRED STATE", "DesiredState"),
    ("CURRENT STATE", "CurrentState"),
    ("ERROR", "Error"),
    ("PORTS", "Ports"),
)
_ERROR_WIDTH = 30


class Names:
    """Ids of nodes and services to names, each asked for once; ids of things that are gone stay ids."""

    def __init__(self, client: Client, *, resolve: bool = True) -> None:
        self._client = client
        self._resolve = resolve
        self._known: dict[str, str] = {}

    def node(self, identifier: str) -> str:
        return self._name(f"/nodes/{quote(identifier)}", identifier)

    def service(self, identifier: str) -> str:
        return self._name(f"/services/{quote(identifier)}", identifier)

    def _name(self, path: str, identifier: str) -> str:
        if not identifier or not self._resolve:
            return identifier
        if path not in self._known:
            try:
                found = self._client.get(path)
            except ApiError as error:
                if error.status != 404:
                    raise
                found = {}
            spec, description = found.get("Spec") or {}, found.get("Description") or {}
            self._known[path] = spec.get("Name") or description.get("Hostname") or identifier
        return self._known[path]


def show_tasks(
    tasks: list[dict[str, Any]], names: Names, *, form: str = "", quiet: bool = False, no_trunc: bool = False
) -> None:
    """Newest task of each slot first, its predecessors below it."""
    emit(task_rows(tasks, names, no_trunc or quiet), _COLUMNS, form=form, quiet="ID" if quiet else "")


def task_rows(tasks: list[dict[str, Any]], names: Names, no_trunc: bool = False) -> list[Row]:
    named = [(task_name(task, names), task) for task in tasks]
    named.sort(key=lambda item: item[1].get("CreatedAt", ""), reverse=True)
    named.sort(
        key=lambda item: (names.service(item[1].get("ServiceID", "")), item[1].get("Slot") or 0, item[0])
    )
    rows, previous = [], ""
    for name, task in named:
        rows.append(_row(task, f" \\_ {name}" if name == previous else name, names, no_trunc))
        previous = name
    return rows


def task_name(task: dict[str, Any], names: Names) -> str:
    """web.1, or web.<node id> for a global service."""
    return f"{names.service(task.get('ServiceID', ''))}.{task.get('Slot') or task.get('NodeID', '')}"


def _row(task: dict[str, Any], name: str, names: Names, no_trunc: bool) -> Row:
    status = task["Status"]
    error = why(status)
    image = (task["Spec"].get("ContainerSpec") or {}).get("Image", "")
    ports = (status.get("PortStatus") or {}).get("Ports") or []
    return {
        "ID": task["ID"] if no_trunc else task["ID"][:12],
        "Name": name,
        "Image": image if no_trunc else image.partition("@sha256:")[0],
        "Node": names.node(task.get("NodeID", "")),
        "DesiredState": task.get("DesiredState", "").capitalize(),
        "CurrentState": f"{status['State'].capitalize()} {humanize.duration(_age(status))} ago".replace(
            "Less than", "less than"
        ).replace("About", "about"),
        "Error": f'"{error if no_trunc else shorten(error, _ERROR_WIDTH)}"' if error else "",
        "Ports": ",".join(
            f"*:{port['PublishedPort']}->{port['TargetPort']}/{port['Protocol']}" for port in ports
        ),
    }


def why(status: dict[str, Any]) -> str:
    """Why a task failed, or, while it has no node, what it waits for."""
    if status.get("Err"):
        return str(status["Err"])
    message = str(status.get("Message", ""))
    waits = status["State"] in ("new", "pending") and message not in ("created", "pending task scheduling")
    return message if waits else ""


def _age(status: dict[str, Any]) -> float:
    return humanize.seconds_since(status.get("Timestamp"))
