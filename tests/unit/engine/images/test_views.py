from __future__ import annotations

import json

import pytest

from engine.errors import InvalidParameter, NotFound
from engine.filter_values import moment
from engine.images.config import Image, parse_image_config
from engine.images.views import filtered, unix_time

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def image(name: str, *, created: str, labels: dict[str, str] | None = None) -> Image:
    data = json.dumps({"created": created, "config": {"Labels": labels}, "rootfs": {}}).encode()
    raw, config, diff_ids = parse_image_config(data)
    tags = [name] if ":" in name else []
    return Image(
        id=name, raw=raw, config=config, diff_ids=diff_ids, blobs=(), size=0, loaded_at=0.0, repo_tags=tags
    )


OLD = image("old:1", created="2025-01-01T00:00:00Z", labels={"a": "1"})
MIDDLE = image("host:5000/team/middle:2", created="2025-06-01T00:00:00Z", labels={"a": "2", "b": ""})
NEW = image("dangling", created="2025-12-31T23:00:00.123456789Z")
IMAGES = {"old": OLD, "middle": MIDDLE, "new": NEW}


def resolve(ref: str) -> Image:
    if ref not in IMAGES:
        raise NotFound(f"No such image: {ref}")
    return IMAGES[ref]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "old middle new"),
        ({"dangling": ["true"]}, "new"),
        ({"dangling": ["0"]}, "old middle"),
        ({"label": ["a"]}, "old middle"),
        ({"label": ["a=2"]}, "middle"),
        ({"label": ["a", "b"]}, "middle"),
        ({"label!": ["a=1"]}, "middle new"),
        ({"before": ["middle"]}, "old"),
        ({"since": ["middle"]}, "new"),
        ({"until": ["2h"]}, "old middle"),
        ({"until": ["30m"]}, "old middle new"),
        ({"until": ["2025-03-01T00:00:00Z"]}, "old"),
        ({"until": ["2025-06-01"]}, "old"),
        ({"until": ["1748736001"]}, "old middle"),
        ({"reference": ["old"]}, "old"),
        ({"reference": ["o*"]}, "old"),
        ({"reference": ["*:1"]}, "old"),
        ({"reference": ["*"]}, "old"),
        ({"reference": ["*/*/*"]}, "middle"),
        ({"reference": ["host:5000/team/mid*", "old:1"]}, "old middle"),
        ({"label": ["a"], "dangling": ["true"]}, ""),
    ],
)
def test_filters(filters: dict[str, list[str]], names: str) -> None:
    chosen = filtered(list(IMAGES.values()), filters, resolve, NOW)
    assert [name for name, known in IMAGES.items() if known in chosen] == names.split()


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"colour": ["red"]}, "invalid filter 'colour'"),
        ({"dangling": ["maybe"]}, "invalid filter 'dangling=['maybe']'"),
        ({"dangling": []}, "invalid filter 'dangling=[]'"),
        ({"dangling": ["true", "false"]}, "use true or false"),
        ({"until": ["yesterday"]}, "'yesterday' is no time"),
        ({"until": ["5 m"]}, "'5 m' is no time"),
    ],
)
def test_a_wrong_filter_is_named(filters: dict[str, list[str]], words: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        filtered([OLD], filters, resolve, NOW)
    assert words in str(refusal.value)


def test_a_filter_by_an_image_that_is_not_there() -> None:
    with pytest.raises(NotFound, match="No such image: gone"):
        filtered([OLD], {"before": ["gone"]}, resolve, NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h30m", NOW - 5400),
        ("1.5s", NOW - 1.5),
        ("500ms", NOW - 0.5),
        ("12", 12),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert moment(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", NOW),
        ("2026-01-01T00:00:00.123456789Z", NOW),
        ("2026-01-01T02:00:00.5+02:00", NOW),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        ("nonsense", 0),
    ],
)
def test_times_of_configurations(text: str, seconds: float) -> None:
    assert unix_time(text) == seconds
