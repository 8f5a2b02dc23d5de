"""`swarmctl build` and `builder prune`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import IO, Any

import click

from cli.client import Client
from cli.command import command, confirm, repeated, switch, trust_option
from cli.errors import CliError, UsageError
from cli.humanize import short_size
from cli.output import show, warn
from cli.parse import filters, host_entry, labels, size_bytes, ulimits

_REMOTES = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


@command("PATH | URL | -")
@repeated("--add-host", help='Add a custom host-to-IP mapping ("host:ip")')
@repeated("--build-arg", help="Set build-time variables")
@repeated("--cache-from", help="Images to consider as cache sources")
@click.option("--cgroup-parent", default="", help="Set the parent cgroup for the RUN instructions")
@click.option("--compress", is_flag=True, help="Compress the build context using gzip")
@click.option("--cpu-period", type=int, default=0, help="Limit the CPU CFS period")
@click.option("--cpu-quota", type=int, default=0, help="Limit the CPU CFS quota")
@click.option("-c", "--cpu-shares", type=int, default=0, help="CPU shares (relative weight)")
@click.option("--cpuset-cpus", default="", help="CPUs in which to allow execution (0-3, 0,1)")
@click.option("--cpuset-mems", default="", help="MEMs in which to allow execution (0-3, 0,1)")
@click.option(
    "-f", "--file", "dockerfile", default="", help='Name of the Dockerfile (Default is "PATH/Dockerfile")'
)
@click.option("--force-rm", is_flag=True, help="Always remove intermediate containers")
@click.option("--iidfile", default="", help="Write the image ID to the file")
@click.option("--isolation", default="", help="Container isolation technology")
@repeated("--label", help="Set metadata for an image")
@click.option("-m", "--memory", default="", help="Memory limit")
@click.option("--memory-swap", default="", help="Swap limit equal to memory plus swap: -1 for unlimited swap")
@click.option("--network", default="", help="Set the networking mode for the RUN instructions during build")
@click.option("--no-cache", is_flag=True, help="Do not use cache when building the image")
@click.option("--platform", default="", help="Set platform if server is multi-platform capable")
@click.option("--pull", is_flag=True, help="Always attempt to pull a newer version of the image")
@click.option("-q", "--quiet", is_flag=True, help="Suppress the build output and print image ID on success")
@switch("--rm", default=True, help="Remove intermediate containers after a successful build")
@trust_option
@repeated("--security-opt", help="Security options")
@click.option("--shm-size", default="", help="Size of /dev/shm")
@click.option("--squash", is_flag=True, help="Squash newly built layers into a single new layer")
@repeated("-t", "--tag", help='Name and optionally a tag in the "name:tag" format')
@click.option("--target", default="", help="Set the target build stage to build.")
@repeated("--ulimit", help="Ulimit options")
@click.argument("source")
@click.pass_obj
def build(
    client: Client, /, source: str, dockerfile: str, iidfile: str, compress: bool, **options: Any
) -> None:
    """Build an image from a Dockerfile"""
    query = build_query(options)
    archive: IO[bytes] | None = None
    if source.startswith(_REMOTES):
        query |= {"remote": source, "dockerfile": dockerfile}
    else:
        archive, query["dockerfile"] = _context(source, dockerfile, compress)
    with archive or contextlib.nullcontext():
        response = client.stream("POST", "/build", query, archive, content_type="application/x-tar")
        image = _show(response.documents(), quiet=options["quiet"])
    if iidfile:
        try:
            with open(iidfile, "w", encoding="utf-8") as target:
                target.write(image)
        except OSError as error:
            raise UsageError(f"cannot write the image ID file {iidfile}: {error.strerror}") from error


def build_query(options: dict[str, Any]) -> dict[str, Any]:
    """The flags as POST /build takes them."""
    import json

    limits = ulimits(options["ulimit"])
    return {
        "t": list(options["tag"]),
        "q": options["quiet"] or None,
        "nocache": options["no_cache"] or None,
        "pull": options["pull"] or None,
        "rm": options["rm"],
        "forcerm": options["force_rm"] or None,
        "buildargs": _arguments(options["build_arg"]),
        "labels": labels(options["label"]),
        "cachefrom": json.dumps(list(options["cache_from"])) if options["cache_from"] else None,
        "target": options["target"],
        "platform": options["platform"],
        "networkmode": options["network"],
        "extrahosts": [":".join(host_entry(value)) for value in options["add_host"]],
        "memory": size_bytes(options["memory"]) if options["memory"] else None,
        "memswap": _swap(options["memory_swap"]),
        "cpushares": options["cpu_shares"] or None,
        "cpuperiod": options["cpu_period"] or None,
        "cpuquota": options["cpu_quota"] or None,
        "cpusetcpus": options["cpuset_cpus"],
        "cpusetmems": options["cpuset_mems"],
        "shmsize": size_bytes(options["shm_size"]) if options["shm_size"] else None,
        "ulimits": json.dumps(limits) if limits else None,
        "cgroupparent": options["cgroup_parent"],
        "squash": options["squash"] or None,
        "securityopt": json.dumps(list(options["security_opt"])) if options["security_opt"] else None,
        "isolation": options["isolation"],
    }


def _arguments(values: Iterable[str]) -> dict[str, str | None]:
    """NAME=VALUE; a bare NAME takes its value from our environment, or has none."""
    found: dict[str, str | None] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name:
            raise UsageError(f'invalid build argument "{value}"', hint="such as NAME=value")
        found[name] = text if equals else os.environ.get(name)
    return found


def _swap(text: str) -> int | None:
    if text == "-1":
        return -1
    return size_bytes(text) if text else None


def _context(source: str, dockerfile: str, compress: bool) -> tuple[IO[bytes], str]:
    from pathlib import Path

    from cli.build_context import pack_folder, pack_stdin

    if source != "-":
        return pack_folder(Path(source), dockerfile, compress=compress)
    if dockerfile == "-":
        raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
    return pack_stdin(sys.stdin.buffer), dockerfile


def _show(documents: Iterable[dict[str, Any]], *, quiet: bool) -> str:
    """Prints what the daemon tells; the id of the image. A failed RUN ends us with its exit code."""
    from cli.progress import show_progress

    image = ""
    kept: list[dict[str, Any]] = []

    def watched() -> Iterable[dict[str, Any]]:
        nonlocal image
        for document in documents:
            detail = document.get("errorDetail") or {}
            if detail.get("code"):
                if quiet:
                    show_progress(kept, sys.stderr)
                raise CliError(str(detail.get("message", "")), exit_code=int(detail["code"]))
            image = (document.get("aux") or {}).get("ID", image)
            if quiet and "stream" in document:
                kept.append(document)
                image = document["stream"].strip()
            yield document

    show_progress(watched(), sys.stdout, quiet=quiet)
    if quiet:
        show(image)
    return image


@command("", name="prune")
@click.option(
    "-a", "--all", "all_", is_flag=True, help="Remove all unused build cache, not just dangling ones"
)
@repeated("--filter", "filter_values", help='Provide filter values (e.g. "until=24h")')
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.option("--keep-storage", default="", help="Amount of disk space to keep for cache")
@click.pass_obj
def prune(client: Client, all_: bool, filter_values: tuple[str, ...], force: bool, keep_storage: str) -> None:
    """Remove build cache"""
    confirm("This will remove all dangling build cache.", force, separator=" ")
    query = {
        "all": all_ or None,
        "filters": filters(filter_values),
        "keep-storage": size_bytes(keep_storage) if keep_storage else None,
    }
    answer = client.post("/build/prune", query=query)
    show(f"Total:  {short_size(answer.get('SpaceReclaimed') or 0)}")
    warn("The cache of this builder is images without a name: `swarmctl image prune` removes them.")
