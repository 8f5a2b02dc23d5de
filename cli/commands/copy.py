"""`swarmctl cp`: files and folders between a container and the local file system."""

# Path objects lose the "/" and "/." at the end, which say what is meant, and cost start-up time.

from __future__ import annotations

import contextlib
import os
import posixpath
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

from cli.client import Client
from cli.command import command
from cli.commands.container import container_path
from cli.copy_plan import Side, base_of, plan, split_argument
from cli.errors import CliError, UsageError
from cli.terminal import is_terminal

_FOLDER, _LINK = 1 << 31, 1 << 27  # of Go's os.FileMode
_STAT_HEADER = "x-docker-container-path-stat"


@command(
    "CONTAINER:SRC_PATH DEST_PATH|-\n       swarmctl cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", name="cp"
)
@click.option("-a", "--archive", "archive", is_flag=True, help="Archive mode (copy all uid/gid information)")
@click.option("-L", "--follow-link", is_flag=True, help="Always follow symbol link in SRC_PATH")
@click.option("-q", "--quiet", is_flag=True, default=None, help="Suppress progress output during copy")
@click.argument("source")
@click.argument("destination")
@click.pass_obj
def cp(
    client: Client, source: str, destination: str, archive: bool, follow_link: bool, quiet: bool | None
) -> None:
    """Copy files/folders between a container and the local filesystem

    Use '-' as the source to read a tar archive from stdin and extract it to a directory destination in a container.
    Use '-' as the destination to stream a tar archive of a container source to stdout.
    """
    for word, name in ((source, "source"), (destination, "destination")):
        if not word:
            raise UsageError(f"{name} can not be empty")
    of, source = split_argument(source)
    to, destination = split_argument(destination)
    if of and to:
        raise UsageError("copying between containers is not supported", hint="copy by way of a local file")
    # As docker: who watches gets told, a script does not.
    progress = _Progress(quiet=not is_terminal(1) if quiet is None else quiet, to_container=bool(to))
    if of:
        _from_container(client, of, source, destination, follow_link, progress)
    elif to:
        _to_container(client, source, to, destination, archive, follow_link, progress)
    else:
        raise UsageError(
            "must specify at least one container source", hint="CONTAINER:PATH on one of both sides"
        )


class _Progress:
    """`Copying ...` while it lasts, and `Successfully copied 1.5kB to x:/y`."""

    def __init__(self, *, quiet: bool, to_container: bool) -> None:
        self._quiet = quiet
        self._live = not quiet and is_terminal(2)
        self._words = "Copying to container" if to_container else "Copying from container"
        self._shown = 0.0

    def seen(self, count: int) -> None:
        import time

        if self._live and time.monotonic() - self._shown > 0.1:
            from cli import humanize

            self._shown = time.monotonic()
            sys.stderr.write(f"\r\x1b[2K{self._words} - {humanize.size(count)}")
            sys.stderr.flush()

    def done(self, count: int, place: str) -> None:
        from cli import humanize

        if self._live:
            sys.stderr.write("\r\x1b[2K")
        if not self._quiet:
            sys.stderr.write(f"Successfully copied {humanize.short_size(count)} to {place}\n")


def _stat(client: Client, container: str, path: str) -> dict[str, Any] | None:
    """None when there is nothing."""
    import base64
    import json

    headers = client.head(container_path(container, "archive"), {"path": path})
    if headers is None or _STAT_HEADER not in headers:
        return None
    found: dict[str, Any] = json.loads(base64.b64decode(headers[_STAT_HEADER]))
    return found


def _local(path: str) -> str:
    """Absolute and normal; a `/` or `/.` at the end stays."""
    end = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") else ""
    absolute = os.path.abspath(path)
    return absolute.rstrip("/") + end if end else absolute


def _from_container(
    client: Client, container: str, path: str, destination: str, follow: bool, progress: _Progress
) -> None:
    import io

    from cli.local_tree import Blocks, unpack

    named = path
    if follow and (found := _stat(client, container, path)) and found["mode"] & _LINK:
        path = posixpath.join(posixpath.dirname(path.rstrip("/")), found["linkTarget"])
    response = client.stream("GET", container_path(container, "archive"), {"path": path})
    if destination == "-":
        for block in response.blocks():
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    import base64
    import json

    found = json.loads(base64.b64decode(response.headers[_STAT_HEADER]))
    target = _local(destination)
    source = Side(path, True, bool(found["mode"] & _FOLDER))
    # A link that was followed keeps its own name.
    planned = plan(source, Side(target, os.path.exists(target), os.path.isdir(target)), base_of(named))
    blocks = Blocks(response.blocks(), progress.seen)
    unpack(io.BufferedReader(blocks, 1 << 18), planned.folder, planned.renamed)
    progress.done(blocks.count, target)


def _to_container(
    client: Client,
    path: str,
    container: str,
    destination: str,
    archive: bool,
    follow: bool,
    progress: _Progress,
) -> None:
    destination = _inside(destination)
    place = f"{container}:{destination}"
    found = _stat(client, container, destination)
    if found is not None and found["mode"] & _LINK:
        destination = posixpath.join(posixpath.dirname(destination), found["linkTarget"])
        found = _stat(client, container, destination)
    target = Side(destination, found is not None, bool(found and found["mode"] & _FOLDER))
    query: dict[str, Any] = {"noOverwriteDirNonDir": True, "copyUIDGID": archive or None}
    if path == "-":
        if not target.is_folder:
            raise UsageError(f'destination "{place}" must be a directory')
        query["path"] = destination
        client.stream("PUT", container_path(container, "archive"), query, sys.stdin.buffer).read()
        return
    local = _local(path)
    follow = follow or local.endswith(("/", "/."))
    try:
        is_folder = os.path.isdir(local) and (follow or not os.path.islink(local))
        os.stat(local) if follow else os.lstat(local)
    except OSError as error:
        raise UsageError(f"lstat {local}: {(error.strerror or str(error)).lower()}") from error
    planned = plan(Side(local, True, is_folder), target)
    query["path"] = planned.folder
    with _packed(local, planned.base, planned.renamed, follow=follow) as pieces:
        counted = _Counted(pieces, progress)
        client.stream(
            "PUT", container_path(container, "archive"), query, counted, content_type="application/x-tar"
        ).read()
    progress.done(counted.count, place)


def _inside(path: str) -> str:
    """Absolute in the container; a `/` or `/.` at the end stays."""
    end = "/." if path.endswith("/.") or path == "." else "/" if path.endswith("/") else ""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return clean.rstrip("/") + end if end else clean


class _Counted:
    """What is sent, counted."""

    def __init__(self, file: IO[bytes], progress: _Progress) -> None:
        self._file = file
        self._progress = progress
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        self._progress.seen(self.count)
        return data


@contextlib.contextmanager
def _packed(path: str, base: str, rename: Any, *, follow: bool) -> Iterator[IO[bytes]]:
    """The archive of local files, made in a thread while it is read."""
    import threading

    from cli.local_tree import pack

    reading, writing = os.pipe()
    failures: list[Exception] = []

    def work() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as target:
            try:
                pack(path, base, rename, target, follow=follow)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001  # told to whoever waits
                failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as file:
            yield file
    finally:
        thread.join()
        if failures:
            raise CliError(f"cannot read {path}: {failures[0]}") from failures[0]
