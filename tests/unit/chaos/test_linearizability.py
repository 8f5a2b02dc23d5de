"""The checker itself: histories that one register could give, and each typical way in which one could not."""

from __future__ import annotations

import random

import pytest

from chaos.history import Kind, Operation, Outcome
from chaos.linearizability import check, first_unexplained


def operation(
    kind: Kind,
    start: int,
    end: int | None,
    value: str | None,
    expected: str | None = None,
    outcome: Outcome = Outcome.OK,
    key: str = "x",
) -> Operation:
    if outcome is Outcome.UNKNOWN:
        end = None
    return Operation("c", "n1", key, kind, value, expected, start, end, outcome)


def read(start: int, end: int, value: str | None) -> Operation:
    return operation(Kind.READ, start, end, value)


def write(start: int, end: int | None, value: str, outcome: Outcome = Outcome.OK) -> Operation:
    return operation(Kind.WRITE, start, end, value, outcome=outcome)


def cas(
    start: int, end: int | None, expected: str | None, value: str, outcome: Outcome = Outcome.OK
) -> Operation:
    return operation(Kind.CAS, start, end, value, expected, outcome)


UNKNOWN, REFUSED, FAIL = Outcome.UNKNOWN, Outcome.REFUSED, Outcome.FAIL

RIGHT = {
    "nothing": [],
    "one after the other": [write(1, 2, "a"), read(3, 4, "a"), cas(5, 6, "a", "b"), read(7, 8, "b")],
    "a read during a write sees the old value": [write(1, 2, "a"), write(3, 9, "b"), read(4, 5, "a")],
    "a read during a write sees the new value": [write(1, 2, "a"), write(3, 9, "b"), read(4, 5, "b")],
    "two reads during a write see old, then new": [
        *(write(1, 2, "a"), write(3, 9, "b")),
        *(read(4, 5, "a"), read(6, 7, "b")),
    ],
    "of two concurrent swaps the second is refused": [
        *(write(1, 2, "a"), cas(3, 8, "a", "b")),
        *(cas(4, 7, "a", "c", REFUSED), read(9, 10, "b")),
    ],
    "a chain of concurrent swaps in an order that their starts do not have": [
        *(cas(3, 20, None, "a"), cas(2, 20, "a", "b"), cas(1, 20, "b", "c")),
        read(21, 22, "c"),
    ],
    "an unknown write that took effect at once": [write(1, None, "a", UNKNOWN), read(5, 6, "a")],
    "an unknown write that took effect late": [
        *(write(1, 2, "a"), write(3, None, "b", UNKNOWN)),
        *(read(4, 5, "a"), read(6, 7, "a"), read(8, 9, "b")),
    ],
    "an unknown write that never took effect": [
        *(write(1, 2, "a"), write(3, None, "b", UNKNOWN), read(4, 5, "a"), read(100, 101, "a")),
    ],
    "a swap is refused because of an unknown one that nobody saw": [
        *(write(1, 2, "a"), cas(3, None, "a", "b", UNKNOWN), cas(4, 5, "a", "c", REFUSED)),
    ],
    "an unknown swap whose base comes later": [
        *(cas(1, None, "a", "b", UNKNOWN), write(2, 3, "a"), read(4, 5, "b")),
    ],
    "an unknown read says nothing": [
        *(write(1, 2, "a"), operation(Kind.READ, 3, None, None, outcome=UNKNOWN), read(4, 5, "a")),
    ],
    "what certainly failed had no effect": [write(1, 2, "a"), write(3, 4, "b", FAIL), read(5, 6, "a")],
    "a value that returns": [
        *(write(1, 2, "a"), write(3, 4, "b"), write(5, 6, "a"), read(7, 8, "a")),
    ],
    "two unknown writes, seen in the other order": [
        *(write(1, None, "a", UNKNOWN), write(2, None, "b", UNKNOWN)),
        *(read(3, 4, "b"), read(5, 6, "a")),
    ],
}

WRONG = {
    "stale read": [write(1, 2, "a"), write(3, 4, "b"), read(5, 6, "a")],
    "lost write": [write(1, 2, "a"), read(3, 4, None)],
    "lost swap": [write(1, 2, "a"), cas(3, 4, "a", "b"), cas(5, 6, "a", "c")],
    "read of a value never written": [write(1, 2, "a"), read(3, 4, "z")],
    "read of what certainly failed": [write(1, 2, "a"), write(3, 4, "b", FAIL), read(5, 6, "b")],
    "read from the future": [read(1, 2, "a"), write(3, 4, "a")],
    "two swaps that both won": [write(1, 2, "a"), cas(3, 8, "a", "b"), cas(4, 7, "a", "c")],
    "a refusal without a reason": [write(1, 2, "a"), cas(3, 4, "a", "b", REFUSED)],
    "an unknown write that took effect twice": [
        *(write(1, 2, "a"), write(3, None, "b", UNKNOWN), read(4, 5, "b")),
        *(write(6, 7, "c"), read(8, 9, "b")),
    ],
    "an unknown write that was undone": [
        *(write(1, 2, "a"), write(3, None, "b", UNKNOWN), read(4, 5, "b"), read(6, 7, "a")),
    ],
    "an unknown write before its start": [
        *(write(1, 2, "a"), read(3, 4, "b"), write(5, None, "b", UNKNOWN)),
    ],
    "the order of writes differs between sessions": [
        *(write(1, 20, "a"), write(1, 20, "b")),
        *(read(2, 3, "a"), read(4, 5, "b"), read(6, 7, "a")),
    ],
    "two reads during a write see new, then old": [
        *(write(1, 2, "a"), write(3, 9, "b")),
        *(read(4, 5, "b"), read(6, 7, "a")),
    ],
    "created twice": [cas(1, 2, None, "a"), cas(3, 4, None, "b")],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_histories_pass(name: str) -> None:
    assert check(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_wrong_histories_are_found(name: str) -> None:
    assert len(check(WRONG[name])) == 1


def test_registers_are_independent() -> None:
    history = [
        operation(Kind.WRITE, 1, 2, "a", key="x"),
        operation(Kind.READ, 3, 4, None, key="y"),
        operation(Kind.READ, 5, 6, None, key="x"),
    ]
    (violation,) = check(history)
    assert violation.key == "x"
    assert violation.operation == history[2]


def test_the_smallest_part_is_what_contradicts_itself() -> None:
    chain = [cas(10 * n, 10 * n + 1, None if n == 0 else f"v{n - 1}", f"v{n}") for n in range(100)]
    looks = [read(10 * n + 2, 10 * n + 3, f"v{n}") for n in range(100)]
    stale = read(10 * 50 + 4, 10 * 50 + 5, "v49")
    (violation,) = check([*chain, *looks, stale])
    assert violation.operation == stale
    assert violation.part == (looks[50], stale)
    assert violation.whole == 201


def test_an_unknown_write_that_explains_is_never_left_out() -> None:
    """Without it the read of b would look like the fault."""
    history = [
        *(write(1, 2, "a"), cas(3, None, "a", "b", UNKNOWN)),
        *(read(4, 5, "b"), read(6, 7, "a")),
    ]
    (violation,) = check(history)
    assert violation.operation == history[3]
    assert history[2] in violation.part and history[3] in violation.part


def test_many_unknown_swaps_do_not_explode() -> None:
    history = [cas(0, 1, None, "v0")]
    for n in range(1, 300):
        history.append(cas(10 * n, 10 * n + 1, f"v{n - 1}", f"v{n}"))
        history.append(cas(10 * n, None, f"v{n - 1}", f"lost{n}", UNKNOWN))
    assert check(history) == []


class Register:
    """A real register whose operations take effect at random moments within their time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.value: str | None = None

    def history(self, length: int) -> list[Operation]:
        moments = sorted(self.rng.sample(range(10 * length), length))
        return [self.one(number, moment) for number, moment in enumerate(moments)]

    def one(self, number: int, moment: int) -> Operation:
        start, end = moment - self.rng.randrange(20), moment + self.rng.randrange(20)
        kind = self.rng.choice(list(Kind))
        if kind is Kind.READ:
            return operation(kind, start, end, self.value)
        value = f"v{number}"
        expected = self.rng.choice([self.value, "v0", None]) if kind is Kind.CAS else None
        fate = self.rng.random()
        if fate < 0.1:
            return operation(kind, start, None, value, expected, UNKNOWN)  # never took effect
        if kind is Kind.CAS and expected != self.value:
            return operation(kind, start, end, value, expected, REFUSED)
        self.value = value
        return operation(kind, start, end, value, expected, UNKNOWN if fate < 0.2 else Outcome.OK)


@pytest.mark.parametrize("seed", range(20))
def test_what_a_real_register_gives_passes_and_passes_from_any_point(seed: int) -> None:
    """The second half of the promise: leaving out the beginning never makes a contradiction."""
    from chaos.linearizability import ANYTHING, _quiet_moments, _since

    history = Register(random.Random(seed)).history(60)
    assert check(history) == []
    for moment in _quiet_moments(history):
        assert first_unexplained(_since(history, moment), ANYTHING) is None


@pytest.mark.parametrize("seed", range(60))
def test_the_search_agrees_with_trying_every_order(seed: int) -> None:
    rng = random.Random(seed)
    history = Register(rng).history(6)
    at = rng.randrange(len(history))
    if history[at].kind is Kind.READ:
        history[at] = read(
            history[at].start, history[at].end or 0, rng.choice([None, "v0", "v1", "v2", "v3"])
        )
    assert (first_unexplained(history) is None) == _some_order_explains(history, None)


def _some_order_explains(left: list[Operation], value: str | None) -> bool:
    if all(o.outcome is UNKNOWN for o in left):
        return True
    first_end = min(o.end for o in left if o.end is not None)
    for number, chosen in enumerate(left):
        if chosen.start > first_end:
            continue
        rest = left[:number] + left[number + 1 :]
        if chosen.kind is Kind.READ:
            possible, following = value == chosen.value, value
        elif chosen.outcome is REFUSED:
            possible, following = value != chosen.expected, value
        else:
            possible = chosen.kind is Kind.WRITE or value == chosen.expected
            following = chosen.value
        if possible and _some_order_explains(rest, following):
            return True
    return False
