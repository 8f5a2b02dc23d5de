"""Rounds of requests: each is drawn from its seed alone, on objects that stand when it begins."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable

from tests.fuzz import cuts, wire
from tests.fuzz.drafts import Draft, Drafting
from tests.fuzz.judgement import STREAMS, is_engine_failure, problems, refusal_problems
from tests.fuzz.shapes import OPERATIONS, Operation, operation
from tests.fuzz.world import BOUND_S, World

logger = logging.getLogger(__name__)
SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
REQUESTS = 10  # of a round
_CONTAINER_STEPS = tuple(
    op for op in OPERATIONS if op.path.startswith(("/containers/{id}", "/networks/{id}/", "/exec/"))
)
_SERVICE_STEPS = tuple(op for op in OPERATIONS if op.path.startswith(("/services/{id}", "/tasks", "/nodes")))


class Round:
    """`found`: a line for each broken promise, with what repeats it."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._seed = seed
        self._random = random.Random(seed)
        self.found: list[tuple[str, str]] = []  # what is wrong, in short (to be told once); all of it
        self.answers: Counter[tuple[str, int]] = Counter()

    def run(self) -> None:
        try:
            self._run()
        except AssertionError as error:
            self._note("what stands", str(error), "")

    def _run(self) -> None:
        self._world.ensure()
        plan: Callable[[], None] = self._random.choice(
            (
                self._hostile,
                self._hostile,
                self._meant,
                self._life_of_a_container,
                self._life_of_a_service,
                self._cuts,
            )
        )
        plan()
        if not self._world.answers():
            self._note("ping", f"the daemon does not answer: {self._world.state()}", "")
        self._world.tidy()

    def _operations(self) -> list[Operation]:
        """Of one area, so that they meet each other's objects."""
        areas = sorted({op.path.split("/")[1] for op in OPERATIONS})
        area = self._random.choice(areas)
        found = [op for op in OPERATIONS if op.path.split("/")[1] == area]
        if area in SWARM:
            self._world.ensure_swarm()
        return found

    def _drafting(self) -> Drafting:
        return Drafting(self._random, self._world.folder, self._world.names)

    def _hostile(self) -> None:
        found = self._operations()
        drafting = self._drafting()
        for _ in range(REQUESTS):
            self._try(drafting.draft(self._random.choice(found), 0.8))

    def _meant(self) -> None:
        found = self._operations()
        drafting = self._drafting()
        for _ in range(REQUESTS):
            self._try(drafting.draft(self._random.choice(found), 0.1))

    def _life_of_a_container(self) -> None:
        drafting = self._drafting()
        for _ in range(3):
            draft = drafting.draft(operation("POST", "/containers/create"), 0.15)
            if self._try(draft) == 201:
                break
        rows = self._world.ok("GET", "/containers/json?all=1&limit=1")
        name = rows[0]["Id"] if rows else "fuzz-run"
        self._try(drafting.draft(operation("POST", "/containers/{id}/start"), 0.0, name))
        for _ in range(REQUESTS):
            self._try(
                drafting.draft(
                    self._random.choice(_CONTAINER_STEPS), 0.2, self._random.choice(("", name, name))
                )
            )

    def _life_of_a_service(self) -> None:
        self._world.ensure_swarm()
        drafting = self._drafting()
        for _ in range(3):
            self._try(drafting.draft(operation("POST", "/services/create"), 0.15))
        for _ in range(REQUESTS):
            self._try(drafting.draft(self._random.choice(_SERVICE_STEPS), 0.2))

    def _cuts(self) -> None:
        drafting = self._drafting()
        for name in self._random.sample(sorted(cuts.CUTS), 6):
            self._send(f"cut {name!r}", "GET", cuts.CUTS[name])
        for _ in range(4):
            draft = drafting.draft(self._random.choice(OPERATIONS), 0.3)
            self._send(f"cut of {draft}", draft.operation.method, cuts.cut_anywhere(draft.data, self._random))
        for _ in range(6):
            method, data = cuts.any_method(self._random)
            self._send(data[:200].decode(), method, data)

    def _try(self, draft: Draft) -> int:
        operation = draft.operation
        stream = 0.2 if str(operation) in STREAMS else None
        answer = wire.send(self._world.socket, draft.data, operation.method, BOUND_S, stream_s=stream)
        self.answers[str(operation), answer.status] += 1
        logger.debug(
            "%s -> %d %s", str(draft)[:300], answer.status, answer.body[:200] if answer.status >= 400 else ""
        )
        for problem in problems(operation, answer, BOUND_S):
            self._note(str(operation), problem, str(draft))
        return answer.status

    def _send(self, what: str, method: str, data: bytes) -> None:
        """Whatever it is, it is either answered in words or ended."""
        answer = wire.send(self._world.socket, data, method, 0.4, stream_s=0.2)
        self.answers["cut", answer.status] += 1
        if answer.status >= 500 and answer.status not in (501, 503, 505) and not is_engine_failure(answer):
            self._note("cut", f"status {answer.status}: {answer.body[:300]!r}", what)
        elif answer.status in (404, 405) and answer.whole and method != "HEAD":
            for problem in refusal_problems(answer):
                self._note("cut", problem, what)

    def _note(self, where: str, problem: str, request: str) -> None:
        short = f"{where}: {problem[:80]}"
        self.found.append((short, f"SWARMCTL_FUZZ_SEED={self._seed}: {where}: {problem}\n    {request}"))
