"""`swarmctl container`: everything but run, create, start, attach and exec (which own a terminal)."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import (
    command,
    confirm,
    filter_option,
    for_each,
    format_option,
    no_trunc_option,
    quiet_option,
    repeated,
)
from cli.errors import CliError, UsageError
from cli.output import Row, emit, emit_objects, label_of, labels_text, render_table, short_id, shorten, show
from cli.parse import filters, nano_cpus, size_bytes
from cli.urls import quote

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_HEADERS = {"CreatedAt": "CREATED AT", "LocalVolumes": "LOCAL VOLUMES"}
_CONTAINERS = "CONTAINER [CONTAINER...]"


def container_path(reference: str, verb: str = "") -> str:
    """/containers/REF[/VERB]; an empty reference would address another resource."""
    if not reference:
        raise UsageError('invalid container name or ID: value is empty ("")')
    return f"/containers/{quote(reference)}" + (f"/{verb}" if verb else "")


@command("", name="ls")
@click.option("-a", "--all", "all_", is_flag=True, help="Show all containers (default shows just running)")
@filter_option
@format_option
@click.option("-n", "--last", default=-1, help="Show n last created containers (includes all states)")
@click.option("-l", "--latest", is_flag=True, help="Show the latest created container (includes all states)")
@no_trunc_option
@quiet_option("Only display container IDs")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
@click.pass_obj
def ls(
    client: Client,
    all_: bool,
    filter_values: tuple[str, ...],
    form: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List containers"""
    limit = 1 if latest else last
    size = size or ".Size" in form
    query = {
        "all": all_ or limit > 0,
        "limit": limit if limit > 0 else None,
        "size": size or None,
        "filters": filters(filter_values),
    }
    rows = [container_row(item, no_trunc) for item in client.get("/containers/json", query)]
    columns = (*_COLUMNS, ("SIZE", "Size")) if size else _COLUMNS
    emit(rows, columns, form=form, quiet="ID" if quiet else "", headers=_HEADERS)


def container_row(item: dict[str, Any], no_trunc: bool = False) -> Row:
    """One element of GET /containers/json as the fields of a row."""
    names = [name.removeprefix("/") for name in item.get("Names") or [] if name.count("/") <= 1]
    words = item.get("Command") or ""
    size = humanize.short_size(item.get("SizeRw") or 0)
    if item.get("SizeRootFs"):
        size += f" (virtual {humanize.short_size(item['SizeRootFs'])})"
    mounts = [mount.get("Name") or mount.get("Source") or "" for mount in item.get("Mounts") or []]
    image = str(item.get("Image") or "")
    return {
        "ID": item["Id"] if no_trunc else short_id(item["Id"]),
        "Image": short_id(image) if image.startswith("sha256:") and not no_trunc else image or "<no image>",
        "Command": f'"{words if no_trunc else shorten(words, 20)}"',
        "CreatedAt": humanize.local_time(item.get("Created")),
        "RunningFor": humanize.ago(item.get("Created")),
        "Status": item.get("Status") or "",
        "State": item.get("State") or "",
        "Ports": ports_text(item.get("Ports") or []),
        "Names": ",".join(names),
        "Size": size,
        "Labels": labels_text(item.get("Labels")),
        "Label": label_of(item.get("Labels")),
        "LocalVolumes": str(sum(1 for mount in item.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Platform": None,
        "Mounts": ",".join(mounts if no_trunc else [shorten(name, 15) for name in mounts]),
        "Networks": ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or {})),
    }


def ports_text(ports: list[dict[str, Any]]) -> str:
    """0.0.0.0:8080->80/tcp, neighbouring ports joined to ranges as Docker does."""
    runs: list[tuple[tuple[str, str], list[tuple[int, int]]]] = []
    for port in sorted(ports, key=lambda p: (p.get("IP") or "", p.get("Type", "tcp"), p["PrivatePort"])):
        key = (port.get("IP") or "", port.get("Type", "tcp"))
        pair = (port.get("PublicPort") or 0, port["PrivatePort"])
        if runs and runs[-1][0] == key and _follows(runs[-1][1][-1], pair):
            runs[-1][1].append(pair)
        else:
            runs.append((key, [pair]))
    return ", ".join(_run_text(address, protocol, pairs) for (address, protocol), pairs in runs)


def _follows(before: tuple[int, int], pair: tuple[int, int]) -> bool:
    return pair[1] == before[1] + 1 and (pair[0] == before[0] + 1 if pair[0] else not before[0])


def _run_text(address: str, protocol: str, pairs: list[tuple[int, int]]) -> str:
    private = _span(pairs[0][1], pairs[-1][1])
    if not pairs[0][0]:
        return f"{private}/{protocol}"
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{_span(pairs[0][0], pairs[-1][0])}->{private}/{protocol}"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.State.Pid}}'")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes")
@click.pass_obj
def inspect(client: Client, containers: tuple[str, ...], form: str, size: bool) -> None:
    """Display detailed information on one or more containers"""
    inspect_each(
        client,
        list(containers),
        form,
        lambda ref: client.get(container_path(ref, "json"), {"size": size or None}),
    )


def inspect_each(client: Client, references: list[str], form: str, get: Any) -> None:
    """Shows what was found, then the errors of what was not; the status is 1 when anything was missing."""
    from cli.command import report
    from cli.errors import SilentExit

    found, failures = [], []
    for reference in references:
        try:
            found.append(get(reference))
        except CliError as error:
            failures.append(error)
    if found or not form:
        emit_objects(found, form)
    if failures:
        sys.stdout.flush()
        for failure in failures:
            report(failure)
        raise SilentExit(1)


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("-s", "--signal", default="", help="Signal to send to the container (default KILL)")
@click.pass_obj
def kill(client: Client, containers: tuple[str, ...], signal: str) -> None:
    """Kill one or more running containers"""
    for_each(
        containers, lambda ref: client.post(container_path(ref, "kill"), query={"signal": signal or "KILL"})
    )


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("-s", "--signal", default="", help="Signal to send to the container")
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds to wait before killing")
@click.pass_obj
def stop(client: Client, containers: tuple[str, ...], signal: str, seconds: int | None) -> None:
    """Stop one or more running containers"""
    _slow_call(client, containers, "stop", {"t": seconds, "signal": signal})


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("-s", "--signal", default="", help="Signal to send to the container")
@click.option("-t", "--time", "--timeout", "seconds", type=int, help="Seconds to wait before killing")
@click.pass_obj
def restart(client: Client, containers: tuple[str, ...], signal: str, seconds: int | None) -> None:
    """Restart one or more containers"""
    _slow_call(client, containers, "restart", {"t": seconds, "signal": signal})


def _slow_call(client: Client, containers: tuple[str, ...], verb: str, query: dict[str, Any]) -> None:
    # The container decides how long it takes to stop, so these answers have no time limit.
    for_each(containers, lambda ref: client.stream("POST", container_path(ref, verb), query).close())


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Force the removal of a running container (uses SIGKILL)")
@click.option("-l", "--link", is_flag=True, help="Remove the specified link")
@click.option("-v", "--volumes", is_flag=True, help="Remove anonymous volumes associated with the container")
@click.pass_obj
def rm(client: Client, containers: tuple[str, ...], force: bool, link: bool, volumes: bool) -> None:
    """Remove one or more containers"""
    query = {"force": force or None, "v": volumes or None, "link": link or None}
    for_each(containers, lambda ref: client.delete(container_path(ref), query), missing_is_fine=force)


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def pause(client: Client, containers: tuple[str, ...]) -> None:
    """Pause all processes within one or more containers"""
    for_each(containers, lambda ref: client.post(container_path(ref, "pause")))


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def unpause(client: Client, containers: tuple[str, ...]) -> None:
    """Unpause all processes within one or more containers"""
    for_each(containers, lambda ref: client.post(container_path(ref, "unpause")))


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.pass_obj
def wait(client: Client, containers: tuple[str, ...]) -> None:
    """Block until one or more containers stop, then print their exit codes"""
    for_each(containers, lambda ref: client.stream("POST", container_path(ref, "wait")).json()["StatusCode"])


@command("CONTAINER NEW_NAME")
@click.argument("container")
@click.argument("new_name")
@click.pass_obj
def rename(client: Client, container: str, new_name: str) -> None:
    """Rename a container"""
    try:
        client.post(container_path(container, "rename"), query={"name": new_name})
    except CliError as error:
        error.message += f"\nError: failed to rename container named {container}"
        raise


@command("CONTAINER")
@click.argument("container")
@click.option("--details", is_flag=True, help="Show extra details provided to logs")
@click.option("-f", "--follow", is_flag=True, help="Follow log output")
@click.option(
    "--since", default="", help="Show logs since timestamp (e.g. 2026-01-02T13:23:37Z) or relative (e.g. 42m)"
)
@click.option("-n", "--tail", default="all", help="Number of lines to show from the end of the logs")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps")
@click.option(
    "--until", default="", help="Show logs before a timestamp or relative (e.g. 42m for 42 minutes)"
)
@click.pass_obj
def logs(
    client: Client,
    container: str,
    details: bool,
    follow: bool,
    since: str,
    tail: str,
    timestamps: bool,
    until: str,
) -> None:
    """Fetch the logs of a container"""
    from cli.moments import moment
    from cli.stdcopy import copy_frames, copy_raw

    has_terminal = client.get(container_path(container, "json"))["Config"]["Tty"]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": follow or None,
        "since": moment(since),
        "until": moment(until),
        "tail": tail,
        "timestamps": timestamps or None,
        "details": details or None,
    }
    blocks = client.stream("GET", container_path(container, "logs"), query).blocks()
    (copy_raw if has_terminal else copy_frames)(blocks)


@command(
    "CONTAINER [ps OPTIONS]",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.argument("container")
@click.argument("ps_options", nargs=-1)
@click.pass_obj
def top(client: Client, container: str, ps_options: tuple[str, ...]) -> None:
    """Display the running processes of a container"""
    answer = client.get(container_path(container, "top"), {"ps_args": " ".join(ps_options)})
    sys.stdout.write(render_table(answer["Titles"], answer["Processes"] or []))


@command("CONTAINER [PRIVATE_PORT[/PROTO]]")
@click.argument("container")
@click.argument("private_port", default="")
@click.pass_obj
def port(client: Client, container: str, private_port: str) -> None:
    """List port mappings or a specific mapping for the container"""
    ports = client.get(container_path(container, "json"))["NetworkSettings"].get("Ports") or {}
    wanted = private_port if not private_port or "/" in private_port else f"{private_port}/tcp"
    if wanted and not ports.get(wanted):
        raise UsageError(f"Error: No public port '{private_port}' published for {container}")
    for key in [wanted] if wanted else sorted(ports):
        for binding in ports[key] or []:
            address = f"[{binding['HostIp']}]" if ":" in binding["HostIp"] else binding["HostIp"]
            prefix = "" if wanted else f"{key} -> "
            show(f"{prefix}{address}:{binding['HostPort']}")


@command("CONTAINER")
@click.argument("container")
@click.pass_obj
def diff(client: Client, container: str) -> None:
    """Inspect changes to files or directories on a container's filesystem"""
    for change in client.get(container_path(container, "changes")) or []:
        show(f"{'CAD'[change['Kind']]} {change['Path']}")


@command("")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. until=24h)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_obj
def prune(client: Client, filter_values: tuple[str, ...], force: bool) -> None:
    """Remove all stopped containers"""
    confirm("This will remove all stopped containers.", force)
    answer = client.post("/containers/prune", query={"filters": filters(filter_values)})
    show_pruned("Deleted Containers:", answer.get("ContainersDeleted"), answer.get("SpaceReclaimed"))


def show_pruned(title: str, names: list[str] | None, space_bytes: int | None) -> None:
    if names:
        show("\n".join([title, *names, ""]))
    if space_bytes is not None:
        show(f"Total reclaimed space: {humanize.size(space_bytes)}")


@command(_CONTAINERS)
@click.argument("containers", nargs=-1, required=True)
@click.option("--blkio-weight", type=int, help="Block IO (relative weight), between 10 and 1000")
@click.option("-c", "--cpu-shares", type=int, help="CPU shares (relative weight)")
@click.option("--cpu-period", type=int, help="Limit CPU CFS period, in microseconds")
@click.option("--cpu-quota", type=int, help="Limit CPU CFS quota, in microseconds")
@click.option("--cpu-rt-period", type=int, help="Limit the CPU real-time period in microseconds")
@click.option("--cpu-rt-runtime", type=int, help="Limit the CPU real-time runtime in microseconds")
@click.option("--cpus", default="", help="Number of CPUs")
@click.option("--cpuset-cpus", default="", help="CPUs in which to allow execution (0-3, 0,1)")
@click.option("--cpuset-mems", default="", help="MEMs in which to allow execution (0-3, 0,1)")
@click.option("-m", "--memory", default="", help="Memory limit")
@click.option("--memory-reservation", default="", help="Memory soft limit")
@click.option("--memory-swap", default="", help="Memory plus swap; -1 for unlimited swap")
@click.option("--pids-limit", type=int, help="Tune container pids limit (-1 for unlimited)")
@click.option("--restart", default="", help="Restart policy to apply when a container exits")
@click.pass_obj
def update(client: Client, /, containers: tuple[str, ...], **options: Any) -> None:
    """Update configuration of one or more containers"""
    from cli.container_body import restart_policy, swap_bytes
    from cli.output import warn

    body = {
        "BlkioWeight": options["blkio_weight"],
        "CpuShares": options["cpu_shares"],
        "CpuPeriod": options["cpu_period"],
        "CpuQuota": options["cpu_quota"],
        "CpuRealtimePeriod": options["cpu_rt_period"],
        "CpuRealtimeRuntime": options["cpu_rt_runtime"],
        "NanoCpus": nano_cpus(options["cpus"]) if options["cpus"] else None,
        "CpusetCpus": options["cpuset_cpus"] or None,
        "CpusetMems": options["cpuset_mems"] or None,
        "Memory": size_bytes(options["memory"]) if options["memory"] else None,
        "MemoryReservation": size_bytes(options["memory_reservation"])
        if options["memory_reservation"]
        else None,
        "MemorySwap": swap_bytes(options["memory_swap"]) or None,
        "PidsLimit": options["pids_limit"],
        "RestartPolicy": restart_policy(options["restart"]) if options["restart"] else None,
    }
    body = {key: value for key, value in body.items() if value is not None}
    if not body:
        raise UsageError("you must provide one or more flags when using this command")

    def one(reference: str) -> None:
        for warning in client.post(container_path(reference, "update"), body).get("Warnings") or []:
            warn(f"WARNING: {warning}")

    for_each(containers, one)
