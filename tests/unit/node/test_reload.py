"""SIGHUP: what changes at once, what is named, and what a wrong file does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, cast

import pytest

from engine.engine import Engine
from engine.events import EventBus
from node.config import ConfigError, NodeConfig, node_config
from node.engine_settings import engine_settings
from node.reload import Reloader


class Host:
    id = "engine-1"


class FakeEngine:
    host = Host()

    def __init__(self) -> None:
        self.events_bus = EventBus()


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


async def reloaded(config: NodeConfig, given: dict[str, Any]) -> FakeEngine:
    engine = FakeEngine()
    await Reloader(config, lambda: node_config(given), cast(Engine, engine), None).reload()
    return engine


async def test_what_changes_at_once() -> None:
    config = node_config({"labels": ["a=b"]})
    held = config.live
    engine = await reloaded(config, {"labels": ["c=d"], "debug": True, "log-opts": {"max-size": "1m"}})
    assert held is config.live
    assert (held.labels, held.debug, held.defaults.log_options) == ({"c": "d"}, True, {"max-size": "1m"})
    assert logging.getLogger().level == logging.DEBUG
    (event,) = engine.events_bus._history
    assert (event.kind, event.action, event.actor_id) == ("daemon", "reload", "engine-1")
    assert (event.attributes["labels"], event.attributes["debug"]) == ('["c=d"]', "true")


async def test_what_needs_a_restart_is_named(caplog: pytest.LogCaptureFixture) -> None:
    config = node_config({})
    with caplog.at_level(logging.WARNING, "node.reload"):
        await reloaded(config, {"data-root": "/elsewhere", "group": "wheel"})
    assert "a restart of swarmd is needed for changes of: root, group" in caplog.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"labels": ["x"]}, "must be KEY=VALUE"),
        ({"log-driver": "nosuch"}, "no log driver named 'nosuch'"),
    ],
)
async def test_what_is_wrong_changes_nothing(
    given: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = node_config({"labels": ["a=b"]})
    with caplog.at_level(logging.ERROR, "node.reload"):
        engine = await reloaded(config, {"debug": True, **given})
    assert (config.live.labels, config.live.debug) == ({"a": "b"}, False)
    assert words in caplog.text
    assert not engine.events_bus._history


def test_an_open_api_is_warned_of() -> None:
    def warnings(**given: Any) -> tuple[str, ...]:
        return engine_settings(node_config({"hosts": ["tcp://127.0.0.1"], **given})).warnings

    assert "tcp://127.0.0.1:2375 without encryption" in warnings(tls=False)[0]
    assert "without asking for a certificate" in warnings(tls=True)[0]
    assert warnings(tlsverify=True) == ()


def test_the_reader_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError):
        node_config({"labels": ["x"]})
