"""The files of images while a build works on them: a root of its own over an image, mounted for as long as needed.

Blocking; callers use threads. A root lies in the storage driver under a name that no container has, so the
driver's `recover` takes it away after a crash.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engine.images.config import Image
from engine.storage.driver import Rootfs, StorageDriver
from engine.storage.layer_export import write_layer


class Roots:
    def __init__(self, driver: StorageDriver, temp_dir: Path) -> None:
        self._driver = driver
        self._temp_dir = temp_dir

    @contextlib.contextmanager
    def opened(self, image: Image | None) -> Iterator[Path]:
        """The whole root of an image, to read from."""
        with self._made(image) as name, self._driver.mounted(name) as root:
            yield root

    @contextlib.contextmanager
    def changed(
        self, image: Image | None, change: Callable[[Path, Rootfs], None]
    ) -> Iterator[IO[bytes] | None]:
        """The layer that `change(root, rootfs)` makes over the image; None when it changed nothing."""
        with self._made(image) as name:
            with self._driver.mounted(name) as root:
                change(root, self._driver.rootfs(name))
            with self.written_by(name) as layer:
                yield layer

    @contextlib.contextmanager
    def written_by(self, container_id: str) -> Iterator[IO[bytes] | None]:
        """What a container that does not run (or is paused) has written, as a layer."""
        with tempfile.TemporaryFile(dir=self._temp_dir) as file:
            if not write_layer(self._driver, container_id, file):
                yield None
                return
            file.seek(0)
            yield file

    @contextlib.contextmanager
    def _made(self, image: Image | None) -> Iterator[str]:
        name = secrets.token_hex(32)
        try:
            self._driver.create_rootfs(name, image.chain_ids[-1] if image and image.chain_ids else None)
            yield name
        finally:
            self._driver.remove_rootfs(name)
