"""A file that appears whole or not at all: written beside its name, synced, checked, renamed.

Invariant: a file of that name is never half written, and what was there before stays until the new one was
found good.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cli.errors import CliError, UsageError


def refuse_existing(path: Path, force: bool) -> None:
    """Before the work begins. Raises UsageError when no file may be written there."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no folder", hint="make it first")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", hint="choose another name, or replace it with --force")


def write_new(path: Path, blocks: Iterable[bytes], check: Callable[[Path], object]) -> int:
    """Its size in bytes. Mode 0600. `check` gets the path of the finished file before it has its name."""
    temporary = path.with_name(path.name + ".tmp")
    with _named_errors(path):
        try:
            size = _write(temporary, blocks)
            check(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return size


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from error


def _write(path: Path, blocks: Iterable[bytes]) -> int:
    path.unlink(missing_ok=True)
    size = 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for block in blocks:
            size += file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
