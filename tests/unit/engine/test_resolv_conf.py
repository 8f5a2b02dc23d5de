"""The resolv.conf of a container, from the host's and the user's wishes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine import networking
from engine.config import ContainerConfig, HostConfig
from engine.container import Container, State
from engine.name_files import HostFiles
from engine.networking import ContainerNetworking
from engine.networks import Sandbox, SandboxRequest


@dataclasses.dataclass
class Provider:
    """Gives one sandbox, with the embedded resolver or without."""

    embedded: bool
    request: SandboxRequest | None = None

    def sandbox(self, sandbox_id: str) -> Sandbox:
        return Sandbox(id=sandbox_id, netns_path="/n", embedded_dns=self.embedded)

    async def create_sandbox(self, request: SandboxRequest) -> Sandbox:
        self.request = request
        return self.sandbox(request.id)


@dataclasses.dataclass
class Settings:
    folder: Path

    def container_dir(self, container_id: str) -> Path:
        return self.folder


def container(**wishes: Any) -> Container:
    return Container(
        id="c" * 64,
        name="web",
        created_at=0.0,
        image="",
        image_id="",
        config=ContainerConfig(),
        host_config=HostConfig(**wishes),
        endpoints={},
        state=State(),
    )


HOST = """
# nameserver 192.0.2.9
nameserver 192.0.2.1 # office
nameserver 127.0.0.53
nameserver 192.0.2.1:53
nameserver fe80::1%eth0
nameserver nonsense
nameserver 2001:db8::1
nameserver
search example.com
"""


@pytest.fixture(autouse=True)
def host_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inherited(HostFiles, frozen=True):
        @classmethod
        def read(cls, *_: Path) -> HostFiles:
            return HostFiles(resolv=HOST)

    monkeypatch.setattr(networking, "HostFiles", Inherited)


def written(folder: Path, *, embedded: bool, **wishes: Any) -> list[str]:
    made = ContainerNetworking(Settings(folder), Provider(embedded), lambda _: container())  # type: ignore[arg-type]
    made.write_files(container(**wishes), "web")
    return (folder / "resolv.conf").read_text().splitlines()


def test_lines_that_mean_nothing_inside_are_left_out(tmp_path: Path) -> None:
    assert written(tmp_path, embedded=False) == [
        "nameserver 192.0.2.1",
        "nameserver 2001:db8::1",
        "search example.com",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "options ndots:0"),
        (["timeout:1"], "options timeout:1 ndots:0"),
        (["timeout:1", "ndots:2"], "options timeout:1 ndots:2"),
    ],
)
def test_the_embedded_resolver_is_the_only_server(tmp_path: Path, options: list[str], expected: str) -> None:
    lines = written(tmp_path, embedded=True, dns=["192.0.2.7"], dns_options=options)
    assert lines == ["nameserver 127.0.0.11", "search example.com", expected]


def test_own_servers_and_search_domains(tmp_path: Path) -> None:
    lines = written(tmp_path, embedded=False, dns=["127.0.0.1"], dns_search=["."])
    assert lines == ["nameserver 127.0.0.1"]


@pytest.mark.parametrize(("options", "expected"), [([], False), (["timeout:1"], False), (["ndots:1"], True)])
async def test_the_resolver_learns_of_servers_and_ndots(
    tmp_path: Path, options: list[str], expected: bool
) -> None:
    provider = Provider(embedded=True)
    made = ContainerNetworking(Settings(tmp_path), provider, lambda _: container())  # type: ignore[arg-type]
    await made.prepare(container(dns=["192.0.2.7"], dns_options=options))
    assert provider.request is not None
    assert (provider.request.dns_servers, provider.request.ndots_set) == (("192.0.2.7",), expected)
