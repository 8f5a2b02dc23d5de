"""The loss of every manager: backup under writes, restore on an empty node, and a check that finds what is wrong.

The tests of this file are one story, in order.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from node.identity import SwarmFolder
from raft import snapshot as snapshots
from raft.codec import Change, encode_command
from raft.objects.base import Kind
from raft.store import Store
from tests.commands import Result
from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root

MANAGERS = ("n1", "n2", "n3")


class Story:
    """Four nodes, three of them managers, and what the tests tell each other."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.file = folder / "swarm.backup"
        self.passphrase = folder / "passphrase"
        self.passphrase.write_text("correct horse battery staple\n")
        self.tokens: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.written: list[str] = []
        self.edge_container = ""

    def cluster(self, node: str, verb: str, *words: str) -> Result:
        secret = () if verb == "check" else ("--passphrase-file", str(self.passphrase))
        return self.lab.on(node, "cluster", verb, *secret, *words)

    def report(self, node: str) -> dict[str, object]:
        checked = self.cluster(node, "check", "--json")
        report: dict[str, object] = json.loads(checked.out)
        assert (checked.code == 0) == report["Healthy"], checked
        return report

    def problems(self, node: str) -> dict[str, list[str]]:
        managers = self.report(node)["Managers"]
        assert isinstance(managers, list)
        return {manager["Hostname"]: manager["Problems"] for manager in managers}

    def state_dir(self, node: str) -> Path:
        return self.lab.node(node).state_dir

    def create_secret(self, node: str, name: str) -> bool:
        return self.lab.on(node, "secret", "create", name, "-", text=name).code == 0


@pytest.fixture(scope="module")
def story(hello_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with lab_of(4, "--managers", "3", "--joined", image=hello_archive, kind=Lab) as lab:
        yield Story(lab, tmp_path_factory.mktemp("backup"))


def while_writing(story: Story, act: Callable[[], None]) -> list[str]:
    """Run `act` while secrets are created through n3; returns those acknowledged before it began."""
    before = threading.Event()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            name = f"w{len(story.written)}"
            if story.create_secret("n3", name):
                story.written.append(name)
            if len(story.written) == 5:
                before.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert before.wait(30)
        acknowledged = list(story.written)
        act()
    finally:
        done.set()
        writer.join()
    return acknowledged


def test_a_backup_under_writes_holds_all_that_was_acknowledged(story: Story) -> None:
    lab = story.lab
    lab.ok("n1", "network", "create", "--driver", "overlay", "front")
    assert story.create_secret("n1", "vault")
    lab.ok("n1", "node", "update", "--label-add", "place=edge", "n4")
    words = ("--network", "front", "--secret", "vault", "--publish", "8080:80", "--replicas", "3")
    lab.ok("n1", "service", "create", "--detach", "--name", "web", *words, "hello")
    lab.ok("n1", "service", "create", "--detach", "--name", "edge",
           "--constraint", "node.labels.place==edge", "hello")  # fmt: skip
    lab.wait("the services run", 20, lambda: len(lab.running("n1", "web") + lab.running("n1", "edge")) == 4)
    story.edge_container = lab.ok("n4", "ps", "-q", "--filter", "name=edge")
    for role in ("worker", "manager"):
        story.tokens[role] = lab.ok("n1", "swarm", "join-token", "-q", role)
    lines = lab.ok("n1", "node", "ls", "--format", "{{.Hostname}} {{.ID}}").splitlines()
    story.ids = dict(line.split()[:2] for line in lines)

    def backup() -> None:
        made = story.cluster("n2", "backup", str(story.file))
        assert made.code == 0, made.err
        assert "Backup written and verified" in made.out

    acknowledged = while_writing(story, backup)
    assert story.file.stat().st_mode & 0o777 == 0o600
    shown = story.cluster("n4", "inspect-backup", str(story.file), "--format", "json")
    about = json.loads(shown.out)
    assert about["Counts"]["node"] == 4
    assert about["Counts"]["service"] == 2
    assert about["Counts"]["secret"] > len(acknowledged)
    assert {m["NodeID"] for m in about["Managers"]} == {story.ids[n] for n in MANAGERS}
    story.written = acknowledged


def test_managers_in_agreement_pass_the_check(story: Story) -> None:
    checked = story.cluster("n3", "check")
    assert checked.code == 0, checked.out + checked.err
    assert checked.out.count(" ok") == 3
    assert "all is well" in checked.out
    digests = {manager["Digest"] for manager in story.report("n2")["Managers"]}  # type: ignore[attr-defined]
    assert len(digests) == 1
    refused = story.cluster("n4", "check")
    assert refused.code == 1
    assert "Worker nodes can't be used" in refused.err


def test_a_manager_that_cannot_be_reached_fails_the_check(story: Story) -> None:
    assert story.lab.lab("kill", "n3").code == 0
    problems = story.problems("n1")
    assert problems["n1"] == problems["n2"] == []
    assert "cannot be examined" in problems["n3"][0]


def test_all_managers_are_lost_and_one_empty_node_founds_the_swarm_anew(story: Story) -> None:
    lab = story.lab
    assert lab.lab("kill", "n1", "n2").code == 0
    for node in MANAGERS:
        shutil.rmtree(SwarmFolder(story.state_dir(node)).path)
    assert lab.lab("start", "n1").code == 0
    assert lab.ok("n1", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"

    tried = story.cluster("n1", "restore", "--dry-run", str(story.file))
    assert tried.code == 0, tried.err
    assert "would be founded anew" in tried.out
    assert "this node replaces it" in tried.out
    damaged = story.folder / "damaged"
    damaged.write_bytes(story.file.read_bytes()[:-1])
    other = story.folder / "other"
    other.write_text("wrong")
    for words, named in (
        ((str(damaged),), "damaged or cut off at byte"),
        ((str(story.file), "--passphrase-file", str(other)), "wrong passphrase"),
    ):
        refused = story.cluster("n1", "restore", *words)
        assert refused.code == 1
        assert named in refused.err
    assert lab.ok("n1", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    assert not (story.state_dir("n1") / "swarm").exists()

    restored = story.cluster("n1", "restore", str(story.file))
    assert restored.code == 0, restored.err
    again = story.cluster("n1", "restore", str(story.file))
    assert again.code == 1
    assert "already part of a swarm" in again.err


def test_the_worker_comes_back_with_its_tasks_and_the_services_run(story: Story) -> None:
    lab = story.lab
    shown = "{{.Status.State}} {{.Spec.Labels}}"
    lab.wait(
        "the worker is back",
        60,
        lambda: (
            lab.ok("n1", "node", "inspect", story.ids["n4"], "--format", shown) == "ready map[place:edge]"
        ),
    )
    assert story.edge_container == lab.ok("n4", "ps", "-q", "--filter", "name=edge")
    for node in MANAGERS:
        role = lab.ok(
            "n1", "node", "inspect", story.ids[node], "--format", "{{.Spec.Role}} {{.Status.State}}"
        )
        # Nodes that may yet come back are down after a minute only.
        assert role in ("worker down", "worker unknown") and (node != "n1" or role == "worker down"), role
    lab.ok("n1", "node", "rm", "--force", *(story.ids[node] for node in MANAGERS if node != "n1"))
    lab.wait("the lost tasks are replaced", 90, lambda: len(lab.running("n1", "web")) == 3
             and set(lab.running("n1", "web")) <= {"n1", "n4"} and lab.running("n1", "edge") == ["n4"])  # fmt: skip
    assert story.edge_container == lab.ok("n4", "ps", "-q", "--filter", "name=edge")
    address = lab.node("n1").address
    lab.wait("the port answers", 20, lambda: lab.inside(
        "n4", "timeout", "5", "busybox", "wget", "-q", "-O", "-", f"http://{address}:8080/").out)  # fmt: skip
    node = lab.running("n1", "web")[0]
    container = lab.ok(node, "ps", "-q", "--filter", "name=web").split()[0]
    assert lab.ok(node, "exec", container, "cat", "/run/secrets/vault") == "vault"
    names = set(lab.ok("n1", "secret", "ls", "--format", "{{.Name}}").split())
    assert {"vault", *story.written} <= names


def test_the_old_tokens_join(story: Story) -> None:
    lab = story.lab
    assert lab.lab("start", "n2", "n3").code == 0
    remote = f"{lab.node('n1').address}:2377"
    for node, role in (("n2", "manager"), ("n3", "worker")):
        lab.ok(node, "swarm", "join", "--token", story.tokens[role], remote)
    assert lab.ok("n1", "swarm", "join-token", "-q", "manager") == story.tokens["manager"]
    lab.wait("all are ready", 20, lambda: lab.ok("n1", "node", "ls").count(" Ready ") == 4)
    lab.ok("n1", "node", "rm", story.ids["n1"])
    lab.ok("n2", "service", "scale", "--detach", "web=4")
    lab.wait("4 tasks", 30, lambda: len(lab.running("n2", "web")) == 4)
    assert story.problems("n2") == {"n1": [], "n2": []}


def test_a_damaged_byte_in_a_log_is_found(story: Story) -> None:
    segment = max((SwarmFolder(story.state_dir("n2")).raft / "wal").iterdir())
    position = segment.stat().st_size - 10
    flip(segment, position)
    problems = story.problems("n1")
    assert problems["n1"] == []
    assert problems["n2"] and all(segment.name in problem for problem in problems["n2"])
    flip(segment, position)
    assert story.report("n1")["Healthy"]


def flip(path: Path, position: int) -> None:
    """One bit of a file that another process appends to."""
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, position)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 0x40]), position)


def test_a_manager_whose_state_was_altered_is_found(story: Story) -> None:
    """Its snapshot is written anew with its own key: every checksum is right, one secret is not."""
    lab = story.lab
    lab.ok("n1", "node", "promote", "n3")
    lab.wait("n3 is a manager", 20, lambda: lab.on("n3", "node", "ls").code == 0)
    lab.wait("all is well", 20, lambda: len(story.problems("n1")) == 3 and story.report("n1")["Healthy"])
    assert lab.lab("kill", "n2", "--daemon-only").code == 0
    folder = SwarmFolder(story.state_dir("n2"))
    secret_id, version = alter_snapshot(folder.raft / "snapshots", folder.data_key())
    assert lab.lab("start", "n2").code == 0
    lab.wait("n2 is back", 20, lambda: lab.on("n2", "node", "ls").code == 0)
    report = story.report("n1")
    by_name = {m["Hostname"]: m for m in report["Managers"]}  # type: ignore[attr-defined]
    assert by_name["n1"]["Problems"] == by_name["n3"]["Problems"] == []
    assert by_name["n2"]["Differences"] == [
        {"Kind": "secret", "ID": secret_id, "Version": version, "ExpectedVersion": version}
    ]
    assert f"secret {secret_id} is not the same as on most managers" in by_name["n2"]["Problems"][0]


def alter_snapshot(folder: Path, key: bytes) -> tuple[str, int]:
    """Id and version of the secret that is not the same any more."""
    old = snapshots.load_latest(folder, key)
    assert old is not None, "the second manager was given a snapshot when it joined"
    store = Store()
    store.load(old.data)
    secret = next(iter(store.view().secrets.values()))
    spec = msgspec.structs.replace(secret.spec, data=b"forged")
    change = Change(Kind.SECRET, secret.id, secret.meta.version, msgspec.structs.replace(secret, spec=spec))
    index = store.index
    store.apply(encode_command([change]), secret.meta.version)
    store.apply(encode_command(()), index)
    altered = store.encode(store.dump())
    snapshots.save(
        folder, key, snapshots.make(old.meta.index, old.meta.term, old.meta.configuration, altered)
    )
    return secret.id, secret.meta.version
