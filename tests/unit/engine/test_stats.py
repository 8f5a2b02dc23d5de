"""Figures of a container in the shapes of both versions of control groups, and the stream of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine import stats_stream as streams
from engine.config import HostConfig
from engine.container import State, Status
from engine.errors import InvalidParameter, NotFound
from engine.stats import BLOCK_IO_FIGURES, empty_sample, stats_sample, system_cpu_ns
from engine.stats_stream import stats_stream
from engine.views import ZERO_TIME
from tests.records import container_record, exited, running

RAW_2: dict[str, Any] = {
    "cpu_usage_ns": 500,
    "cpu_user_ns": 300,
    "cpu_system_ns": 200,
    "cpu_throttled_ns": 9,
    "cpu_periods": 8,
    "cpu_throttled_periods": 7,
    "memory_usage": 4096,
    "memory_limit": 8192,
    "memory_failures": 0,
    "memory_stats": {"inactive_file": 1024},
    "pids": 3,
    "pids_limit": 10,
    "blkio": [{"major": 8, "minor": 0, "op": "read", "value": 10}],
}
RAW_1 = RAW_2 | {
    "percpu_ns": [400, 100],
    "memory_max_usage": 5000,
    "memory_failures": 2,
    "memory_stats": {"total_inactive_file": 1024},
    "pids_limit": 0,
    "blkio": [],
    "blkio_serviced": [{"major": 8, "minor": 0, "op": "Read", "value": 1}],
}
ETH0 = {"eth0": {"rx_bytes": 1}}


def test_shape_of_version_2() -> None:
    sample = stats_sample(container_record(state=running()), RAW_2, ETH0, 10_000, 1_700_000_000.5, None)
    assert sample["read"] == "2023-11-14T22:13:20.500000000Z" and sample["preread"] == ZERO_TIME
    assert sample["name"] == "/web" and sample["networks"] == ETH0
    assert sample["cpu_stats"]["cpu_usage"] == {
        "total_usage": 500,
        "usage_in_kernelmode": 200,
        "usage_in_usermode": 300,
    }
    assert sample["cpu_stats"]["system_cpu_usage"] == 10_000 and sample["cpu_stats"]["online_cpus"] >= 1
    assert sample["cpu_stats"]["throttling_data"] == {
        "periods": 8,
        "throttled_periods": 7,
        "throttled_time": 9,
    }
    assert sample["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert sample["memory_stats"] == {"usage": 4096, "limit": 8192, "stats": {"inactive_file": 1024}}
    assert sample["pids_stats"] == {"current": 3, "limit": 10}
    blocks = sample["blkio_stats"]
    assert tuple(blocks) == BLOCK_IO_FIGURES
    assert blocks["io_service_bytes_recursive"] == RAW_2["blkio"]
    assert [blocks[name] for name in BLOCK_IO_FIGURES[1:]] == [None] * 7


def test_shape_of_version_1() -> None:
    sample = stats_sample(container_record(state=running()), RAW_1, {}, 10_000, 1.0, None)
    assert sample["cpu_stats"]["cpu_usage"]["percpu_usage"] == [400, 100]
    assert sample["memory_stats"]["max_usage"] == 5000 and sample["memory_stats"]["failcnt"] == 2
    assert sample["pids_stats"] == {"current": 3} and "networks" not in sample
    blocks = sample["blkio_stats"]
    assert blocks["io_service_bytes_recursive"] == [] == blocks["sectors_recursive"]
    assert blocks["io_serviced_recursive"] == RAW_1["blkio_serviced"]


def test_the_cpu_before_is_that_of_the_sample_before() -> None:
    container = container_record(state=running())
    first = stats_sample(container, RAW_2, {}, 10_000, 1.0, None)
    second = stats_sample(container, RAW_2 | {"cpu_usage_ns": 900}, {}, 12_000, 2.0, first)
    assert second["preread"] == first["read"] and second["precpu_stats"] == first["cpu_stats"]


def test_system_cpu_is_the_first_seven_columns() -> None:
    assert system_cpu_ns("cpu  1 2 3 4 5 6 7 100 100 100\ncpu0 1\n") == 28 * 10_000_000


class Counters:
    """Of a container that the test ends after some samples."""

    def __init__(self, after: int, then: Status) -> None:
        self.container = container_record(
            host=HostConfig(network_mode="host"), state=State(status=Status.RUNNING, pid=1)
        )
        self._left = after
        self._then = then

    async def __call__(self, container_id: str) -> Mapping[str, Any]:
        assert container_id == self.container.id
        self._left -= 1
        if self._left < 0:
            self.container.state.status = self._then
            raise NotFound("it has ended")
        return RAW_2


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "INTERVAL_S", 0.0)


async def test_once_there_are_two_readings_and_one_answer() -> None:
    counters = Counters(10, Status.EXITED)
    seen = [s async for s in stats_stream(counters.container, counters, stream=False, one_shot=False)]
    assert [s["precpu_stats"]["cpu_usage"]["total_usage"] for s in seen] == [500]
    assert "networks" not in seen[0], "the figures of the host's network are not the container's"
    seen = [s async for s in stats_stream(counters.container, counters, stream=False, one_shot=True)]
    assert [s["precpu_stats"]["cpu_usage"]["total_usage"] for s in seen] == [0]


async def test_a_container_that_does_not_run_has_no_figures() -> None:
    container = container_record(state=exited())
    counters = Counters(0, Status.EXITED)
    seen = [s async for s in stats_stream(container, counters, stream=False, one_shot=False)]
    assert seen == [empty_sample(container)]
    assert seen[0]["memory_stats"] == {} and seen[0]["blkio_stats"]["sectors_recursive"] is None


async def test_a_stream_goes_on_over_an_end_and_ends_with_the_removal() -> None:
    counters = Counters(3, Status.EXITED)
    seen = []
    async for sample in stats_stream(counters.container, counters, stream=True, one_shot=False):
        seen.append(sample["memory_stats"].get("usage"))
        if len(seen) == 5:
            counters.container.state.status = Status.REMOVING
    assert seen == [4096, 4096, None, None, None]


def test_a_stream_is_not_one_shot() -> None:
    counters = Counters(1, Status.EXITED)
    with pytest.raises(InvalidParameter, match="cannot have stream=true and one-shot=true"):
        stats_stream(counters.container, counters, stream=True, one_shot=True)
