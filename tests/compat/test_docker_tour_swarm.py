"""The tour goes on: swarm, node, service, stack, secret and config on a swarm of one manager."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients import Cli, Target
from tests.commands import PATIENCE

pytestmark = [pytest.mark.root, pytest.mark.timeout(120 * PATIENCE)]

STACK = """
version: "3.8"
services:
  web:
    image: hello
    ports: ["8095:80"]
    networks: [front]
    deploy: {replicas: 2, labels: {a: b}, resources: {limits: {memory: 64M}}}
    secrets: [word]
    configs: [{source: settings, target: /settings}]
    volumes: ["data:/data"]
networks: {front: {}}
volumes: {data: {}}
secrets: {word: {file: ./word}}
configs: {settings: {file: ./word}}
"""


@pytest.fixture(scope="module")
def docker(target: Target) -> Iterator[Cli]:
    """A manager."""
    docker = target.docker
    said = docker.ok("swarm", "init", "--advertise-addr", "127.0.0.1")
    assert re.match(r"Swarm initialized: current node \([a-z0-9]{25}\) is now a manager\.\n", said)
    yield docker
    docker.ok("swarm", "leave", "--force")


def until(what: str, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_the_swarm_and_its_node(docker: Cli) -> None:
    assert "already part of a swarm" in docker.run("swarm", "init").err
    shown = docker.ok("node", "ls", "--format", "{{.Status}} {{.Availability}} {{.ManagerStatus}} {{.Self}}")
    assert shown == "Ready Active Leader true\n"
    assert re.search(
        r"docker swarm join --token SWMTKN-1-\S+ 127\.0\.0\.1:2377",
        docker.ok("swarm", "join-token", "worker"),
    )
    node = docker.ok("node", "ls", "-q").strip()
    docker.ok("node", "update", "--label-add", "zone=a", node)
    assert json.loads(docker.ok("node", "inspect", "self"))[0]["Spec"]["Labels"] == {"zone": "a"}
    assert "Manager Status:" in docker.ok("node", "inspect", "--pretty", "self")
    assert "last manager" in docker.run("node", "demote", node).err
    assert docker.run("swarm", "leave").code == 1
    assert docker.ok("swarm", "update", "--task-history-limit", "3") == "Swarm updated.\n"
    assert docker.ok("swarm", "ca").startswith("-----BEGIN CERTIFICATE-----")


def test_secrets_and_configs(docker: Cli) -> None:
    for kind in ("secret", "config"):
        assert re.fullmatch(
            "[a-z0-9]{25}\n", docker.ok(kind, "create", "--label", "a=b", "tour", "-", text="words")
        )
        assert "already exists" in docker.run(kind, "create", "tour", "-", text="words").err
        assert docker.ok(kind, "ls", "--format", "{{.Name}}") == "tour\n"
        assert "Name:" in docker.ok(kind, "inspect", "--pretty", "tour")
        assert docker.ok(kind, "rm", "tour") == "tour\n"
        assert "nosuch" in docker.run(kind, "rm", "nosuch").err


def test_a_service_from_create_to_rm(docker: Cli, target: Target) -> None:
    docker.ok("secret", "create", "word", "-", text="secret")
    docker.ok("config", "create", "settings", "-", text="settings")
    words = ("--replicas", "2", "--secret", "word", "--config", "settings", "--publish", "8096:80", "--label", "l=m",
             "--env", "A=b", "--limit-memory", "64m", "--constraint", "node.role==manager", "-d", "hello")  # fmt: skip
    docker.ok("service", "create", "--name", "web", *words)
    until("it runs", lambda: "2/2" in docker.ok("service", "ls", "--format", "{{.Name}} {{.Replicas}}"))
    assert target.page(8096).startswith("hello from ")
    assert (
        "name conflicts with an existing object"
        in docker.run("service", "create", "--name", "web", "-d", "hello").err
    )
    assert (
        "port '8096' is already in use"
        in docker.run("service", "create", "-d", "--publish", "8096:80", "hello").err
    )
    assert (
        "secret not found: nosuch" in docker.run("service", "create", "--secret", "nosuch", "-d", "hello").err
    )
    assert "is in use by the following service: web" in docker.run("secret", "rm", "word").err
    assert "*:8096->80/tcp" in docker.ok("service", "ls")
    assert "Service Mode:" in docker.ok("service", "inspect", "--pretty", "web")
    task = docker.ok("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web").split()[0]
    assert docker.ok("exec", task, "cat", "/run/secrets/word", "/settings") == "secretsettings"
    docker.ok("service", "update", "-d", "--env-add", "C=d", "--replicas", "1", "web")
    assert (
        docker.ok("service", "inspect", "web", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Env}}")
        == "[A=b C=d]\n"
    )
    docker.ok("service", "rollback", "-d", "web")
    assert (
        docker.ok("service", "inspect", "web", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Env}}") == "[A=b]\n"
    )
    docker.ok("service", "scale", "-d", "web=1")
    until("it is scaled", lambda: "1/1" in docker.ok("service", "ls", "--format", "{{.Replicas}}"))
    assert "listens on port 80" in docker.ok("service", "logs", "web")
    nameless = docker.ok("service", "create", "-d", "--replicas", "0", "hello").split()[-1]
    docker.ok("service", "rm", nameless)
    assert docker.ok("service", "rm", "web") == "web\n"
    docker.ok("secret", "rm", "word")
    docker.ok("config", "rm", "settings")
    assert docker.run("service", "ps", "web").err == "no such service: web\n"
    until("its tasks are gone", lambda: docker.ok("ps", "-q") == "")


def test_a_stack_from_deploy_to_rm(docker: Cli, target: Target, tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text(STACK)
    (tmp_path / "word").write_text("word\n")
    said = docker.ok("stack", "deploy", "-c", str(tmp_path / "stack.yml"), "shop")
    for line in ("network shop_front", "secret shop_word", "config shop_settings", "service shop_web"):
        assert f"Creating {line}\n" in said
    until("it runs", lambda: "2/2" in docker.ok("stack", "services", "shop"))
    assert docker.ok("stack", "ls", "--format", "{{.Name}} {{.Services}}") == "shop 1\n"
    assert (
        docker.ok("stack", "ps", "shop", "--format", "{{.Image}} {{.DesiredState}}").count(
            "hello:latest Running"
        )
        == 2
    )
    assert target.page(8095).startswith("hello from ")
    assert "Updating service shop_web" in docker.ok(
        "stack", "deploy", "-c", str(tmp_path / "stack.yml"), "shop"
    )
    removed = docker.run("stack", "rm", "shop")
    for line in ("service shop_web", "secret shop_word", "config shop_settings", "network shop_front"):
        assert f"Removing {line}\n" in removed.out + removed.err
    until(
        "nothing is left to show",
        lambda: "nothing found in stack: shop" in docker.run("stack", "ps", "shop").err.lower(),
    )
    until("its tasks are gone", lambda: docker.ok("ps", "-q") == "")
    until("its network is gone", lambda: "shop_front" not in docker.ok("network", "ls"))
    docker.run("volume", "rm", "shop_data")
