from __future__ import annotations

import pytest

from engine.config import LogConfig
from engine.errors import InvalidParameter
from engine.log_settings import LogSettings, log_settings


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, LogSettings()),
        (LogConfig(), LogSettings()),
        (LogConfig(type="none"), LogSettings(driver="none")),
        (LogConfig(config={"max-size": "-1"}), LogSettings()),
        (LogConfig(config={"max-size": "10m", "max-file": "3"}), LogSettings(max_size=10 << 20, max_file=3)),
        (LogConfig(config={"max-size": "512KB"}), LogSettings(max_size=512 << 10)),
        (LogConfig(config={"max-size": "4096", "tag": "x"}), LogSettings(max_size=4096)),
    ],
)
def test_what_is_asked_for(config: LogConfig | None, expected: LogSettings) -> None:
    assert log_settings(config) == expected


@pytest.mark.parametrize(
    "config",
    [
        LogConfig(type="syslog"),
        LogConfig(config={"max-sise": "1m"}),
        LogConfig(config={"max-size": "10x"}),
        LogConfig(config={"max-size": "0"}),
        LogConfig(config={"max-size": "-5"}),
        LogConfig(config={"max-file": "0"}),
        LogConfig(config={"max-file": "many"}),
        LogConfig(config={"max-file": "²"}),
    ],
)
def test_what_cannot_be_honoured_is_refused(config: LogConfig) -> None:
    with pytest.raises(InvalidParameter):
        log_settings(config)
