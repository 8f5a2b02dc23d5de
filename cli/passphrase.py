"""The passphrase of a backup: from a file, the environment or the terminal, in this order; never from a flag."""

from __future__ import annotations

import os
import sys

from cli.errors import UsageError

VARIABLE = "SWARMCTL_BACKUP_PASSPHRASE"
_SOURCES = f"use --passphrase-file FILE, set {VARIABLE}, or run it in a terminal"


def passphrase(file: str, *, twice: bool) -> str:
    """`twice`: what is typed is new, so it is asked for again. Raises UsageError for an empty one."""
    if file:
        text, source = _read(file), f"the file {file}"
    elif VARIABLE in os.environ:
        text, source = os.environ[VARIABLE], VARIABLE
    elif sys.stdin.isatty():
        text, source = _ask(twice), "the passphrase"
    else:
        raise UsageError("a passphrase is needed for the backup", hint=_SOURCES)
    if not text:
        raise UsageError(f"{source} is empty: a backup holds the cluster's keys and secrets", hint=_SOURCES)
    return text


def _read(path: str) -> str:
    """Without the newline that editors put at the end; spaces belong to the passphrase."""
    try:
        with open(path, encoding="utf-8", newline="") as source:
            return source.read().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: it is not UTF-8 text") from error


def _ask(twice: bool) -> str:
    import getpass

    text = getpass.getpass("Passphrase of the backup: ")
    if twice and text and getpass.getpass("Once more: ") != text:
        raise UsageError("the two passphrases are not the same", hint="nothing was written; try again")
    return text
