"""From a task to the body of a container create request. Pure.

Owns how swarm's words map to the engine's: names, labels, mounts, limits, ports. Source: Docker Engine API,
schemas TaskSpec.ContainerSpec and ContainerConfig/HostConfig.
"""

from __future__ import annotations

from typing import Any

from engine import config
from node.agent.templates import Templates
from raft.objects.service import ContainerSpec, HealthCheck, MountSpec, PublishMode
from raft.objects.task import Task

SECOND_NS = 1_000_000_000


def container_body(task: Task, templates: Templates) -> config.ContainerCreate:
    """Raises ExecutorError for an unknown placeholder."""
    spec = task.spec.container
    ports = _host_ports(task)
    return config.ContainerCreate(
        image=spec.image,
        hostname=templates.expand(spec.hostname),
        user=spec.user,
        env=[templates.expand(entry) for entry in spec.env],
        entrypoint=list(spec.command) or None,
        cmd=list(spec.args) or None,
        working_dir=spec.working_dir,
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        labels={**spec.labels, **_labels(task)},
        stop_signal=spec.stop_signal or None,
        healthcheck=_health(spec.health_check) if spec.health_check else None,
        exposed_ports={port: {} for port in ports} or None,
        host_config=_host_config(task, spec, templates, ports),
    )


def endpoints(task: Task) -> list[config.TaskEndpoint]:
    return [
        config.TaskEndpoint(network=a.network_id, cidr=a.address, mac=a.mac, aliases=a.aliases)
        for a in task.networks
    ]


def _labels(task: Task) -> dict[str, str]:
    return {
        "com.docker.swarm.node.id": task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.service.name": task.service_name,
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": task.id,
        "com.docker.swarm.task.name": task.name,
    }


def _host_config(
    task: Task, spec: ContainerSpec, templates: Templates, ports: dict[str, list[config.PortBinding] | None]
) -> config.HostConfig:
    limits = task.spec.resources.limits
    log_driver = task.spec.log_driver
    return config.HostConfig(
        mounts=[_mount(mount, templates) for mount in spec.mounts] or None,
        port_bindings=ports or None,
        log_config=config.LogConfig(type=log_driver.name, config=log_driver.options) if log_driver else None,
        nano_cpus=limits.nano_cpus,
        memory=limits.memory_bytes,
        memory_reservation=task.spec.resources.reservations.memory_bytes,
        pids_limit=limits.pids or None,
        cap_add=list(spec.cap_add) or None,
        cap_drop=list(spec.cap_drop) or None,
        group_add=list(spec.groups) or None,
        dns=list(spec.dns_nameservers) or None,
        dns_search=list(spec.dns_search) or None,
        dns_options=list(spec.dns_options) or None,
        extra_hosts=[host for line in spec.hosts for host in _hosts(line)] or None,
        readonly_rootfs=spec.read_only,
        sysctls=spec.sysctls or None,
        init=spec.init,
        ulimits=[config.Ulimit(name=n, soft=soft, hard=hard) for n, soft, hard in spec.ulimits] or None,
    )


def _hosts(line: str) -> list[str]:
    """A line of /etc/hosts ("address name name") as the engine's name:address entries."""
    address, *names = line.split()
    return [f"{name}:{address}" for name in names]


def _mount(mount: MountSpec, templates: Templates) -> config.MountPoint:
    options: dict[str, Any] = {}
    if mount.type == "bind" and mount.propagation:
        options["bind_options"] = config.BindOptions(propagation=mount.propagation)
    elif mount.type == "volume":
        driver = mount.volume_driver
        options["volume_options"] = config.VolumeOptions(
            no_copy=mount.no_copy,
            labels=mount.volume_labels or None,
            driver_config=(
                config.VolumeDriverConfig(name=driver.name, options=driver.options) if driver.name else None
            ),
        )
    elif mount.type == "tmpfs":
        options["tmpfs_options"] = config.TmpfsOptions(
            size_bytes=mount.tmpfs_size_bytes, mode=mount.tmpfs_mode
        )
    return config.MountPoint(
        type=mount.type,
        source=templates.expand(mount.source),
        target=templates.expand(mount.target),
        read_only=mount.read_only,
        **options,
    )


def _host_ports(task: Task) -> dict[str, list[config.PortBinding] | None]:
    ports: dict[str, list[config.PortBinding] | None] = {}
    for port in task.endpoint.ports if task.endpoint else ():
        if port.mode is PublishMode.HOST:
            bindings = ports.setdefault(f"{port.target}/{port.protocol}", [])
            assert bindings is not None, "only lists are put in"
            bindings.append(config.PortBinding(host_port=str(port.published) if port.published else ""))
    return ports


def _health(check: HealthCheck) -> config.HealthConfig:
    return config.HealthConfig(
        test=list(check.test) or None,
        interval=check.interval_ns,
        timeout=check.timeout_ns,
        start_period=check.start_period_ns,
        start_interval=check.start_interval_ns,
        retries=check.retries,
    )
