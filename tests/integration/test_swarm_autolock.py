"""Autolock on real nodes: managers that restart are locked, the key turns, changes and goes; workers never lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)
WRAPPED = b"swarmctl wrapped key\n"


class Locking(Lab):
    """Three managers and a worker, n4, with autolock on."""

    def tls(self, node: str) -> Path:
        return self.node(node).state_dir / "swarm" / "tls"

    def key_forms(self, node: str) -> dict[str, bool]:
        """Name of each secret file -> is it wrapped?"""
        files = [self.tls(node) / name for name in ("node.key", "raft.key")]
        return {file.name: file.read_bytes().startswith(WRAPPED) for file in files if file.exists()}

    def is_locked_on_disk(self, node: str) -> bool:
        """Nothing in the folder of the node's membership shows a key."""
        forms = self.key_forms(node)
        shown = [
            p for p in self.tls(node).parent.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()
        ]
        return forms == {"node.key": True, "raft.key": True} and not shown

    def restart(self, *nodes: str) -> None:
        assert self.lab("kill", "--daemon-only", *nodes).code == 0
        started = self.lab("start", *nodes)
        assert started.code == 0, started.err

    def state(self, node: str) -> str:
        return self.ok(node, "info", "--format", "{{.Swarm.LocalNodeState}}")

    def unlock(self, node: str, key: str) -> tuple[int, str]:
        done = self.on(node, "swarm", "unlock", text=f"{key}\n")
        return done.code, done.err

    def opened(self, node: str, key: str) -> None:
        code, error = self.unlock(node, key)
        assert code == 0, error
        self.wait(f"{node} is in the swarm", 30, lambda: self.on(node, "node", "ls").code == 0)

    def key(self) -> str:
        return self.ok("n1", "swarm", "unlock-key", "-q")

    def tasks(self, node: str) -> list[str]:
        return self.ok(node, "ps", "-q", "--filter", "name=everywhere").split()


@pytest.fixture(scope="module")
def swarm(hello_archive: Path) -> Iterator[Locking]:
    with lab_of(4, "--managers", "3", "--joined", image=hello_archive, kind=Locking) as lab:
        lab.ok("n1", "service", "create", "-d", "--name", "everywhere", "--mode", "global", "hello")
        lab.wait("4 tasks run", 30, lambda: len(lab.running("n1", "everywhere")) == 4)
        assert "SWMKEY-1-" in lab.ok("n1", "swarm", "update", "--autolock")
        managers = ("n1", "n2", "n3")
        lab.wait("all managers lock", 20, lambda: all(map(lab.is_locked_on_disk, managers)))
        yield lab


def test_a_restarted_manager_is_locked_and_its_tasks_run_on(swarm: Locking) -> None:
    key, before = swarm.key(), swarm.tasks("n2")
    swarm.restart("n2")
    assert swarm.state("n2") == "locked"
    assert (
        swarm.ok("n2", "info", "--format", "{{.Swarm.ControlAvailable}} {{.Swarm.Error}}")
        == f"false {LOCKED}"
    )
    for words in (
        ("node", "ls"),
        ("service", "ls"),
        ("swarm", "unlock-key"),
        ("swarm", "update", "--autolock=false"),
        ("network", "create", "-d", "overlay", "x"),
    ):
        refused = swarm.on("n2", *words)
        assert refused.code and LOCKED in refused.err, words
    for words in (("swarm", "init"), ("swarm", "join", "--token", "x", "10.0.0.1:2377")):
        assert "This node is already part of a swarm" in swarm.on("n2", *words).err
    refused = swarm.on("n2", "swarm", "leave")
    assert "Swarm is encrypted and locked. Please unlock it first or use `--force`" in refused.err
    assert swarm.is_locked_on_disk("n2")
    assert swarm.tasks("n2") == before != []

    for wrong, text in (
        ("SWMKEY-1-nonsense", "invalid key string"),
        (f"SWMKEY-1-{'A' * 43}", "swarm could not be unlocked: invalid key provided"),
    ):
        code, error = swarm.unlock("n2", wrong)
        assert code and text in error
        assert swarm.state("n2") == "locked"
    swarm.opened("n2", key)
    assert swarm.state("n2") == "active"
    assert "Autolock Managers: true" in swarm.ok("n2", "info")
    code, error = swarm.unlock("n2", key)
    assert code and "swarm is not locked" in error
    assert swarm.is_locked_on_disk("n2"), "unlocking is for one life of the daemon"


def test_a_manager_that_was_down_opens_with_its_old_key_and_takes_the_new_one(swarm: Locking) -> None:
    old = swarm.key()
    assert swarm.lab("kill", "--daemon-only", "n3").code == 0
    assert "Successfully rotated manager unlock key." in swarm.ok("n1", "swarm", "unlock-key", "--rotate")
    new = swarm.key()
    assert new != old
    assert swarm.lab("start", "n3").code == 0
    code, error = swarm.unlock("n3", new)
    assert code and "invalid key provided" in error
    before = (swarm.tls("n3") / "lock.key").read_bytes()
    swarm.opened("n3", old)
    swarm.wait("n3 has the new key", 20, lambda: (swarm.tls("n3") / "lock.key").read_bytes() != before)
    swarm.restart("n3")
    code, error = swarm.unlock("n3", old)
    assert code and "invalid key provided" in error
    swarm.opened("n3", new)


def test_the_whole_swarm_comes_back_from_locked_managers(swarm: Locking) -> None:
    key = swarm.key()
    swarm.restart("n1", "n2", "n3")
    assert [swarm.state(node) for node in ("n1", "n2", "n3")] == ["locked"] * 3
    for node in ("n1", "n2"):
        assert swarm.unlock(node, key)[0] == 0
    swarm.wait("two of three lead again", 30, lambda: swarm.on("n1", "node", "ls").code == 0)
    swarm.opened("n3", key)
    assert swarm.key() == key
    swarm.wait("the tasks are there", 30, lambda: len(swarm.running("n1", "everywhere")) == 4)


def test_workers_do_not_lock_until_they_are_managers(swarm: Locking) -> None:
    swarm.restart("n4")
    assert swarm.state("n4") == "active"
    assert swarm.key_forms("n4") == {"node.key": False}
    swarm.ok("n1", "node", "promote", "n4")
    swarm.wait("n4 is a manager", 30, lambda: swarm.on("n4", "node", "ls").code == 0)
    swarm.wait("n4 locks", 10, lambda: swarm.is_locked_on_disk("n4"))
    swarm.ok("n1", "node", "demote", "n4")
    swarm.wait("n4 is a worker", 30, lambda: "not a swarm manager" in swarm.on("n4", "node", "ls").err)
    swarm.wait("its keys are a worker's", 10, lambda: swarm.key_forms("n4") == {"node.key": False})
    swarm.restart("n4")
    assert swarm.state("n4") == "active"


def test_damaged_keys_are_said_and_not_replaced(swarm: Locking) -> None:
    key, file = swarm.key(), swarm.tls("n3") / "lock.key"
    whole = file.read_bytes()
    assert swarm.lab("kill", "--daemon-only", "n3").code == 0
    file.unlink()
    assert swarm.lab("start", "n3").code == 0
    assert swarm.state("n3") == "error"
    assert "lock.key, which opens them" in swarm.ok("n3", "info", "--format", "{{.Swarm.Error}}")
    assert not file.exists() and swarm.is_locked_on_disk("n3")
    file.write_bytes(whole)
    swarm.restart("n3")
    swarm.opened("n3", key)


def test_autolock_off_opens_the_files(swarm: Locking) -> None:
    swarm.ok("n1", "swarm", "update", "--autolock=false")
    forms = {"node.key": False, "raft.key": False}
    for node in ("n1", "n2", "n3"):
        swarm.wait(f"{node} opens", 20, lambda node=node: swarm.key_forms(node) == forms)  # type: ignore[misc]
    assert "no unlock key is set" in swarm.on("n1", "swarm", "unlock-key").err
    refused = swarm.on("n1", "swarm", "unlock-key", "--rotate")
    assert "cannot rotate because autolock is not turned on" in refused.err
    swarm.restart("n2")
    assert swarm.state("n2") == "active"
    swarm.wait("n2 answers", 30, lambda: swarm.on("n2", "node", "ls").code == 0)


def test_a_wrong_data_key_is_said_and_harms_nothing(swarm: Locking) -> None:
    file = swarm.tls("n2") / "raft.key"
    right = file.read_bytes()
    assert swarm.lab("kill", "--daemon-only", "n2").code == 0
    file.write_bytes(right[::-1])
    assert swarm.lab("start", "n2").code == 0
    assert swarm.state("n2") == "error"
    assert "wrong data key" in swarm.ok("n2", "info", "--format", "{{.Swarm.Error}}")
    assert file.read_bytes() == right[::-1]
    file.write_bytes(right)
    swarm.restart("n2")
    swarm.wait("n2 answers", 30, lambda: swarm.on("n2", "node", "ls").code == 0)


def test_a_locked_manager_leaves_by_force(swarm: Locking) -> None:
    swarm.ok("n1", "swarm", "update", "--autolock")
    swarm.wait("n3 locks", 20, lambda: swarm.is_locked_on_disk("n3"))
    swarm.restart("n3")
    assert swarm.state("n3") == "locked"
    assert swarm.tasks("n3")
    swarm.ok("n3", "swarm", "leave", "--force")
    assert swarm.state("n3") == "inactive"
    assert swarm.tasks("n3") == []
    assert not swarm.tls("n3").exists()
    swarm.wait("the others know", 30, lambda: "Down" in swarm.ok("n1", "node", "ls"))
    swarm.ok("n1", "node", "demote", "n3")
    swarm.wait("n3 is removed", 30, lambda: swarm.on("n1", "node", "rm", "n3").code == 0)
    token = swarm.ok("n1", "swarm", "join-token", "-q", "manager")
    swarm.ok("n3", "swarm", "join", "--token", token, f"{swarm.node('n1').address}:2377")
    swarm.wait("a new manager locks at once", 10, lambda: swarm.is_locked_on_disk("n3"))


def test_a_manager_with_damaged_keys_leaves(swarm: Locking) -> None:
    swarm.wait("n2 locks", 20, lambda: swarm.is_locked_on_disk("n2"))
    assert swarm.lab("kill", "--daemon-only", "n2").code == 0
    (swarm.tls("n2") / "lock.key").unlink()
    assert swarm.lab("start", "n2").code == 0
    assert swarm.state("n2") == "error"
    assert swarm.tasks("n2")
    swarm.ok("n2", "swarm", "leave", "--force")
    assert swarm.state("n2") == "inactive"
    assert swarm.tasks("n2") == []
