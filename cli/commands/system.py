"""`swarmctl version`, `info`, and `system`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import command, confirm, filter_option, format_option, repeated, report
from cli.errors import CliError, SilentExit
from cli.output import emit, render_table, show, warn
from cli.parse import filters


def _formatted(value: Any, form: str) -> bool:
    """Prints `value` as --format asks; False when no format was given."""
    if not form:
        return False
    if form == "json":
        show(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        return True
    from cli.template import Template

    show(Template(form).render(value))
    return True


@command("")
@click.option(
    "-f", "--format", "form", default="", help="json or a Go template such as '{{.Server.Version}}'"
)
@click.pass_obj
def version(client: Client, form: str) -> None:
    """Show the swarmctl version information"""
    import platform

    from cli.main import VERSION

    ours = {
        "Version": VERSION,
        "ApiVersion": "1.47",
        "PythonVersion": platform.python_version(),
        "Os": platform.system().lower(),
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    }
    failure: CliError | None = None
    server: dict[str, Any] | None = None
    try:
        server = client.get("/version")
    except CliError as error:
        failure = error
    if not _formatted({"Client": ours, "Server": server}, form):
        show(f"Client:\n{_lines(ours, ('Version', 'ApiVersion', 'PythonVersion'))}")
        if server is not None:
            fields = ("Version", "ApiVersion", "MinAPIVersion", "PythonVersion", "KernelVersion", "BuildTime")
            show(f"\nServer:\n{_lines(server, fields)}")
    if failure is not None:
        sys.stdout.flush()
        report(failure)
        raise SilentExit(1)


_LABELS = {
    "ApiVersion": "API version",
    "MinAPIVersion": "Minimum API version",
    "PythonVersion": "Python version",
    "KernelVersion": "Kernel version",
    "BuildTime": "Built",
}


def _lines(values: dict[str, Any], fields: tuple[str, ...]) -> str:
    lines = [f" {_LABELS.get(name, name) + ':':<20} {values[name]}" for name in fields if values.get(name)]
    return "\n".join([*lines, f" {'OS/Arch:':<20} {values.get('Os', '')}/{values.get('Arch', '')}"])


@command("")
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Swarm.NodeID}}'")
@click.pass_obj
def info(client: Client, form: str) -> None:
    """Display system-wide information"""
    answer = client.get("/info")
    if _formatted(answer, form):
        return
    show("\n".join(["Server:", *_engine_lines(answer), *_swarm_lines(answer.get("Swarm") or {})]))
    show("\n".join(_host_lines(answer)))
    for warning in answer.get("Warnings") or []:
        warn(warning)


def _engine_lines(answer: dict[str, Any]) -> list[str]:
    supervisor = answer.get("Supervisor") or {}
    return [
        f" Containers: {answer.get('Containers', 0)}",
        f"  Running: {answer.get('ContainersRunning', 0)}",
        f"  Paused: {answer.get('ContainersPaused', 0)}",
        f"  Stopped: {answer.get('ContainersStopped', 0)}",
        f" Images: {answer.get('Images', 0)}",
        f" Server Version: {answer.get('ServerVersion', '')}",
        f" Supervisor: {supervisor.get('Build', '')} (pid {supervisor.get('Pid', '')})",
        f" Storage Driver: {answer.get('Driver', '')}",
        f" Logging Driver: {answer.get('LoggingDriver', '')}",
        f" Cgroup Driver: {answer.get('CgroupDriver', '')}",
        f" Cgroup Version: {answer.get('CgroupVersion', '')}",
    ]


def _swarm_lines(swarm: dict[str, Any]) -> list[str]:
    lines = [f" Swarm: {swarm.get('LocalNodeState') or 'inactive'}"]
    if swarm.get("Error"):
        lines.append(f"  Error: {swarm['Error']}")
    if not swarm.get("NodeID"):
        return lines
    lines += [
        f"  NodeID: {swarm['NodeID']}",
        f"  Is Manager: {str(bool(swarm.get('ControlAvailable'))).lower()}",
    ]
    cluster = swarm.get("Cluster") or {}
    if swarm.get("ControlAvailable") and cluster:
        lines += [
            f"  ClusterID: {cluster.get('ID', '')}",
            f"  Managers: {swarm.get('Managers', 0)}",
            f"  Nodes: {swarm.get('Nodes', 0)}",
        ]
        if cluster.get("DefaultAddrPool"):
            lines.append(f"  Default Address Pool: {' '.join(cluster['DefaultAddrPool'])}")
        lines.append(f"  Data Path Port: {cluster.get('DataPathPort', 4789)}")
        encryption = cluster.get("Spec", {}).get("EncryptionConfig", {})
        lines.append(f"  Autolock Managers: {str(bool(encryption.get('AutoLockManagers'))).lower()}")
    lines.append(f"  Node Address: {swarm.get('NodeAddr', '')}")
    if managers := swarm.get("RemoteManagers"):
        lines += ["  Manager Addresses:", *(f"   {manager['Addr']}" for manager in managers)]
    return lines


def _host_lines(answer: dict[str, Any]) -> list[str]:
    return [
        f" Kernel Version: {answer.get('KernelVersion', '')}",
        f" Operating System: {answer.get('OperatingSystem', '')}",
        f" OSType: {answer.get('OSType', '')}",
        f" Architecture: {answer.get('Architecture', '')}",
        f" CPUs: {answer.get('NCPU', 0)}",
        f" Total Memory: {humanize.binary_size(answer.get('MemTotal', 0))}",
        f" Name: {answer.get('Name', '')}",
        f" ID: {answer.get('ID', '')}",
        f" Root Dir: {answer.get('DockerRootDir', '')}",
        f" Live Restore Enabled: {str(bool(answer.get('LiveRestoreEnabled'))).lower()}",
    ]


@command("")
@filter_option
@click.option("--format", "form", default="", help="json or a Go template such as '{{.Action}}'")
@click.option("--since", default="", help="Show all events created since timestamp")
@click.option("--until", default="", help="Stream events until this timestamp")
@click.pass_obj
def events(client: Client, filter_values: tuple[str, ...], form: str, since: str, until: str) -> None:
    """Get real time events from the server"""
    from cli.moments import moment
    from cli.template import Template

    template = Template(form) if form and form != "json" else None
    query = {"since": moment(since), "until": moment(until), "filters": filters(filter_values)}
    for event in client.stream("GET", "/events", query).documents():
        if template is not None:
            show(template.render(event))
        elif form == "json":
            show(json.dumps(event, separators=(",", ":"), ensure_ascii=False))
        else:
            show(_event_line(event))
        sys.stdout.flush()


def _event_line(event: dict[str, Any]) -> str:
    moment_ns = event.get("timeNano") or event["time"] * 1_000_000_000
    seconds, rest = divmod(moment_ns, 1_000_000_000)
    clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    line = f"{clock}.{rest:09d}{zone[:3]}:{zone[3:]} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    return f"{line} ({attributes})" if attributes else line


@command("")
@format_option
@click.option("-v", "--verbose", is_flag=True, help="Show detailed information on space usage")
@click.pass_obj
def df(client: Client, form: str, verbose: bool) -> None:
    """Show disk usage"""
    answer = client.get("/system/df")
    rows = [_usage_row(answer, *kind) for kind in _USAGE_KINDS]
    columns = (
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    )
    emit(rows, columns, form=form)
    if verbose:
        for title, key, name, size in (
            ("Images", "Images", "Id", "Size"),
            ("Containers", "Containers", "Id", "SizeRw"),
            ("Local Volumes", "Volumes", "Name", ""),
        ):
            show(f"\n{title} space usage:\n")
            lines = [
                [str(item[name]), humanize.short_size(_item_size(item, size))]
                for item in answer.get(key) or []
            ]
            sys.stdout.write(render_table(["NAME", "SIZE"], lines))


_USAGE_KINDS = (("Images", "Images"), ("Containers", "Containers"), ("Local Volumes", "Volumes"))


def _item_size(item: dict[str, Any], field: str) -> int:
    return int(item.get(field) or 0) if field else max(0, int((item.get("UsageData") or {}).get("Size") or 0))


def _usage_row(answer: dict[str, Any], title: str, key: str) -> dict[str, str]:
    items = answer.get(key) or []
    size_field = {"Images": "Size", "Containers": "SizeRw", "Volumes": ""}[key]
    sizes = [_item_size(item, size_field) for item in items]
    used = [_is_used(item, key) for item in items]
    total = answer["LayersSize"] if key == "Images" and "LayersSize" in answer else sum(sizes)
    free = min(total, sum(size for size, active in zip(sizes, used, strict=True) if not active))
    share = f" ({100 * free // total}%)" if total else ""
    return {
        "Type": title,
        "TotalCount": str(len(items)),
        "Active": str(sum(used)),
        "Size": humanize.short_size(total),
        "Reclaimable": f"{humanize.short_size(free)}{share}",
    }


def _is_used(item: dict[str, Any], key: str) -> bool:
    if key == "Images":
        return (item.get("Containers") or 0) > 0
    if key == "Containers":
        return item.get("State") in ("running", "paused", "restarting")
    return ((item.get("UsageData") or {}).get("RefCount") or 0) > 0


@command("")
@click.option("-a", "--all", "all_", is_flag=True, help="Remove all unused images, not just dangling ones")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. label=key=value)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--volumes", is_flag=True, help="Prune anonymous volumes")
@click.pass_obj
def prune(client: Client, all_: bool, filter_values: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove unused data"""
    from cli.commands.container import show_pruned

    images = "images without at least one container associated to them" if all_ else "dangling images"
    what = ["stopped containers", "networks not used by at least one container", images]
    what += ["anonymous volumes not used by at least one container"] if volumes else []
    confirm("This will remove:\n" + "\n".join(f"  - all {item}" for item in what), force)
    chosen = filters(filter_values)
    reclaimed = 0
    answer = client.post("/containers/prune", query={"filters": chosen})
    show_pruned("Deleted Containers:", answer.get("ContainersDeleted"), None)
    reclaimed += answer.get("SpaceReclaimed") or 0
    answer = client.post("/networks/prune", query={"filters": chosen})
    show_pruned("Deleted Networks:", answer.get("NetworksDeleted"), None)
    if volumes:
        answer = client.post("/volumes/prune", query={"filters": chosen})
        show_pruned("Deleted Volumes:", answer.get("VolumesDeleted"), None)
        reclaimed += answer.get("SpaceReclaimed") or 0
    dangling = {"dangling": ["false" if all_ else "true"]}
    answer = client.post("/images/prune", query={"filters": chosen | dangling})
    steps = [
        f"{name.lower()}: {value}"
        for step in answer.get("ImagesDeleted") or []
        for name, value in step.items()
    ]
    show_pruned("Deleted Images:", steps, None)
    reclaimed += answer.get("SpaceReclaimed") or 0
    show(f"Total reclaimed space: {humanize.size(reclaimed)}")
