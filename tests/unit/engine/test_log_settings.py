from __future__ import annotations

import pytest

from engine.config import LogConfig
from engine.errors import InvalidParameter
from engine.log_settings import LogSettings, check_log_settings, log_settings


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, LogSettings()),
        (LogConfig(), LogSettings()),
        (LogConfig(type="none"), LogSettings(driver="none", is_readable=False)),
        (LogConfig(config={"max-size": "-1"}), LogSettings()),
        (LogConfig(config={"max-size": "10m", "max-file": "3"}), LogSettings(max_size=10 << 20, max_file=3)),
        (LogConfig(config={"max-size": "512KB"}), LogSettings(max_size=512 << 10)),
        (LogConfig(config={"max-size": "4096", "tag": "x"}), LogSettings(max_size=4096)),
        (
            LogConfig(config={"max-size": "1m", "max-file": "2", "compress": "true"}),
            LogSettings(max_size=1 << 20, max_file=2, compress=True),
        ),
        (LogConfig(config={"mode": "blocking"}), LogSettings()),
        (LogConfig(config={"mode": "non-blocking"}), LogSettings(buffer_bytes=1 << 20)),
        (
            LogConfig(config={"mode": "non-blocking", "max-buffer-size": "4m"}),
            LogSettings(buffer_bytes=4 << 20),
        ),
        (LogConfig(type="local"), LogSettings(driver="local", max_size=20 << 20, max_file=5, compress=True)),
        (
            LogConfig(type="local", config={"max-size": "1m", "max-file": "1"}),
            LogSettings(driver="local", max_size=1 << 20, max_file=1),
        ),
        (
            LogConfig(type="syslog"),
            LogSettings(driver="syslog", max_size=20 << 20, max_file=5, compress=True),
        ),
        (
            LogConfig(type="journald", config={"cache-disabled": "true", "cache-max-size": "1k"}),
            LogSettings(driver="journald", max_size=1024, max_file=5, compress=True, is_readable=False),
        ),
    ],
)
def test_what_is_asked_for(config: LogConfig | None, expected: LogSettings) -> None:
    assert log_settings(config) == expected


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("nosuch", {}, "no log driver named 'nosuch' is registered"),
        ("json-file", {"max-sise": "1m"}, "unknown log opt 'max-sise' for json-file log driver"),
        ("json-file", {"max-size": "10x"}, "invalid value for max-size: '10x'"),
        ("json-file", {"max-size": "0"}, "max-size"),
        ("json-file", {"max-size": "-5"}, "max-size"),
        ("json-file", {"max-file": "0"}, "max-file"),
        ("json-file", {"max-file": "many"}, "max-file"),
        ("json-file", {"max-file": "²"}, "max-file"),
        ("json-file", {"compress": "maybe"}, "invalid value for compress: 'maybe'"),
        ("json-file", {"compress": "true"}, "compress cannot be true when max-file is less than 2"),
        ("json-file", {"compress": "true", "max-file": "3"}, "or max-size is not set"),
        ("json-file", {"mode": "fast"}, "logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "invalid value for max-buffer-size"),
        ("json-file", {"cache-disabled": "true"}, "unknown log opt 'cache-disabled' for json-file"),
        ("json-file", {"labels-regex": "("}, "labels-regex"),
        ("json-file", {"tag": "{{.Nosuch}}"}, "{{.Nosuch}} is not known"),
        ("json-file", {"tag": "{{upper .ID}}"}, "{{upper .ID}} is not known"),
        ("local", {"labels": "x"}, "unknown log opt 'labels' for local log driver"),
        ("local", {"max-file": "1", "compress": "true"}, "compress cannot be true when max-file is 1"),
        ("journald", {"syslog-format": "x"}, "unknown log opt 'syslog-format' for journald log driver"),
        ("syslog", {"syslog-address": "127.0.0.1"}, "should be in form proto://address, got 127.0.0.1"),
        ("syslog", {"syslog-address": "http://x"}, "unsupported scheme: 'http'"),
        ("syslog", {"syslog-address": "udp://x:y"}, "invalid syslog-address udp://x:y"),
        ("syslog", {"syslog-address": "udp://"}, "it names no host"),
        ("syslog", {"syslog-address": "unix:///no/such"}, "stat /no/such: no such file or directory"),
        ("syslog", {"syslog-facility": "nosuch"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "rfc1"}, "Invalid syslog format: 'rfc1'"),
        ("syslog", {"max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
    ],
)
def test_what_cannot_be_honoured_is_refused(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        check_log_settings(LogConfig(type=driver, config=options))
    assert words in str(refusal.value)


def test_a_socket_that_went_later_is_no_hindrance() -> None:
    assert log_settings(LogConfig(type="syslog", config={"syslog-address": "unix:///no/such"})).is_readable
