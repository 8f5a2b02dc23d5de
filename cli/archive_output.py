"""Where `save` and `export` write their archive: standard output, unless that is a terminal, or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from cli.errors import UsageError
from cli.terminal import is_terminal


def refuse_terminal(target: str) -> None:
    """Before the daemon is asked. `target`: the file, empty for standard output."""
    if not target and is_terminal(1):
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")


def write_archive(blocks: Iterable[bytes], target: str) -> None:
    """An archive that was cut short must not look like a whole one: a file gets its name when it is complete."""
    from pathlib import Path

    if not target:
        for block in blocks:
            sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
        return
    partial = Path(f"{target}.part")
    try:
        with open(partial, "wb") as out:
            for block in blocks:
                out.write(block)
        partial.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
