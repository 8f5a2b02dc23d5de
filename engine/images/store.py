"""The images of this host: configurations and layers as blobs, names in one small index.

Invariants: an image is in the index only when all its layers are in the driver; a layer is unpacked only
after its content was found to have the announced digest; the index is replaced atomically; a blob or layer
that no image names is removed. Thread-safe with two locks, taken in this order: `_work`, which load, import
and remove hold for as long as they take; `_lock`, held for moments, around the tables. So looking an image
up never waits for an archive that is being read.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import logging
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgspec

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.images import archive, views
from engine.images.blobs import BlobStore, UncompressedReader
from engine.images.changes import apply_changes
from engine.images.config import Image, ImageConfig, chain_ids, parse_image_config
from engine.images.index import Entry, Index, IndexFile
from engine.images.reference import Reference, is_image_id, parse_reference
from engine.storage.driver import StorageDriver

logger = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
Users = Callable[[str], Sequence[tuple[str, bool]]]


class ImageStore:
    def __init__(self, root: Path, driver: StorageDriver) -> None:
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._blobs = BlobStore(root)
        self._driver = driver
        self._work = threading.Lock()
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._index_file = IndexFile(root / "index.json")
        self._index = self._index_file.read()
        self._restore()
        self._sweep()

    # ---- looking up ---------------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By id, name[:tag], name@digest or unique id prefix. NotFound in Docker's words."""
        with self._lock:
            image, _ = self._find(ref)
            if image is None:
                raise _missing(ref)
            return image

    def all(self) -> list[Image]:
        with self._lock:
            return list(self._images.values())

    def summaries(
        self, filters: Mapping[str, list[str]], containers: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """GET /images/json, newest first."""
        counts: dict[str, int] = {}
        for image_id in containers:
            counts[image_id] = counts.get(image_id, 0) + 1
        images = self.filtered(filters)
        images.sort(key=lambda image: image.created, reverse=True)
        return [views.summary(image, counts.get(image.id, 0)) for image in images]

    def filtered(self, filters: Mapping[str, list[str]]) -> list[Image]:
        """The images that pass all of Docker's filters: before, dangling, label, label!, reference, since, until."""
        return views.filtered(self.all(), filters, self.resolve, time.time())

    def inspect(self, ref: str) -> dict[str, Any]:
        return views.inspect(self.resolve(ref), self._driver.name)

    def history(self, ref: str) -> list[dict[str, Any]]:
        image = self.resolve(ref)
        return views.history(image, self._layer_sizes(image.blobs, image.chain_ids))

    # ---- names --------------------------------------------------------------------------------------------

    def layer_sizes(self, image: Image) -> dict[str, int]:
        """Chain id -> bytes on this host, lowest first."""
        return dict(zip(image.chain_ids, self._layer_sizes(image.blobs, image.chain_ids), strict=True))

    def tag(self, ref: str, repo: str, tag: str) -> None:
        with self._lock:
            image = self.resolve(ref)
            name = parse_reference(f"{repo}:{tag}" if tag else repo)
            if name.digest:
                raise InvalidParameter("refusing to create a tag with a digest reference")
            if name.familiar_name == "sha256":
                raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
            with self._changing():
                self._name(image, name)

    def remove(self, ref: str, *, force: bool, in_use: Users, noprune: bool = False) -> list[dict[str, str]]:
        """Untag, and delete when nothing names it any more. Conflict while containers need it.

        `noprune` keeps untagged parents; images here have none, so it changes nothing.
        """
        with self._work:
            with self._lock:
                image, key = self._find(ref)
                if image is None:
                    raise _missing(ref)
                users = in_use(image.id)
                _check_removal(image, ref, users, by_id=not key, force=force)
                names = [key] if key else [name for name, id in self._index.names.items() if id == image.id]
                removed = [{"Untagged": parse_reference(name).familiar} for name in names]
                with self._changing():
                    for name in names:
                        del self._index.names[name]
                    self._show_names(image)
                    # Taken by name from under a container, the image stays for it, without a name.
                    unneeded = not image.repo_tags and not (users and key)
                    if unneeded:
                        del self._images[image.id]
                        del self._index.images[image.id]
            if unneeded:
                removed += [{"Deleted": image.id}, *self._drop_layers(image.chain_ids)]
                self._sweep()
            return removed

    # ---- in and out ---------------------------------------------------------------------------------------

    def load(self, source: IO[bytes], report: Report) -> list[str]:
        """Images of a `docker save` or OCI archive. Returns names, or ids of unnamed ones."""
        loaded = []
        try:
            for found in archive.read_archive(source):
                with self._work:
                    image = self._adopt(found, found.names, report)
                for name in found.names:
                    report({"stream": f"Loaded image: {name}\n"})
                if not found.names:
                    report({"stream": f"Loaded image ID: {image.id}\n"})
                loaded += found.names or [image.id]
        except tarfile.TarError as error:
            raise InvalidParameter(f"the archive cannot be read: {error}") from error
        return loaded

    def save(self, refs: Sequence[str], out: IO[bytes]) -> None:
        """An archive that is both an OCI layout and a `docker save` one. A name without a tag means all tags."""
        chosen: dict[str, tuple[Image, list[str]]] = {}
        for ref in refs:
            for image, name in self._chosen(ref):
                names = chosen.setdefault(image.id, (image, []))[1]
                if name and name not in names:
                    names.append(name)
        archive.write_archive(out, list(chosen.values()), self._blobs)

    def import_rootfs(
        self, source: IO[bytes], repo: str, tag: str, changes: Sequence[str], message: str
    ) -> str:
        """One layer from a root file system archive; returns the image id."""
        name = parse_reference(f"{repo}:{tag}" if tag else repo) if repo else None
        if name and name.digest:
            raise InvalidParameter("cannot import digest reference")
        changed = apply_changes({}, changes)
        with self._work:
            try:
                blob, _ = self._blobs.add(source)
                diff_id = self._blobs.diff_id(blob)
                created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                config = {
                    "created": created,
                    "architecture": views.host_architecture(),
                    "os": "linux",
                    "config": changed,
                    "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                    "history": [{"created": created, "comment": message or "Imported from -"}],
                }
                found = archive.FoundImage(
                    config=msgspec.json.encode(config),
                    names=[],
                    layers=[archive.FoundLayer(digest=blob, open=lambda: self._blobs.open(blob))],
                )
                return self._adopt(found, [name.familiar] if name else [], lambda message: None).id
            finally:
                self._sweep()

    # ---- inside -------------------------------------------------------------------------------------------

    def _find(self, ref: str) -> tuple[Image | None, str]:
        """The image and, when `ref` is one of its names, that name as the index has it."""
        if is_image_id(ref):
            return self._images.get(f"sha256:{ref.removeprefix('sha256:')}"), ""
        with contextlib.suppress(InvalidParameter):
            name = parse_reference(ref)
            key = _index_name(name)
            if not name.digest and key in self._index.names:
                return self._images[self._index.names[key]], key
            if name.digest in self._images:
                return self._images[name.digest], ""
        prefix = ref.removeprefix("sha256:")
        if not prefix or not set(prefix) <= set("0123456789abcdef"):
            return None, ""
        matches = [image for image in self._images.values() if image.id[7:].startswith(prefix)]
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {prefix}")
        return (matches[0] if matches else None), ""

    def _chosen(self, ref: str) -> list[tuple[Image, str]]:
        """What `save ref` means: (image, familiar name, or "" when it was chosen by its id)."""
        with self._lock:
            with contextlib.suppress(InvalidParameter):
                name = parse_reference(ref, default_tag="")
                if not name.tag and not name.digest:
                    all_tags = [key for key in self._index.names if key.rpartition(":")[0] == name.name]
                    if all_tags:
                        return [
                            (self._images[self._index.names[key]], parse_reference(key).familiar)
                            for key in sorted(all_tags)
                        ]
            image, key = self.resolve(ref), self._find(ref)[1]
            return [(image, parse_reference(key).familiar if key else "")]

    def _adopt(self, found: archive.FoundImage, names: Sequence[str], report: Report) -> Image:
        """Bring the layers into the driver and the image, under its names, into the index: all or nothing."""
        raw, config, diff_ids = parse_image_config(found.config)
        if len(diff_ids) != len(found.layers):
            raise InvalidParameter(
                f"image has {len(found.layers)} layers, but its configuration names {len(diff_ids)}: "
                "the archive is damaged"
            )
        if raw.get("os", "linux") not in ("", "linux"):
            raise InvalidParameter(f'image is for operating system "{raw["os"]}": only linux images run here')
        chain = chain_ids(diff_ids)
        try:
            blobs, parent = [], None
            for diff_id, chain_id, layer in zip(diff_ids, chain, found.layers, strict=True):
                blobs.append(self._adopt_layer(layer, diff_id, chain_id, parent))
                parent = chain_id
            image_id, _ = self._blobs.add(io.BytesIO(found.config))
            with self._changing():
                image = self._images.get(image_id)
                if image is None:
                    entry = Entry(blobs=blobs, loaded_at=time.time())
                    image = self._image(image_id, entry, raw, config, diff_ids)
                    self._images[image_id] = image
                    self._index.images[image_id] = entry
                displaced = [(name, self._name(image, parse_reference(name))) for name in names]
        except BaseException:
            self._drop_layers(chain)
            self._sweep()
            raise
        for name, former in displaced:
            if former is not None:
                words = f"The image {name} already exists, renaming the old one with ID {former.id} to empty string"
                report({"stream": f"{words}\n"})
        return image

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Under the lock: the tables change together with their file, or not at all."""
        with self._lock:
            images, index = dict(self._images), self._index
            self._index = Index(dict(index.images), dict(index.names), dict(index.layer_bytes))
            try:
                yield
                self._index_file.write(self._index)
            except BaseException:
                self._images, self._index = images, index
                for image in images.values():
                    self._show_names(image)
                raise

    def _adopt_layer(self, layer: archive.FoundLayer, diff_id: str, chain_id: str, parent: str | None) -> str:
        blob = layer.digest
        if not (blob and self._blobs.has(blob)):
            with layer.open() as source:
                blob, _ = self._blobs.add(source, layer.digest)
        if blob != diff_id and not self._is_known(blob, diff_id):
            actual = self._blobs.diff_id(blob)
            if actual != diff_id:
                raise InvalidParameter(
                    f"layer has digest {actual}, but {diff_id} was announced: the archive is damaged"
                )
        self._unpack(blob, chain_id, parent)
        return blob

    def _is_known(self, blob: str, diff_id: str) -> bool:
        return any(
            pair == (blob, diff_id) for i in self.all() for pair in zip(i.blobs, i.diff_ids, strict=True)
        )

    def _unpack(self, blob: str, chain_id: str, parent: str | None) -> None:
        if self._driver.has_layer(chain_id):
            return
        with self._blobs.open(blob) as file:
            size = self._driver.add_layer(chain_id, parent, cast("BinaryIO", UncompressedReader(file)))
        with self._lock:
            self._index.layer_bytes[chain_id] = size

    def _name(self, image: Image, name: Reference) -> Image | None:
        """Give the name to the image; the image that lost it and has no other, if there is one."""
        key = _index_name(name)
        former = self._images.get(self._index.names.get(key, ""))
        self._index.names[key] = image.id
        self._show_names(image)
        if former is None or former is image:
            return None
        self._show_names(former)
        return None if former.repo_tags else former

    def _show_names(self, image: Image) -> None:
        keys = (key for key, image_id in self._index.names.items() if image_id == image.id)
        image.repo_tags = sorted(parse_reference(key).familiar for key in keys)

    def _drop_layers(self, chain: Sequence[str]) -> list[dict[str, str]]:
        """Remove those of the layers, topmost first, that no image needs and no container stands on."""
        needed = {chain_id for image in self.all() for chain_id in image.chain_ids}
        removed = []
        for chain_id in reversed(chain):
            here = chain_id not in needed and self._driver.has_layer(chain_id)
            if here and self._driver.remove_layer(chain_id):
                removed.append({"Deleted": chain_id})
                with self._lock:
                    self._index.layer_bytes.pop(chain_id, None)
        return removed

    def collect(self, chain: Sequence[str]) -> None:
        """A container is gone: those of the layers that nobody needs any more go, too.

        Not while images come or go, whose layers are not in the tables yet: what stays is removed at the next start.
        """
        if self._work.acquire(blocking=False):
            try:
                self._drop_layers(chain)
            finally:
                self._work.release()

    def _sweep(self) -> None:
        images = self.all()
        used = {image.id for image in images} | {blob for image in images for blob in image.blobs}
        for blob in self._blobs.all() - used:
            self._blobs.remove(blob)

    def _restore(self) -> None:
        """Know the images of the index again. Layers that are missing are unpacked from their blobs: so a
        lost folder, or another storage driver than last time, costs time but no image."""
        for image_id, entry in tuple(self._index.images.items()):
            try:
                raw, config, diff_ids = parse_image_config(self._blobs.read(image_id))
                image, parent = self._image(image_id, entry, raw, config, diff_ids), None
                for blob, chain_id in zip(image.blobs, image.chain_ids, strict=True):
                    self._unpack(blob, chain_id, parent)
                    parent = chain_id
            except (NotFound, InvalidParameter, FileNotFoundError) as error:
                logger.warning("image %s is damaged and forgotten: %s", image_id, error)
                del self._index.images[image_id]
            else:
                self._images[image_id] = image
        self._index.names = {k: v for k, v in self._index.names.items() if v in self._images}
        for image in self._images.values():
            self._show_names(image)

    def _layer_sizes(self, blobs: Sequence[str], chain: Sequence[str]) -> list[int]:
        """Bytes of each layer unpacked; of its blob where that was not recorded."""
        known = self._index.layer_bytes
        return [known[c] if c in known else self._blobs.size(b) for b, c in zip(blobs, chain, strict=True)]

    def _image(
        self,
        image_id: str,
        entry: Entry,
        raw: dict[str, Any],
        config: ImageConfig,
        diff_ids: tuple[str, ...],
    ) -> Image:
        return Image(
            id=image_id,
            raw=raw,
            config=config,
            diff_ids=diff_ids,
            blobs=tuple(entry.blobs),
            size=sum(self._layer_sizes(entry.blobs, chain_ids(diff_ids))),
            loaded_at=entry.loaded_at,
        )


def _check_removal(
    image: Image, ref: str, users: Sequence[tuple[str, bool]], *, by_id: bool, force: bool
) -> None:
    """Conflict, in Docker's words, when containers or other names stand against the removal."""
    short = image.id[7:19]
    if not by_id:
        if users and not force and len(image.repo_tags) == 1:
            raise Conflict(
                f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                f"{users[0][0][:12]} is using its referenced image {short}"
            )
        return
    running = next((container for container, is_running in users if is_running), None)
    if running is not None:
        raise Conflict(
            f"conflict: unable to delete {short} (cannot be forced) - image is being used by "
            f"running container {running[:12]}"
        )
    if users and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is being used by "
            f"stopped container {users[0][0][:12]}"
        )
    if len(image.repo_tags) > 1 and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )


def _missing(ref: str) -> NotFound:
    return NotFound(f"No such image: {ref if ':' in ref or is_image_id(ref) else f'{ref}:latest'}")


def _index_name(name: Reference) -> str:
    return f"{name.name}:{name.tag}"
