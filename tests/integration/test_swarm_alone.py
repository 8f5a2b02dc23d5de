"""Managers that move, leave, or are the last one left, on four real nodes of which the last is a worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.lab import model
from tests.labs import Lab, lab_of
from tests.managers import (
    containers,
    damage,
    known,
    managers,
    raft_folder,
    stop,
    swarm_info,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def four(hello_archive: Path) -> Iterator[Lab]:
    with lab_of(4, "--managers", "3", "--joined", image=hello_archive, kind=Lab) as lab:
        lab.ok("n1", "service", "create", "-d", "--name", "web", "--mode", "global", "hello")
        lab.wait("web runs everywhere", 40, lambda: len(lab.running("n1", "web")) == 4)
        yield lab


def leader(four: Lab, asked: str) -> str:
    return next((name for name, status in managers(four, asked).items() if status == "Leader"), "")


def remote_managers(four: Lab, node: str) -> set[str]:
    found = swarm_info(four, node)["RemoteManagers"] or []
    assert isinstance(found, list)
    return {manager["Addr"] for manager in found}


def move(four: Lab, node: str) -> str:
    """The node gets another address, and its daemon is started with it; returns host:port."""
    lab = model.load(four.name)
    old = lab.node(node).address
    prefix, _, number = old.rpartition(".")
    new = f"{prefix}.{int(number) + 100}"
    links = json.loads(four.inside(node, "ip", "-j", "-4", "address", "show").out)
    link = next(at["ifname"] for at in links if any(entry["local"] == old for entry in at["addr_info"]))
    stop(four, node)
    # In this order: with the first address of a network the kernel takes the others as well.
    assert four.inside(node, "ip", "address", "del", f"{old}/24", "dev", link).code == 0
    assert four.inside(node, "ip", "address", "add", f"{new}/24", "dev", link).code == 0
    lab.node(node).address = new
    lab.save()
    started = four.lab("start", node)
    assert started.code == 0, started.err
    return f"{new}:2377"


def test_leaving_removal_and_demotion_are_refused_in_dockers_words(four: Lab) -> None:
    refused = four.on("n2", "swarm", "leave")
    assert refused.code
    assert (
        "You are attempting to leave the swarm on a node that is participating as a manager. "
        "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
        "Use `--force` to suppress this message."
    ) in refused.err
    refused = four.on("n1", "node", "rm", "--force", "n2")
    assert refused.code
    assert (
        "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
    ) in refused.err
    assert four.lab("kill", "n3", "--daemon-only").code == 0
    four.wait("n3 is missed", 20, lambda: managers(four, "n1").get("n3") == "Unreachable")
    refused = four.on("n1", "node", "demote", "n2")
    assert refused.code
    assert "can't remove member from the raft: this would result in a loss of quorum" in refused.err
    refused = four.on("n2", "swarm", "leave")
    assert "Removing this node leaves 1 managers out of 3. Without a Raft quorum" in refused.err
    assert four.lab("start", "n3").code == 0
    four.wait("n3 is back", 20, lambda: managers(four, "n1").get("n3") in ("Reachable", "Leader"))


def test_manager_that_moves_is_followed_by_all(four: Lab) -> None:
    before = containers(four, "n3")
    address = move(four, "n3")
    for node in ("n1", "n2", "n3", "n4"):
        four.wait(
            f"{node} knows the new address", 40, lambda node=node: address in remote_managers(four, node)
        )
    four.wait("n3 is reachable", 20, lambda: managers(four, "n1").get("n3") in ("Reachable", "Leader"))
    assert four.ok("n1", "node", "inspect", "n3", "--format", "{{.ManagerStatus.Addr}}") == address
    assert containers(four, "n3") == before
    # It counts: with another one down the rest goes on only with it.
    assert four.lab("kill", "n2", "--daemon-only").code == 0
    four.wait("a leader", 20, lambda: leader(four, "n3"))
    four.ok("n3", "service", "create", "-d", "--name", "moved", "--replicas", "0", "hello")
    assert four.lab("start", "n2").code == 0
    four.wait("n2 is back", 30, lambda: known(four, "n2") == {"web", "moved"})


def test_leader_leaves_and_the_others_go_on(four: Lab) -> None:
    gone = leader(four, "n1")
    other = next(name for name in ("n1", "n2", "n3") if name != gone)
    four.ok(gone, "swarm", "leave", "--force")
    assert swarm_info(four, gone)["LocalNodeState"] == "inactive"
    assert containers(four, gone) == set()
    four.wait("another leads", 20, lambda: leader(four, other) not in ("", gone))
    assert known(four, other) == {"web", "moved"}
    assert len(remote_managers(four, other)) == 2
    token = four.ok(other, "swarm", "join-token", "-q", "manager")
    remote = str(swarm_info(four, other)["NodeAddr"])
    four.ok(gone, "swarm", "join", "--token", token, f"{remote}:2377")
    four.wait("three managers", 20, lambda: len(remote_managers(four, other)) == 3)
    four.wait("web runs everywhere", 40, lambda: len(four.running(other, "web")) == 4)


def test_last_manager_goes_on_alone(four: Lab) -> None:
    kept = {node: containers(four, node) for node in ("n1", "n4")}
    assert four.lab("kill", "n2", "n3").code == 0
    four.wait("there is no leader", 30, lambda: four.on("n1", "service", "ls").code)
    said = four.ok("n1", "swarm", "init", "--force-new-cluster", "--dry-run")
    assert "2 services" in said
    assert "shut out:                     n2 at" in said
    assert "shut out:                     n3 at" in said
    assert four.on("n1", "service", "ls").code, "a dry run changes nothing"
    before = swarm_info(four, "n1")["NodeID"]
    assert "is now a manager" in four.ok("n1", "swarm", "init", "--force-new-cluster")
    assert swarm_info(four, "n1")["NodeID"] == before
    assert known(four, "n1") == {"web", "moved"}
    four.wait("the worker is back", 30, lambda: four.ok("n1", "node", "ls").count("Ready") == 2)
    assert {node: containers(four, node) for node in ("n1", "n4")} == kept
    four.ok("n1", "service", "create", "-d", "--name", "alone", "--replicas", "1", "hello")
    four.wait("it schedules", 30, lambda: len(four.running("n1", "alone")) == 1)


def test_former_managers_come_back_as_workers_only(four: Lab) -> None:
    assert four.lab("start", "n2", "n3").code == 0

    def all_workers() -> bool:
        rows = four.ok("n1", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
        lines = sorted(row.strip() for row in rows.splitlines() if "Down" not in row)
        return lines == ["n1 Ready Leader", "n2 Ready", "n3 Ready", "n4 Ready"]

    four.wait("they are workers", 60, all_workers)
    for node in ("n2", "n3"):
        four.wait(f"{node} says so", 20, lambda node=node: "Worker nodes" in four.on(node, "node", "ls").err)
        assert not raft_folder(four, node).exists()
    four.wait("web runs everywhere", 60, lambda: len(four.running("n1", "web")) == 4)


def test_node_that_was_removed_while_it_was_down_leaves_when_it_returns(four: Lab) -> None:
    assert four.lab("kill", "n2", "--daemon-only").code == 0
    four.ok("n1", "node", "rm", "--force", "n2")
    assert four.lab("start", "n2").code == 0
    four.wait("n2 has left", 30, lambda: swarm_info(four, "n2")["LocalNodeState"] == "inactive")
    assert containers(four, "n2") == set()


def test_sole_manager_with_a_damaged_log_says_what_to_do(four: Lab) -> None:
    before = containers(four, "n1")
    assert four.lab("kill", "n1", "--daemon-only").code == 0
    damage(four, "n1")
    assert four.lab("start", "n1").code == 0
    info = swarm_info(four, "n1")
    assert info["LocalNodeState"] == "error"
    for words in ("lost its log", "--force-new-cluster", "swarmctl cluster restore FILE"):
        assert words in str(info["Error"])
    assert containers(four, "n1") == before
    assert raft_folder(four, "n1").exists()
    assert "damaged:" in four.ok("n1", "swarm", "init", "--force-new-cluster", "--dry-run")
    four.ok("n1", "swarm", "init", "--force-new-cluster")
    assert known(four, "n1") >= {"web", "moved"}
    assert swarm_info(four, "n1")["LocalNodeState"] == "active"
    four.wait("web runs everywhere", 60, lambda: len(four.running("n1", "web")) == 3)
    assert before & containers(four, "n1")
