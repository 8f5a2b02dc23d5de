"""What `swarm init --force-new-cluster --dry-run` shows: the daemon's answer in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def survey_text(survey: dict[str, Any]) -> str:
    return "\n".join(_lines(survey))


def _lines(survey: dict[str, Any]) -> Iterator[str]:
    yield "Nothing was changed. A new cluster from the state of this manager would be made of:"
    yield f"  last entry on this disk:      {survey['LastIndex']} (snapshot at {survey['SnapshotIndex']})"
    yield f"  known to be committed up to:  {survey['CommittedIndex']}"
    yield f"  not known to be committed:    {survey['NotKnownCommitted']}"
    yield f"  leader last heard:            {_heard(survey)}"
    for damage in survey["Damage"]:
        yield f"  damaged:                      {damage}"
    kept = {kind: count for kind, count in survey["Kept"].items() if kind != "cluster"}
    yield f"  kept:                         {', '.join(f'{count} {kind}s' for kind, count in kept.items())}"
    for manager in survey["ShutOut"]:
        yield f"  shut out:                     {manager['Hostname'] or manager['NodeID']} at {manager['Addr']}"
    yield "What may be lost or go wrong:"
    yield from (f"  - {warning}" for warning in survey["Warnings"])


def _heard(survey: dict[str, Any]) -> str:
    if survey["Leads"]:
        return "this manager leads"
    seconds = survey["LeaderHeardSecondsAgo"]
    return "not known" if seconds < 0 else f"{seconds:.0f} s ago"
