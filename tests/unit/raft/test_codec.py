"""Bytes and back: every kind survives, and what is damaged or of another version is refused by name."""

from __future__ import annotations

import pytest

from raft import codec
from raft.codec import Change
from raft.errors import InvalidArgument
from raft.objects.assignment import AgentMessage, Assignments, Heartbeat, ManagerMessage, Reports, TaskReport
from raft.objects.base import Annotations, Kind
from raft.objects.cluster import Cluster, Config, Network, Secret, SecretSpec
from raft.objects.node import Node
from raft.objects.request import Receipt
from raft.objects.service import Service
from raft.objects.task import Task, TaskState, TaskStatus

RECORDS = {
    Kind.NODE: Node(id="n"),
    Kind.SERVICE: Service(id="s"),
    Kind.TASK: Task(id="t", status=TaskStatus(state=TaskState.RUNNING, timestamp=1.5)),
    Kind.NETWORK: Network(id="w"),
    Kind.SECRET: Secret(id="x", spec=SecretSpec(annotations=Annotations(name="key"), data=b"\x00\xff")),
    Kind.CONFIG: Config(id="c"),
    Kind.CLUSTER: Cluster(id="cluster"),
    Kind.RECEIPT: Receipt(id="7-key", fingerprint=b"f", refusal=("not_found", "why")),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_survives_a_command(kind: Kind):
    changes = [Change(kind, RECORDS[kind].id, 7, RECORDS[kind]), Change(kind, "gone", 9, None)]
    assert codec.decode_command(codec.encode_command(changes)).changes == changes


def test_unknown_version_and_wrong_types_are_refused():
    command = codec.encode_command([Change(Kind.TASK, "t", 0, RECORDS[Kind.TASK])])
    with pytest.raises(InvalidArgument, match="command version 9 is above 2"):
        codec.decode_command(b"\x09" + command[1:])
    with pytest.raises(InvalidArgument, match="command cannot be read"):
        codec.decode_command(command[:-1])
    with pytest.raises(InvalidArgument, match="stored node cannot be read"):
        codec.decode_record(Kind.NODE, codec.encode_record(Task(id="t", service_id="s"))[:-2])


def test_session_messages_survive_json_and_are_told_apart():
    down = Assignments(sequence=1, complete=True, secrets=(RECORDS[Kind.SECRET],))
    assert codec.from_json(codec.to_json(down), ManagerMessage) == down
    up = Reports(tasks=(TaskReport(task_id="t", status=TaskStatus(state=TaskState.FAILED)),))
    assert codec.from_json(codec.to_json(up), AgentMessage) == up
    assert codec.from_json(codec.to_json(Heartbeat()), AgentMessage) == Heartbeat()


def test_wrong_json_names_the_field():
    with pytest.raises(InvalidArgument, match=r"\$\.sequence"):
        codec.from_json(b'{"type": "assignments", "sequence": "one"}', ManagerMessage)
    with pytest.raises(InvalidArgument):
        codec.from_json(b"\xff\xfe", ManagerMessage)
