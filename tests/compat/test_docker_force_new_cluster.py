"""`docker swarm init --force-new-cluster`, with the docker client itself."""

from __future__ import annotations

import pytest

from tests.clients import Cli
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root


def test_docker_goes_on_with_what_is_there(host: HostDaemon) -> None:
    docker = Cli(host.socket)
    docker.ok("swarm", "init")
    node = docker.ok("info", "--format", "{{.Swarm.NodeID}}")
    token = docker.ok("swarm", "join-token", "-q", "worker")
    docker.ok("service", "create", "-d", "--name", "web", "hello")
    refused = docker.run("swarm", "init")
    assert "This node is already part of a swarm" in refused.err
    said = docker.ok("swarm", "init", "--force-new-cluster")
    assert f"Swarm initialized: current node ({node.strip()}) is now a manager." in said
    assert token.strip() in said
    assert docker.ok("service", "ls", "--format", "{{.Name}}") == "web\n"
    assert docker.ok("node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}") == f"{node.strip()} Leader\n"
    refused = docker.run("swarm", "leave")
    assert "Removing the last manager erases all current state of the swarm" in refused.err
    docker.ok("swarm", "leave", "--force")
    assert docker.ok("info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive\n"
