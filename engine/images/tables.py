"""Which images there are and what they are called: the tables behind the store, kept in one small file.

Invariant: tables and file change together, or not at all (`changing`). Thread-safe with `lock`, held for moments; what
reads several tables at once holds it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from engine.errors import InvalidParameter, NotFound
from engine.images.config import Image
from engine.images.index import Index, IndexFile
from engine.images.reference import Reference, is_image_id, parse_reference


class Tables:
    """`index` is what the file holds; `images` are those of it that were found whole."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self.images: dict[str, Image] = {}
        self._file = IndexFile(path)
        self.index = self._file.read()

    def resolve(self, ref: str) -> Image:
        """By id, name[:tag], name@digest or unique id prefix. NotFound in Docker's words."""
        with self.lock:
            image, _ = self.find(ref)
            if image is None:
                raise missing(ref)
            return image

    def find(self, ref: str) -> tuple[Image | None, str]:
        """The image and, when `ref` is one of its names, that name as the index has it."""
        if is_image_id(ref):
            return self.images.get(f"sha256:{ref.removeprefix('sha256:')}"), ""
        with contextlib.suppress(InvalidParameter):
            name = parse_reference(ref)
            key = index_name(name)
            if not name.digest and key in self.index.names:
                return self.images[self.index.names[key]], key
            if name.digest and (canonical := f"{name.name}@{name.digest}") in self.index.digests:
                return self.images[self.index.digests[canonical]], canonical
            if name.digest in self.images:
                return self.images[name.digest], ""
        prefix = ref.removeprefix("sha256:")
        if not prefix or not set(prefix) <= set("0123456789abcdef"):
            return None, ""
        matches = [image for image in self.images.values() if image.id[7:].startswith(prefix)]
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {prefix}")
        return (matches[0] if matches else None), ""

    def chosen(self, ref: str) -> list[tuple[Image, str]]:
        """What `save ref` means: (image, familiar name, or "" when it was chosen by its id)."""
        with self.lock:
            with contextlib.suppress(InvalidParameter):
                name = parse_reference(ref, default_tag="")
                if not name.tag and not name.digest:
                    all_tags = [key for key in self.index.names if key.rpartition(":")[0] == name.name]
                    if all_tags:
                        return [
                            (self.images[self.index.names[key]], parse_reference(key).familiar)
                            for key in sorted(all_tags)
                        ]
            image, key = self.resolve(ref), self.find(ref)[1]
            return [(image, parse_reference(key).familiar if key and "@" not in key else "")]

    def untagged_with(self, image: Image, key: str) -> list[str]:
        """The references that go with `key`; all of them when it is "" (removal by id).

        Digests of a repository go together with the last tag in it.
        """
        mine = [k for k in (*self.index.names, *self.index.digests) if self._id_of(k) == image.id]
        if not key or "@" in key:
            return [key] if key else mine
        repository = key.rpartition(":")[0]
        others = [k for k in mine if k != key and "@" not in k and k.rpartition(":")[0] == repository]
        return [key] if others else [key, *(k for k in mine if k.partition("@")[0] == repository)]

    def _id_of(self, key: str) -> str:
        return (self.index.digests if "@" in key else self.index.names).get(key, "")

    def _consists(self, image_id: str, blob: str) -> bool:
        image = self.images[image_id]
        packed = (self.index.packed[b].digest for b in image.blobs if b in self.index.packed)
        return blob in image.blobs or blob in packed

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Under the lock: the tables change together with their file, or not at all."""
        with self.lock:
            images, index = dict(self.images), self.index
            self.index = Index(
                dict(index.images),
                dict(index.names),
                dict(index.layer_bytes),
                dict(index.digests),
                dict(index.packed),
            )
            try:
                yield
                self._file.write(self.index)
            except BaseException:
                self.images, self.index = images, index
                for image in images.values():
                    self.show_names(image)
                raise

    def name(self, image: Image, name: Reference) -> Image | None:
        """Give the name to the image; the image that lost it and has no other, if there is one."""
        key = index_name(name)
        former = self.images.get(self.index.names.get(key, ""))
        self.index.names[key] = image.id
        self.show_names(image)
        if former is None or former is image:
            return None
        self.show_names(former)
        return None if former.repo_tags else former

    def add_digest(self, image: Image, name: str, digest: str) -> None:
        key = f"{name}@{digest}"
        former = self.images.get(self.index.digests.get(key, ""))
        self.index.digests[key] = image.id
        for shown in (image, former):
            if shown is not None:
                self.show_names(shown)

    def show_names(self, image: Image) -> None:
        keys = (key for key, image_id in self.index.names.items() if image_id == image.id)
        image.repo_tags = sorted(parse_reference(key).familiar for key in keys)
        digests = (key for key, image_id in self.index.digests.items() if image_id == image.id)
        image.repo_digests = sorted(parse_reference(key).familiar for key in digests)

    def tags_of(self, name: str) -> list[Reference]:
        """All names of one repository, sorted."""
        with self.lock:
            return sorted(
                (parse_reference(key) for key in self.index.names if key.rpartition(":")[0] == name),
                key=lambda reference: reference.tag,
            )

    def repositories_of(self, blob: str, domain: str) -> list[str]:
        """Repositories of a registry that have the blob, as far as is known: images came from or went there."""
        with self.lock:
            names = (
                key.partition("@")[0] for key, i in self.index.digests.items() if self._consists(i, blob)
            )
            return sorted({name.partition("/")[2] for name in names if name.partition("/")[0] == domain})


def missing(ref: str) -> NotFound:
    return NotFound(f"No such image: {ref if ':' in ref or is_image_id(ref) else f'{ref}:latest'}")


def index_name(name: Reference) -> str:
    return f"{name.name}:{name.tag}"
