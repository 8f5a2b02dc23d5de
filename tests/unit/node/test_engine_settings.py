"""What only the engine can judge of the daemon's settings."""

from __future__ import annotations

import pytest

from node.config import ConfigError, node_config
from node.engine_settings import engine_settings


def test_a_user_without_subordinate_ids_stops_the_daemon_with_words() -> None:
    with pytest.raises(ConfigError, match="add a line such as nosuchuser:100000:65536 to /etc/subuid"):
        engine_settings(node_config({"userns-remap": "nosuchuser"}))
    with pytest.raises(ConfigError, match='invalid userns-remap "a:"'):
        engine_settings(node_config({"userns-remap": "a:"}))
    assert engine_settings(node_config({})).userns_remap == ""


def test_a_default_runtime_that_is_not_here_stops_the_daemon_with_words() -> None:
    with pytest.raises(ConfigError, match="unknown or invalid runtime name: other"):
        engine_settings(node_config({"default-runtime": "other"}))
    given = {"default-runtime": "other", "runtimes": {"other": {"path": "/usr/bin/other"}}}
    assert engine_settings(node_config(given)).live.defaults.runtime == "other"
