"""Managers whose log is damaged or gone, on real nodes: they come back by themselves, and nothing is lost."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.labs import Lab
from tests.managers import containers, damage, known, managers, raft_folder, stop, swarm_info

pytestmark = pytest.mark.root

BACK_S = 40.0


def node_id(swarm: Lab, node: str) -> str:
    return swarm.ok(node, "info", "--format", "{{.Swarm.NodeID}}")


def all_count(swarm: Lab) -> bool:
    return all(
        sorted(managers(swarm, node).values()) == ["Leader", "Reachable", "Reachable"] for node in swarm.names
    )


@pytest.fixture(scope="module")
def services(swarm: Lab) -> set[str]:
    swarm.ok("n1", "service", "create", "-d", "--name", "web", "--mode", "global", "hello")
    swarm.wait("web runs everywhere", 30, lambda: len(swarm.running("n1", "web")) == 3)
    return {"web"}


def add_service(swarm: Lab, services: set[str], asked: str) -> None:
    name = f"s{len(services)}"
    swarm.ok(asked, "service", "create", "-d", "--name", name, "--replicas", "0", "hello")
    services.add(name)


def follower(swarm: Lab) -> str:
    return next(name for name, status in managers(swarm, "n1").items() if status == "Reachable")


def test_damaged_log_is_replaced_by_the_others_copy(swarm: Lab, services: set[str]) -> None:
    node = follower(swarm)
    other = next(name for name in swarm.names if name != node)
    before, identity = containers(swarm, node), node_id(swarm, node)
    stop(swarm, node)
    damage(swarm, node)
    add_service(swarm, services, other)
    assert swarm.lab("start", node).code == 0
    swarm.wait(f"{node} is a manager again", BACK_S, lambda: all_count(swarm))
    assert known(swarm, node) == services
    assert node_id(swarm, node) == identity
    assert containers(swarm, node) == before
    assert swarm_info(swarm, node)["Error"] == ""
    assert len(list(raft_folder(swarm, node).parent.glob("raft.damaged-*"))) == 1


def test_it_counts_for_the_majority_again(swarm: Lab, services: set[str]) -> None:
    """With the one that was damaged and one other, there is a quorum."""
    back = next(n for n in swarm.names if list(raft_folder(swarm, n).parent.glob("raft.damaged-*")))
    down = next(n for n in swarm.names if n != back and managers(swarm, back)[n] == "Leader")
    assert swarm.lab("kill", down, "--daemon-only").code == 0
    swarm.wait("a new leader", 20, lambda: "Leader" in managers(swarm, back).values())
    add_service(swarm, services, back)
    assert swarm.lab("start", down).code == 0
    swarm.wait("all are managers", BACK_S, lambda: all_count(swarm))
    assert all(known(swarm, node) == services for node in swarm.names)


def test_missing_folder_never_founds_a_cluster(swarm: Lab, services: set[str]) -> None:
    """Also the leader's: the others elect another one, which takes it in again."""
    leader = next(name for name, status in managers(swarm, "n1").items() if status == "Leader")
    assert swarm.lab("kill", leader, "--daemon-only").code == 0
    shutil.rmtree(raft_folder(swarm, leader))
    assert swarm.lab("start", leader).code == 0
    swarm.wait(f"{leader} is a manager again", BACK_S, lambda: all_count(swarm))
    assert known(swarm, leader) == services


def test_without_a_quorum_of_the_others_it_waits_and_says_so(swarm: Lab, services: set[str]) -> None:
    assert swarm.lab("kill", "n2", "n3", "--daemon-only").code == 0
    damage(swarm, "n3")
    assert swarm.lab("start", "n3").code == 0

    def waits() -> bool:
        info = swarm_info(swarm, "n3")
        return info["LocalNodeState"] == "pending" and "says:" in str(info["Error"])

    swarm.wait("n3 says what it waits for", 20, waits)
    assert "this manager has lost its log" in str(swarm_info(swarm, "n3")["Error"])
    refused = swarm.on("n3", "service", "ls")
    assert refused.code
    assert "lost its log" in refused.err
    assert swarm.lab("kill", "n3", "--daemon-only").code == 0
    assert swarm.lab("start", "n3").code == 0
    assert swarm_info(swarm, "n3")["LocalNodeState"] == "pending"
    assert swarm.lab("start", "n2").code == 0
    swarm.wait("all are managers", BACK_S, lambda: all_count(swarm))
    assert all(known(swarm, node) == services for node in swarm.names)


def test_crashes_while_it_comes_back_change_nothing(swarm: Lab, services: set[str]) -> None:
    node = follower(swarm)
    assert swarm.lab("kill", node, "--daemon-only").code == 0
    damage(swarm, node)
    other = next(name for name in swarm.names if name != node)
    for pause_s in (0.0, 0.15, 0.3, 0.6):
        assert swarm.lab("start", node).code == 0
        time.sleep(pause_s)
        assert swarm.lab("kill", node, "--daemon-only").code == 0
        add_service(swarm, services, other)
    assert swarm.lab("start", node).code == 0
    swarm.wait(f"{node} is a manager again", BACK_S, lambda: all_count(swarm))
    assert all(known(swarm, name) == services for name in swarm.names)


@pytest.mark.parametrize("which", ["Reachable", "Leader"])
def test_manager_is_demoted_and_promoted_again(swarm: Lab, services: set[str], which: str) -> None:
    """The leader hands over first."""
    node = next(name for name, status in managers(swarm, "n1").items() if status == which)
    other = next(name for name in swarm.names if name != node)
    swarm.ok(node, "node", "demote", node)
    swarm.wait("it is a worker", 20, lambda: "not a swarm manager" in swarm.on(node, "node", "ls").err)
    assert "Leader" in managers(swarm, other).values()
    swarm.wait("it keeps nothing", 10, lambda: not list(raft_folder(swarm, node).parent.glob("raft[./]*-*")))
    assert not raft_folder(swarm, node).exists()
    swarm.ok(other, "node", "promote", node)
    swarm.wait("it is a manager again", BACK_S, lambda: all_count(swarm))
    assert known(swarm, node) == services
