"""What only Compose 2 can: profiles, cp, events, wait, failed dependencies, configs, pulling, following logs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Target
from tests.commands import PATIENCE
from tests.compose_projects import TIMEOUT_S, Project, compose_2
from tests.registries import registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(TIMEOUT_S)]

SLEEPS = "{image: hello, stop_signal: SIGKILL, command: sleep 1000}"


@pytest.fixture
def project(tmp_path: Path, target: Target) -> Iterator[Project]:
    made = Project(tmp_path, target, compose_2())
    yield made
    made.run("--profile", "*", "down", "-v", "-t", "1", "--remove-orphans")


def test_profiles_choose_services(project: Project) -> None:
    project.write(f"services: {{always: {SLEEPS}, debug: {SLEEPS[:-1]}, profiles: [debug]}}}}\n")
    project.ok("up", "-d")
    assert set(project.containers()) == {"always"}
    project.ok("--profile", "debug", "up", "-d")
    assert set(project.containers()) == {"always", "debug"}


def test_files_are_copied_both_ways(project: Project) -> None:
    project.write(f"services: {{box: {SLEEPS}}}\n", note="a note\n")
    project.ok("up", "-d")
    project.ok("cp", str(project.folder / "note"), "box:/tmp/note")
    assert project.ok("exec", "-T", "box", "cat", "/tmp/note") == "a note\n"
    project.ok("cp", "box:/tmp/note", str(project.folder / "back"))
    assert (project.folder / "back").read_text() == "a note\n"


def test_events_tell_what_happens(project: Project) -> None:
    project.write("services: {once: {image: hello, command: 'true'}}\n")
    listening = project.start("events", "--json")
    try:
        assert listening.stdout is not None
        seen: list[str] = []
        while "die" not in seen:
            if not seen:
                # Until it listens: what happened before is not told.
                project.ok("up", "-d", "--force-recreate")
            event = json.loads(listening.stdout.readline())
            assert (event["type"], event["service"]) == ("container", "once")
            seen.append(event["action"])
        assert "start" in seen
    finally:
        listening.send_signal(signal.SIGINT)
        listening.wait(20 * PATIENCE)
        listening.stdout.close()


def test_waiting_gives_the_exit_code(project: Project) -> None:
    project.write("services: {once: {image: hello, command: sh -c 'sleep 1; exit 6'}}\n")
    project.ok("up", "-d")
    assert project.run("wait", "once").code == 6


def test_who_depends_on_a_sick_one_is_not_started(project: Project) -> None:
    project.write(
        f"""
        services:
          sick: {SLEEPS[:-1]}, healthcheck: {{test: ["CMD", "false"], interval: 100ms, retries: 1}}}}
          web: {SLEEPS[:-1]}, depends_on: {{sick: {{condition: service_healthy}}}}}}
        """
    )
    failed = project.run("up", "-d")
    assert failed.code == 1 and "is unhealthy" in failed.err
    assert set(project.containers()) == {"sick"}


def test_who_depends_on_work_waits_for_its_end(project: Project) -> None:
    project.write(
        """
        services:
          work: {image: hello, command: sh -c "sleep 0.3; echo done > /shared/result", volumes: ["shared:/shared"]}
          web:
            image: hello
            command: cat /shared/result
            volumes: ["shared:/shared"]
            depends_on: {work: {condition: service_completed_successfully}}
        volumes: {shared: {}}
        """
    )
    assert "done" in project.ok("up", "--no-color")


def test_secrets_and_configs_are_files(project: Project) -> None:
    project.write(
        """
        services:
          reads:
            image: hello
            command: cat /run/secrets/word /etc/settings
            secrets: [word]
            configs: [{source: settings, target: /etc/settings}]
        secrets: {word: {file: ./word}}
        configs: {settings: {content: "inline text"}}
        """,
        word="secret word\n",
    )
    assert project.ok("run", "--rm", "reads") == "secret word\ninline text"


def test_following_logs_ends_with_the_services(project: Project) -> None:
    project.write(
        """
        services:
          a: {image: hello, command: sh -c "echo from a; sleep 1; echo late a"}
          b: {image: hello, command: sh -c "sleep 0.5; echo from b >&2"}
        """
    )
    project.ok("up", "-d")
    said = project.ok("logs", "--no-color", "-f")
    lines = [line.partition("|") for line in said.splitlines()]
    assert {text.strip() for _, bar, text in lines if bar} == {"from a", "late a", "from b"}


def test_images_are_pulled_and_pushed(project: Project) -> None:
    docker, port = project.target.docker, 5055
    image = f"127.0.0.1:{port}/shop/hello:1"
    with registry(project.folder / "registry", port, namespace=project.target.namespaces):
        docker.ok("tag", "hello", image)
        project.write(f"services: {{x: {{image: '{image}', build: ., command: echo pulled}}}}\n")
        project.ok("push")
        docker.ok("rmi", image)
        project.ok("pull")
        assert "pulled" in project.ok("up", "--no-color", "--no-build")
        project.ok("down", "--rmi", "all")
        assert docker.run("image", "inspect", image).code == 1


def test_services_outlive_the_daemon(project: Project) -> None:
    host = project.target.host
    if host is None:
        return  # somebody else's daemon is not restarted
    project.write(f"services: {{box: {SLEEPS[:-1]}, restart: always}}}}\n")
    project.ok("up", "-d")
    before = project.containers()
    host.stop()
    host.start()
    assert project.containers() == before
    project.ok("up", "-d")
    assert project.containers() == before
