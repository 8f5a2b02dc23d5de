"""What each instruction takes, and the words for what it does not."""

from __future__ import annotations

import pytest

from engine.building.instructions import Instruction, parse_change
from engine.building.stages import parse_plan
from engine.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "words", "is_json"),
    [
        ("RUN a  b", ("a  b",), False),
        ('RUN ["a", "b c"]', ("a", "b c"), True),
        ("RUN [ -f x ] && y", ("[ -f x ] && y",), False),
        ("CMD []", (), True),
        ('entrypoint ["x"]', ("x",), True),
        ("COPY a b /c/", ("a", "b", "/c/"), False),
        ('ADD ["a b", "/c"]', ("a b", "/c"), False),
        ("VOLUME /a /b", ("/a", "/b"), False),
        ('VOLUME ["/a b"]', ("/a b",), False),
        ("EXPOSE 80 81/udp", ("80", "81/udp"), False),
        ("FROM a:b AS Build-1", ("a:b", "build-1"), False),
        ("WORKDIR /a b", ("/a b",), False),
        ("MAINTAINER me <a@b>", ("me <a@b>",), False),
        ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c"), False),
        ("HEALTHCHECK NONE", ("NONE",), False),
        ("HEALTHCHECK --retries=3 CMD curl x", ("CMD-SHELL", "curl x"), False),
        ('HEALTHCHECK cmd ["curl", "x"]', ("CMD", "curl", "x"), True),
        ("ONBUILD run  x", ("RUN  x",), False),
    ],
)
def test_arguments(text: str, words: tuple[str, ...], is_json: bool) -> None:
    found = parse_change(text)
    assert (found.words, found.is_json) == (words, is_json)


def test_pairs() -> None:
    assert parse_change('ENV A=1 B="2 3"').pairs == (("A", "1"), ("B", '"2 3"'))
    assert parse_change("ENV A b  c").pairs == (("A", "b  c"),)
    assert parse_change("LABEL a=b=c").pairs == (("a", "b=c"),)
    assert parse_change("ARG A B= C=d").pairs == (("A", None), ("B", ""), ("C", "d"))


def test_flags() -> None:
    found: Instruction = parse_change("COPY --from=one --chown=1:2 --chmod=644 a b")
    assert found.flags == {"from": "one", "chown": "1:2", "chmod": "644"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FOO x", "unknown instruction: FOO"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN --mount=type=cache,target=/x y", "the --mount option requires BuildKit"),
        ("COPY --link a b", "the --link option requires BuildKit"),
        ("COPY --nosuch=1 a b", "unknown flag: --nosuch"),
        ("COPY --from a b", "missing a value on flag: from"),
        ("COPY --from=a --from=b c d", "duplicate flag specified: from"),
        ("COPY a", "COPY requires at least two arguments"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", 'can\'t find = in "B"'),
        ("ENV =1", "ENV names can not be blank"),
        ("ARG =1", "ARG names can not be blank"),
        ('CMD ["a", 1]', "arrays must be comprised of strings only"),
        ("SHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK", "requires at least one argument"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK FOO x", 'unknown type "FOO"'),
        ("HEALTHCHECK --retries=x CMD y", "whole number"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD FOO x", "unknown instruction: FOO"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_change(text)


STAGES = "ARG V=1\nFROM a:$V AS one\nRUN x\nFROM b\nRUN y\nFROM c AS last\nRUN z"


def test_a_plan_has_what_the_target_needs() -> None:
    plan = parse_plan(STAGES)
    assert [stage.name for stage in plan.stages] == ["one", "", "last"]
    assert plan.steps == 7
    assert parse_plan(STAGES, target="ONE").steps == 3
    assert [stage.source.words[0] for stage in parse_plan(STAGES, target="1").stages] == ["a:$V", "b"]


def test_labels_are_a_last_step_in_which_nothing_is_substituted() -> None:
    plan = parse_plan("FROM a\nFROM b", target="0", labels={"k": "it's $X"})
    (label,) = plan.stages[0].instructions
    assert label.text == "LABEL k=it's $X"
    assert label.pairs == (("'k'", "'it'\"'\"'s $X'"),)


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("# nothing\n", "", "file with no instructions"),
        ("RUN x\nFROM a", "", "line 1: no build stage in current context"),
        ("ARG x", "", "no build stage in current context"),
        (STAGES, "nosuch", "failed to reach build target nosuch"),
        (STAGES, "3", "failed to reach build target 3"),
        ("FROM a\nFOO", "", "dockerfile parse error line 2: unknown instruction: FOO"),
    ],
)
def test_what_is_no_plan(text: str, target: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        parse_plan(text, target=target)
