"""Autolock as the docker CLI and the docker SDK know it, on a sole manager that is restarted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.clients import Cli
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)
ANOTHER_KEY = f"SWMKEY-1-{'A' * 43}"


@pytest.fixture
def manager(host: HostDaemon) -> Iterator[HostDaemon]:
    """Leaves the swarm that the test founds."""
    yield host
    host.ok("swarm", "leave", "--force")


def restart(daemon: HostDaemon) -> None:
    daemon.stop()
    daemon.start()


def test_docker_cli(manager: HostDaemon, client: Path) -> None:
    docker = Cli(manager.socket, client)
    shown = docker.ok("swarm", "init", "--autolock", "--advertise-addr", "127.0.0.1")
    found = re.search(r"\n    (SWMKEY-1-\S{43})\n", shown)
    assert found, shown
    key = found[1]
    assert docker.ok("swarm", "unlock-key", "-q").strip() == key
    assert key in docker.ok("swarm", "unlock-key")
    assert "Autolock Managers: true" in docker.ok("info")
    assert "swarm is not locked" in docker.run("swarm", "unlock", text=f"{key}\n").err
    for words in (("swarm", "ca"), ("system", "info", "--format", "json"), ("node", "inspect", "self")):
        assert key not in docker.ok(*words)

    restart(manager)
    assert "Swarm: locked" in docker.ok("info")
    for words in (
        ("node", "ls"),
        ("swarm", "unlock-key"),
        ("swarm", "join-token", "worker"),
        ("service", "ls"),
    ):
        assert f"Error response from daemon: {LOCKED}" in docker.run(*words).err, words
    assert "Error response from daemon: Swarm is encrypted and locked." in docker.run("swarm", "leave").err
    assert "invalid key string" in docker.run("swarm", "unlock", text="nonsense\n").err
    refused = docker.run("swarm", "unlock", text=f"{ANOTHER_KEY}\n")
    assert "swarm could not be unlocked: invalid key provided" in refused.err
    docker.ok("swarm", "unlock", text=f"{key}\n")
    assert docker.ok("node", "ls").count("Ready") == 1

    rotated = docker.ok("swarm", "unlock-key", "--rotate")
    assert "Successfully rotated manager unlock key." in rotated and key not in rotated
    docker.ok("swarm", "update", "--autolock=false")
    assert "no unlock key is set" in docker.run("swarm", "unlock-key").err
    assert (
        "cannot rotate because autolock is not turned on" in docker.run("swarm", "unlock-key", "--rotate").err
    )
    assert key not in manager.log.read_text() and "SWMKEY" not in manager.log.read_text()


def test_docker_sdk(manager: HostDaemon) -> None:
    sdk = docker.DockerClient(base_url=f"unix://{manager.socket}", version="auto")
    try:
        sdk.swarm.init(advertise_addr="127.0.0.1", autolock_managers=True)
        key = sdk.swarm.get_unlock_key()["UnlockKey"]
        restart(manager)
        assert sdk.info()["Swarm"]["LocalNodeState"] == "locked"
        assert sdk.info()["Swarm"]["ControlAvailable"] is False
        for call in (sdk.nodes.list, sdk.swarm.get_unlock_key, sdk.swarm.reload):
            with pytest.raises(docker.errors.APIError) as caught:
                call()
            assert (caught.value.status_code, caught.value.explanation) == (503, LOCKED)
        for wrong, status in ((ANOTHER_KEY, 401), ("nonsense", 400)):
            with pytest.raises(docker.errors.APIError) as caught:
                sdk.swarm.unlock(wrong)
            assert caught.value.status_code == status
        assert sdk.swarm.unlock(key)
        with pytest.raises(docker.errors.APIError, match="swarm is not locked") as caught:
            sdk.swarm.unlock(key)
        assert caught.value.status_code == 409
        sdk.swarm.update(rotate_manager_unlock_key=True, autolock_managers=True)
        assert sdk.swarm.get_unlock_key()["UnlockKey"] not in ("", key)
        assert "SWMKEY" not in str(sdk.swarm.attrs)
    finally:
        sdk.close()
