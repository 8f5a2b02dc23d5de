"""Names, addresses and rules of labs, without making one."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.lab import model, underlay
from node.lab.lifecycle import heal
from node.lab.model import Lab, LabError, LabNode, find, load, new_lab


@pytest.fixture(autouse=True)
def _roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(model, "STATE_ROOT", tmp_path / "state")


def test_each_lab_has_addresses_of_its_own() -> None:
    first = new_lab("one", 3, 1)
    first.save()
    second = new_lab("two", 2, 2)
    assert [node.address for node in first.nodes] == ["10.77.0.11", "10.77.0.12", "10.77.0.13"]
    assert [node.address for node in second.nodes] == ["10.77.1.11", "10.77.1.12"]


def test_each_node_has_a_hardware_address_of_its_own_that_it_keeps() -> None:
    first, second = new_lab("one", 3, 1), new_lab("one", 3, 1)
    assert [node.mac for node in first.nodes] == [node.mac for node in second.nodes]
    assert first.nodes[0].mac == "02:77:0a:4d:00:0b"
    assert len({node.mac for node in first.nodes}) == 3


def test_a_lab_is_found_again_as_it_was() -> None:
    lab = new_lab("one", 2, 1)
    lab.cuts = [("n1", "n2")]
    lab.save()
    assert find("one") == lab
    assert load("one").node("n2").cgroup == "swarmctl/one-n2"


def test_a_damaged_file_is_no_lab() -> None:
    new_lab("one", 2, 1).save()
    (model.RUN_ROOT / "one" / "lab.json").write_text("{")
    assert find("one") is None
    with pytest.raises(LabError, match='no lab "one"') as caught:
        load("one")
    assert "swarmctl lab up" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a.b", "A", "-a", "a-", "x" * 21, "a/b", ".."])
def test_bad_names(name: str) -> None:
    with pytest.raises(LabError, match="invalid lab name"):
        new_lab(name, 1, 1)


@pytest.mark.parametrize(("nodes", "managers"), [(0, 1), (101, 1), (2, 3), (2, 0)])
def test_bad_numbers(nodes: int, managers: int) -> None:
    with pytest.raises(LabError, match="--"):
        new_lab("one", nodes, managers)


def test_an_unknown_node_is_told_with_those_there_are() -> None:
    with pytest.raises(LabError, match='no node "n9"') as caught:
        new_lab("one", 2, 1).node("n9")
    assert "n1, n2" in caught.value.hint


def test_socket_paths_fit_into_a_unix_address() -> None:
    node = LabNode("x" * 20, "n100", "")
    assert len(f"/run/swarmctl/labs/{node.lab}/{node.name}/swarmd.sock") < 100


def test_rules_of_cuts() -> None:
    assert "drop" not in underlay.ruleset([])
    text = underlay.ruleset([("n2", "n1"), ("n1", "n2"), ("n1", "n2")])
    assert text.count("drop") == 2
    assert 'iifname "n1" oifname "n2" drop' in text


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ([], []),
        (["n1"], [("n2", "n3")]),
        (["n1", "n2"], [("n2", "n3"), ("n3", "n1")]),
        (["n2", "n3"], [("n1", "n2"), ("n2", "n1"), ("n3", "n1")]),
    ],
)
def test_heal_takes_all_or_a_node_or_a_pair(
    names: list[str], left: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[list[tuple[str, str]]] = []
    monkeypatch.setattr(underlay, "apply_cuts", lambda lab: applied.append(lab.cuts))
    lab: Lab = new_lab("one", 3, 1)
    lab.cuts = [("n1", "n2"), ("n2", "n1"), ("n2", "n3"), ("n3", "n1")]
    assert heal(lab, names) == 4 - len(left)
    assert lab.cuts == left
    assert applied == [left]
