"""Every default of a spec, once. Plain data and pure functions; the control API fills them in on create.

Where a record's own field default already is the wished value it is not repeated here; this module fills
what a user may leave open (None, 0 or empty) and names the numbers that other packages need.
"""

from __future__ import annotations

import msgspec

from raft.objects.base import SECOND
from raft.objects.service import HealthCheck, RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig

RESTART_DELAY_NS = 5 * SECOND
STOP_GRACE_PERIOD_NS = 10 * SECOND
UPDATE_MONITOR_NS = 5 * SECOND

HEALTH_INTERVAL_NS = 30 * SECOND
HEALTH_TIMEOUT_NS = 30 * SECOND
HEALTH_START_INTERVAL_NS = 5 * SECOND
HEALTH_RETRIES = 3

HEARTBEAT_NS = 1 * SECOND

PUBLISHED_PORT_FIRST = 30_000
PUBLISHED_PORT_LAST = 32_767
VNI_FIRST = 4096
INGRESS_NETWORK_NAME = "ingress"


def service_spec(spec: ServiceSpec) -> ServiceSpec:
    """The spec with everything that was left open filled in; idempotent."""
    return msgspec.structs.replace(
        spec,
        task=task_spec(spec.task),
        update=_update_config(spec.update),
        rollback=_update_config(spec.rollback),
    )


def task_spec(spec: TaskSpec) -> TaskSpec:
    container = spec.container
    if container.stop_grace_period_ns is None:
        container = msgspec.structs.replace(container, stop_grace_period_ns=STOP_GRACE_PERIOD_NS)
    return msgspec.structs.replace(spec, container=container, restart=_restart_policy(spec.restart))


def health_check(check: HealthCheck) -> HealthCheck:
    """A health check as the engine runs it: zero durations and retries replaced."""
    return msgspec.structs.replace(
        check,
        interval_ns=check.interval_ns or HEALTH_INTERVAL_NS,
        timeout_ns=check.timeout_ns or HEALTH_TIMEOUT_NS,
        start_interval_ns=check.start_interval_ns or HEALTH_START_INTERVAL_NS,
        retries=check.retries or HEALTH_RETRIES,
    )


def restart_delay_ns(policy: RestartPolicy) -> int:
    return RESTART_DELAY_NS if policy.delay_ns is None else policy.delay_ns


def update_monitor_ns(config: UpdateConfig) -> int:
    return UPDATE_MONITOR_NS if config.monitor_ns is None else config.monitor_ns


def stop_grace_period_ns(spec: TaskSpec) -> int:
    grace = spec.container.stop_grace_period_ns
    return STOP_GRACE_PERIOD_NS if grace is None else grace


def _restart_policy(policy: RestartPolicy) -> RestartPolicy:
    return msgspec.structs.replace(policy, delay_ns=restart_delay_ns(policy))


def _update_config(config: UpdateConfig) -> UpdateConfig:
    return msgspec.structs.replace(config, monitor_ns=update_monitor_ns(config))
