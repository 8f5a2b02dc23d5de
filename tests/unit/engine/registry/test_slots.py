"""So many at a time: in order, with cancelled ones, and with a limit that changes."""

from __future__ import annotations

import asyncio

from engine.registry.slots import Slots


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.slots = Slots(lambda: self.limit)
        self.inside: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def enter(self, number: int) -> None:
        self.gates[number] = asyncio.Event()
        self.tasks[number] = asyncio.create_task(self._stay(number))

    async def _stay(self, number: int) -> None:
        async with self.slots:
            self.inside.append(number)
            await self.gates[number].wait()
        self.inside.remove(number)


async def test_who_comes_first_goes_first_and_no_slot_is_lost() -> None:
    crowd = Crowd(2)
    for number in range(6):
        crowd.enter(number)
    await settle()
    assert (crowd.inside, crowd.slots.are_taken()) == ([0, 1], True)
    crowd.tasks[2].cancel()
    crowd.tasks[1].cancel()
    await settle()
    assert crowd.inside == [0, 1, 3]  # 1 was cancelled inside: it is gone, only its mark stays
    crowd.gates[0].set()
    crowd.tasks[4].cancel()  # in the very moment in which its turn may come
    await settle()
    assert 5 in crowd.inside
    for gate in crowd.gates.values():
        gate.set()
    ends = await asyncio.gather(*crowd.tasks.values(), return_exceptions=True)
    assert [type(end) for end in ends if end is not None] == [asyncio.CancelledError] * 3
    assert not crowd.slots.are_taken()


async def test_a_limit_that_grows_or_shrinks_holds_from_the_next_on() -> None:
    crowd = Crowd(1)
    for number in range(4):
        crowd.enter(number)
    await settle()
    assert crowd.inside == [0]
    crowd.limit = 3
    crowd.gates[0].set()
    await settle()
    assert crowd.inside == [1, 2, 3]
    crowd.limit = 0  # nobody could ever go: one may
    for gate in crowd.gates.values():
        gate.set()
    await asyncio.gather(*crowd.tasks.values())
    assert not crowd.slots.are_taken()
