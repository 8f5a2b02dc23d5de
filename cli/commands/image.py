"""`swarmctl image`: list, load, save, import, tag, remove, inspect."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from cli import humanize
from cli.archive_output import refuse_terminal, write_archive
from cli.client import Client
from cli.command import (
    command,
    confirm,
    filter_option,
    for_each,
    format_option,
    no_trunc_option,
    quiet_option,
    refused,
    repeated,
    switch,
)
from cli.commands.container import inspect_each, show_pruned
from cli.errors import UsageError
from cli.output import Row, emit, short_id, shorten
from cli.parse import check_reference, filters, platform_object, reference
from cli.terminal import is_terminal
from cli.urls import quote

_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_HEADERS = {
    "CreatedAt": "CREATED AT",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "VirtualSize": "SIZE",
}
_NONE = "<none>"


def image_path(name: str, verb: str = "") -> str:
    if not name:
        raise UsageError('invalid image name: value is empty ("")')
    return f"/images/{quote(name, keep='/')}" + (f"/{verb}" if verb else "")


@command("[REPOSITORY[:TAG]]", name="ls")
@click.argument("repository", default="")
@click.option("-a", "--all", "all_", is_flag=True, help="Show all images (default hides intermediate images)")
@click.option("--digests", is_flag=True, help="Show digests")
@filter_option
@format_option
@no_trunc_option
@quiet_option("Only show image IDs")
@refused("--tree", reason="an image has one platform here; leave it out", takes_value=False)
@click.pass_obj
def ls(
    client: Client,
    repository: str,
    all_: bool,
    digests: bool,
    filter_values: tuple[str, ...],
    form: str,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List images"""
    chosen = filters(filter_values)
    if repository:
        chosen.setdefault("reference", []).append(repository)
    images = client.get("/images/json", {"all": all_ or None, "digests": digests or None, "filters": chosen})
    rows = [row for image in images for row in image_rows(image, no_trunc, digests)]
    columns = (*_COLUMNS[:2], ("DIGEST", "Digest"), *_COLUMNS[2:]) if digests else _COLUMNS
    emit(rows, columns, form=form, quiet="ID" if quiet else "", headers=_HEADERS)


def image_rows(image: dict[str, Any], no_trunc: bool = False, digests: bool = False) -> Iterator[Row]:
    """One row for each tag of the image."""
    found = {name.rpartition("@")[0]: name.rpartition("@")[2] for name in image.get("RepoDigests") or []}
    names = [reference(name) for name in image.get("RepoTags") or [] if name != f"{_NONE}:{_NONE}"]
    if not names:
        names = [(repository, _NONE) for repository in found if repository != _NONE] or [(_NONE, _NONE)]
    for repository, tag in names:
        yield {
            "ID": image["Id"] if no_trunc else short_id(image["Id"]),
            "Repository": repository,
            "Tag": tag,
            "Digest": found.get(repository, _NONE),
            "CreatedSince": humanize.ago(image.get("Created")),
            "CreatedAt": humanize.local_time(image.get("Created")),
            "Size": humanize.short_size(image.get("Size") or 0),
            "Containers": "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "VirtualSize": humanize.size(image.get("Size") or 0),
        }


@command("IMAGE [IMAGE...]")
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.Config.Cmd}}'")
@click.option("--platform", default="", help="Inspect a specific platform of the multi-platform image")
@click.pass_obj
def inspect(client: Client, images: tuple[str, ...], form: str, platform: str) -> None:
    """Display detailed information on one or more images"""
    query = {"platform": platform_object(platform)}
    inspect_each(client, list(images), form, lambda name: client.get(image_path(name, "json"), query))


@command("IMAGE")
@click.argument("image")
@format_option
@switch("-H", "--human", default=True, help="Print sizes and dates in human readable format")
@no_trunc_option
@click.option("--platform", default="", help="Show history for the given platform")
@quiet_option("Only show image IDs")
@click.pass_obj
def history(
    client: Client, image: str, form: str, human: bool, no_trunc: bool, platform: str, quiet: bool
) -> None:
    """Show the history of an image"""
    rows = []
    for step in client.get(image_path(image, "history"), {"platform": platform_object(platform)}):
        identifier, words = step["Id"], step["CreatedBy"].replace("\t", " ")
        rows.append(
            {
                "ID": identifier if no_trunc else short_id(identifier),
                "CreatedAt": humanize.rfc3339(step["Created"]),
                "CreatedSince": humanize.ago(step["Created"]),
                "CreatedBy": words if no_trunc else shorten(words, 45),
                "Size": humanize.short_size(step["Size"]) if human else str(step["Size"]),
                "Comment": step.get("Comment", ""),
            }
        )
    columns = (
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince") if human else ("CREATED AT", "CreatedAt"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    )
    emit(rows, columns, form=form, quiet="ID" if quiet else "")


@command("")
@click.option("-i", "--input", "source", default="", help="Read from tar archive file, instead of STDIN")
@click.option("--platform", default="", help="Load only the given platform variant")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the load output")
@click.pass_obj
def load(client: Client, source: str, platform: str, quiet: bool) -> None:
    """Load an image from a tar archive or STDIN"""
    from cli.progress import show_progress

    if not source and is_terminal(0):
        raise UsageError("requested load from stdin, but stdin is empty", hint="swarmctl load -i FILE")
    with _opened(source) as archive:
        query = {"quiet": quiet, "platform": platform_object(platform)}
        response = client.stream("POST", "/images/load", query, archive, content_type="application/x-tar")
        show_progress(response.documents(), sys.stdout)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if not path or path == "-":
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
        yield source


@command("IMAGE [IMAGE...]")
@click.argument("images", nargs=-1, required=True)
@click.option("-o", "--output", "target", default="", help="Write to a file, instead of STDOUT")
@click.option("--platform", default="", help="Save only the given platform variant")
@click.pass_obj
def save(client: Client, images: tuple[str, ...], target: str, platform: str) -> None:
    """Save one or more images to a tar archive (streamed to STDOUT by default)"""
    refuse_terminal(target)
    query = {"names": list(images), "platform": platform_object(platform)}
    write_archive(client.stream("GET", "/images/get", query).blocks(), target)


@command("file|URL|- [REPOSITORY[:TAG]]", name="import")
@click.argument("source")
@click.argument("name", default="")
@repeated("-c", "--change", help="Apply Dockerfile instruction to the created image")
@click.option("-m", "--message", default="", help="Set commit message for imported image")
@click.option("--platform", default="", help="Set platform if server is multi-platform capable")
@click.pass_obj
def import_(
    client: Client, source: str, name: str, change: tuple[str, ...], message: str, platform: str
) -> None:
    """Import the contents from a tarball to create a filesystem image"""
    from pathlib import Path

    from cli.progress import show_progress

    repository, tag = reference(name) if name else ("", "")
    is_here = source == "-" or Path(source).exists() or "://" not in source
    query = {
        "fromSrc": "-" if is_here else source,
        "repo": repository,
        "tag": tag,
        "changes": list(change),
        "message": message,
        "platform": platform,
    }
    if not is_here:
        show_progress(client.stream("POST", "/images/create", query).documents(), sys.stdout)
        return
    with _opened(source) as archive:
        response = client.stream("POST", "/images/create", query, archive, content_type="application/x-tar")
        show_progress(response.documents(), sys.stdout)


@command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(client: Client, source: str, target: str) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"""
    try:
        check_reference(target)
    except UsageError as error:
        raise UsageError(
            f'Error parsing reference: "{target}" is not a valid repository/tag: {error.message}'
        ) from error
    repository, name = reference(target)
    if "@" in target:
        raise UsageError(f'"{target}": refusing to create a tag with a digest reference')
    client.post(image_path(source, "tag"), query={"repo": repository, "tag": name})


@command("IMAGE [IMAGE...]")
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Force removal of the image")
@click.option("--no-prune", is_flag=True, help="Do not delete untagged parents")
@refused("--platform", reason="an image has one platform here; remove it by its name")
@click.pass_obj
def rm(client: Client, images: tuple[str, ...], force: bool, no_prune: bool) -> None:
    """Remove one or more images"""

    def one(name: str) -> str:
        answer = client.delete(image_path(name), {"force": force or None, "noprune": no_prune or None})
        return "\n".join(f"{what}: {value}" for step in answer or [] for what, value in step.items() if value)

    for_each(images, one, missing_is_fine=force)


@command("")
@click.option("-a", "--all", "all_", is_flag=True, help="Remove all unused images, not just dangling ones")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. until=24h)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_obj
def prune(client: Client, all_: bool, filter_values: tuple[str, ...], force: bool) -> None:
    """Remove unused images"""
    what = "images without at least one container associated to them" if all_ else "dangling images"
    confirm(f"This will remove all {what}.", force)
    chosen = filters(filter_values) | {"dangling": ["false" if all_ else "true"]}
    answer = client.post("/images/prune", query={"filters": chosen})
    steps = [
        f"{name.lower()}: {value}"
        for step in answer.get("ImagesDeleted") or []
        for name, value in step.items()
    ]
    show_pruned("Deleted Images:", steps, answer.get("SpaceReclaimed"))
