"""Real registries for tests: the distribution's docker-registry on a loopback port, plain, with TLS, with accounts."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.commands import PATIENCE

PROGRAM = "docker-registry"
USER, PASSWORD = "anna", "geheim"
# bcrypt of PASSWORD, as `htpasswd -nbB` writes it.
HTPASSWD = "anna:$2y$05$v/dtcsDbbtsYaZOLqlt01.p4NYjAznwreWU6b1i0aH6Lbi.XEf2Ce"


class Registry:
    """`host`: 127.0.0.1:PORT, as images name it."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.host = f"127.0.0.1:{port}"
        self._process = process

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20 * PATIENCE)


@contextlib.contextmanager
def registry(
    folder: Path,
    port: int = 0,
    *,
    namespace: Sequence[str] = (),
    accounts: bool = False,
    tls: tuple[Path, Path] | None = None,
    extra: str = "",
) -> Iterator[Registry]:
    """`namespace`: the words that run a program in a network namespace (its port must be given then).

    `tls`: certificate and key. `extra`: more of its configuration.
    """
    program = shutil.which(PROGRAM)
    assert program, f"{PROGRAM} is missing: install the package docker-registry"
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "version: 0.1",
        "log: {level: error, accesslog: {disabled: true}}",
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}",
        "http:",
        f"  addr: 127.0.0.1:{port}",
    ]
    if tls is not None:
        lines.append(f"  tls: {{certificate: '{tls[0]}', key: '{tls[1]}'}}")
    if accounts:
        (folder / "htpasswd").write_text(f"{HTPASSWD}\n")
        lines.append(f"auth: {{htpasswd: {{realm: test, path: '{folder}/htpasswd'}}}}")
    (folder / "config.yml").write_text("\n".join([*lines, extra, ""]))
    log = (folder / "log").open("wb")
    with log:
        process = subprocess.Popen(
            [*namespace, program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    found = Registry(folder, port, process)
    try:
        _wait_for(process, port, namespace, folder / "log")
        yield found
    finally:
        found.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], port: int, namespace: Sequence[str], log: Path) -> None:
    deadline = time.monotonic() + 30 * PATIENCE
    probe = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
    while subprocess.run([*namespace, "bash", "-c", probe], capture_output=True).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{PROGRAM} does not listen:\n{log.read_text()}"
        time.sleep(0.05)
