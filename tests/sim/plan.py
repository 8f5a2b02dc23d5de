"""What will be done to a cluster: faults and requests with their times, drawn from a seed.

A plan is plain data, so that a failing one can be shrunk and printed.
"""

from __future__ import annotations

import random

import msgspec

CALM_S = 1.5  # for the first election
TROUBLE_S = 6.0
KEYS = ("a", "b", "c")
JOINERS = ("n6", "n7")
LAST_LEFT_SHARE = 0.15
LEADER = "leader"  # whoever leads when the fault strikes


class Fault(msgspec.Struct, frozen=True):
    """`nodes` are those it strikes; `amount` means something else for each kind, see tests.sim.run."""

    at: float
    kind: str
    nodes: tuple[str, ...]
    seconds: float
    amount: float = 0.0


class Request(msgspec.Struct, frozen=True):
    """`write` or `read` a key, at whoever leads; `choice` picks among several that believe so."""

    at: float
    kind: str
    key: str
    choice: int


class Plan(msgspec.Struct, frozen=True):
    seed: int
    nodes: tuple[str, ...]
    latency: float  # of every message, relative to a good network
    faults: tuple[Fault, ...]
    requests: tuple[Request, ...]
    is_last_left: bool  # at the end all disks but one are lost, and a new cluster is founded from that one


# Kind -> how often, relative to the others.
KINDS = {
    "crash": 3,
    "crash majority": 1,
    "crash all": 1,
    "restart": 4,
    "kill": 2,
    "stop": 2,
    "rot": 2,
    "lose disk": 2,
    "promote": 2,
    "power cut": 3,
    "isolate": 3,
    "split": 2,
    "one way": 3,
    "stall": 3,
    "disturb": 3,
    "slow disk": 2,
    "disk fails": 1,
    "pause": 2,
    "hand over": 1,
    "add": 2,
    "remove": 2,
}


def make_plan(seed: int, only: tuple[str, ...] = ()) -> Plan:
    """`only`: these kinds of faults and many of them, to look for something certain."""
    dice = random.Random(f"plan {seed}")
    # Some kinds only: a run with everything at once hides what a few of them do together.
    kinds = list(only) or dice.sample(sorted(KINDS), dice.randint(2, 6))
    size = dice.choice((1, 2, 3)) if "add" in kinds else dice.choices((3, 5), (3, 2))[0]
    nodes = ("n1", "n2", "n3", "n4", "n5")[:size]
    weights = [KINDS[kind] for kind in kinds]
    end = CALM_S + TROUBLE_S
    faults = [
        _fault(dice, dice.choices(kinds, weights)[0], nodes, at)
        for at in _times(dice, dice.randint(12, 30) if only else dice.randint(3, 14), end)
    ]
    requests = [
        Request(
            round(dice.uniform(CALM_S / 2, end), 4),
            "write" if dice.random() < 0.65 else "read",
            dice.choice(KEYS),
            dice.randint(0, 99),
        )
        for _ in range(dice.randint(40, 160))
    ]
    latency = dice.choice((1.0, 1.0, 1.0, 10.0, 50.0))
    is_last_left = dice.random() < LAST_LEFT_SHARE
    faults, requests = sorted(faults, key=_time), sorted(requests, key=_time)
    return Plan(seed, nodes, latency, tuple(faults), tuple(requests), is_last_left)


def _fault(dice: random.Random, kind: str, nodes: tuple[str, ...], at: float) -> Fault:
    count = {
        "crash majority": len(nodes) // 2 + 1,
        "crash all": len(nodes),
        "split": dice.randint(1, max(1, len(nodes) - 1)),
        "disturb": dice.choice((1, len(nodes))),
        "one way": 2,
    }.get(kind, 1)
    amount = {
        "power cut": float(dice.randint(0, 8)),
        "slow disk": dice.uniform(0.005, 0.3),
        "disturb": dice.uniform(0.02, 0.6),
        "stall": dice.random(),
        "rot": dice.random(),
    }.get(kind, 0.0)
    seconds = dice.uniform(0.05, 2.0) if dice.random() < 0.7 else dice.uniform(0.001, 0.1)
    if kind == "add":
        return Fault(round(at, 4), kind, (dice.choice(JOINERS),), 0.0)
    struck = dice.sample((*nodes, *JOINERS) if count > len(nodes) else nodes, count)
    if count == 1 and dice.random() < 0.5:
        struck = [LEADER]
    if kind == "restart":
        seconds = dice.uniform(0.001, 0.03)
    return Fault(round(at, 4), kind, tuple(struck), round(seconds, 4), round(amount, 4))


def _times(dice: random.Random, count: int, end: float) -> list[float]:
    """Half of them soon after another one: an election that is troubled is worth more than a quiet one."""
    times: list[float] = []
    for _ in range(count):
        soon = times and dice.random() < 0.5
        times.append(
            min(end, dice.choice(times) + dice.uniform(0, 1.3)) if soon else dice.uniform(CALM_S, end)
        )
    return times


def _time(event: Fault | Request) -> float:
    return event.at
