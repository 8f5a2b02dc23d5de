"""The managers that a node knows: all of them in turn, and when the turn is over."""

from __future__ import annotations

from pathlib import Path

from node.agent.managers import KnownManagers
from raft.objects.assignment import ManagerAddress


def test_every_manager_is_named_once_in_a_round(tmp_path: Path) -> None:
    managers = KnownManagers(tmp_path / "managers.json")
    managers.replace(ManagerAddress(node_id=f"m{n}", address=f"10.0.0.{n}:2377") for n in range(3))
    for _ in range(5):
        named = []
        while not named or not managers.all_tried:
            named.append(managers.next())
        assert sorted(named) == ["10.0.0.0:2377", "10.0.0.1:2377", "10.0.0.2:2377"]


def test_without_a_manager_every_try_is_a_round(tmp_path: Path) -> None:
    managers = KnownManagers(tmp_path / "managers.json")
    assert managers.next() == ""
    assert managers.all_tried


def test_the_manager_whose_session_ended_is_tried_last(tmp_path: Path) -> None:
    managers = KnownManagers(tmp_path / "managers.json")
    managers.replace(ManagerAddress(node_id=f"m{n}", address=f"10.0.0.{n}:2377") for n in range(3))
    for _ in range(5):
        managers.next()
        managers.lost("10.0.0.1:2377")
        named = [managers.next() for _ in range(3)]
        assert sorted(named[:2]) == ["10.0.0.0:2377", "10.0.0.2:2377"]
        assert named[2] == "10.0.0.1:2377"
        assert managers.all_tried


def test_the_only_manager_is_tried_again(tmp_path: Path) -> None:
    managers = KnownManagers(tmp_path / "managers.json")
    managers.replace([ManagerAddress(node_id="m", address="10.0.0.1:2377")])
    managers.lost("10.0.0.1:2377")
    assert managers.next() == "10.0.0.1:2377"
