"""Whether and when a container starts again by itself. Pure."""

from __future__ import annotations

import msgspec

from engine.container import Container

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 60.0
STABLE_AFTER_S = 10.0


class RestartDecision(msgspec.Struct, frozen=True, kw_only=True):
    """`reset_count`: it ran long enough for its failures to be forgotten."""

    restart: bool
    delay_s: float
    reset_count: bool


def restart_decision(container: Container, ran_s: float) -> RestartDecision:
    """Docker's rules: back-off doubles from 0.1 s to 60 s and starts over after a run of 10 s."""
    policy = container.host_config.restart_policy
    stable = ran_s >= STABLE_AFTER_S
    count = 0 if stable else container.state.restart_count
    name = policy.name if policy else "no"
    wanted = name in ("always", "unless-stopped") or (
        name == "on-failure"
        and container.state.exit_code != 0
        and (not policy or not policy.maximum_retry_count or count < policy.maximum_retry_count)
    )
    if container.state.stopped_by_user:
        wanted = False
    delay_s = min(BACKOFF_FIRST_S * 2**count, BACKOFF_MAX_S)
    return RestartDecision(restart=wanted, delay_s=delay_s, reset_count=stable)
