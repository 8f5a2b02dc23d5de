"""All managers examined and compared at one index: do they hold the same state, and are their files whole?

Works from any manager. What more than half of the managers hold is what is expected; when there is no such
thing all are compared with the leader, which then may be the wrong one. Invariant: a report without problems
means that every member was reached, had the checkpoint, and agreed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol, cast

import msgspec

from node.manager.control.base import Leadership
from node.manager.examination import (
    BUCKETS,
    EXAMINE,
    OBJECTS,
    BucketsRequest,
    Examination,
    Examiner,
    ExamineRequest,
    ObjectsRequest,
)
from node.manager.forward import RpcCaller, from_rpc
from node.manager.leader_calls import LeaderCalls
from node.rpc import RpcError
from raft import digest
from raft.digest import Difference, ObjectDigest
from raft.errors import RaftError
from raft.objects.base import Kind
from raft.verify import FileReport

EXAMINE_TIMEOUT_S = 120.0
ATTEMPTS = 3  # of a checkpoint that a manager got inside a snapshot


class ManagerReport(msgspec.Struct, frozen=True, kw_only=True):
    """`digest`: short name of the state at the checkpoint, "" when unknown. Healthy without `problems`."""

    node_id: str
    address: str
    reachable: bool
    leader: bool
    applied_index: int = 0
    digest: str = ""
    files: tuple[FileReport, ...] = ()
    differences: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`index`: where the states were compared, 0 when they could not be; `problem`: why not."""

    index: int
    problem: str
    managers: tuple[ManagerReport, ...]

    @property
    def healthy(self) -> bool:
        return not self.problem and not any(manager.problems for manager in self.managers)


class Members(Leadership, Protocol):
    """The consensus: who belongs and who leads."""


class Checkup:
    def __init__(
        self,
        node_id: str,
        members: Members,
        client: RpcCaller,
        leader_calls: LeaderCalls,
        examiner: Examiner,
    ) -> None:
        self._node_id = node_id
        self._members = members
        self._client = client
        self._leader_calls = leader_calls
        self._examiner = examiner

    async def run(self) -> Report:
        members = dict(self._members.members())
        index, problem, found = await self._examine_all(members)
        expected, reference = _expected(found, self._members.leader_id or "")
        reports = [
            await self._report(node_id, address, index, found[node_id], expected, reference)
            for node_id, address in sorted(members.items())
        ]
        return Report(index=index, problem=problem, managers=tuple(reports))

    async def _examine_all(
        self, members: Mapping[str, str]
    ) -> tuple[int, str, dict[str, Examination | RaftError]]:
        for attempt in range(1, ATTEMPTS + 1):
            index, problem = 0, ""
            try:
                index = await self._leader_calls.checkpoint()
            except RaftError as error:
                problem = f"the managers' states cannot be compared: {error}"
            answers = await asyncio.gather(
                *(self._examine(node_id, address, index) for node_id, address in members.items())
            )
            found = dict(zip(members, answers, strict=True))
            missed = [e for e in answers if isinstance(e, Examination) and e.digests is None]
            if problem or not missed or attempt == ATTEMPTS:
                return index, problem, found
        raise AssertionError("the last attempt returns")

    async def _examine(self, node_id: str, address: str, index: int) -> Examination | RaftError:
        if node_id == self._node_id:
            return await self._examiner.examine(index)
        try:
            answer = await self._ask(address, EXAMINE, ExamineRequest(index), Examination)
            return cast(Examination, answer)
        except RaftError as error:
            return error

    async def _report(
        self,
        node_id: str,
        address: str,
        index: int,
        found: Examination | RaftError,
        expected: Examination | None,
        reference: str,
    ) -> ManagerReport:
        leads = node_id == self._members.leader_id
        if isinstance(found, RaftError):
            return ManagerReport(
                node_id=node_id,
                address=address,
                reachable=False,
                leader=leads,
                problems=(f"cannot be examined: {found}",),
            )
        problems = [found.problem] if found.problem else []
        problems += [f"{file.name}: {file.problem}" for file in found.files if file.problem]
        differences: list[Difference] = []
        if expected is not None and found.digests is not None and found.digests != expected.digests:
            differences, unknown = await self._differences(index, found, expected)
            problems += [_difference_text(difference, reference) for difference in differences] + unknown
        return ManagerReport(
            node_id=node_id,
            address=address,
            reachable=True,
            leader=leads,
            applied_index=found.applied_index,
            digest=digest.summary(found.digests) if found.digests else "",
            files=tuple(found.files),
            differences=tuple(differences),
            problems=tuple(problems),
        )

    async def _differences(
        self, index: int, found: Examination, expected: Examination
    ) -> tuple[list[Difference], list[str]]:
        """The first differing object of each kind that differs; and what could not be found out."""
        assert found.digests is not None and expected.digests is not None, "both were compared"
        differences, unknown = [], []
        for kind in digest.differing_kinds(found.digests, expected.digests):
            try:
                differences.append(await self._first_difference(index, kind, found.node_id, expected.node_id))
            except RaftError as error:
                unknown.append(f"its {kind} objects differ; which one cannot be said: {error}")
        return differences, unknown

    async def _first_difference(self, index: int, kind: Kind, found_id: str, expected_id: str) -> Difference:
        mine, theirs = [
            await self._buckets(node_id, BucketsRequest(index, kind)) for node_id in (found_id, expected_id)
        ]
        bucket = next(number for number in range(digest.BUCKETS) if mine[number] != theirs[number])
        found, expected = [
            await self._objects(node_id, ObjectsRequest(index, kind, bucket))
            for node_id in (found_id, expected_id)
        ]
        difference = digest.first_difference(kind, found, expected)
        assert difference is not None, "digests differ because an object does"
        return difference

    async def _buckets(self, node_id: str, request: BucketsRequest) -> list[bytes]:
        if node_id == self._node_id:
            return await self._examiner.buckets(request)
        answer = await self._ask(self._members.members()[node_id], BUCKETS, request, list[bytes])
        return cast("list[bytes]", answer)

    async def _objects(self, node_id: str, request: ObjectsRequest) -> dict[str, ObjectDigest]:
        if node_id == self._node_id:
            return await self._examiner.objects(request)
        address = self._members.members()[node_id]
        answer = await self._ask(address, OBJECTS, request, dict[str, ObjectDigest])
        return cast("dict[str, ObjectDigest]", answer)

    async def _ask(self, address: str, method: str, request: object, kind: Any) -> Any:
        payload = msgspec.msgpack.encode(request)
        try:
            answer = await self._client.call(address, method, payload, timeout=EXAMINE_TIMEOUT_S)
        except RpcError as error:
            raise from_rpc(error) from error
        return msgspec.msgpack.decode(answer, type=kind)


def _expected(found: Mapping[str, Examination | RaftError], leader_id: str) -> tuple[Examination | None, str]:
    """Whom to compare the others with, and what to call it; None when no digest is known."""
    names = {
        node_id: digest.summary(examination.digests)
        for node_id, examination in found.items()
        if isinstance(examination, Examination) and examination.digests is not None
    }
    if not names:
        return None, ""
    name, votes = Counter(names.values()).most_common(1)[0]
    if 2 * votes > len(found):
        chosen, called = min(node_id for node_id in names if names[node_id] == name), "most managers"
    else:
        chosen = leader_id if leader_id in names else min(names)
        called = "the leader" if chosen == leader_id else f"manager {chosen}"
    examination = found[chosen]
    assert isinstance(examination, Examination), "only those have a digest"
    return examination, called


def _difference_text(difference: Difference, reference: str) -> str:
    def at(version: int | None) -> str:
        return "missing" if version is None else f"at version {version}"

    what = f"{difference.kind} {difference.id}"
    if difference.version == difference.expected:
        return f"{what} is not the same as on {reference}, although both are {at(difference.version)}"
    return f"{what} is {at(difference.version)}, on {reference} {at(difference.expected)}"
