"""The docker CLI and ours with the real docker-registry, through a real daemon; tasks that fetch their image."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import docker_client
from tests.commands import PATIENCE, SWARMCTL, Result, run
from tests.conftest import HostDaemon
from tests.registries import PASSWORD, USER, registry

pytestmark = pytest.mark.root

PLAIN, LOCKED = "127.0.0.1:5000", "127.0.0.1:5001"


class Client:
    """`docker` or `swarmctl`, with accounts of its own."""

    def __init__(self, program: str, host: HostDaemon, folder: Path) -> None:
        self.program = program
        self.folder = folder
        url = f"unix://{host.socket}"
        self._environment = os.environ | {
            "DOCKER_HOST": url,
            "SWARMCTL_HOST": url,
            "DOCKER_CONFIG": str(folder),
        }

    def run(self, *words: str, text: str = "") -> Result:
        return run([self.program, *words], text, self._environment)

    def ok(self, *words: str, text: str = "") -> str:
        result = self.run(*words, text=text)
        assert result.code == 0, f"{self.program} {' '.join(words)}: {result.err or result.out}"
        return result.out


@pytest.fixture(scope="module", autouse=True)
def registries(host: HostDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("registries")
    with registry(folder / "plain", 5000, namespace=host.namespaces):
        with registry(folder / "locked", 5001, namespace=host.namespaces, accounts=True):
            yield


@pytest.fixture(params=["docker", "swarmctl"])
def client(request: pytest.FixtureRequest, host: HostDaemon, tmp_path: Path) -> Client:
    program = str(docker_client()) if request.param == "docker" else SWARMCTL
    return Client(program, host, tmp_path)


def test_images_go_to_a_registry_and_come_back(client: Client) -> None:
    name = f"{PLAIN}/{Path(client.program).name}/hello"
    client.ok("load", "-i", save(client))
    client.ok("tag", "hello", f"{name}:1")
    said = client.ok("push", f"{name}:1")
    assert f"The push refers to repository [{name}]" in said and "1: digest: sha256:" in said
    client.ok("tag", "hello", f"{name}:2")
    assert "Layer already exists" in client.ok("push", "-a", name)
    saved = client.folder / "all.tar"
    client.ok("save", "-o", str(saved), name)
    assert f"Loaded image: {name}:2" in client.ok("load", "-i", str(saved))
    client.ok("rmi", f"{name}:1", f"{name}:2")
    said = client.ok("pull", f"{name}:1")
    assert "1: Pulling from" in said
    assert f"Status: Downloaded newer image for {name}:1\n{name}:1\n" in said
    assert f"Image is up to date for {name}:1" in client.ok("pull", f"{name}:1")
    digest = client.ok("images", "--digests", "--format", "{{.Digest}}", name).strip()
    client.ok("rmi", f"{name}:1")
    assert client.ok("run", "--rm", f"{name}@{digest}", "echo", "by digest") == "by digest\n"
    assert client.ok("pull", "-q", "-a", name).split() == [name]
    assert set(client.ok("images", "--format", "{{.Tag}}", name).split()) == {"1", "2"}
    missing = client.run("pull", f"{name}:nosuch")
    assert missing.code == 1
    assert f"manifest for {name}:nosuch not found: manifest unknown: manifest unknown" in missing.err
    client.ok("rmi", f"{name}:1", f"{name}:2")


def save(client: Client) -> str:
    """The image that the daemon has, as an archive: what is saved can be loaded."""
    path = client.folder / "hello.tar"
    client.ok("save", "-o", str(path), "hello")
    return str(path)


def test_accounts(client: Client, tmp_path: Path) -> None:
    name = f"{LOCKED}/{Path(client.program).name}"
    client.ok("tag", "hello", f"{name}:1")
    refused = client.run("push", f"{name}:1")
    assert refused.code == 1 and "no basic auth credentials" in refused.err
    login = ("login", "-u", USER, "--password-stdin", LOCKED)
    wrong = client.run(*login, text="falsch")
    assert wrong.code == 1 and "unauthorized: authentication required" in wrong.err
    assert "Login Succeeded" in client.ok(*login, text=PASSWORD)
    assert LOCKED in json.loads((tmp_path / "config.json").read_text())["auths"]
    client.ok("push", f"{name}:1")
    client.ok("rmi", f"{name}:1")
    assert client.ok("run", "--rm", f"{name}:1", "echo", "private") == "private\n"
    client.ok("logout", LOCKED)
    assert "no basic auth credentials" in client.run("pull", f"{name}:1").err
    client.ok("rmi", f"{name}:1")


def test_the_hub_out_of_reach(client: Client) -> None:
    searched = client.run("search", "hello")
    assert searched.code == 1 and "cannot search the hub" in searched.err
    pulled = client.run("pull", "nosuch-image")
    assert pulled.code == 1 and 'Get "https://registry-1.docker.io/v2/"' in pulled.err


def test_a_task_fetches_its_image_with_the_account_of_its_service(client: Client) -> None:
    program = Path(client.program).name
    name = f"{LOCKED}/task-{program}"
    client.ok("login", "-u", USER, "--password-stdin", LOCKED, text=PASSWORD)
    client.ok("tag", "hello", f"{name}:1")
    client.ok("push", f"{name}:1")
    client.ok("rmi", f"{name}:1")
    client.ok("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        client.ok(
            "service", "create", "--detach", "--name", "plain", "--restart-condition", "none", f"{name}:1"
        )
        client.ok("service", "create", "--detach", "--with-registry-auth", "--name", "known", f"{name}:1")
        wait_for(client, "known", "Running")
        wait_for(client, "plain", "Rejected")
        error = client.ok("service", "ps", "--no-trunc", "--format", "{{.Error}}", "plain")
        assert "No such image" in error and "no basic auth credentials" in error
        assert PASSWORD not in client.ok("service", "inspect", "known")
        client.ok("service", "rm", "plain", "known")
    finally:
        client.ok("swarm", "leave", "--force")


def wait_for(client: Client, service: str, state: str) -> None:
    deadline = time.monotonic() + 20 * PATIENCE
    while state not in (shown := client.ok("service", "ps", "--format", "{{.CurrentState}}", service)):
        assert time.monotonic() < deadline, f"{service}: {shown}"
        time.sleep(0.1)
