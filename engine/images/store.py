"""The images of this host: configurations and layers as blobs; which there are and their names: `tables`.

Invariants: an image is in the tables only when all its layers are in the driver; a layer is unpacked only
after its content was found to have the announced digest; a blob or layer that no image names, and no pull or
push has leased, is removed. Thread-safe with two locks, taken in this order: `_work`, which load, import, remove
and the steps of a pull hold for as long as they take; `_lock`, held for moments, around the tables.
So looking an image up never waits for an archive that is being read.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from engine.errors import InvalidParameter, NotFound
from engine.images import archive, lineage, views
from engine.images.blobs import BlobStore, UncompressedReader, WatchedFile
from engine.images.config import Image, ImageConfig, chain_ids, parse_image_config
from engine.images.incoming import KEPT_S, Incoming
from engine.images.index import Entry, Packed
from engine.images.platforms import Platform, check_platform
from engine.images.reference import Reference, parse_reference
from engine.images.removal import check_removal
from engine.images.tables import Tables, index_name, missing
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
        self._tables = Tables(root / "index.json")
        self._lock = self._tables.lock
        self._leases: Counter[str] = Counter()
        self.incoming = Incoming(root / "incoming")
        self._restore()
        self._sweep()

    # ---- looking up ---------------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By id, name[:tag], name@digest or unique id prefix. NotFound in Docker's words."""
        return self._tables.resolve(ref)

    def named(self, ref: str) -> list[Image]:
        """What saving `ref` means: a name without a tag is all its tags. NotFound in Docker's words."""
        return [image for image, _ in self._tables.chosen(ref)]

    def all(self) -> list[Image]:
        with self._lock:
            return list(self._tables.images.values())

    def summaries(
        self, filters: Mapping[str, list[str]], containers: Iterable[str] = (), *, intermediate: bool = False
    ) -> list[dict[str, Any]]:
        """GET /images/json, newest first. `intermediate`: also the steps between the images of builds."""
        counts: dict[str, int] = {}
        for image_id in containers:
            counts[image_id] = counts.get(image_id, 0) + 1
        images = self.filtered(filters)
        if not intermediate:
            images = lineage.finished(images, self.all())
        images.sort(key=lambda image: image.created, reverse=True)
        return [
            views.summary(image, counts.get(image.id, 0), filters.get("reference", ())) for image in images
        ]

    def filtered(self, filters: Mapping[str, list[str]]) -> list[Image]:
        """The images that pass all of Docker's filters: before, dangling, label, label!, reference, since, until."""
        return views.filtered(self.all(), filters, self.resolve, time.time())

    def inspect(self, ref: str) -> dict[str, Any]:
        return views.inspect(self.resolve(ref), self._driver.name)

    def history(self, ref: str) -> list[dict[str, Any]]:
        image = self.resolve(ref)
        return lineage.with_ids(
            views.history(image, self._layer_sizes(image.blobs, image.chain_ids)), image, self._tables.images
        )

    def adopt_made(
        self, make: Callable[[BlobStore], archive.FoundImage], parent_id: str = "", step: str = ""
    ) -> Image:
        """What `make` puts together, as the child of an image, if any (see engine.images.made): all of it or nothing."""
        with self._work:
            try:
                found = make(self._blobs)
                return self._adopt(found, found.names, lambda message: None, parent_id, step)
            finally:
                self._sweep()

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
            with self._tables.changing():
                self._tables.name(image, name)

    def remove(self, ref: str, *, force: bool, in_use: Users, noprune: bool = False) -> list[dict[str, str]]:
        """Untag, and delete when nothing names it any more. Conflict while containers need it.

        `noprune` keeps the steps below that nothing needs any more.
        """
        with self._work:
            with self._lock:
                image, key = self._tables.find(ref)
                if image is None:
                    raise missing(ref)
                users = in_use(image.id)
                has_children = lineage.has_children(image, self._tables.images)
                if has_children and not key:
                    raise lineage.dependent(image)
                check_removal(image, ref, users, by_id=not key, force=force)
                keys = self._tables.untagged_with(image, key)
                removed = [{"Untagged": parse_reference(key).familiar} for key in keys]
                with self._tables.changing():
                    for name in keys:
                        self._tables.index.names.pop(name, None)
                        self._tables.index.digests.pop(name, None)
                    self._tables.show_names(image)
                    # Taken by name from under a container or a child, the image stays for it, without a name.
                    doomed: list[Image] = []
                    if not (image.repo_tags or image.repo_digests or (users and key) or has_children):
                        below = () if noprune else lineage.unneeded_below(image, self._tables.images, in_use)
                        for gone in itertools.chain(
                            (image,), below
                        ):  # whose children are gone is looked at next
                            del self._tables.images[gone.id], self._tables.index.images[gone.id]
                            doomed.append(gone)
            for number, gone in enumerate(doomed):
                shared = {chain_id for below in doomed[number + 1 :] for chain_id in below.chain_ids}
                layers = [chain_id for chain_id in gone.chain_ids if chain_id not in shared]
                removed += [{"Deleted": gone.id}, *self._drop_layers(layers)]
            self._sweep()
            return removed

    # ---- in and out ---------------------------------------------------------------------------------------

    def load(self, source: IO[bytes], report: Report, platform: Platform | None = None) -> list[str]:
        """Images of a `docker save` or OCI archive, all for `platform` when it is given.

        Returns names, or ids of unnamed ones.
        """
        loaded = []
        try:
            for found in archive.read_archive(source, platform):
                check_platform(parse_image_config(found.config)[0], ", ".join(found.names), platform)
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
            for image, name in self._tables.chosen(ref):
                names = chosen.setdefault(image.id, (image, []))[1]
                if name and name not in names:
                    names.append(name)
        archive.write_archive(out, list(chosen.values()), self._blobs)

    # ---- to and from registries ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def leased(self, chain: Sequence[str], blobs: Sequence[str]) -> Iterator[list[str]]:
        """These layers and blobs are not removed while the context lasts.

        Yields, for each layer of the chain, the blob of an image here that it came from ("" when none has it).
        """
        with self._lock:
            here = [self._blob_of_layer(chain_id) for chain_id in chain]
            leases = (*chain, *blobs, *filter(None, here))
            self._leases.update(leases)
        try:
            yield here
        finally:
            with self._lock:
                self._leases.subtract(leases)
                self._leases += Counter()  # forget those at zero

    def drop_unneeded(self, chain: Sequence[str]) -> None:
        """After a pull that failed: layers that were unpacked for it."""
        with self._work:
            self._drop_layers(chain)
            self._sweep()

    def has_blob(self, digest: str) -> bool:
        return self._blobs.has(digest)

    def open_blob(self, digest: str) -> BinaryIO:
        return self._blobs.open(digest)

    def blob_size(self, digest: str) -> int:
        return self._blobs.size(digest)

    def unpack_incoming(
        self, digest: str, diff_id: str, chain_id: str, parent: str | None, read: Callable[[int], None]
    ) -> None:
        """A layer that came from a registry, checked against its diff id; `read` hears how far it is."""
        with self._work:
            if self._driver.has_layer(chain_id):
                return
            path = self.incoming.path(digest)
            with self._blobs.open(digest) if self._blobs.has(digest) else path.open("rb") as file:
                reader = UncompressedReader(cast("BinaryIO", WatchedFile(file, read)))
                size = self._driver.add_layer(chain_id, parent, cast("BinaryIO", reader))
                actual = reader.finish()
            if actual != diff_id:
                self._driver.remove_layer(chain_id)
                path.unlink(missing_ok=True)
                raise InvalidParameter(f"layer has digest {actual}, but {diff_id} was announced by the image")
            with self._lock:
                self._tables.index.layer_bytes[chain_id] = size

    def commit_pulled(
        self, config_bytes: bytes, blobs: Sequence[str], manifest: bytes, name: Reference, digest: str
    ) -> bool:
        """The image, all of whose layers are unpacked, into the index: under its tag, if `name` has one, and
        under its digest in that repository. `manifest`: empty when other blobs than its own stand for its layers.

        False when the name meant this image before.
        """
        raw, config, diff_ids = parse_image_config(config_bytes)
        with self._work:
            parent = None
            for blob, chain_id in zip(blobs, chain_ids(diff_ids), strict=True):
                if self._blobs.has(blob):
                    self.incoming.path(blob).unlink(missing_ok=True)
                else:
                    self.incoming.move_to(self._blobs, blob)
                self._unpack(blob, chain_id, parent)  # an image that went meanwhile may have taken it along
                parent = chain_id
            image_id, _ = self._blobs.add(io.BytesIO(config_bytes))
            kept = self._blobs.add(io.BytesIO(manifest))[0] if manifest else ""
            with self._tables.changing():
                image = self._tables.images.get(image_id)
                if image is None:
                    entry = Entry(blobs=list(blobs), loaded_at=time.time(), manifest=kept)
                    image = self._image(image_id, entry, raw, config, diff_ids)
                    self._tables.images[image_id] = image
                    self._tables.index.images[image_id] = entry
                key = index_name(name) if name.tag else f"{name.name}@{digest}"
                table = self._tables.index.names if name.tag else self._tables.index.digests
                is_new = table.get(key) != image_id
                if name.tag:
                    self._tables.name(image, name)
                self._tables.add_digest(image, name.name, digest)
            self._sweep()
            return is_new

    def record_digest(self, image_id: str, name: str, digest: str) -> None:
        """After a push: the image is `digest` in that repository."""
        with self._lock:
            image = self.resolve(image_id)
            with self._tables.changing():
                self._tables.add_digest(image, name, digest)

    def manifest_of(self, image_id: str) -> bytes:
        """The one that it was pulled with; empty for other images."""
        with self._lock:
            entry = self._tables.index.images.get(image_id)
        kept = entry.manifest if entry else ""
        return self._blobs.read(kept) if kept and self._blobs.has(kept) else b""

    def packed(self, blob: str) -> Packed | None:
        """What a plain layer became when it was last compressed for a registry."""
        with self._lock:
            return self._tables.index.packed.get(blob)

    def record_packed(self, blob: str, packed: Packed) -> None:
        with self._tables.changing():
            self._tables.index.packed[blob] = packed

    def tags_of(self, name: str) -> list[Reference]:
        """All names of one repository, sorted."""
        return self._tables.tags_of(name)

    def repositories_of(self, blob: str, domain: str) -> list[str]:
        """Repositories of a registry that have the blob, as far as is known: images came from or went there."""
        return self._tables.repositories_of(blob, domain)

    def collect_incoming(self) -> int:
        """What broken pulls left, now; the bytes."""
        with self._lock:
            return self.incoming.collect(0, self._leases)

    # ---- inside -------------------------------------------------------------------------------------------

    def _blob_of_layer(self, chain_id: str) -> str:
        for image in self._tables.images.values():
            for blob, known in zip(image.blobs, image.chain_ids, strict=True):
                if known == chain_id and self._driver.has_layer(chain_id):
                    return blob
        return ""

    def _adopt(
        self,
        found: archive.FoundImage,
        names: Sequence[str],
        report: Report,
        parent_id: str = "",
        step: str = "",
    ) -> Image:
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
            with self._tables.changing():
                image = self._tables.images.get(image_id)
                if image is None:
                    entry = Entry(blobs=blobs, loaded_at=time.time(), parent=parent_id, step=step)
                    image = self._image(image_id, entry, raw, config, diff_ids)
                    self._tables.images[image_id] = image
                    self._tables.index.images[image_id] = entry
                displaced = [(name, self._tables.name(image, parse_reference(name))) for name in names]
        except BaseException:
            self._drop_layers(chain)
            self._sweep()
            raise
        for name, former in displaced:
            if former is not None:
                words = f"The image {name} already exists, renaming the old one with ID {former.id} to empty string"
                report({"stream": f"{words}\n"})
        return image

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
            self._tables.index.layer_bytes[chain_id] = size

    def _drop_layers(self, chain: Sequence[str]) -> list[dict[str, str]]:
        """Remove those of the layers, topmost first, that no image needs and no container stands on."""
        with self._lock:
            needed = {chain_id for image in self.all() for chain_id in image.chain_ids} | set(self._leases)
        removed = []
        for chain_id in reversed(chain):
            here = chain_id not in needed and self._driver.has_layer(chain_id)
            if here and self._driver.remove_layer(chain_id):
                removed.append({"Deleted": chain_id})
                with self._lock:
                    self._tables.index.layer_bytes.pop(chain_id, None)
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
        with self._lock:
            images = self.all()
            used = {image.id for image in images} | {blob for image in images for blob in image.blobs}
            used |= {entry.manifest for entry in self._tables.index.images.values()} | set(self._leases)
            self.incoming.collect(KEPT_S, self._leases)
            for blob in self._blobs.all() - used:
                self._blobs.remove(blob)
                self._tables.index.packed.pop(blob, None)

    def _restore(self) -> None:
        """Know the images of the index again. Layers that are missing are unpacked from their blobs: so a
        lost folder, or another storage driver than last time, costs time but no image."""
        for image_id, entry in tuple(self._tables.index.images.items()):
            try:
                raw, config, diff_ids = parse_image_config(self._blobs.read(image_id))
                image, parent = self._image(image_id, entry, raw, config, diff_ids), None
                for blob, chain_id in zip(image.blobs, image.chain_ids, strict=True):
                    self._unpack(blob, chain_id, parent)
                    parent = chain_id
            except (NotFound, InvalidParameter, FileNotFoundError) as error:
                logger.warning("image %s is damaged and forgotten: %s", image_id, error)
                del self._tables.index.images[image_id]
            else:
                self._tables.images[image_id] = image
        self._tables.index.names = {
            k: v for k, v in self._tables.index.names.items() if v in self._tables.images
        }
        self._tables.index.digests = {
            k: v for k, v in self._tables.index.digests.items() if v in self._tables.images
        }
        for image in self._tables.images.values():
            self._tables.show_names(image)

    def _layer_sizes(self, blobs: Sequence[str], chain: Sequence[str]) -> list[int]:
        """Bytes of each layer unpacked; of its blob where that was not recorded."""
        known = self._tables.index.layer_bytes
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
            parent=entry.parent,
            step=entry.step,
        )
