"""Is there an order of the operations, each between its start and its end, that one register would give?

The search of Wing and Gong in Lowe's form: the history is walked in time with the set of all configurations
(value, which pending operations have taken effect) that explain what was answered so far; equal ones are
met once. Registers are independent, so each key is checked alone. An operation of unknown outcome stays
pending for ever: it may take effect once, at any time from its start on, or never.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from chaos.history import Kind, Operation, Outcome

CONFIGURATIONS_MAX = 200_000


class Undecided(Exception):
    """Too many configurations: the history leaves too much open to be checked."""


class _Anything:
    """The value of a register of which nothing is known yet."""


ANYTHING = _Anything()
Value = str | None | _Anything
Configuration = tuple[Value, frozenset[int]]


@dataclass(frozen=True)
class Violation:
    """`operation` is the first whose answer no order explains; `part` the smallest part of the history,
    found by leaving out, that already contradicts itself; `whole`: of so many operations."""

    key: str
    operation: Operation
    part: tuple[Operation, ...]
    whole: int


def check(operations: Iterable[Operation]) -> list[Violation]:
    """The violations, at most one of each register. Raises Undecided."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    violations = []
    for key, history in by_key.items():
        relevant = [operation for operation in history if _matters(operation)]
        broken = first_unexplained(relevant)
        if broken is not None:
            part = _smallest_part(relevant, broken)
            violations.append(Violation(key, broken, tuple(part), len(history)))
    return violations


def _matters(operation: Operation) -> bool:
    if operation.outcome is Outcome.UNKNOWN:
        return operation.kind is not Kind.READ
    return operation.outcome is not Outcome.FAIL


# --- the search ---


def first_unexplained(history: Sequence[Operation], initial: Value = None) -> Operation | None:
    """The operation whose end leaves no configuration, None when the history is linearizable."""
    configurations: set[Configuration] = {(initial, frozenset())}
    pending: dict[int, Operation] = {}
    for _, ends, number in _events(history):
        operation = history[number]
        if not ends:
            pending[number] = operation
            if _is_pure(operation):
                configurations = {_observed(configuration, pending) for configuration in configurations}
            continue
        configurations = _best(_explaining(configurations, pending, number), pending)
        del pending[number]
        if not configurations:
            return operation
    return None


def _events(history: Sequence[Operation]) -> list[tuple[int, bool, int]]:
    """(time, is an end, number of the operation); at the same time starts come first, which allows more."""
    events = [(operation.start, False, number) for number, operation in enumerate(history)]
    events += [
        (operation.end, True, number) for number, operation in enumerate(history) if operation.end is not None
    ]
    return sorted(events)


def _explaining(
    configurations: set[Configuration], pending: dict[int, Operation], ending: int
) -> set[Configuration]:
    """All configurations in which the ending operation has taken effect; it is no longer mentioned."""
    survivors: set[Configuration] = set()
    seen = set(configurations)
    stack = list(configurations)
    while stack:
        value, done = stack.pop()
        if ending in done:
            survivors.add((value, done - {ending}))
            continue
        for number, operation in pending.items():
            if number in done or not _can_follow(value, operation):
                continue
            following = _observed((operation.value, done | {number}), pending)
            if following not in seen:
                seen.add(following)
                stack.append(following)
        if len(seen) > CONFIGURATIONS_MAX:
            raise Undecided(f"more than {CONFIGURATIONS_MAX} configurations at {pending[ending]}")
    return survivors


def _best(configurations: set[Configuration], pending: dict[int, Operation]) -> set[Configuration]:
    """Without those that have used up more operations of unknown outcome than another one that is otherwise
    equal: what is left can do all that they can."""
    unknown = frozenset(number for number, operation in pending.items() if operation.end is None)
    alike: dict[Configuration, list[frozenset[int]]] = defaultdict(list)
    for value, done in configurations:
        alike[value, done - unknown].append(done & unknown)
    best: set[Configuration] = set()
    for (value, answered), choices in alike.items():
        kept: list[frozenset[int]] = []
        for used in sorted(choices, key=len):
            if not any(fewer <= used for fewer in kept):
                kept.append(used)
        best.update((value, answered | used) for used in kept)
    return best


def _observed(configuration: Configuration, pending: dict[int, Operation]) -> Configuration:
    """Whatever only looks takes effect as soon as the value suits it: waiting could not help it."""
    value, done = configuration
    satisfied = {
        number
        for number, operation in pending.items()
        if number not in done and _is_pure(operation) and _suits(operation, value)
    }
    return (value, done | satisfied) if satisfied else configuration


def _suits(operation: Operation, value: Value) -> bool:
    return value == operation.value if operation.kind is Kind.READ else value != operation.expected


def _is_pure(operation: Operation) -> bool:
    """It changes nothing: a read, or a compare-and-swap that was refused."""
    return operation.kind is Kind.READ or operation.outcome is Outcome.REFUSED


def _can_follow(value: Value, operation: Operation) -> bool:
    """Can it be the next to take effect? A read only where it is the first to say what the value is."""
    if operation.kind is Kind.READ or isinstance(value, _Anything):
        return isinstance(value, _Anything) and operation.outcome is not Outcome.REFUSED
    return not _is_pure(operation) and (operation.kind is Kind.WRITE or value == operation.expected)


# --- what to show of a violation ---


def _smallest_part(history: list[Operation], broken: Operation) -> list[Operation]:
    """The end of the history up to the violation that contradicts itself whatever was before, without the
    operations that are not needed for that. Nothing is left out whose absence could make a contradiction."""
    part = _until(history, broken)
    initial: Value = None
    cuts = _quiet_moments(part)
    # A later cut leaves less to contradict: the last one that suffices is found by halving.
    suffices = bisect_left(
        cuts, True, key=lambda moment: first_unexplained(_since(part, moment), ANYTHING) is None
    )
    if suffices:
        part, initial = _since(part, cuts[suffices - 1]), ANYTHING
    part = _without(part, initial, _is_pure)
    return sorted(_without(part, initial, lambda o: _is_unseen(o, part)), key=lambda o: o.start)


def _until(history: Sequence[Operation], broken: Operation) -> list[Operation]:
    """As it was known when the broken operation ended: what ended later was still pending."""
    moment = broken.end
    assert moment is not None, "only an answer can contradict"
    part = []
    for operation in history:
        if operation.start > moment:
            continue
        if operation.end is not None and operation.end > moment:
            if _is_pure(operation):
                continue
            operation = replace(operation, end=None, outcome=Outcome.UNKNOWN)
        part.append(operation)
    return part


def _quiet_moments(history: Sequence[Operation]) -> list[int]:
    """Starts of operations at which no answered one was under way."""
    moments, busy_until = [], -1
    for operation in sorted(history, key=lambda o: o.start):
        if operation.start > busy_until:
            moments.append(operation.start)
        busy_until = max(busy_until, operation.end or -1)
    return moments


def _since(history: Sequence[Operation], moment: int) -> list[Operation]:
    """What started at or after a quiet moment, and what was still pending without an answer."""
    return [operation for operation in history if operation.end is None or operation.start >= moment]


def _is_unseen(operation: Operation, part: Sequence[Operation]) -> bool:
    """An unanswered write whose value nobody names, and no refusal that it could be the reason of."""
    named = any(
        other is not operation
        and (other.outcome is Outcome.REFUSED or operation.value in (_read(other), other.expected))
        for other in part
    )
    return operation.end is None and not named


def _read(operation: Operation) -> str | None:
    return operation.value if operation.kind is Kind.READ else None


def _without(
    history: list[Operation], initial: Value, may_go: Callable[[Operation], bool]
) -> list[Operation]:
    """Leave out one operation after the other as long as the rest contradicts itself."""
    kept = list(history)
    for operation in [o for o in history if may_go(o)]:
        rest = [other for other in kept if other is not operation]
        if first_unexplained(rest, initial) is not None:
            kept = rest
    return kept
