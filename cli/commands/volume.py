"""`swarmctl volume`."""

from __future__ import annotations

from typing import Any

import click

from cli.client import Client
from cli.cluster_volume import cluster_volume_options, cluster_volume_spec
from cli.command import command, confirm, filter_option, for_each, format_option, quiet_option, repeated
from cli.commands.container import inspect_each, show_pruned
from cli.errors import UsageError
from cli.output import emit, label_of, labels_text, show, warn
from cli.parse import filters, key_values, labels
from cli.urls import quote

_CLUSTER_COLUMNS = (
    *(("VOLUME NAME", "Name"), ("GROUP", "Group"), ("DRIVER", "Driver")),
    *(("AVAILABILITY", "Availability"), ("STATUS", "Status")),
)


def volume_path(name: str) -> str:
    if not name:
        raise UsageError('invalid volume name: value is empty ("")')
    return f"/volumes/{quote(name)}"


@command("[VOLUME]")
@click.argument("volume", default="")
@cluster_volume_options
@click.option("-d", "--driver", default="local", help="Specify volume driver name (default local)")
@repeated("--label", help="Set metadata for a volume")
@click.option("--name", default="", hidden=True)
@repeated("-o", "--opt", help="Set driver specific options")
@click.pass_obj
def create(
    client: Client,
    /,
    volume: str,
    driver: str,
    label: tuple[str, ...],
    name: str,
    opt: tuple[str, ...],
    **cluster: Any,
) -> None:
    """Create a volume"""
    body: dict[str, Any] = {
        "Name": volume or name,
        "Driver": driver,
        "DriverOpts": key_values(opt, "opt"),
        "Labels": labels(label),
    }
    if spec := cluster_volume_spec(cluster):
        body["ClusterVolumeSpec"] = spec
    show(client.post("/volumes/create", body)["Name"])


@command("", name="ls")
@filter_option
@format_option
@quiet_option("Only display volume names")
@click.option(
    "--cluster", is_flag=True, help="Display only cluster volumes, and use cluster volume list formatting"
)
@click.pass_obj
def ls(client: Client, filter_values: tuple[str, ...], form: str, quiet: bool, cluster: bool) -> None:
    """List volumes"""
    answer = client.get("/volumes", {"filters": filters(filter_values)})
    for warning in answer.get("Warnings") or []:
        warn(f"WARNING: {warning}")
    volumes = [item for item in answer.get("Volumes") or [] if item.get("ClusterVolume") or not cluster]
    rows = [
        {
            "Driver": volume["Driver"],
            "Name": volume["Name"],
            "Mountpoint": volume.get("Mountpoint", ""),
            "Scope": volume.get("Scope", "local"),
            "Labels": labels_text(volume.get("Labels")),
            "Label": label_of(volume.get("Labels")),
            **dict.fromkeys(("Links", "Size", "Availability", "Group", "Status"), "N/A"),
        }
        for volume in sorted(volumes, key=lambda volume: volume["Name"])
    ]
    columns = _CLUSTER_COLUMNS if cluster else (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
    emit(rows, columns, form=form, quiet="Name" if quiet else "")


@command("VOLUME [VOLUME...]")
@click.argument("volumes", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Mountpoint}}'")
@click.pass_obj
def inspect(client: Client, volumes: tuple[str, ...], form: str) -> None:
    """Display detailed information on one or more volumes"""
    inspect_each(
        client, list(volumes), form, lambda name: dict(sorted(client.get(volume_path(name)).items()))
    )


@command("VOLUME [VOLUME...]")
@click.argument("volumes", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Force the removal of one or more volumes")
@click.pass_obj
def rm(client: Client, volumes: tuple[str, ...], force: bool) -> None:
    """Remove one or more volumes"""
    for_each(volumes, lambda name: client.delete(volume_path(name), {"force": force or None}))


@command("[VOLUME]")
@click.argument("volume")
@click.option(
    "--availability",
    default="active",
    help='Cluster Volume availability ("active", "pause", "drain") (default "active")',
)
@click.pass_obj
def update(client: Client, volume: str, availability: str) -> None:
    """Update a volume (cluster volumes only)"""
    known = client.get(volume_path(volume))
    if "ClusterVolume" not in known:
        raise UsageError("can only update cluster volumes")
    version = known["ClusterVolume"]["Version"]["Index"]
    spec = known["ClusterVolume"]["Spec"] | {"Availability": availability}
    client.call("PUT", volume_path(volume), {"version": version}, {"Spec": spec})


@command("")
@click.option("-a", "--all", "all_", is_flag=True, help="Remove all unused volumes, not just anonymous ones")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. label=keep)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_obj
def prune(client: Client, all_: bool, filter_values: tuple[str, ...], force: bool) -> None:
    """Remove unused local volumes"""
    which = "all local volumes" if all_ else "anonymous local volumes"
    confirm(f"This will remove {which} not used by at least one container.", force)
    chosen = filters(filter_values) | ({"all": ["true"]} if all_ else {})
    answer = client.post("/volumes/prune", query={"filters": chosen})
    show_pruned("Deleted Volumes:", answer.get("VolumesDeleted"), answer.get("SpaceReclaimed"))
