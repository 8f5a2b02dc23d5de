"""`swarmctl service`: reading (ls, ps, inspect, logs) and removing. Creating and changing is in service_write."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.client import Client
from cli.command import command, filter_option, for_each, format_option, no_trunc_option, quiet_option
from cli.commands.container import inspect_each
from cli.errors import ApiError, CliError, UsageError
from cli.output import emit, show
from cli.parse import filters
from cli.urls import quote

_COLUMNS = (
    ("ID", "ID"),
    ("NAME", "Name"),
    ("MODE", "Mode"),
    ("REPLICAS", "Replicas"),
    ("IMAGE", "Image"),
    ("PORTS", "Ports"),
)


def service_path(reference: str, verb: str = "") -> str:
    if not reference:
        raise UsageError('invalid service name or ID: value is empty ("")')
    return f"/services/{quote(reference)}" + (f"/{verb}" if verb else "")


@command("", name="ls")
@filter_option
@format_option
@quiet_option()
@click.pass_obj
def ls(client: Client, filter_values: tuple[str, ...], form: str, quiet: bool) -> None:
    """List services"""
    show_services(client.get("/services", {"filters": filters(filter_values), "status": True}), form, quiet)


def show_services(services: list[dict[str, Any]], form: str, quiet: bool) -> None:
    rows = [service_row(service) for service in sorted(services, key=lambda service: service["Spec"]["Name"])]
    emit(rows, _COLUMNS, form=form, quiet="ID" if quiet else "")


def service_row(service: dict[str, Any]) -> dict[str, str]:
    spec = service["Spec"]
    mode = "global" if "Global" in (spec.get("Mode") or {}) else "replicated"
    status = service.get("ServiceStatus") or {}
    maximum = (spec["TaskTemplate"].get("Placement") or {}).get("MaxReplicas")
    replicas = f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}"
    ports = (service.get("Endpoint") or {}).get("Ports") or []
    return {
        "ID": service["ID"][:12],
        "Name": spec["Name"],
        "Mode": mode,
        "Replicas": f"{replicas} (max {maximum} per node)" if maximum else replicas,
        "Image": (spec["TaskTemplate"].get("ContainerSpec") or {}).get("Image", "").partition("@sha256:")[0],
        "Ports": ", ".join(
            port_text(port) for port in ports if port.get("PublishMode", "ingress") == "ingress"
        ),
    }


def port_text(port: dict[str, Any]) -> str:
    return f"*:{port.get('PublishedPort', 0)}->{port['TargetPort']}/{port.get('Protocol', 'tcp')}"


@command("SERVICE [SERVICE...]")
@click.argument("services", nargs=-1, required=True)
@filter_option
@format_option
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names")
@no_trunc_option
@quiet_option("Only display task IDs")
@click.pass_obj
def ps(
    client: Client,
    services: tuple[str, ...],
    filter_values: tuple[str, ...],
    form: str,
    no_resolve: bool,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List the tasks of one or more services"""
    from cli.tasks import Names, show_tasks

    chosen = filters(filter_values)
    problems: list[str] = []
    for name in services:
        try:
            chosen.setdefault("service", []).append(client.get(service_path(name))["ID"])
        except ApiError as error:
            if error.status != 404:
                raise
            problems.append(f"no such service: {name}")
    if chosen.get("service"):
        tasks = client.get("/tasks", {"filters": with_node_ids(client, chosen)})
        show_tasks(tasks, Names(client, resolve=not no_resolve), form=form, quiet=quiet, no_trunc=no_trunc)
    if problems:
        sys.stdout.flush()
        raise CliError("\n".join(problems))


def with_node_ids(client: Client, chosen: dict[str, list[str]]) -> dict[str, list[str]]:
    """`--filter node=self` and node names become ids."""
    if "node" in chosen:
        chosen["node"] = [
            client.get("/info")["Swarm"]["NodeID"]
            if name == "self"
            else client.get(f"/nodes/{quote(name)}")["ID"]
            for name in chosen["node"]
        ]
    return chosen


@command("SERVICE [SERVICE...]")
@click.argument("services", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Spec.Name}}'")
@click.option("--pretty", is_flag=True, help="Print the information in a human friendly format")
@click.pass_obj
def inspect(client: Client, services: tuple[str, ...], form: str, pretty: bool) -> None:
    """Display detailed information on one or more services"""
    if pretty:
        from cli.pretty import service_text

        for name in services:
            show(service_text(client.get(service_path(name))))
        return
    inspect_each(client, list(services), form, lambda name: _inspected(client, name))


def _inspected(client: Client, name: str) -> Any:
    try:
        return client.get(service_path(name))
    except ApiError as error:
        if error.status != 404:
            raise
        raise CliError(f"Error: no such service: {name}") from error


@command("SERVICE [SERVICE...]")
@click.argument("services", nargs=-1, required=True)
@click.pass_obj
def rm(client: Client, services: tuple[str, ...]) -> None:
    """Remove one or more services"""
    for_each(services, lambda name: client.delete(service_path(name)))


@command("SERVICE|TASK")
@click.argument("reference")
@click.option("--details", is_flag=True, help="Show extra details provided to logs")
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names in output")
@click.option("--no-task-ids", is_flag=True, help="Do not include task IDs in output")
@no_trunc_option
@click.option("--raw", is_flag=True, help="Do not neatly format logs")
@click.option("--since", default="", help="Show logs since timestamp or relative (e.g. 42m for 42 minutes)")
@click.option("-n", "--tail", default="all", help="Number of lines to show from the end of the logs")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.pass_obj
def logs(client: Client, /, reference: str, **options: Any) -> None:
    """Fetch the logs of a service or task"""
    from cli.moments import moment
    from cli.service_logs import copy_lines, task_labels
    from cli.stdcopy import copy_frames, copy_raw
    from cli.tasks import Names

    path, tasks = _log_source(client, reference)
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options["follow"] or None,
        "since": moment(options["since"]),
        "tail": options["tail"],
        "timestamps": options["timestamps"] or None,
        "details": not options["raw"] or options["details"] or None,
    }
    blocks = client.stream("GET", path, query).blocks()
    has_terminal = any((task["Spec"].get("ContainerSpec") or {}).get("TTY") for task in tasks)
    if has_terminal or options["raw"]:
        (copy_raw if has_terminal else copy_frames)(blocks)
        return
    names = Names(client, resolve=not options["no_resolve"])
    label = task_labels(
        client, tasks, names, task_ids=not options["no_task_ids"], truncate=not options["no_trunc"]
    )
    copy_lines(blocks, label, timestamps=options["timestamps"], details=options["details"])


def _log_source(client: Client, reference: str) -> tuple[str, list[dict[str, Any]]]:
    """The path of the logs of a service, or else of a task, and the tasks concerned."""
    try:
        service = client.get(service_path(reference))
    except ApiError as error:
        if error.status != 404:
            raise
        try:
            task = client.get(f"/tasks/{quote(reference)}")
        except ApiError as missing:
            if missing.status != 404:
                raise
            raise CliError(f"no such task or service: {reference}") from missing
        return f"/tasks/{quote(task['ID'])}/logs", [task]
    tasks = client.get("/tasks", {"filters": {"service": [service["ID"]]}})
    return service_path(service["ID"], "logs"), tasks
