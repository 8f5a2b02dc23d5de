"""A Dockerfile of ten steps, built cold and from the cache; many containers: listed, started and removed.

By the API, the same requests to our daemon and to a dockerd where one is installed.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import dockerd
from bench.api import Api
from bench.measure import median_ms
from node.lab import model

SWARMCTL = str(Path(sys.executable).parent / "swarmctl")
ROOT = Path(__file__).parent.parent
STEPS = 10
LISTED, STARTED, AT_ONCE = 500, 200, 8
DOCKERFILE = "FROM hello\n" + "".join(
    f"RUN echo {n} >/step{n}\n" if n % 2 else f"COPY file{n} /copied{n}\n" for n in range(STEPS)
)


def measure() -> dict[str, float]:
    lab = f"bench{os.getpid()}"
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        archive = folder / "hello.tar"
        subprocess.run([sys.executable, ROOT / "examples/hello/build.py", archive], check=True)
        try:
            _run(SWARMCTL, "lab", "up", "--nodes", "1", "--name", lab)
            socket = model.load(lab).nodes[0].host.removeprefix("unix://")
            figures = _of(socket, archive, "")
        finally:
            _run(SWARMCTL, "lab", "down", "--name", lab)
        with dockerd.running(folder) as theirs:
            return figures | (_of(theirs, archive, "dockerd: ") if theirs else {})


def _of(socket: str, archive: Path, who: str) -> dict[str, float]:
    api = Api(socket)
    api.call("POST", "/images/load", archive.read_bytes())
    figures = {
        f"{who}build of ten steps, cold (s)": _build(api, fresh=True),
        f"{who}build of ten steps, cached (s)": _build(api, fresh=False),
    }
    return figures | _many(api, socket, who)


def _build(api: Api, *, fresh: bool) -> float:
    start = time.perf_counter()
    said = api.call("POST", f"/build?t=bench&rm=1&networkmode=none&nocache={int(fresh)}", _context())
    assert b"Successfully tagged bench:latest" in said, said
    return time.perf_counter() - start


def _context() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        files = {f"file{n}": b"x" * 100_000 for n in range(0, STEPS, 2)} | {"Dockerfile": DOCKERFILE.encode()}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _many(api: Api, socket: str, who: str) -> dict[str, float]:
    made = _each(socket, [""] * LISTED, lambda own, _: own.create("hello", ["sleep", "100000"], "none"))
    listing = median_ms(lambda: api.call("GET", "/containers/json?all=1"), 20)
    start = time.perf_counter()
    _each(socket, made[:STARTED], lambda own, name: own.call("POST", f"/containers/{name}/start"))
    started = time.perf_counter() - start
    start = time.perf_counter()
    _each(socket, made[:STARTED], lambda own, name: own.call("DELETE", f"/containers/{name}?force=1"))
    removed = time.perf_counter() - start
    _each(socket, made[STARTED:], lambda own, name: own.call("DELETE", f"/containers/{name}"))
    return {
        f"{who}list of {LISTED} containers (ms)": listing,
        f"{who}{STARTED} containers started, {AT_ONCE} at once (s)": started,
        f"{who}{STARTED} running containers removed, {AT_ONCE} at once (s)": removed,
    }


def _each(socket: str, names: list[str], work: Callable[[Api, str], str]) -> list[str]:
    """With a connection of its own for each of AT_ONCE threads."""

    def run(names: list[str]) -> list[str]:
        own = Api(socket)
        return [work(own, name) for name in names]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [made for part in pool.map(run, [names[n::AT_ONCE] for n in range(AT_ONCE)]) for made in part]


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=300)
