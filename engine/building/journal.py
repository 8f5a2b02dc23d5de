"""What a build has on disk besides images: its folder, and in it the names of containers that go with it.

Invariant: a container's name is on disk before the container exists, so a build that a crash ended leaves nothing that
`leftovers` would not find at the next start.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

from engine.storage.trees import remove_tree


class Journal:
    def __init__(self, root: Path) -> None:
        self.folder = root / secrets.token_hex(8)
        self.folder.mkdir(mode=0o700, parents=True)
        self._names = self.folder / "containers"

    def note(self, name: str) -> None:
        with self._names.open("a") as file:
            file.write(f"{name}\n")

    def close(self) -> None:
        remove_tree(self.folder, ignore_errors=True)


def leftovers(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders of builds that were cut off, with the names of their containers."""
    for folder in root.iterdir() if root.is_dir() else ():
        names = folder / "containers"
        yield folder, names.read_text().split() if names.is_file() else []
