"""Services and tasks as the API shows them."""

from __future__ import annotations

from typing import Any

from node.api.convert.times import head, rfc3339
from raft.objects.cluster import Network
from raft.objects.service import (
    ContainerSpec,
    Endpoint,
    EndpointSpec,
    FileReference,
    MountSpec,
    PortConfig,
    Resources,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateStatus,
)
from raft.objects.task import Task


def service_to_api(service: Service) -> dict[str, Any]:
    shown = {**head(service), "Spec": spec_to_api(service.spec)}
    if service.previous_spec is not None:
        shown["PreviousSpec"] = spec_to_api(service.previous_spec)
    shown["Endpoint"] = _endpoint(service.endpoint or Endpoint(spec=service.spec.endpoint))
    if service.update_status is not None:
        shown["UpdateStatus"] = _update_status(service.update_status)
    return shown


def spec_to_api(spec: ServiceSpec) -> dict[str, Any]:
    replicated = spec.mode is ServiceMode.REPLICATED
    return {
        "Name": spec.annotations.name,
        "Labels": spec.annotations.labels,
        "TaskTemplate": task_spec_to_api(spec.task),
        "Mode": {"Replicated": {"Replicas": spec.replicas}} if replicated else {"Global": {}},
        "UpdateConfig": _update_config(spec.update),
        "RollbackConfig": _update_config(spec.rollback),
        "EndpointSpec": _endpoint_spec(spec.endpoint),
    }


def task_to_api(task: Task, networks: dict[str, Network]) -> dict[str, Any]:
    """`networks`: those that the task is attached to, by id; unknown ones are shown by id only."""
    shown = {
        **head(task),
        "Name": "",
        "Labels": {},
        "Spec": task_spec_to_api(task.spec),
        "ServiceID": task.service_id,
        "NodeID": task.node_id,
        "Status": _task_status(task),
        "DesiredState": task.desired_state.name.lower(),
        "GenericResources": None,
    }
    if task.slot:
        shown["Slot"] = task.slot
    if task.networks:
        shown["NetworksAttachments"] = [
            {
                "Network": _attached_network(networks.get(attachment.network_id), attachment.network_id),
                "Addresses": [attachment.address],
            }
            for attachment in task.networks
        ]
    return shown


def task_spec_to_api(spec: TaskSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ContainerSpec": _container(spec.container),
        "Resources": {
            "Limits": _resources(spec.resources.limits),
            "Reservations": _resources(spec.resources.reservations),
        },
        "RestartPolicy": {
            "Condition": str(spec.restart.condition),
            "Delay": spec.restart.delay_ns,
            "MaxAttempts": spec.restart.max_attempts,
            "Window": spec.restart.window_ns,
        },
        "Placement": _placement(spec),
        "ForceUpdate": spec.force_update,
        "Runtime": "container",
    }
    if shown["RestartPolicy"]["Delay"] is None:
        del shown["RestartPolicy"]["Delay"]
    if spec.networks:
        shown["Networks"] = [
            {"Target": n.target, "Aliases": list(n.aliases), "DriverOpts": n.driver_options}
            for n in spec.networks
        ]
    if spec.log_driver is not None:
        shown["LogDriver"] = {"Name": spec.log_driver.name, "Options": spec.log_driver.options}
    return shown


def _placement(spec: TaskSpec) -> dict[str, Any]:
    placement = spec.placement
    shown: dict[str, Any] = {}
    if placement.constraints:
        shown["Constraints"] = list(placement.constraints)
    if placement.preferences:
        shown["Preferences"] = [{"Spread": {"SpreadDescriptor": p.descriptor}} for p in placement.preferences]
    if placement.max_replicas:
        shown["MaxReplicas"] = placement.max_replicas
    if placement.platforms:
        shown["Platforms"] = [{"OS": p.os, "Architecture": p.architecture} for p in placement.platforms]
    return shown


def _container(spec: ContainerSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Image": spec.image,
        "Command": list(spec.command),
        "Args": list(spec.args),
        "Hostname": spec.hostname,
        "Env": list(spec.env),
        "Dir": spec.working_dir,
        "User": spec.user,
        "Groups": list(spec.groups),
        "Labels": spec.labels,
        "TTY": spec.tty,
        "OpenStdin": spec.open_stdin,
        "ReadOnly": spec.read_only,
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "StopSignal": spec.stop_signal,
        "Hosts": list(spec.hosts),
        "Secrets": [_file(f, "Secret") for f in spec.secrets],
        "Configs": [_file(f, "Config") for f in spec.configs],
        "Sysctls": spec.sysctls,
        "CapabilityAdd": list(spec.cap_add),
        "CapabilityDrop": list(spec.cap_drop),
        "Ulimits": [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in spec.ulimits],
    }
    shown = {key: value for key, value in shown.items() if value or key == "Image"}
    shown["Isolation"] = "default"
    if spec.init is not None:
        shown["Init"] = spec.init
    if spec.stop_grace_period_ns is not None:
        shown["StopGracePeriod"] = spec.stop_grace_period_ns
    if spec.health_check is not None:
        check = spec.health_check
        shown["Healthcheck"] = {
            "Test": list(check.test),
            "Interval": check.interval_ns,
            "Timeout": check.timeout_ns,
            "StartPeriod": check.start_period_ns,
            "StartInterval": check.start_interval_ns,
            "Retries": check.retries,
        }
    dns = {
        "Nameservers": list(spec.dns_nameservers),
        "Search": list(spec.dns_search),
        "Options": list(spec.dns_options),
    }
    shown["DNSConfig"] = {key: value for key, value in dns.items() if value}
    return shown


def _mount(mount: MountSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": mount.type, "Target": mount.target}
    if mount.source:
        shown["Source"] = mount.source
    if mount.read_only:
        shown["ReadOnly"] = True
    if mount.propagation:
        shown["BindOptions"] = {"Propagation": mount.propagation}
    if mount.no_copy or mount.volume_labels or mount.volume_driver.name:
        shown["VolumeOptions"] = {
            "NoCopy": mount.no_copy,
            "Labels": mount.volume_labels,
            "DriverConfig": {"Name": mount.volume_driver.name, "Options": mount.volume_driver.options},
        }
    if mount.tmpfs_size_bytes or mount.tmpfs_mode:
        shown["TmpfsOptions"] = {"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode}
    return shown


def _file(reference: FileReference, kind: str) -> dict[str, Any]:
    return {
        "File": {
            "Name": reference.target,
            "UID": reference.uid,
            "GID": reference.gid,
            "Mode": reference.mode,
        },
        f"{kind}ID": reference.id,
        f"{kind}Name": reference.name,
    }


def _resources(resources: Resources) -> dict[str, Any]:
    shown = {"NanoCPUs": resources.nano_cpus, "MemoryBytes": resources.memory_bytes, "Pids": resources.pids}
    return {key: value for key, value in shown.items() if value}


def _update_config(config: UpdateConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Parallelism": config.parallelism,
        "FailureAction": str(config.failure_action),
        "MaxFailureRatio": config.max_failure_ratio,
        "Order": str(config.order),
    }
    if config.delay_ns:
        shown["Delay"] = config.delay_ns
    if config.monitor_ns is not None:
        shown["Monitor"] = config.monitor_ns
    return shown


def _endpoint_spec(spec: EndpointSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"Mode": str(spec.mode)}
    if spec.ports:
        shown["Ports"] = [_port(port) for port in spec.ports]
    return shown


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    shown: dict[str, Any] = {"Spec": _endpoint_spec(endpoint.spec)}
    if endpoint.ports:
        shown["Ports"] = [_port(port) for port in endpoint.ports]
    if endpoint.virtual_ips:
        shown["VirtualIPs"] = [{"NetworkID": v.network_id, "Addr": v.address} for v in endpoint.virtual_ips]
    return shown


def _port(port: PortConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Protocol": port.protocol,
        "TargetPort": port.target,
        "PublishMode": str(port.mode),
    }
    if port.published:
        shown["PublishedPort"] = port.published
    if port.name:
        shown["Name"] = port.name
    return shown


def _update_status(status: UpdateStatus) -> dict[str, Any]:
    shown = {"State": str(status.state), "Message": status.message}
    if status.started_at:
        shown["StartedAt"] = rfc3339(status.started_at)
    if status.completed_at:
        shown["CompletedAt"] = rfc3339(status.completed_at)
    return shown


def _task_status(task: Task) -> dict[str, Any]:
    status = task.status
    shown: dict[str, Any] = {
        "Timestamp": rfc3339(status.timestamp),
        "State": status.state.name.lower(),
        "Message": status.message,
        "PortStatus": {"Ports": [_port(p) for p in status.port_status.ports]} if status.port_status else {},
    }
    if status.error:
        shown["Err"] = status.error
    if status.container is not None:
        shown["ContainerStatus"] = {
            "ContainerID": status.container.container_id,
            "PID": status.container.pid,
            "ExitCode": status.container.exit_code,
        }
    return shown


def _attached_network(network: Network | None, network_id: str) -> dict[str, Any]:
    if network is None:
        return {"ID": network_id}
    return {
        **head(network),
        "Spec": {
            "Name": network.spec.annotations.name,
            "Labels": network.spec.annotations.labels,
            "Scope": "swarm",
        },
        "DriverState": {"Name": "overlay"},
    }
