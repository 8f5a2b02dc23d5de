"""Services and tasks of about 700 bytes each: what a state of 100 MB is filled with."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from raft.objects.base import Annotations, Kind, ObjectRecord
from raft.objects.service import ContainerSpec, Service, ServiceSpec, TaskSpec
from raft.objects.task import Task
from raft.store import Transaction

BATCH = 50  # per transaction
NODES = 100


def batches(services: int, tasks: int, version: int) -> Iterator[list[ObjectRecord]]:
    """In the order in which they would be made: each task after its service."""
    for start in range(0, services, BATCH):
        yield [_service(number, version) for number in range(start, min(start + BATCH, services))]
    for start in range(0, tasks, BATCH):
        yield [_task(number, version) for number in range(start, min(start + BATCH, tasks))]


def put(tx: Transaction, batch: list[ObjectRecord]) -> None:
    """Create them, or replace what has their ids."""
    for record in batch:
        stored = tx.get(Kind.SERVICE if isinstance(record, Service) else Kind.TASK, record.id)
        tx.put(record if stored is None else msgspec.structs.replace(record, meta=stored.meta))


def _service(number: int, version: int) -> Service:
    annotations = Annotations(name=f"service-{number}", labels={"tier": f"tier-{number % 7}"})
    return Service(
        id=f"s{number:024d}", spec=ServiceSpec(annotations=annotations, task=_spec(number, version))
    )


def _task(number: int, version: int) -> Task:
    return Task(
        id=f"t{number:024d}",
        service_id=f"s{number:024d}",
        service_name=f"service-{number}",
        slot=1,
        node_id=f"node-{number % NODES}",
        spec=_spec(number, version),
    )


def _spec(number: int, version: int) -> TaskSpec:
    container = ContainerSpec(
        image=f"registry.example.com/team-{number % 40}/application:{version}",
        args=("serve", "--port", "8080", "--workers", str(number % 16)),
        env=tuple(f"VARIABLE_{each}=value-of-{number}-{each}-in-version-{version}" for each in range(10)),
        labels={f"com.example.label-{each}": f"value-{number}" for each in range(4)},
    )
    return TaskSpec(container=container)
