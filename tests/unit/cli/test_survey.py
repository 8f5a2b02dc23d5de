"""The words of `swarm init --force-new-cluster --dry-run`."""

from __future__ import annotations

from typing import Any

import pytest

from cli.survey import survey_text

SURVEY: dict[str, Any] = {
    "LastIndex": 120,
    "SnapshotIndex": 100,
    "CommittedIndex": 110,
    "NotKnownCommitted": 10,
    "LeaderHeardSecondsAgo": 62.4,
    "Leads": False,
    "Damage": ["wal-0000000000000002.log: damaged frame at byte 99"],
    "Kept": {"cluster": 1, "node": 3, "service": 2},
    "ShutOut": [
        {"NodeID": "b", "Hostname": "n2", "Addr": "10.0.0.2:2377"},
        {"NodeID": "c", "Hostname": "", "Addr": "10.0.0.3:2377"},
    ],
    "Warnings": ["this may be lost", "and that"],
}


def test_everything_is_said() -> None:
    assert survey_text(SURVEY).splitlines() == [
        "Nothing was changed. A new cluster from the state of this manager would be made of:",
        "  last entry on this disk:      120 (snapshot at 100)",
        "  known to be committed up to:  110",
        "  not known to be committed:    10",
        "  leader last heard:            62 s ago",
        "  damaged:                      wal-0000000000000002.log: damaged frame at byte 99",
        "  kept:                         3 nodes, 2 services",
        "  shut out:                     n2 at 10.0.0.2:2377",
        "  shut out:                     c at 10.0.0.3:2377",
        "What may be lost or go wrong:",
        "  - this may be lost",
        "  - and that",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"LeaderHeardSecondsAgo": -1.0}, "not known"), ({"Leads": True}, "this manager leads")],
)
def test_leader(changes: dict[str, object], said: str) -> None:
    assert f"leader last heard:            {said}\n" in survey_text(SURVEY | changes)
