from __future__ import annotations

import pytest

from engine.building.metadata import apply_changes
from engine.errors import InvalidParameter


def test_every_instruction() -> None:
    config = apply_changes(
        {"Env": ["PATH=/bin", "A=old"], "Labels": {"kept": "1"}},
        [
            'CMD ["/bin/serve", "--port", "80"]',
            "entrypoint exec tini",
            'ENV A=new B="two words" C=x=y',
            "ENV OLD form of it",
            "EXPOSE 80 53/udp 8000-8002",
            'LABEL a=1 b="x y"',
            "STOPSIGNAL SIGINT",
            "USER nobody:nogroup",
            'VOLUME ["/data", "/with space"]',
            "VOLUME /logs /tmp",
            "WORKDIR /srv",
            "WORKDIR app/../web",
        ],
    )
    assert config == {
        "Cmd": ["/bin/serve", "--port", "80"],
        "Entrypoint": ["/bin/sh", "-c", "exec tini"],
        "Env": ["PATH=/bin", "A=new", "B=two words", "C=x=y", "OLD=form of it"],
        "ExposedPorts": {port: {} for port in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")},
        "Labels": {"kept": "1", "a": "1", "b": "x y"},
        "StopSignal": "SIGINT",
        "User": "nobody:nogroup",
        "Volumes": {path: {} for path in ("/data", "/with space", "/logs", "/tmp")},
        "WorkingDir": "/srv/web",
    }


def test_the_given_configuration_is_not_altered() -> None:
    given = {"Env": ["A=1"], "Labels": {"a": "1"}}
    apply_changes(given, ["ENV A=2", "LABEL a=2"])
    assert given == {"Env": ["A=1"], "Labels": {"a": "1"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN make", "RUN is not a valid change command: use CMD, ENTRYPOINT"),
        ("CMD", "CMD requires at least one argument"),
        ('CMD ["a", 1]', "arrays must be comprised of strings only"),
        ("EXPOSE http", 'invalid containerPort "http"'),
        ("EXPOSE 0", "invalid containerPort"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("EXPOSE 20-10", "invalid containerPort"),
        ("EXPOSE 80/icmp", "invalid containerPort"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", 'can\'t find = in "B"'),
        ('LABEL a="open', "looking for matching double-quote"),
    ],
)
def test_a_wrong_change_is_named(change: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        apply_changes({}, [change])
    assert words in str(refusal.value)
