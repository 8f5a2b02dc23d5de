"""Files for `import URL`."""

from __future__ import annotations

import pytest

from engine.errors import EngineError
from engine.registry.remote_file import remote_file
from tests.fake_registry import FakeRegistry, breaks_off, gives, says


async def test_a_file_comes_as_a_whole_or_not_at_all() -> None:
    data = b"x" * 200_000
    async with FakeRegistry() as server:
        server.faults["/rootfs.tar"] = [gives(data), breaks_off(data, 1000), says(403)]
        address = f"{server.host}/rootfs.tar"
        assert b"".join([chunk async for chunk in remote_file(address)]) == data
        for words in ("unexpected EOF", "the server answers 403"):
            with pytest.raises(EngineError, match=f"cannot import http://{address}: .*{words}"):
                async for _ in remote_file(f"http://{address}"):
                    pass


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://", "ftp://x/y"])
async def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(EngineError, match="unsupported URL"):
        async for _ in remote_file(address):
            pass


@pytest.mark.parametrize("address", [f"http://{'y' * 300}/x", "http://[::1/x", "http://./x"])
async def test_hosts_that_cannot_be(address: str) -> None:
    with pytest.raises(EngineError, match="invalid"):
        async for _ in remote_file(address):
            pass
