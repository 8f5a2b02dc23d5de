from __future__ import annotations

import pytest

from engine.config import HostConfig, RestartPolicy
from engine.container import Container
from engine.restart import restart_decision
from tests.records import container_record, exited


def crashed(policy: str, code: int = 1, retries: int = 0, **state: object) -> Container:
    return container_record(
        host=HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=retries)),
        state=exited(code, **state),
    )


@pytest.mark.parametrize(
    ("policy", "code", "stopped", "restarts"),
    [
        ("", 1, False, False),
        ("no", 1, False, False),
        ("always", 0, False, True),
        ("always", 1, True, False),
        ("unless-stopped", 0, False, True),
        ("unless-stopped", 1, True, False),
        ("on-failure", 0, False, False),
        ("on-failure", 137, False, True),
        ("on-failure", 137, True, False),
    ],
)
def test_which_exits_are_answered_by_a_restart(policy: str, code: int, stopped: bool, restarts: bool) -> None:
    container = crashed(policy, code, stopped_by_user=stopped)
    assert restart_decision(container, ran_s=1.0).restart is restarts


def test_without_a_policy_it_stays_down() -> None:
    assert restart_decision(container_record(state=exited(1)), ran_s=1.0).restart is False


def test_pauses_double_up_to_a_minute_and_start_over_after_a_long_run() -> None:
    container = crashed("always")
    pauses = []
    for _ in range(12):
        decision = restart_decision(container, ran_s=9.9)
        pauses.append(decision.delay_s)
        container.state.quick_exits = decision.quick_exits
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    decision = restart_decision(container, ran_s=10.0)
    assert (decision.delay_s, decision.quick_exits) == (0.1, 1)


def test_a_container_may_crash_for_months() -> None:
    assert restart_decision(crashed("always", quick_exits=100_000), ran_s=0.1).delay_s == 60.0


@pytest.mark.parametrize("ran_s", [0.1, 3600.0])
def test_retries_are_counted_however_long_a_run_was(ran_s: float) -> None:
    assert restart_decision(crashed("on-failure", retries=3, restart_count=2), ran_s).restart
    assert not restart_decision(crashed("on-failure", retries=3, restart_count=3), ran_s).restart
