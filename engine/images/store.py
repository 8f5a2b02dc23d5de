"""The images of this host: configurations and layers as blobs, names in one small index.

Invariants: an image is in the index only when all its layers are in the driver; the index is replaced
atomically; a blob or layer that no image names is removed. Thread-safe: one lock around every change.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import msgspec

from engine.errors import Conflict, InvalidParameter, NotFound
from engine.images import archive, views
from engine.images.blobs import BlobStore, UncompressedReader
from engine.images.changes import apply_changes
from engine.images.config import Image, ImageConfig, chain_ids, parse_image_config
from engine.images.reference import Reference, is_image_id, parse_reference
from engine.storage.driver import StorageDriver

Report = Callable[[dict[str, Any]], None]
Users = Callable[[str], Sequence[tuple[str, bool]]]


class _Entry(msgspec.Struct):
    blobs: list[str]
    loaded_at: float


class _Index(msgspec.Struct):
    """`names`: docker.io/library/hello:latest -> image id."""

    images: dict[str, _Entry] = {}
    names: dict[str, str] = {}


class ImageStore:
    def __init__(self, root: Path, driver: StorageDriver) -> None:
        root.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._index_path = root / "index.json"
        self._blobs = BlobStore(root)
        self._driver = driver
        self._lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._index = _Index()
        if self._index_path.exists():
            self._index = msgspec.json.decode(self._index_path.read_bytes(), type=_Index)
        for image_id, entry in self._index.images.items():
            self._images[image_id] = self._read_image(image_id, entry)
        self._sweep()

    # ---- looking up ---------------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """By id, name[:tag], name@digest or unique id prefix. NotFound in Docker's words."""
        with self._lock:
            image = self._find(ref)
            if image is None:
                raise NotFound(f"No such image: {ref if ':' in ref or is_image_id(ref) else f'{ref}:latest'}")
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
        images = views.filtered(self.all(), filters, self.resolve)
        images.sort(key=lambda image: image.created, reverse=True)
        return [views.summary(image, counts.get(image.id, 0)) for image in images]

    def inspect(self, ref: str) -> dict[str, Any]:
        return views.inspect(self.resolve(ref), self._driver.name)

    def history(self, ref: str) -> list[dict[str, Any]]:
        image = self.resolve(ref)
        return views.history(image, [self._blobs.size(blob) for blob in image.blobs])

    # ---- names --------------------------------------------------------------------------------------------

    def tag(self, ref: str, repo: str, tag: str) -> None:
        with self._lock:
            image = self.resolve(ref)
            name = parse_reference(f"{repo}:{tag}" if tag else repo)
            if name.digest:
                raise InvalidParameter("refusing to create a tag with a digest reference")
            self._name(image, name)
            self._save()

    def remove(self, ref: str, *, force: bool, in_use: Users, noprune: bool = False) -> list[dict[str, str]]:
        """Untag, and delete when nothing names it any more. Conflict while containers need it."""
        with self._lock:
            image = self.resolve(ref)
            users = in_use(image.id)
            by_id = is_image_id(ref) or image.id.removeprefix("sha256:").startswith(ref)
            if by_id:
                _check_removal_by_id(image, users, force=force)
                names = list(image.repo_tags)
            else:
                names = [parse_reference(ref).familiar]
                if len(image.repo_tags) <= 1 and users and not force:
                    raise Conflict(
                        f'conflict: unable to remove repository reference "{ref}" (must force) - container '
                        f"{users[0][0][:12]} is using its referenced image {image.id[7:19]}"
                    )
            removed = [{"Untagged": name} for name in names]
            for name in names:
                self._index.names.pop(_index_name(parse_reference(name)), None)
                image.repo_tags = [known for known in image.repo_tags if known != name]
            if not image.repo_tags and not (users and not by_id):
                removed += self._delete(image)
            self._save()
            return removed

    # ---- in and out ---------------------------------------------------------------------------------------

    def load(self, source: IO[bytes], report: Report) -> list[str]:
        """Images of a `docker save` or OCI archive. Returns names, or ids of unnamed ones."""
        loaded = []
        for found in archive.read_archive(source):
            with self._lock:
                image = self._adopt(found)
                for name in found.names:
                    self._name(image, parse_reference(name))
                self._save()
            for name in found.names:
                report({"stream": f"Loaded image: {parse_reference(name).familiar}\n"})
                loaded.append(name)
            if not found.names:
                report({"stream": f"Loaded image ID: {image.id}\n"})
                loaded.append(image.id)
        return loaded

    def save(self, refs: Sequence[str], out: IO[bytes]) -> None:
        """An archive that is both an OCI layout and a `docker save` one."""
        chosen: dict[str, tuple[Image, list[str]]] = {}
        for ref in refs:
            image = self.resolve(ref)
            named = not is_image_id(ref) and not image.id.removeprefix("sha256:").startswith(ref)
            chosen.setdefault(image.id, (image, []))[1].extend(
                [parse_reference(ref).familiar] if named else []
            )
        archive.write_archive(out, list(chosen.values()), self._blobs)

    def import_rootfs(
        self, source: IO[bytes], repo: str, tag: str, changes: Sequence[str], message: str
    ) -> str:
        """One layer from a root file system archive; returns the image id."""
        name = parse_reference(f"{repo}:{tag}" if tag else repo) if repo else None
        blob, _ = self._blobs.add(source)
        with self._blobs.open(blob) as file:
            diff_id = UncompressedReader(file).finish()
        created = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        config = {
            "created": created,
            "architecture": views.host_architecture(),
            "os": "linux",
            "config": apply_changes({}, changes),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": created, "comment": message or "Imported from -"}],
        }
        found = archive.FoundImage(
            config=msgspec.json.encode(config),
            names=[],
            layers=[archive.FoundLayer(digest=blob, open=lambda: self._blobs.open(blob))],
        )
        with self._lock:
            image = self._adopt(found)
            if name is not None:
                self._name(image, name)
            self._save()
        return image.id

    # ---- inside -------------------------------------------------------------------------------------------

    def _find(self, ref: str) -> Image | None:
        if is_image_id(ref):
            return self._images.get(f"sha256:{ref.removeprefix('sha256:')}")
        with contextlib.suppress(InvalidParameter):
            name = parse_reference(ref)
            known = self._index.names.get(_index_name(name))
            if known is not None:
                return self._images[known]
            if name.digest in self._images:
                return self._images[name.digest]
        prefix = ref.removeprefix("sha256:")
        if not prefix or not set(prefix) <= set("0123456789abcdef"):
            return None
        matches = [image for image in self._images.values() if image.id[7:].startswith(prefix)]
        if len(matches) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {prefix}")
        return matches[0] if matches else None

    def _adopt(self, found: archive.FoundImage) -> Image:
        """Bring the layers into the driver and the image into the index (without saving it)."""
        raw, config, diff_ids = parse_image_config(found.config)
        if len(diff_ids) != len(found.layers):
            raise InvalidParameter(
                f"image has {len(found.layers)} layers, but its configuration names {len(diff_ids)}: the archive is damaged"
            )
        if raw.get("os", "linux") not in ("", "linux"):
            raise InvalidParameter(f'image is for operating system "{raw["os"]}": only linux images run here')
        blobs, parent = [], None
        for diff_id, chain_id, layer in zip(diff_ids, chain_ids(diff_ids), found.layers, strict=True):
            blobs.append(self._adopt_layer(layer, diff_id, chain_id, parent))
            parent = chain_id
        image_id, _ = self._blobs.add(io.BytesIO(found.config))
        known = self._images.get(image_id)
        if known is not None:
            return known
        entry = _Entry(blobs=blobs, loaded_at=time.time())
        image = self._image(image_id, entry, raw, config, diff_ids)
        self._images[image_id] = image
        self._index.images[image_id] = entry
        return image

    def _adopt_layer(self, layer: archive.FoundLayer, diff_id: str, chain_id: str, parent: str | None) -> str:
        with layer.open() as source:
            blob = layer.digest
            if not (blob and self._blobs.has(blob)):
                blob, _ = self._blobs.add(source, layer.digest)
        if not self._driver.has_layer(chain_id):
            with self._blobs.open(blob) as file:
                reader = UncompressedReader(file)
                try:
                    self._driver.add_layer(chain_id, parent, cast("BinaryIO", reader))
                    actual = reader.finish()
                except BaseException:
                    self._drop_blob(blob)
                    raise
            if actual != diff_id:
                self._driver.remove_layer(chain_id)
                self._drop_blob(blob)
                raise InvalidParameter(
                    f"layer has digest {actual}, but {diff_id} was announced: the archive is damaged"
                )
        return blob

    def _drop_blob(self, blob: str) -> None:
        if not any(blob in image.blobs for image in self._images.values()):
            self._blobs.remove(blob)

    def _name(self, image: Image, name: Reference) -> None:
        key = _index_name(name)
        holder = self._images.get(self._index.names.get(key, ""))
        if holder is not None:
            holder.repo_tags = [tag for tag in holder.repo_tags if tag != name.familiar]
        self._index.names[key] = image.id
        if name.familiar not in image.repo_tags:
            image.repo_tags = sorted([*image.repo_tags, name.familiar])

    def _delete(self, image: Image) -> list[dict[str, str]]:
        del self._images[image.id]
        del self._index.images[image.id]
        self._save()
        needed = {chain for other in self._images.values() for chain in other.chain_ids}
        removed = [{"Deleted": image.id}]
        for chain_id in reversed(image.chain_ids):
            if chain_id not in needed and self._driver.remove_layer(chain_id):
                removed.append({"Deleted": chain_id})
        self._sweep()
        return removed

    def _sweep(self) -> None:
        used = {image.id for image in self._images.values()}
        used |= {blob for image in self._images.values() for blob in image.blobs}
        for blob in self._blobs.all() - used:
            self._blobs.remove(blob)

    def _save(self) -> None:
        temporary = self._index_path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(self._index))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._index_path)

    def _read_image(self, image_id: str, entry: _Entry) -> Image:
        raw, config, diff_ids = parse_image_config(self._blobs.read(image_id))
        image = self._image(image_id, entry, raw, config, diff_ids)
        tags = [name for name, known in self._index.names.items() if known == image_id]
        image.repo_tags = sorted(parse_reference(tag).familiar for tag in tags)
        return image

    def _image(
        self,
        image_id: str,
        entry: _Entry,
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
            size=sum(self._blobs.size(blob) for blob in entry.blobs),
            loaded_at=entry.loaded_at,
        )


def _check_removal_by_id(image: Image, users: Sequence[tuple[str, bool]], *, force: bool) -> None:
    short = image.id[7:19]
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


def _index_name(name: Reference) -> str:
    return f"{name.name}@{name.digest}" if name.digest else f"{name.name}:{name.tag}"
