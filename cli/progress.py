"""Progress of pulls, loads and imports: the daemon's JSON messages as lines, or as a live display on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from cli.client import Client
from cli.errors import CliError
from cli.parse import reference
from cli.terminal import window_size

BAR_COLUMNS = 110  # the widest terminal on which docker leaves the bar out


def show_progress(documents: Iterable[dict[str, Any]], out: TextIO, *, quiet: bool = False) -> None:
    """Prints the messages of one operation; raises CliError with the daemon's words when it failed."""
    display = _Display(out)
    for document in documents:
        if "error" in document or "errorDetail" in document:
            message = document.get("error") or document["errorDetail"].get("message", "unknown error")
            raise CliError(str(message))
        if not quiet:
            display.show(document)


class _Display:
    """On a terminal every layer keeps its own line; elsewhere only messages without a progress bar are printed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._lines: dict[str, int] = {}

    def show(self, document: dict[str, Any]) -> None:
        if "stream" in document:
            self._out.write(document["stream"])
            self._lines.clear()
        elif "status" in document:
            self._status(document)
        self._out.flush()

    def _status(self, document: dict[str, Any]) -> None:
        identifier = document.get("id", "")
        bar = self._fitting(document.get("progress", ""))
        text = f"{identifier}: {document['status']}" if identifier else document["status"]
        if not self._live:
            if not bar:
                self._out.write(text + "\n")
            return
        if not identifier:
            self._out.write(text + "\n")
            self._lines.clear()
            return
        if identifier not in self._lines:
            self._lines[identifier] = len(self._lines)
            self._out.write(f"{text} {bar}".rstrip() + "\n")
            return
        up = len(self._lines) - self._lines[identifier]
        self._out.write(f"\x1b[{up}A\x1b[2K\r{text} {bar}\x1b[{up}B\r")

    def _fitting(self, progress: str) -> str:
        """On a narrow terminal the numbers alone: a line that wraps would spoil those above."""
        columns = window_size(self._out.fileno())[1] if self._live and progress else 0
        return progress.rpartition("]")[2].strip() if 0 < columns <= BAR_COLUMNS else progress


def pull_image(
    client: Client,
    name: str,
    *,
    platform: str = "",
    quiet: bool = False,
    all_tags: bool = False,
    out: TextIO | None = None,
) -> None:
    """POST /images/create for NAME[:TAG|@DIGEST], with the account at its registry."""
    from cli.credentials import auth_headers

    repository, tag = (name, "") if all_tags else reference(name)
    query = {"fromImage": repository, "tag": tag, "platform": platform}
    response = client.stream("POST", "/images/create", query, headers=auth_headers(repository))
    show_progress(response.documents(), out or sys.stdout, quiet=quiet)
