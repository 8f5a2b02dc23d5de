"""What is overlooked when TLS connections end, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from node.peers import overlook_late_aborts


class Ended:
    """A transport of Python before 3.11.4 that has ended."""

    _ssl_protocol = None

    def abort(self) -> None:
        self._ssl_protocol._abort()  # type: ignore[attr-defined]


async def test_only_an_abort_that_comes_too_late_is_overlooked(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    overlook_late_aborts(loop)
    try:
        loop.call_soon(Ended().abort)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not caplog.records
        loop.call_soon(lambda: None._abort_all())  # type: ignore[attr-defined]
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(caplog.records) == 2
    finally:
        loop.set_exception_handler(None)
