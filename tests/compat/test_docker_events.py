"""Each event of Docker's documented list, and what a user does to bring it about. Those of a swarm: test_docker_system."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import Cli
from tests.conftest import HostDaemon

pytestmark = pytest.mark.root

# name, commands, events in order, each "type action".
CASES: list[tuple[str, list[str], list[str]]] = [
    (
        "a container that runs and is stopped",
        ["run -d --name box -t hello sleep 1000", "stop -t 0 box"],
        [
            *("container create", "network connect", "container start", "container kill", "container kill"),
            *("container die", "network disconnect", "container stop"),
        ],
    ),
    (
        "a container that is started again",
        ["start box", "restart -t 0 box"],
        [
            *("network connect", "container start", "container kill", "container kill", "container die"),
            *("network disconnect", "container stop", "network connect", "container start"),
            "container restart",
        ],
    ),
    ("kill with a signal that ends nothing", ["kill -s WINCH box"], ["container kill"]),
    ("pause", ["pause box", "unpause box"], ["container pause", "container unpause"]),
    ("rename", ["rename box other", "rename other box"], ["container rename", "container rename"]),
    ("update", ["update --cpu-shares 512 box"], ["container update"]),
    ("top", ["top box"], ["container top"]),
    ("commit", ["commit box made:1"], ["container pause", "container unpause", "image tag", "container commit"]),
    ("copies", ["cp box:/bin/busybox FILE", "cp FILE box:/copy"], ["container archive-path", "container extract-to-dir"]),
    ("export", ["export -o FILE box"], ["container export"]),
    (
        "exec",
        ["exec box true"],
        ["container exec_create: true", "container exec_start: true", "container exec_die"],
    ),
    (
        "the end of it all",
        ["rm -f box"],
        ["container kill", "container die", "network disconnect", "container destroy"],
    ),
    (
        "a volume that comes and goes with its container",
        ["run --network none --rm -v /data hello true"],
        [
            *("volume create", "container create", "container attach", "volume mount", "container start"),
            *("container die", "volume unmount", "volume destroy", "container destroy"),
        ],
    ),
    (
        "volumes",
        ["volume create kept", "volume create kept", "volume rm kept", "volume create", "volume prune -f"],
        ["volume create", "volume destroy", "volume create", "volume destroy", "volume prune"],
    ),
    (
        "networks",
        ["network create net", "create --name box hello", "network connect net box", "network disconnect net box",
         "rm box", "network rm net", "network prune -f"],
        [
            *("network create", "container create", "network connect", "network disconnect"),
            *("container destroy", "network destroy", "network prune"),
        ],
    ),
    (
        "images",
        ["tag hello two:1", "save -o FILE two:1", "rmi two:1", "load -i FILE", "rmi two:1", "rmi made:1"],
        [
            *("image tag", "image save", "image untag", "image load", "image untag"),
            *("image untag", "image delete"),
        ],
    ),
    (
        "import and prunes",
        ["create --name box hello", "export -o FILE box", "import FILE", "image prune -f", "container prune -f",
         "builder prune -f"],
        [
            *("container create", "container export", "image import", "image delete"),
            *("image prune", "container destroy", "container prune", "builder prune"),
        ],
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def docker(host: HostDaemon) -> Iterator[Cli]:
    made = Cli(host.socket)
    yield made
    if left := made.ok("ps", "-aq").split():
        made.ok("rm", "-f", *left)


@pytest.mark.parametrize(
    ("commands", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_happens_is_told(
    docker: Cli, tmp_path_factory: pytest.TempPathFactory, commands: list[str], expected: list[str]
) -> None:
    file = str(tmp_path_factory.getbasetemp() / "events.tar")
    since = f"{time.time():.6f}"
    for command in commands:
        docker.ok(
            *(file if word == "FILE" else word.replace("FILE", file) for word in command.split()),
        )
    until = f"{time.time():.6f}"
    told = docker.ok("events", "--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}")
    assert told.splitlines() == expected


def test_events_say_which_image(docker: Cli, tmp_path: Path) -> None:
    since = f"{time.time():.6f}"
    docker.ok("tag", "hello", "named:1")
    docker.ok("save", "-o", str(tmp_path / "named"), "named:1")
    docker.ok("rmi", "named:1")
    identity = docker.ok("image", "inspect", "-f", "{{.Id}}", "hello").strip()
    words = ("events", "--since", since, "--until", f"{time.time():.6f}", "--format")
    rows = docker.ok(*words, "{{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}").splitlines()
    assert rows == [f"tag {identity} named:1", f"save {identity} {identity}", f"untag {identity} {identity}"]
