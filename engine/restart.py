"""Whether and when a container starts again by itself. Pure.

`on-failure:n` counts every restart since somebody started the container; only the pause between two attempts
forgets failures after a run of 10 s (Docker's restart manager does the same).
"""

from __future__ import annotations

import msgspec

from engine.container import Container

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 60.0
STABLE_AFTER_S = 10.0
_DOUBLINGS_MAX = 10  # 0.1 s doubled ten times is past the longest pause


class RestartDecision(msgspec.Struct, frozen=True, kw_only=True):
    """`quick_exits`: how many runs in a row, this one included, were shorter than STABLE_AFTER_S."""

    restart: bool
    delay_s: float
    quick_exits: int


def restart_decision(container: Container, ran_s: float) -> RestartDecision:
    """Docker's rules: the pause doubles from 0.1 s to 60 s and starts over after a run of 10 s."""
    state = container.state
    earlier = 0 if ran_s >= STABLE_AFTER_S else state.quick_exits
    delay_s = min(BACKOFF_FIRST_S * 2 ** min(earlier, _DOUBLINGS_MAX), BACKOFF_MAX_S)
    return RestartDecision(
        restart=not state.stopped_by_user and _wanted(container), delay_s=delay_s, quick_exits=earlier + 1
    )


def _wanted(container: Container) -> bool:
    policy = container.host_config.restart_policy
    if policy is None:
        return False
    if policy.name == "on-failure":
        spent = 0 < policy.maximum_retry_count <= container.state.restart_count
        return container.state.exit_code != 0 and not spent
    return policy.name in ("always", "unless-stopped")
