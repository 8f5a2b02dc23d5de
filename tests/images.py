"""Image archives made in memory, for tests: a small busybox system, or any layers in any of the layouts.

Everything is deterministic: the same arguments give the same bytes, so image ids can be compared.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

BUSYBOX_PATHS = ("/bin/busybox", "/usr/bin/busybox")
CREATED = "2026-01-01T00:00:00Z"
HOST_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def busybox_image(
    tag: str = "busybox:latest",
    *,
    cmd: Sequence[str] = ("/bin/sh",),
    extra_files: Mapping[str, bytes | str] | None = None,
    **config: Any,
) -> bytes:
    """A docker-save archive of one layer: busybox with all applets, a few accounts, empty folders.

    `extra_files`: path -> content, executable. `config`: further fields in Docker's words (Env=[...], User="...").
    """
    extra = {
        path: (data.encode() if isinstance(data, str) else data, 0o755)
        for path, data in (extra_files or {}).items()
    }
    layer = busybox_layer() if not extra else tar_of({**_busybox_files(), **extra})
    return image_archive([layer], names=[tag], config={"Cmd": list(cmd), "Env": ["PATH=/bin"], **config})


@functools.cache
def busybox_layer() -> bytes:
    return tar_of(_busybox_files())


# What a path in a layer is: content with 0644, content with a mode, None for a folder, or a link's target.
Content = bytes | tuple[bytes, int] | str | None


def tar_of(files: Mapping[str, Content]) -> bytes:
    """A tar archive; str values are targets of symbolic links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            data = b""
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if path == "tmp" else 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                data, info.mode = content if isinstance(content, tuple) else (content, 0o644)
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image_config(layers: Sequence[bytes], config: Mapping[str, Any] | None = None, **fields: Any) -> bytes:
    """The configuration of an image of these (uncompressed) layers."""
    return json.dumps(
        {
            "architecture": HOST_ARCHITECTURE,
            "os": "linux",
            "created": CREATED,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            "history": [{"created": CREATED, "created_by": f"layer {n}"} for n in range(len(layers))],
            **fields,
        },
        sort_keys=True,
    ).encode()


def image_archive(
    layers: Sequence[bytes],
    *,
    names: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    layout: Literal["docker", "oci"] = "docker",
    compress: bool = False,
    **fields: Any,
) -> bytes:
    """An archive of one image. `fields` override the top level of its configuration."""
    configuration = image_config(layers, config, **fields)
    blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
    if layout == "oci":
        return oci_archive(configuration, blobs, names)
    paths = [f"{digest_of(layer)[7:]}/layer.tar" for layer in layers]
    name = f"{digest_of(configuration)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": list(names) or None, "Layers": paths}]
    return tar_of(
        {
            name: configuration,
            **dict(zip(paths, blobs, strict=True)),
            "manifest.json": json.dumps(manifest).encode(),
        }
    )


def oci_archive(configuration: bytes, blobs: Sequence[bytes], names: Sequence[str] = ()) -> bytes:
    manifest = json.dumps(oci_manifest(configuration, blobs)).encode()
    descriptor = {"mediaType": "application/vnd.oci.image.manifest.v1+json", **described(manifest)}
    named = [{**descriptor, "annotations": {"io.containerd.image.name": name}} for name in names]
    return oci_layout([configuration, manifest, *blobs], named or [descriptor])


def oci_layout(blobs: Sequence[bytes], manifests: Sequence[Mapping[str, Any]]) -> bytes:
    """An OCI layout with these blobs, and these descriptors in its index.json."""
    return tar_of(
        {
            **{f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in blobs},
            "index.json": json.dumps({"schemaVersion": 2, "manifests": list(manifests)}).encode(),
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        }
    )


def oci_manifest(configuration: bytes, blobs: Sequence[bytes]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described(configuration)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", **described(blob)} for blob in blobs
        ],
    }


def described(blob: bytes) -> dict[str, Any]:
    return {"digest": digest_of(blob), "size": len(blob)}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@functools.cache
def _busybox_files() -> dict[str, Content]:
    program = next((path for path in map(Path, BUSYBOX_PATHS) if path.exists()), None)
    assert program is not None, "busybox is missing: install the package busybox-static"
    listed = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout
    files: dict[str, Content] = dict.fromkeys(("bin", "dev", "etc", "proc", "root", "sys", "tmp"))
    files["bin/busybox"] = (program.read_bytes(), 0o755)
    files |= {f"bin/{name}": "busybox" for name in listed.split() if name != "busybox"}
    files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    files["etc/group"] = b"root:x:0:\nnogroup:x:65534:\n"
    return files
