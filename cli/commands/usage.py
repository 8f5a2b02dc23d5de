"""`swarmctl system df` and `system prune`: what lies on the disk, and what of it nobody needs."""

from __future__ import annotations

import json
from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import command, confirm, format_option, repeated
from cli.errors import ApiError, CliError
from cli.output import emit, short_id, shorten, show
from cli.parse import filters

Row = dict[str, Any]
_SUMMARY = (
    *(("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size")),
    ("RECLAIMABLE", "Reclaimable"),
)
_IMAGES = (
    *(("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince")),
    *(
        ("SIZE", "Size"),
        ("SHARED SIZE", "SharedSize"),
        ("UNIQUE SIZE", "UniqueSize"),
        ("CONTAINERS", "Containers"),
    ),
)
_CONTAINERS = (
    *(("CONTAINER ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("LOCAL VOLUMES", "LocalVolumes")),
    *(("SIZE", "Size"), ("CREATED", "RunningFor"), ("STATUS", "Status"), ("NAMES", "Names")),
)
_VOLUMES = (("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size"))
_RECORDS = (
    *(("CACHE ID", "ID"), ("CACHE TYPE", "CacheType"), ("SIZE", "Size"), ("CREATED", "CreatedSince")),
    *(("LAST USED", "LastUsedSince"), ("USAGE", "UsageCount"), ("SHARED", "Shared")),
)


@command("")
@format_option
@click.option("-v", "--verbose", is_flag=True, help="Show detailed information on space usage")
@click.pass_obj
def df(client: Client, form: str, verbose: bool) -> None:
    """Show disk usage"""
    answer = client.get("/system/df")
    if not verbose:
        emit(summary(answer), _SUMMARY, form=form)
        return
    details = _details(answer)
    if form:
        from cli.template import Template

        show(json.dumps(details) if form == "json" else Template(form).render(details))
        return
    show("Images space usage:\n")
    emit(details["Images"], _IMAGES)
    show("\nContainers space usage:\n")
    emit(details["Containers"], _CONTAINERS)
    show("\nLocal Volumes space usage:\n")
    emit(details["Volumes"], _VOLUMES)
    total = sum(
        _size(record["Size"]) for record in answer.get("BuildCache") or [] if not record.get("Shared")
    )
    show(f"\nBuild cache usage: {humanize.short_size(total)}\n")
    emit(details["BuildCache"], _RECORDS)


def summary(answer: Row) -> list[Row]:
    """A row for each kind. What can be had back of images is what no used image has for itself alone."""
    images, containers = answer.get("Images") or [], answer.get("Containers") or []
    volumes, records = answer.get("Volumes") or [], answer.get("BuildCache") or []
    used = [image for image in images if image.get("Containers")]
    kept = sum(max(0, image["Size"] - max(0, image["SharedSize"])) for image in used)
    layers = answer.get("LayersSize") or 0
    up = [row for row in containers if row.get("State") in ("running", "paused", "restarting")]
    written = sum(_size(row.get("SizeRw")) for row in containers)
    held = sum(_size(row.get("SizeRw")) for row in up)
    linked = [row for row in volumes if row["UsageData"]["RefCount"] > 0]
    stored = sum(_size(row["UsageData"]["Size"]) for row in volumes)
    bound = sum(_size(row["UsageData"]["Size"]) for row in linked)
    cached = [record for record in records if not record.get("Shared")]
    busy = [record for record in cached if record.get("InUse")]
    built = sum(_size(record["Size"]) for record in cached)
    return [
        _summary_row("Images", len(images), len(used), layers, layers - kept),
        _summary_row("Containers", len(containers), len(up), written, written - held),
        _summary_row("Local Volumes", len(volumes), len(linked), stored, stored - bound),
        _summary_row(
            *("Build Cache", len(records), len(busy), built),
            built - sum(_size(record["Size"]) for record in busy),
        ),
    ]


def _summary_row(kind: str, count: int, active: int, total: int, free: int) -> Row:
    share = f" ({100 * free // total}%)" if total and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": humanize.size(total),
        "Reclaimable": f"{humanize.size(free)}{share}",
    }


def _size(value: int | None) -> int:
    return max(0, value or 0)


def _details(answer: Row) -> dict[str, list[Row]]:
    return {
        "Images": [row for image in answer.get("Images") or [] for row in _image_rows(image)],
        "Containers": [_container_row(row) for row in answer.get("Containers") or []],
        "Volumes": [_volume_row(row) for row in answer.get("Volumes") or []],
        "BuildCache": [_record_row(row) for row in answer.get("BuildCache") or []],
    }


def _image_rows(image: Row) -> list[Row]:
    """One for each name."""
    shared = max(0, image["SharedSize"])
    names = [name.rpartition(":")[::2] for name in image.get("RepoTags") or ["<none>:<none>"]]
    return [
        {
            "Repository": repository,
            "Tag": tag,
            "ID": short_id(image["Id"]),
            "CreatedSince": humanize.ago(image["Created"]),
            "Size": humanize.short_size(image["Size"]),
            "SharedSize": humanize.size(shared),
            "UniqueSize": humanize.size(image["Size"] - shared),
            "Containers": str(image["Containers"]),
        }
        for repository, tag in names
    ]


def _container_row(row: Row) -> Row:
    volumes = sum(mount.get("Type") == "volume" for mount in row.get("Mounts") or [])
    return {
        "ID": short_id(row["Id"]),
        "Image": row["Image"],
        "Command": f'"{shorten(row["Command"], 20)}"',
        "LocalVolumes": str(volumes),
        "Size": humanize.short_size(_size(row.get("SizeRw"))),
        "RunningFor": humanize.ago(row["Created"]),
        "Status": row["Status"],
        "Names": ",".join(name.lstrip("/") for name in row["Names"]),
    }


def _volume_row(row: Row) -> Row:
    size = row["UsageData"]["Size"]
    return {
        "Name": row["Name"],
        "Links": str(row["UsageData"]["RefCount"]),
        "Size": "N/A" if size < 0 else humanize.short_size(size),
    }


def _record_row(record: Row) -> Row:
    return {
        "ID": record["ID"][:12],
        "CacheType": record["Type"],
        "Size": humanize.short_size(_size(record["Size"])),
        "CreatedSince": humanize.ago(record["CreatedAt"]),
        "LastUsedSince": humanize.ago(record["LastUsedAt"]) if record.get("LastUsedAt") else "",
        "UsageCount": str(record["UsageCount"]),
        "Shared": str(bool(record.get("Shared"))).lower(),
    }


@command("")
@click.option("-a", "--all", "all_", is_flag=True, help="Remove all unused images, not just dangling ones")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. label=key=value)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--volumes", is_flag=True, help="Prune anonymous volumes")
@click.pass_obj
def prune(client: Client, all_: bool, filter_values: tuple[str, ...], force: bool, volumes: bool) -> None:
    """Remove unused data"""
    chosen = filters(filter_values)
    if volumes and "until" in chosen:
        raise CliError('ERROR: The "until" filter is not supported with "--volumes"')
    confirm(_question(all_, filter_values, volumes), force)
    reclaimed = _prune(client, "/containers/prune", chosen, "Deleted Containers:", "ContainersDeleted")
    reclaimed += _prune(client, "/networks/prune", chosen, "Deleted Networks:", "NetworksDeleted")
    if volumes:
        reclaimed += _prune(client, "/volumes/prune", chosen, "Deleted Volumes:", "VolumesDeleted")
    dangling = {"dangling": ["false" if all_ else "true"]}
    reclaimed += _prune(client, "/images/prune", chosen | dangling, "Deleted Images:", "ImagesDeleted")
    try:
        reclaimed += _prune(
            *(client, "/build/prune", chosen, "Deleted build cache objects:", "CachesDeleted"), all=all_
        )
    except ApiError as error:
        if error.status != 404:  # a daemon that builds nothing has nothing to remove
            raise
    show(f"Total reclaimed space: {humanize.size(reclaimed)}")


def _question(all_: bool, filter_values: tuple[str, ...], volumes: bool) -> str:
    images = "images without at least one container associated to them" if all_ else "dangling images"
    what = ["all stopped containers", "all networks not used by at least one container"]
    what += ["all anonymous volumes not used by at least one container"] if volumes else []
    what += [f"all {images}", "all build cache" if all_ else "unused build cache"]
    text = "This will remove:\n" + "".join(f"  - {item}\n" for item in what)
    if filter_values:
        text += "\n  Items to be pruned will be filtered with:\n" + "".join(
            f"  - {value}\n" for value in filter_values
        )
    return text


def _prune(client: Client, path: str, chosen: Row, title: str, field: str, **query: object) -> int:
    """The bytes that are free now."""
    from cli.commands.container import show_pruned

    answer = client.post(path, query={"filters": chosen, **query})
    gone = [
        entry
        if isinstance(entry, str)
        else "\n".join(f"{word.lower()}: {name}" for word, name in entry.items())
        for entry in answer.get(field) or []
    ]
    show_pruned(title, gone, None)
    return int(answer.get("SpaceReclaimed") or 0)
