"""`swarmctl pull`, `push`, `search`: images between this host and registries."""

from __future__ import annotations

import sys

import click

from cli.client import Client
from cli.command import command, format_option, no_trunc_option, repeated, trust_option
from cli.commands.image import image_path
from cli.errors import UsageError
from cli.output import emit, shorten, show
from cli.parse import check_reference, filters, platform_object


def full_name(name: str) -> str:
    """hello -> docker.io/library/hello, without tag or digest."""
    domain, slash, rest = name.partition("/")
    if slash and ("." in domain or ":" in domain or domain == "localhost" or domain.lower() != domain):
        if domain not in ("docker.io", "index.docker.io"):
            return name
        name = rest
    return f"docker.io/{name if '/' in name else f'library/{name}'}"


def split_name(text: str) -> tuple[str, str]:
    """(repository, tag or digest), "" where the text has none."""
    repository, at, digest = text.partition("@")
    head, slash, last = repository.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{head}{slash}{last}", digest if at else tag


@command("NAME[:TAG|@DIGEST]")
@click.argument("name")
@click.option("-a", "--all-tags", is_flag=True, help="Download all tagged images in the repository")
@trust_option
@click.option("--platform", default="", help="Set platform if server is multi-platform capable")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
@click.pass_obj
def pull(client: Client, name: str, all_tags: bool, platform: str, quiet: bool) -> None:
    """Download an image from a registry"""
    from cli.progress import pull_image

    check_reference(name)
    repository, version = split_name(name)
    if all_tags and version:
        raise UsageError("tag can't be used with --all-tags/-a")
    if not version and not all_tags:
        version = "latest"
        if not quiet:
            show("Using default tag: latest")
    pull_image(client, name, platform=platform, quiet=quiet, all_tags=all_tags)
    separator = "" if all_tags else "@" if version.startswith("sha256:") else ":"
    show(f"{full_name(repository)}{separator}{version}")


@command("NAME[:TAG]")
@click.argument("name")
@click.option("-a", "--all-tags", is_flag=True, help="Push all tags of an image to the repository")
@trust_option
@click.option("--platform", default="", help="Push a platform-specific manifest as a single-platform image")
@click.option("-q", "--quiet", is_flag=True, help="Suppress verbose output")
@click.pass_obj
def push(client: Client, name: str, all_tags: bool, platform: str, quiet: bool) -> None:
    """Upload an image to a registry"""
    from cli.credentials import auth_headers
    from cli.progress import show_progress

    repository, version = split_name(name)
    if "@" in name:
        raise UsageError("cannot push a digest reference")
    if all_tags and version:
        raise UsageError("tag can't be used with --all-tags/-a")
    if not version and not all_tags:
        version = "latest"
        if not quiet:
            show("Using default tag: latest")
    response = client.stream(
        "POST",
        image_path(repository, "push"),
        {"tag": version, "platform": platform_object(platform)},
        headers=auth_headers(repository),
    )
    show_progress(response.documents(), sys.stdout, quiet=quiet)
    if quiet:
        show(f"{full_name(repository)}{':' if version else ''}{version}")


@command("TERM")
@click.argument("term")
@repeated("-f", "--filter", "filter_values", help="Filter output based on conditions provided")
@format_option
@click.option("--limit", type=int, default=0, help="Max number of search results")
@no_trunc_option
@click.pass_obj
def search(
    client: Client, term: str, filter_values: tuple[str, ...], form: str, limit: int, no_trunc: bool
) -> None:
    """Search Docker Hub for images"""
    found = client.get(
        "/images/search", {"term": term, "limit": limit or None, "filters": filters(filter_values)}
    )
    rows = []
    for row in found or []:
        description = row.get("description", "").replace("\n", " ").replace("\r", " ")
        rows.append(
            {
                "Name": row["name"],
                "Description": description if no_trunc else shorten(description, 45),
                "StarCount": str(row.get("star_count", 0)),
                "IsOfficial": "[OK]" if row.get("is_official") else "",
                "IsAutomated": "",
            }
        )
    columns = (
        ("NAME", "Name"),
        ("DESCRIPTION", "Description"),
        ("STARS", "StarCount"),
        ("OFFICIAL", "IsOfficial"),
    )
    emit(rows, columns, form=form, headers={"IsAutomated": "AUTOMATED"})
