"""Labels, variables and tags that log options choose."""

from __future__ import annotations

from engine.config import ContainerConfig
from engine.logging_drivers.attributes import chosen_attributes, tag_of
from tests.records import container_record


def test_labels_and_variables_by_name_and_by_pattern() -> None:
    config = ContainerConfig(labels={"a b": "1", "d.x": "2", "no": "3"}, env=["E=x=y", "F=1", "EMPTY"])
    options = {"labels": "a b,missing", "labels-regex": "^d", "env": "E,EMPTY"}
    chosen = chosen_attributes(container_record(config=config), options)
    assert chosen == {"a b": "1", "d.x": "2", "E": "x=y"}
    assert chosen_attributes(container_record(config=config), {}) == {}
    assert chosen_attributes(container_record(config=config), {"env-regex": "F"}) == {"F": "1"}


def test_every_word_of_a_tag() -> None:
    container = container_record("web", id="c1" * 32)
    template = "{{.ID}} {{ .FullID }} {{.Name}} {{.ImageID}} {{.ImageFullID}} {{.ImageName}} {{.Command}} {{.DaemonName}}"
    assert tag_of(container, template) == (
        f"{'c1' * 6} {'c1' * 32} web {'ab' * 6} sha256:{'ab' * 32} shop/web:1 server --fast swarmd"
    )
    assert tag_of(container, "plain") == "plain"
