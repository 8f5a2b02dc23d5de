"""Docker's words for a manager that is asked to leave."""

from __future__ import annotations

import pytest

from node.leaving import Standing, warning

BEGIN = "You are attempting to leave the swarm on a node that is participating as a manager. "
END = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)
LOSS = "Without a Raft quorum your swarm will be inaccessible. "


@pytest.mark.parametrize(
    ("standing", "middle"),
    [
        (Standing(3, 0), ""),
        (Standing(2, 0), f"Removing this node leaves 1 managers out of 2. {LOSS}"),
        (Standing(2, 1), f"Removing this node leaves 1 managers out of 3. {LOSS}"),
        (Standing(3, 2), f"Removing this node leaves 2 managers out of 5. {LOSS}"),
        (Standing(4, 1), ""),
        (None, "Doing so may lose the consensus of your cluster. "),
    ],
)
def test_words(standing: Standing | None, middle: str):
    assert warning(standing) == BEGIN + middle + END


def test_last_manager():
    assert warning(Standing(1, 0)) == (
        BEGIN + "Removing the last manager erases all current state of the swarm. "
        "Use `--force` to ignore this message. "
    )
