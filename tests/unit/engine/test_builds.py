"""The service of builds: what the caller reads, errors before and after the first message, and what is left."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from engine.build_config import BuildOptions
from engine.building.journal import Journal
from engine.building.roots import Roots
from engine.building.running import CommandRunner
from engine.builds import Builds
from engine.commits import image_config, merged
from engine.config import ContainerConfig, HealthConfig
from engine.containers import Containers
from engine.errors import InvalidParameter, NotFound
from engine.events import EventBus
from engine.images.store import ImageStore
from engine.imaging import Imaging
from tests.unit.engine.images.test_image_store import MemoryDriver


class Images(Imaging):
    """Pulls find nothing, after saying so; of `slow` they never end."""

    async def pull(self, ref: str, auth: str = "", **_options: Any) -> AsyncIterator[dict[str, Any]]:
        yield {"status": f"Pulling {ref}"}
        if ref == "slow":
            await asyncio.sleep(3600)
        raise NotFound(f"pull access denied for {ref}")


class Runner:
    def __init__(self) -> None:
        self.removed: list[str] = []

    async def remove_left(self, name: str) -> None:
        self.removed.append(name)


class Service:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.events = EventBus()
        store = ImageStore(root / "images", MemoryDriver())  # type: ignore[arg-type]
        self.images = Images(store, cast(Containers, None), self.events, root / "tmp", cast(Any, None))
        self.runner = Runner()
        roots = Roots(cast(Any, None), root / "tmp")
        self.builds = Builds(root / "builds", self.images, roots, cast(CommandRunner, self.runner))

    @property
    def left(self) -> list[Path]:
        return list((self.root / "builds").iterdir())

    async def messages(self, text: str, **options: Any) -> list[dict[str, Any]]:
        stream = self.builds.build(BuildOptions(**options), body(text))
        return [message async for message in stream]


async def body(dockerfile: str) -> AsyncIterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("Dockerfile")
        member.size, member.uid, member.gid = len(dockerfile), os.getuid(), os.getgid()
        archive.addfile(member, io.BytesIO(dockerfile.encode()))
    data = buffer.getvalue()
    yield data[:700]
    yield data[700:]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


async def test_messages_are_those_of_the_classic_builder(service: Service) -> None:
    messages = await service.messages(
        "FROM scratch\nENV A=1\nLABEL b=$A", tags=["me/app"], build_args={"X": "1"}
    )
    image = service.images.store.resolve("me/app")
    (step,) = [i for i in service.images.store.all() if i.id != image.id]
    assert messages == [
        {"stream": "Step 1/3 : FROM scratch"},
        {"stream": "\n"},
        {"stream": " ---> \n"},
        {"stream": "Step 2/3 : ENV A=1"},
        {"stream": "\n"},
        {"stream": f" ---> {step.id[7:19]}\n"},
        {"stream": "Step 3/3 : LABEL b=$A"},
        {"stream": "\n"},
        {"stream": f" ---> {image.id[7:19]}\n"},
        {"stream": "[Warning] One or more build-args [X] were not consumed\n"},
        {"aux": {"ID": image.id}},
        {"stream": f"Successfully built {image.id[7:19]}\n"},
        {"stream": "Successfully tagged me/app:latest\n"},
    ]
    assert image.config.labels == {"b": "1"} and image.config.env[-1] == "A=1"
    assert [entry["created_by"] for entry in image.raw["history"]] == [
        "/bin/sh -c #(nop)  ENV A=1",
        "/bin/sh -c #(nop)  LABEL b=1",
    ]
    assert service.left == []
    again = await service.messages("FROM scratch\nENV A=1\nLABEL b=$A")
    assert [m for m in again if m == {"stream": " ---> Using cache\n"}] == [
        {"stream": " ---> Using cache\n"}
    ] * 2
    assert {"aux": {"ID": image.id}} in again


async def test_quiet_tells_the_id_only(service: Service) -> None:
    (only,) = await service.messages("FROM scratch\nENV A=1", quiet=True)
    assert service.images.store.resolve(only["stream"].strip()).config.env[-1] == "A=1"
    told = await service.messages("FROM scratch\nENV A=1\nUSER ${U:?who}", quiet=True)
    assert told[0] == {"stream": "Step 1/3 : FROM scratch"} and told[-1]["error"] == "U: who"


async def test_an_error_before_the_first_message_is_raised(service: Service) -> None:
    for dockerfile, words in (("FOO", "unknown instruction"), ("  ", "cannot be empty")):
        with pytest.raises(InvalidParameter, match=words):
            await service.messages(dockerfile)
    with pytest.raises(InvalidParameter, match="Cannot locate specified Dockerfile: Other"):
        await service.messages("FROM scratch", dockerfile="Other")
    assert service.left == []


async def test_a_later_error_is_the_last_message(service: Service) -> None:
    *_, pulling, last = await service.messages("FROM nosuch")
    words = "pull access denied for nosuch"
    assert pulling == {"status": "Pulling nosuch"}
    assert last == {"errorDetail": {"message": words}, "error": words}
    assert service.left == []


async def test_a_caller_who_leaves_cancels_the_build(service: Service) -> None:
    stream = service.builds.build(BuildOptions(), body("FROM slow"))
    async for message in stream:
        if message == {"status": "Pulling slow"}:
            break
    assert len(service.left) == 1
    await stream.aclose()
    assert service.left == []


async def test_what_a_crash_left_is_removed(service: Service) -> None:
    journal = Journal(service.root / "builds")
    journal.note("build_1")
    journal.note("build_2")
    Journal(service.root / "builds")
    await service.builds.recover()
    assert (service.runner.removed, service.left) == (["build_1", "build_2"], [])


async def test_prune_frees_nothing_and_knows_its_filters(service: Service) -> None:
    assert await service.builds.prune({"until": ["24h"]}) == {"CachesDeleted": [], "SpaceReclaimed": 0}
    with pytest.raises(InvalidParameter, match="invalid filter 'nosuch'"):
        await service.builds.prune({"nosuch": []})


def test_an_image_carries_what_is_not_empty_of_a_container() -> None:
    config = ContainerConfig(
        hostname="h", cmd=["c"], env=["A=1"], labels={}, healthcheck=HealthConfig(test=["NONE"]), tty=True
    )
    shown = image_config(config)
    assert shown.pop("Healthcheck")["Test"] == ["NONE"]
    assert shown == {"Cmd": ["c"], "Env": ["A=1"]}


def test_a_configuration_goes_over_another() -> None:
    below = {"Env": ["A=1", "B=2"], "Labels": {"a": "1"}, "Cmd": ["x"], "User": "u"}
    above = {"Env": ["B=3"], "Labels": {"b": "2"}, "Cmd": ["y"]}
    assert merged(below, above) == {
        "Env": ["A=1", "B=3"],
        "Labels": {"a": "1", "b": "2"},
        "Cmd": ["y"],
        "User": "u",
    }
