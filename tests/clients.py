"""The docker clients of tests: the one that is installed, the distribution's own, and `Cli`, a client on one daemon.

A machine without any docker client has the distribution's unpacked for it; where neither can be had the tests fail.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.commands import PATIENCE, ROOT, Result, run
from tests.conftest import HostDaemon

# Which client all tests use that need only one: `installed` or `packaged`.
CHOICE = os.environ.get("SWARMCTL_TEST_CLIENT", "installed")
PACKAGES = ("docker-cli", "docker.io")


def docker_client() -> Path:
    """The one for tests that need only one."""
    return packaged_client() if CHOICE == "packaged" else installed_client()


def installed_client() -> Path:
    """The machine's own; on one without, the distribution's."""
    installed = shutil.which("docker")
    return Path(installed) if installed else packaged_client()


def packaged_client() -> Path:
    """The client of the distribution's own package, without installing it (that would start a daemon)."""
    folder = ROOT / ".venv" / "docker-client"
    client = folder / "usr/bin/docker"
    if client.exists():
        return client
    folder.mkdir(parents=True, exist_ok=True)
    said = ""
    for package in PACKAGES:
        command = ["apt-get", "download", "-q", package]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        said += done.stderr
        for archive in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
            archive.unlink()
        if client.exists():
            return client
    raise AssertionError(f"no docker client: install one, or make `apt-get download docker.io` work:\n{said}")


def client_version(client: Path) -> int:
    """The first number of it."""
    said = run([str(client), "version", "--format", "{{.Client.Version}}"]).out
    return int(said.split(".")[0])


class Cli:
    """A docker client pointed at one daemon."""

    def __init__(self, host: object, client: Path | None = None, **environment: str) -> None:
        """`host`: an address, or the path of a socket."""
        self.client = client or docker_client()
        url = str(host) if "://" in str(host) else f"unix://{host}"
        self.environment: Mapping[str, str] = os.environ | {"DOCKER_HOST": url} | environment

    def run(self, *words: str, text: str = "") -> Result:
        return run([str(self.client), *words], text, self.environment)

    def ok(self, *words: str, text: str = "") -> str:
        result = self.run(*words, text=text)
        assert result.code == 0, f"docker {' '.join(words)}: {result.err}{result.out[-1000:]}"
        return result.out


@dataclasses.dataclass(frozen=True)
class Target:
    """A daemon that tests talk to; `host` is None when it is not ours."""

    url: str
    namespaces: list[str]  # words before a command that has to see its ports
    host: HostDaemon | None

    @property
    def docker(self) -> Cli:
        return Cli(self.url)

    def page(self, port: int) -> str:
        """What a server says there, as soon as it says anything."""
        words = ("timeout", "5", "busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 10 * PATIENCE
        while not (said := run([*self.namespaces, *words]).out) and time.monotonic() < deadline:
            time.sleep(0.05)
        return said
