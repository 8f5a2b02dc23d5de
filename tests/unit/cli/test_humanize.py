"""Durations and sizes as Docker words them (the expectations are docker/go-units' documented ones)."""

from __future__ import annotations

import pytest

from cli import humanize

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (MINUTE, "About a minute"),
        (3 * MINUTE, "3 minutes"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "About an hour"),
        (3 * HOUR, "3 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (731 * DAY, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert humanize.duration(seconds) == words


def test_sizes() -> None:
    assert humanize.size(0) == "0B"
    assert humanize.size(1_234_567) == "1.235MB"
    assert humanize.short_size(1_234_567) == "1.23MB"
    assert humanize.short_size(2_000) == "2kB"
    assert humanize.binary_size(64 * 1024 * 1024) == "64MiB"
    assert humanize.binary_size(1536) == "1.5KiB"


def test_api_times() -> None:
    assert humanize.unix_time("1970-01-02T00:00:01.500000000Z") == DAY + 1.5
    assert humanize.unix_time("1970-01-01T02:00:00+02:00") == 0.0
    assert humanize.unix_time("1970-01-01T00:00:10-01:00") == HOUR + 10
    assert humanize.unix_time("0001-01-01T00:00:00Z") == 0.0
    assert humanize.seconds_since(100, now=130) == 30
    assert humanize.seconds_since("0001-01-01T00:00:00Z", now=130) == 0
    assert humanize.ago("") == "N/A"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (5_000_000_000, "5s"),
        (90_000_000_000, "1m30s"),
        (250_000_000, "250ms"),
        (3_600_000_000_000, "1h0m0s"),
    ],
)
def test_go_durations(nanoseconds: int, text: str) -> None:
    assert humanize.nanoseconds(nanoseconds) == text
