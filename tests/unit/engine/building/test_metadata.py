"""Configurations after instructions, the words in the history, and `--change` of commit."""

from __future__ import annotations

from typing import Any

import pytest

from engine.building.arguments import BuildArguments
from engine.building.instructions import parse_change
from engine.building.metadata import apply, apply_changes
from engine.errors import InvalidParameter

BASE = {"Env": ["PATH=/bin", "A=old"], "WorkingDir": "/srv", "Labels": {"kept": "1"}}


@pytest.mark.parametrize(
    ("text", "field", "value", "comment"),
    [
        ("ENV B=$A C=$B", "Env", ["PATH=/bin", "A=old", "B=old", "C="], "ENV B=old C="),
        ('ENV A="x y"', "Env", ["PATH=/bin", "A=x y"], "ENV A=x y"),
        ("LABEL a=$A", "Labels", {"kept": "1", "a": "old"}, "LABEL a=old"),
        ("CMD echo $A", "Cmd", ["/bin/sh", "-c", "echo $A"], 'CMD ["/bin/sh" "-c" "echo $A"]'),
        ('CMD ["a", "b"]', "Cmd", ["a", "b"], 'CMD ["a" "b"]'),
        ('ENTRYPOINT ["a"]', "Entrypoint", ["a"], 'ENTRYPOINT ["a"]'),
        ("WORKDIR app/../$A", "WorkingDir", "/srv/old", "WORKDIR /srv/old"),
        ("WORKDIR /x/", "WorkingDir", "/x", "WORKDIR /x"),
        ("USER $A:1", "User", "old:1", "USER old:1"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT", "STOPSIGNAL SIGINT"),
        ("EXPOSE 81/UDP 80", "ExposedPorts", {"80/tcp": {}, "81/udp": {}}, "EXPOSE 80 81/UDP"),
        ("VOLUME /$A", "Volumes", {"/old": {}}, "VOLUME [/old]"),
        ("ONBUILD RUN $A", "OnBuild", ["RUN $A"], "ONBUILD RUN $A"),
        ('SHELL ["/b", "-c"]', "Shell", ["/b", "-c"], "SHELL [/b -c]"),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD x",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "x"], "Interval": 90_000_000_000, "Retries": 2},
            'HEALTHCHECK --interval=1m30s --retries=2 ["CMD-SHELL" "x"]',
        ),
    ],
)
def test_instructions(text: str, field: str, value: Any, comment: str) -> None:
    config, said = apply(BASE, parse_change(text), {"A": "old"})
    assert (config[field], said) == (value, comment)
    assert BASE == {"Env": ["PATH=/bin", "A=old"], "WorkingDir": "/srv", "Labels": {"kept": "1"}}


def test_the_shell_is_that_of_the_configuration() -> None:
    config, _ = apply({"Shell": ["/bin/bash", "-ec"]}, parse_change("CMD x"), {})
    assert config["Cmd"] == ["/bin/bash", "-ec", "x"]


def test_changes_follow_each_other() -> None:
    config = apply_changes({"Cmd": ["inherited"]}, ["ENV A=1\nENV B=${A}2", 'ENTRYPOINT ["x"]', "user u"])
    assert config == {"Env": ["A=1", "B=12"], "Entrypoint": ["x"], "User": "u"}
    assert apply_changes({}, ['CMD ["c"]', 'ENTRYPOINT ["x"]'])["Cmd"] == ["c"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("EXPOSE http", 'invalid containerPort "http"'),
        ("EXPOSE 70000", "invalid containerPort"),
        ("STOPSIGNAL NOSUCH", "(?i)signal"),
        ("USER ${A:?who}", "A: who"),
        ("HEALTHCHECK --timeout=5 CMD x", 'invalid duration "5"'),
        ("HEALTHCHECK --timeout=5us CMD x", "cannot be less than 1ms"),
    ],
)
def test_changes_that_are_wrong(change: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        apply_changes({}, [change])


def test_build_arguments_of_a_stage() -> None:
    arguments = BuildArguments({"GIVEN": "g", "NEVER": "x", "HTTP_PROXY": "p", "BARE": None})
    arguments.declare_meta("TAG", "1")
    arguments.declare_meta("GIVEN", "default")
    assert arguments.meta() == {"TAG": "1", "GIVEN": "g"}
    arguments.begin_stage()
    assert arguments.effective({}) == {}
    assert arguments.declare("TAG", None) == "1"
    assert arguments.declare("GIVEN", "default") == "default"
    arguments.declare("BARE", "taken away")
    arguments.declare("HIDDEN", "x")
    assert arguments.effective({"HIDDEN": "by ENV"}) == {"TAG": "1", "GIVEN": "g"}
    assert arguments.proxies({}) == {"HTTP_PROXY": "p"}
    arguments.declare("HTTP_PROXY", None)
    assert arguments.proxies({}) == {}
    assert arguments.effective({})["HTTP_PROXY"] == "p"
    arguments.begin_stage()
    assert arguments.effective({}) == {}
    assert arguments.unused() == ["NEVER"]
