"""`swarmctl node`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cli.client import Client
from cli.command import (
    command,
    filter_option,
    for_each,
    format_option,
    no_trunc_option,
    quiet_option,
    repeated,
)
from cli.commands.container import inspect_each
from cli.errors import ApiError, UsageError
from cli.output import emit, show
from cli.parse import choice, filters, labels
from cli.urls import quote

_COLUMNS = (
    ("ID", "MarkedID"),
    ("HOSTNAME", "Hostname"),
    ("STATUS", "Status"),
    ("AVAILABILITY", "Availability"),
    ("MANAGER STATUS", "ManagerStatus"),
    ("ENGINE VERSION", "EngineVersion"),
)
_ATTEMPTS = 4


def node_path(client: Client, reference: str) -> str:
    """/nodes/ID; `self` is the node that is asked."""
    if not reference:
        raise UsageError('invalid node name or ID: value is empty ("")')
    identifier = own_id(client) if reference == "self" else reference
    return f"/nodes/{quote(identifier)}"


def own_id(client: Client) -> str:
    identifier = ((client.get("/info").get("Swarm")) or {}).get("NodeID")
    if not identifier:
        raise UsageError(
            "this node is not part of a swarm", hint="make one with `swarmctl swarm init`, or join one"
        )
    return str(identifier)


@command("", name="ls")
@filter_option
@format_option
@quiet_option()
@click.pass_obj
def ls(client: Client, filter_values: tuple[str, ...], form: str, quiet: bool) -> None:
    """List nodes in the swarm"""
    nodes = client.get("/nodes", {"filters": filters(filter_values)})
    own = "" if quiet else own_id(client)
    rows = [node_row(node, own) for node in nodes]
    rows.sort(key=lambda row: row["Hostname"])
    emit(rows, _COLUMNS, form=form, quiet="ID" if quiet else "", headers={"ID": "ID", "Self": "SELF"})


def node_row(node: dict[str, Any], own: str) -> dict[str, Any]:
    description, manager = node.get("Description") or {}, node.get("ManagerStatus") or {}
    reachability = "Leader" if manager.get("Leader") else str(manager.get("Reachability", "")).capitalize()
    return {
        "ID": node["ID"],
        "MarkedID": f"{node['ID']} *" if node["ID"] == own else f"{node['ID']}  ",
        "Self": node["ID"] == own,
        "Hostname": description.get("Hostname", ""),
        "Status": node["Status"]["State"].capitalize(),
        "Availability": node["Spec"]["Availability"].capitalize(),
        "ManagerStatus": reachability,
        "EngineVersion": (description.get("Engine") or {}).get("EngineVersion", ""),
        "TLSStatus": "Ready",
        "Address": node["Status"].get("Addr", ""),
    }


@command("self|NODE [NODE...]")
@click.argument("nodes", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Status.Addr}}'")
@click.option("--pretty", is_flag=True, help="Print the information in a human friendly format")
@click.pass_obj
def inspect(client: Client, nodes: tuple[str, ...], form: str, pretty: bool) -> None:
    """Display detailed information on one or more nodes"""
    if pretty:
        from cli.pretty import node_text

        show("\n\n".join(node_text(client.get(node_path(client, name))) for name in nodes))
        return
    inspect_each(client, list(nodes), form, lambda name: client.get(node_path(client, name)))


@command("[NODE...]")
@click.argument("nodes", nargs=-1)
@filter_option
@format_option
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names")
@no_trunc_option
@quiet_option("Only display task IDs")
@click.pass_obj
def ps(
    client: Client,
    nodes: tuple[str, ...],
    filter_values: tuple[str, ...],
    form: str,
    no_resolve: bool,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List tasks running on one or more nodes, defaults to current node"""
    from cli.tasks import Names, show_tasks

    chosen = filters(filter_values)
    chosen["node"] = [client.get(node_path(client, name))["ID"] for name in nodes or ("self",)]
    tasks = client.get("/tasks", {"filters": chosen})
    show_tasks(tasks, Names(client, resolve=not no_resolve), form=form, quiet=quiet, no_trunc=no_trunc)


@command("NODE [NODE...]")
@click.argument("nodes", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Force remove a node from the swarm")
@click.pass_obj
def rm(client: Client, nodes: tuple[str, ...], force: bool) -> None:
    """Remove one or more nodes from the swarm"""
    for_each(nodes, lambda name: client.delete(node_path(client, name), {"force": force or None}))


def _change(client: Client, name: str, change: Callable[[dict[str, Any]], bool]) -> bool:
    """Reads, changes and writes; again when somebody else wrote in between. False when nothing had to change."""
    for attempt in range(1, _ATTEMPTS + 1):
        node = client.get(node_path(client, name))
        if not change(node["Spec"]):
            return False
        try:
            client.post(f"/nodes/{node['ID']}/update", node["Spec"], {"version": node["Version"]["Index"]})
            return True
        except ApiError as error:
            if "out of sequence" not in error.reason or attempt == _ATTEMPTS:
                raise
    return False


@command("NODE")
@click.argument("node")
@click.option("--availability", default="", help='Availability of the node ("active", "pause", "drain")')
@repeated("--label-add", help="Add or update a node label (key=value)")
@repeated("--label-rm", help="Remove a node label if exists")
@click.option("--role", default="", help='Role of the node ("worker", "manager")')
@click.pass_obj
def update(
    client: Client,
    node: str,
    availability: str,
    label_add: tuple[str, ...],
    label_rm: tuple[str, ...],
    role: str,
) -> None:
    """Update a node"""
    if availability:
        choice(availability, ("active", "pause", "drain"), "availability")
    if role:
        choice(role, ("worker", "manager"), "role")
    added = labels(label_add)

    def change(spec: dict[str, Any]) -> bool:
        if availability:
            spec["Availability"] = availability
        if role:
            spec["Role"] = role
        kept = {key: value for key, value in (spec.get("Labels") or {}).items() if key not in label_rm}
        spec["Labels"] = kept | added
        return True

    _change(client, node, change)
    show(node)


def _set_role(client: Client, nodes: tuple[str, ...], role: str) -> None:
    def one(name: str) -> str:
        def change(spec: dict[str, Any]) -> bool:
            changed = spec.get("Role") != role
            spec["Role"] = role
            return changed

        if _change(client, name, change):
            verb = "promoted to a manager" if role == "manager" else "demoted"
            return f"Node {name} {verb} in the swarm."
        return f"Node {name} is already a {role}."

    for_each(nodes, one)


@command("NODE [NODE...]")
@click.argument("nodes", nargs=-1, required=True)
@click.pass_obj
def promote(client: Client, nodes: tuple[str, ...]) -> None:
    """Promote one or more nodes to manager in the swarm"""
    _set_role(client, nodes, "manager")


@command("NODE [NODE...]")
@click.argument("nodes", nargs=-1, required=True)
@click.pass_obj
def demote(client: Client, nodes: tuple[str, ...]) -> None:
    """Demote one or more nodes from manager in the swarm"""
    _set_role(client, nodes, "worker")
