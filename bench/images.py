"""Images: an archive loaded, and pushed to and pulled from a local docker-registry; podman and dockerd beside it.

Both where they are installed. The image: 200 MB in ten layers, half of it compressible, gzip. Registry and clients
share a network namespace.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import dockerd
from bench.measure import wait_until
from node.lab import model

SWARMCTL = str(Path(sys.executable).parent / "swarmctl")
LAYERS, LAYER_BYTES = 10, 20_000_000
NAME = "127.0.0.1:5000/bench:1"
LOAD, PULL = "load, 200 MB in ten layers (s)", "pull, 200 MB in ten layers (s)"


def measure() -> dict[str, float]:
    program = shutil.which("docker-registry")
    if program is None:
        raise SystemExit("docker-registry is missing: install the package docker-registry")
    lab = f"bench{os.getpid()}"
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        archive = folder / "image.tar"
        _write_archive(archive)
        try:
            _run(SWARMCTL, "lab", "up", "--nodes", "1", "--name", lab)
            node = model.load(lab).node(model.load(lab).nodes[0].name)
            inside = ("nsenter", f"--net={node.netns_path}", "--")
            with _registry(program, folder, inside):
                figures = _ours(node.host, archive)
                figures |= _podman(folder, inside, archive)
                return figures | _docker(folder, inside, archive)
        finally:
            _run(SWARMCTL, "lab", "down", "--name", lab)


def _ours(host: str, archive: Path) -> dict[str, float]:
    def call(*words: str) -> float:
        return _seconds(SWARMCTL, "-H", host, *words)

    figures = {LOAD: call("load", "-q", "-i", str(archive))}
    figures["push, 200 MB in ten layers (s)"] = call("push", "-q", NAME)
    call("rmi", NAME)
    figures[PULL] = call("pull", "-q", NAME)
    figures["pull of what is here (s)"] = call("pull", "-q", NAME)
    return figures


def _podman(folder: Path, inside: tuple[str, ...], archive: Path) -> dict[str, float]:
    if shutil.which("podman") is None:
        return {}
    storage = ("--root", str(folder / "podman"), "--runroot", str(folder / "podman-run"))
    podman = (*inside, "podman", *storage)
    figures: dict[str, float] = {}
    try:
        figures[f"podman: {LOAD}"] = _seconds(*podman, "load", "-q", "-i", str(archive))
        _run(*podman, "rmi", "-f", "-a")
        figures[f"podman: {PULL}"] = _seconds(*podman, "pull", "-q", "--tls-verify=false", NAME)
    except subprocess.CalledProcessError as error:
        print(f"podman: {error.stderr.decode().strip()[-300:]}")
    finally:
        subprocess.run([*podman, "system", "reset", "-f"], capture_output=True)
    return figures


def _docker(folder: Path, inside: tuple[str, ...], archive: Path) -> dict[str, float]:
    with dockerd.running(folder, inside) as socket:
        if not socket:
            return {}
        host = f"unix://{socket}"
        figures = {f"dockerd: {LOAD}": _seconds(SWARMCTL, "-H", host, "load", "-q", "-i", str(archive))}
        _run(SWARMCTL, "-H", host, "rmi", NAME)
        figures[f"dockerd: {PULL}"] = _seconds(SWARMCTL, "-H", host, "pull", "-q", NAME)
        return figures


@contextlib.contextmanager
def _registry(program: str, folder: Path, inside: tuple[str, ...]) -> Iterator[None]:
    config = folder / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/registry'}}}}\nhttp: {{addr: '127.0.0.1:5000'}}\n"
    )
    process = subprocess.Popen(
        [*inside, program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    probe = [*inside, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5000"]
    try:
        wait_until(lambda: subprocess.run(probe, capture_output=True).returncode == 0, 30, 0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _seconds(*words: str) -> float:
    start = time.perf_counter()
    _run(*words)
    return time.perf_counter() - start


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=300)


def _write_archive(path: Path) -> None:
    """An OCI layout with the manifest.json that everybody reads."""
    source = random.Random(1)
    files: dict[str, bytes] = {}
    diff_ids, layers = [], []
    for number in range(LAYERS):
        half = source.randbytes(LAYER_BYTES // 2) + b"the same line again\n" * (LAYER_BYTES // 40)
        layer = _tar({f"data/{number}": half})
        diff_ids.append(_digest(layer))
        blob = gzip.compress(layer, 1, mtime=0)
        layers.append(_put(files, blob))
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "bench"}] * LAYERS,
    }
    entry: dict[str, Any] = {"Config": _put(files, json.dumps(config).encode()), "RepoTags": [NAME]}
    files["manifest.json"] = json.dumps([entry | {"Layers": layers}]).encode()
    path.write_bytes(_tar(files))


def _put(files: dict[str, bytes], blob: bytes) -> str:
    name = f"blobs/sha256/{_digest(blob)[7:]}"
    files[name] = blob
    return name


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
