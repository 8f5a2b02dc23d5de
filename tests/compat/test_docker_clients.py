"""Clients that nobody here wrote, against a real daemon: the docker SDK, and the docker CLI."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from tests.clients import Cli
from tests.conftest import HostDaemon
from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root


def test_sdk_runs_containers(host: HostDaemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{host.socket}", version="auto")
    try:
        assert client.ping()
        assert client.containers.run("hello", ["echo", "from the sdk"], remove=True) == b"from the sdk\n"
        container = client.containers.run(
            "hello", ["sleep", "1000"], detach=True, name="sdk", labels={"a": "b"}
        )
        assert container.exec_run(["sh", "-c", "echo in; exit 4"]) == (4, b"in\n")
        assert [c.name for c in client.containers.list(filters={"label": "a=b"})] == ["sdk"]
        assert container.stats(stream=False)["memory_stats"]["usage"] > 0
        assert container.top()["Processes"]
        container.remove(force=True)
        with pytest.raises(docker.errors.NotFound, match="No such container: sdk"):
            client.containers.get("sdk")
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get("nosuch:image")
        assert any("hello:latest" in image.tags for image in client.images.list())
    finally:
        client.close()


def test_sdk_errors_have_dockers_status(host: HostDaemon) -> None:
    api = docker.APIClient(base_url=f"unix://{host.socket}", version="auto")
    try:
        for path, status in (
            ("/containers/x/json", 404),
            ("/nowhere", 404),
            ("/containers/json?filters=x", 400),
        ):
            assert api.get(f"{api.base_url}/v1.45{path}").status_code == status, path
        answer = api.post(f"{api.base_url}/v1.45/containers/create", json={"Image": 5})
        assert (answer.status_code, "Image" in answer.json()["message"]) == (400, True)
        too_new = api.get(f"{api.base_url}/v1.99/info")
        assert (too_new.status_code, "too new" in too_new.json()["message"]) == (400, True)
    finally:
        api.close()


def test_docker_cli_on_one_host(host: HostDaemon, client: Path, hello_archive: Path) -> None:
    docker = Cli(host.socket, client)
    assert "swarmctl" in docker.ok("version")
    assert "Swarm: inactive" in docker.ok("info")
    assert "Loaded image: hello:latest" in docker.ok("load", "-i", str(hello_archive))
    assert docker.ok("run", "--rm", "hello", "echo", "hi") == "hi\n"
    assert docker.ok("run", "-i", "--rm", "hello", "cat", text="in\n") == "in\n"
    assert docker.run("run", "--rm", "hello", "sh", "-c", "exit 9").code == 9
    assert docker.run("run", "--rm", "hello", "nosuch").code == 127
    container = docker.ok(
        "run", "-d", "--name", "cli", "hello", "sh", "-c", "echo logged; sleep 1000"
    ).strip()
    assert docker.ok("exec", "cli", "hostname").strip() == container[:12]
    assert docker.ok("logs", "cli") == "logged\n"
    assert "cli" in docker.ok("ps")
    assert "hello" in docker.ok("images")
    assert "bridge" in docker.ok("network", "ls")
    missing = docker.run("inspect", "nosuch")
    assert missing.code == 1 and "No such object: nosuch" in missing.err
    taken = docker.run("run", "--name", "cli", "hello")
    assert taken.code == 125 and "is already in use by container" in taken.err
    docker.ok("rm", "-f", "cli")


def test_docker_cli_makes_a_swarm(client: Path) -> None:
    with lab_of(2, kind=Lab) as lab:
        first, second = lab.node("n1"), lab.node("n2")
        manager, worker = Cli(first.socket, client), Cli(second.socket, client)
        assert "is now a manager" in manager.ok("swarm", "init", "--advertise-addr", first.address)
        token = manager.ok("swarm", "join-token", "-q", "worker").strip()
        remote = f"{first.address}:2377"
        assert "joined a swarm as a worker" in worker.ok("swarm", "join", "--token", token, remote)
        lab.wait("both are ready", 15, lambda: manager.ok("node", "ls").count("Ready") == 2)
        assert "not a swarm manager" in worker.run("node", "ls").err
        assert "Swarm: active" in worker.ok("info")
        worker.ok("swarm", "leave")


def test_docker_cli_on_a_swarm(swarm: Lab, client: Path) -> None:
    docker = Cli(swarm.node("n1").socket, client)
    assert docker.ok("node", "ls").count("Ready") == 3
    service = docker.ok(
        "service", "create", "--detach", "--name", "by-docker", "--replicas", "2", "hello"
    ).split()[-1]
    swarm.wait("2 tasks run", 20, lambda: len(swarm.running("n1", "by-docker")) == 2)
    assert "2/2" in docker.ok("service", "ls")
    assert docker.ok("service", "ps", "by-docker").count("Running") >= 2
    docker.ok("service", "scale", "--detach", "by-docker=3")
    swarm.wait("3 tasks run", 20, lambda: len(swarm.running("n1", "by-docker")) == 3)
    assert service in docker.ok("service", "inspect", "by-docker")
    docker.ok("secret", "create", "docker-secret", "-", text="x")
    docker.ok("config", "create", "docker-config", "-", text="y")
    assert "docker-secret" in docker.ok("secret", "ls")
    assert "docker-config" in docker.ok("config", "ls")
    docker.ok("secret", "rm", "docker-secret")
    docker.ok("config", "rm", "docker-config")
    docker.ok("service", "rm", "by-docker")
    assert "SWMTKN-1-" in docker.ok("swarm", "join-token", "worker")
