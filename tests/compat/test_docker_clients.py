"""Clients that nobody here wrote, against a real daemon: the docker SDK, and the docker CLI where it is installed."""

from __future__ import annotations

import shutil

import docker
import pytest

from tests.conftest import HostDaemon, Lab

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


def docker_cli(host: HostDaemon, *words: str, text: str | None = None) -> str:
    result = host.docker(*words, text=text)
    assert result.code == 0, f"docker {' '.join(words)}: {result.err}"
    return result.out


def test_docker_cli_on_one_host(host: HostDaemon) -> None:
    if shutil.which("docker") is None:
        return  # the SDK tests above go the same way
    assert "swarmctl" in docker_cli(host, "version")
    assert "Swarm: inactive" in docker_cli(host, "info")
    assert docker_cli(host, "run", "--rm", "hello", "echo", "hi") == "hi\n"
    assert docker_cli(host, "run", "-i", "--rm", "hello", "cat", text="in\n") == "in\n"
    assert host.docker("run", "--rm", "hello", "sh", "-c", "exit 9").code == 9
    assert host.docker("run", "--rm", "hello", "nosuch").code == 127
    container = docker_cli(
        host, "run", "-d", "--name", "cli", "hello", "sh", "-c", "echo logged; sleep 1000"
    ).strip()
    assert docker_cli(host, "exec", "cli", "hostname").strip() == container[:12]
    assert docker_cli(host, "logs", "cli") == "logged\n"
    assert "cli" in docker_cli(host, "ps")
    assert "hello" in docker_cli(host, "images")
    assert "bridge" in docker_cli(host, "network", "ls")
    docker_cli(host, "rm", "-f", "cli")


def test_docker_cli_on_a_swarm(swarm: Lab, host: HostDaemon) -> None:
    if shutil.which("docker") is None:
        return
    host_socket, host.socket = host.socket, type(host.socket)(str(swarm.nodes()["n1"]["socket"]))
    try:
        assert docker_cli(host, "node", "ls").count("Ready") == 3
        words = ("service", "create", "--detach", "--name", "by-docker", "--replicas", "2", "hello")
        service = docker_cli(host, *words).split()[-1]
        swarm.wait("2 tasks run", 20, lambda: len(swarm.running("n1", "by-docker")) == 2)
        assert "2/2" in docker_cli(host, "service", "ls")
        assert docker_cli(host, "service", "ps", "by-docker").count("Running") >= 2
        docker_cli(host, "service", "scale", "--detach", "by-docker=3")
        swarm.wait("3 tasks run", 20, lambda: len(swarm.running("n1", "by-docker")) == 3)
        assert service in docker_cli(host, "service", "inspect", "by-docker")
        docker_cli(host, "secret", "create", "docker-secret", "-", text="x")
        docker_cli(host, "config", "create", "docker-config", "-", text="y")
        assert "docker-secret" in docker_cli(host, "secret", "ls")
        assert "docker-config" in docker_cli(host, "config", "ls")
        docker_cli(host, "secret", "rm", "docker-secret")
        docker_cli(host, "config", "rm", "docker-config")
        docker_cli(host, "service", "rm", "by-docker")
        assert "SWMTKN-1-" in docker_cli(host, "swarm", "join-token", "worker")
    finally:
        host.socket = host_socket
