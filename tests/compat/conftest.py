"""Fixtures of all tests with clients that nobody here wrote.

Some of these tests can be pointed at a Docker daemon, to test the tests: SWARMCTL_COMPAT_HOST is its address,
SWARMCTL_COMPAT_NETNS the file of its network namespace when it has one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Cli, Target, client_version, docker_client, installed_client, packaged_client
from tests.conftest import HostDaemon


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What the chosen client does not know yet is left out, and counted as deselected."""
    wishes = {item: item.get_closest_marker("needs_client") for item in items}
    if not any(wishes.values()):
        return
    newest = client_version(docker_client())
    too_new = [item for item, wish in wishes.items() if wish is not None and wish.args[0] > newest]
    items[:] = [item for item in items if item not in too_new]
    config.hook.pytest_deselected(items=too_new)


@pytest.fixture(scope="module", params=["installed", "packaged"])
def client(request: pytest.FixtureRequest) -> Path:
    """The docker that is installed, and the distribution's; where only that can be had, it has to do for both."""
    return installed_client() if request.param == "installed" else packaged_client()


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest, hello_archive: Path) -> Iterator[Target]:
    """A daemon with the hello image: ours, or the one that the environment names."""
    url, netns = os.environ.get("SWARMCTL_COMPAT_HOST"), os.environ.get("SWARMCTL_COMPAT_NETNS")
    if url is None:
        host: HostDaemon = request.getfixturevalue("host")
        yield Target(f"unix://{host.socket}", host.namespaces, host)
        return
    other = Target(url, ["nsenter", f"--net={netns}"] if netns else [], None)
    Cli(url).ok("load", "-i", str(hello_archive))
    yield other
