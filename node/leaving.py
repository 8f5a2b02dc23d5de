"""What it would do to the cluster when a manager left, in Docker's words (moby, daemon/cluster)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How many managers there are, this one included."""

    reachable: int
    unreachable: int

    @property
    def is_last(self) -> bool:
        return self.reachable == 1 and self.unreachable == 0

    @property
    def would_lose_quorum(self) -> bool:
        """Docker's rule: counted as if the others lost one more as well."""
        return self.reachable - 2 <= self.unreachable


def warning(standing: Standing | None) -> str:
    """None: this manager takes no part just now, and nobody can count."""
    text = "You are attempting to leave the swarm on a node that is participating as a manager. "
    if standing is None:
        text += "Doing so may lose the consensus of your cluster. "
    elif standing.is_last:
        return (
            f"{text}Removing the last manager erases all current state of the swarm. "
            "Use `--force` to ignore this message. "
        )
    elif standing.would_lose_quorum:
        total = standing.reachable + standing.unreachable
        text += (
            f"Removing this node leaves {standing.reachable - 1} managers out of {total}. "
            "Without a Raft quorum your swarm will be inaccessible. "
        )
    return (
        f"{text}The only way to restore a swarm that has lost consensus is to reinitialize it with "
        "`--force-new-cluster`. Use `--force` to suppress this message."
    )
