"""Service specs from the API. InvalidArgument names the field that is wrong or not supported."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, TypeVar

from engine.config import HealthConfig
from node.api import bodies
from node.api.convert.mounts import mount_spec
from raft.errors import InvalidArgument
from raft.objects.base import Annotations, Driver, Platform
from raft.objects.service import (
    ContainerSpec,
    EndpointMode,
    EndpointSpec,
    FailureAction,
    FileReference,
    HealthCheck,
    NetworkAttachmentSpec,
    Placement,
    PortConfig,
    PublishMode,
    ResourceRequirements,
    Resources,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)

_E = TypeVar("_E", bound=enum.StrEnum)


def service_spec(body: bodies.ServiceBody) -> ServiceSpec:
    template = body.task_template or bodies.TaskBody()
    mode, replicas = _mode(body.mode)
    return ServiceSpec(
        annotations=Annotations(name=body.name, labels=body.labels or {}),
        task=_task(template, body.networks),
        mode=mode,
        replicas=replicas,
        update=_update(body.update_config, "UpdateConfig"),
        rollback=_update(body.rollback_config, "RollbackConfig"),
        endpoint=_endpoint(body.endpoint_spec),
    )


def _mode(body: bodies.ModeBody | None) -> tuple[ServiceMode, int]:
    if body is None:
        return ServiceMode.REPLICATED, 1
    given = [
        name
        for name, value in (
            ("Replicated", body.replicated),
            ("Global", body.global_),
            ("ReplicatedJob", body.replicated_job),
            ("GlobalJob", body.global_job),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise InvalidArgument(f"must specify only one service mode, not {' and '.join(given)}")
    if given and given[0].endswith("Job"):
        raise InvalidArgument(f"Mode.{given[0]} is not supported yet: use Replicated or Global")
    if body.global_ is not None:
        return ServiceMode.GLOBAL, 1
    replicas = body.replicated.replicas if body.replicated else None
    if replicas is not None and replicas < 0:
        raise InvalidArgument("Mode.Replicated.Replicas must not be negative")
    return ServiceMode.REPLICATED, 1 if replicas is None else replicas


def _task(body: bodies.TaskBody, networks: Sequence[bodies.AttachmentBody] | None) -> TaskSpec:
    if body.plugin_spec or body.network_attachment_spec or body.runtime not in ("", "container"):
        raise InvalidArgument(f'TaskTemplate.Runtime "{body.runtime}" is not supported: only container is')
    placement = body.placement or bodies.PlacementBody()
    log = body.log_driver
    return TaskSpec(
        container=_container(body.container_spec or bodies.ContainerBody()),
        resources=_requirements(body.resources),
        restart=_restart(body.restart_policy),
        placement=Placement(
            constraints=tuple(placement.constraints or ()),
            preferences=tuple(map(_preference, placement.preferences or ())),
            max_replicas=placement.max_replicas,
            platforms=tuple(
                Platform(os=p.os, architecture=p.architecture) for p in placement.platforms or ()
            ),
        ),
        networks=tuple(
            NetworkAttachmentSpec(
                target=n.target, aliases=tuple(n.aliases or ()), driver_options=n.driver_opts or {}
            )
            for n in body.networks or networks or ()
        ),
        log_driver=Driver(name=log.name, options=log.options or {}) if log and log.name else None,
        force_update=body.force_update,
    )


def _container(body: bodies.ContainerBody) -> ContainerSpec:
    _refuse(body)
    dns = body.dns_config or bodies.DnsConfig()
    return ContainerSpec(
        image=body.image,
        command=tuple(body.command or ()),
        args=tuple(body.args or ()),
        env=tuple(body.env or ()),
        hostname=body.hostname,
        working_dir=body.dir,
        user=body.user,
        groups=tuple(body.groups or ()),
        labels=body.labels or {},
        mounts=tuple(mount_spec(mount) for mount in body.mounts or ()),
        secrets=tuple(_file(s.secret_id, s.secret_name, s.file) for s in body.secrets or ()),
        configs=tuple(_file(c.config_id, c.config_name, c.file) for c in body.configs or ()),
        stop_signal=body.stop_signal,
        stop_grace_period_ns=body.stop_grace_period,
        health_check=_health(body.health_check or body.health_check_as_documented),
        hosts=tuple(body.hosts or ()),
        dns_nameservers=tuple(dns.nameservers or ()),
        dns_search=tuple(dns.search or ()),
        dns_options=tuple(dns.options or ()),
        tty=body.tty,
        open_stdin=body.open_stdin,
        read_only=body.read_only,
        init=body.init,
        sysctls=body.sysctls or {},
        cap_add=tuple(body.capability_add or ()),
        cap_drop=tuple(body.capability_drop or ()),
        ulimits=tuple((limit.name, limit.soft, limit.hard) for limit in body.ulimits or ()),
    )


def _refuse(body: bodies.ContainerBody) -> None:
    for name, given in (
        ("Privileges", any(_is_set(value) for value in (body.privileges or {}).values())),
        ("Isolation", body.isolation not in ("", "default")),
        ("OomScoreAdj", bool(body.oom_score_adj)),
        ("Configs.Runtime", any(config.runtime is not None for config in body.configs or ())),
    ):
        if given:
            raise InvalidArgument(f"TaskTemplate.ContainerSpec.{name} is not supported yet: leave it out")


def _is_set(value: object) -> bool:
    if isinstance(value, dict):
        return any(_is_set(inner) for inner in value.values())
    return bool(value)


def _file(id: str, name: str, target: bodies.FileTarget | None) -> FileReference:
    if target is None:
        raise InvalidArgument(f"the secret or config {name or id} needs a File target")
    return FileReference(
        id=id,
        name=name,
        target=target.name or name,
        uid=target.uid or "0",
        gid=target.gid or "0",
        mode=target.mode,
    )


def _health(body: HealthConfig | None) -> HealthCheck | None:
    if body is None:
        return None
    return HealthCheck(
        test=tuple(body.test or ()),
        interval_ns=body.interval,
        timeout_ns=body.timeout,
        start_period_ns=body.start_period,
        start_interval_ns=body.start_interval,
        retries=body.retries,
    )


def _preference(body: bodies.PreferenceBody) -> SpreadPreference:
    if body.spread is None:
        raise InvalidArgument("Placement.Preferences: only Spread is known, give a SpreadDescriptor")
    return SpreadPreference(descriptor=body.spread.spread_descriptor)


def _requirements(body: bodies.RequirementsBody | None) -> ResourceRequirements:
    if body is None:
        return ResourceRequirements()
    for name, value in (("SwapBytes", body.swap_bytes), ("MemorySwappiness", body.memory_swappiness)):
        if value is not None:
            raise InvalidArgument(f"Resources.{name} is not supported yet: leave it out")
    return ResourceRequirements(
        limits=_resources(body.limits, "Limits"), reservations=_resources(body.reservations, "Reservations")
    )


def _resources(body: bodies.ResourcesBody | None, name: str) -> Resources:
    if body is None:
        return Resources()
    if body.generic_resources:
        raise InvalidArgument(f"Resources.{name}.GenericResources is not supported yet: leave it out")
    return Resources(nano_cpus=body.nano_cpus, memory_bytes=body.memory_bytes, pids=body.pids)


def _restart(body: bodies.RestartBody | None) -> RestartPolicy:
    if body is None:
        return RestartPolicy()
    return RestartPolicy(
        condition=_choice(RestartCondition, body.condition, RestartCondition.ANY, "RestartPolicy.Condition"),
        delay_ns=body.delay,
        max_attempts=body.max_attempts or 0,
        window_ns=body.window or 0,
    )


def _update(body: bodies.UpdateBody | None, name: str) -> UpdateConfig:
    if body is None:
        return UpdateConfig()
    return UpdateConfig(
        parallelism=body.parallelism,
        delay_ns=body.delay,
        failure_action=_choice(
            FailureAction, body.failure_action, FailureAction.PAUSE, f"{name}.FailureAction"
        ),
        monitor_ns=body.monitor or None,  # Docker knows no monitoring of no length
        max_failure_ratio=body.max_failure_ratio,
        order=_choice(UpdateOrder, body.order, UpdateOrder.STOP_FIRST, f"{name}.Order"),
    )


def _endpoint(body: bodies.EndpointBody | None) -> EndpointSpec:
    if body is None:
        return EndpointSpec()
    return EndpointSpec(
        mode=_choice(EndpointMode, body.mode, EndpointMode.VIP, "EndpointSpec.Mode"),
        ports=tuple(
            PortConfig(
                name=port.name,
                protocol=port.protocol or "tcp",
                target=port.target_port,
                published=port.published_port,
                mode=_choice(
                    PublishMode, port.publish_mode, PublishMode.INGRESS, "EndpointSpec.Ports.PublishMode"
                ),
            )
            for port in body.ports or ()
        ),
    )


def _choice(kind: type[_E], text: str, default: _E, field: str) -> _E:
    if not text:
        return default
    try:
        return kind(text)
    except ValueError as error:
        known: Any = ", ".join(kind)
        raise InvalidArgument(f'invalid {field}: "{text}": must be one of {known}') from error
