"""`inspect --pretty`: services and nodes for people."""

from __future__ import annotations

from typing import Any

from cli import humanize

_LABEL_WIDTH = 16


def _line(label: str, value: object, indent: int = 0) -> str:
    return f"{' ' * indent}{label + ':':<{_LABEL_WIDTH - indent}}{value}"


def _labels(labels: dict[str, str] | None) -> list[str]:
    return ["Labels:", *(f" {key}={value}" for key, value in sorted(labels.items()))] if labels else []


def service_text(service: dict[str, Any]) -> str:
    spec = service["Spec"]
    task = spec["TaskTemplate"]
    lines = ["", _line("ID", service["ID"]), _line("Name", spec["Name"]), *_labels(spec.get("Labels"))]
    mode = spec.get("Mode") or {}
    if "Global" in mode:
        lines.append(_line("Service Mode", "Global"))
    else:
        lines += [_line("Service Mode", "Replicated"), _line("Replicas", mode["Replicated"]["Replicas"], 1)]
    lines += _update_status(service.get("UpdateStatus"))
    placement = task.get("Placement") or {}
    if placement:
        lines.append("Placement:")
        if placement.get("Constraints"):
            lines.append(_line("Constraints", ", ".join(placement["Constraints"]), 1))
        if placement.get("MaxReplicas"):
            lines.append(_line("Max Replicas Per Node", f" {placement['MaxReplicas']}", 1))
    for field in ("UpdateConfig", "RollbackConfig"):
        lines += _update_config(field, spec.get(field))
    lines += _container(task.get("ContainerSpec") or {})
    lines += _resources(task.get("Resources") or {})
    if task.get("Networks"):
        lines.append(_line("Networks", " ".join(network["Target"] for network in task["Networks"])))
    endpoint = service.get("Endpoint") or {}
    lines.append(_line("Endpoint Mode", (spec.get("EndpointSpec") or {}).get("Mode", "vip")))
    if endpoint.get("Ports"):
        lines.append("Ports:")
        for port in endpoint["Ports"]:
            lines.append(f" PublishedPort = {port.get('PublishedPort', 0)}")
            lines += [
                f"  {name} = {port[name]}"
                for name in ("Protocol", "TargetPort", "PublishMode")
                if name in port
            ]
    return "\n".join(lines)


def _update_status(status: dict[str, Any] | None) -> list[str]:
    if not status:
        return []
    lines = ["UpdateStatus:", _line("State", status.get("State", ""), 1)]
    for field, label in (("StartedAt", "Started"), ("CompletedAt", "Completed")):
        if humanize.unix_time(status.get(field)) > 0:
            lines.append(_line(label, humanize.ago(status[field]), 1))
    return [*lines, _line("Message", status.get("Message", ""), 1)]


def _update_config(field: str, config: dict[str, Any] | None) -> list[str]:
    if not config:
        return []
    lines = [f"{field}:", _line("Parallelism", config.get("Parallelism", 0), 1)]
    if config.get("Delay"):
        lines.append(_line("Delay", humanize.nanoseconds(config["Delay"]), 1))
    lines.append(_line("On failure", config.get("FailureAction", "pause"), 1))
    if config.get("Monitor"):
        lines.append(f" Monitoring Period: {humanize.nanoseconds(config['Monitor'])}")
    lines.append(f" Max failure ratio: {config.get('MaxFailureRatio', 0):g}")
    order = config.get("Order") or "stop-first"
    return [*lines, f" {'Update' if field == 'UpdateConfig' else 'Rollback'} order:      {order}"]


def _container(container: dict[str, Any]) -> list[str]:
    lines = ["ContainerSpec:", _line("Image", container.get("Image", ""), 1)]
    for field, label in (("Command", "Command"), ("Args", "Args"), ("Env", "Env")):
        if container.get(field):
            lines.append(_line(label, " ".join(container[field]), 1))
    for field, label in (("Dir", "Dir"), ("User", "User")):
        if container.get(field):
            lines.append(_line(label, container[field], 1))
    if container.get("Mounts"):
        lines.append("Mounts:")
        for mount in container["Mounts"]:
            lines += [
                f" Target:        {mount.get('Target', '')}",
                f"  Source:       {mount.get('Source', '')}",
            ]
            lines.append(f"  ReadOnly:     {str(bool(mount.get('ReadOnly'))).lower()}")
            lines.append(f"  Type:         {mount.get('Type', '')}")
    for kind in ("Secrets", "Configs"):
        if container.get(kind):
            lines.append(f"{kind}:")
            for item in container[kind]:
                lines.append(f" Target:        {item['File']['Name']}")
                lines.append(f"  Source:       {item[f'{kind[:-1]}Name']}")
    return lines


def _resources(resources: dict[str, Any]) -> list[str]:
    lines = []
    for field in ("Reservations", "Limits"):
        values = resources.get(field) or {}
        inner = []
        if values.get("NanoCPUs"):
            inner.append(_line("CPU", f"{values['NanoCPUs'] / 1e9:g}", 1))
        if values.get("MemoryBytes"):
            inner.append(_line("Memory", humanize.binary_size(values["MemoryBytes"]), 1))
        lines += [f" {field}:", *inner] if inner else []
    return ["Resources:", *lines] if lines else []


def node_text(node: dict[str, Any]) -> str:
    spec, description, status = node["Spec"], node.get("Description") or {}, node["Status"]
    lines = [_line("ID", f"\t\t\t{node['ID']}".strip())]
    if spec.get("Name"):
        lines.append(_line("Name", spec["Name"]))
    lines += _labels(spec.get("Labels"))
    lines += [
        _line("Hostname", description.get("Hostname", "")),
        _line("Joined at", humanize.local_time(node.get("CreatedAt"))),
        "Status:",
        _line("State", status["State"].capitalize(), 1),
    ]
    if status.get("Message"):
        lines.append(_line("Message", status["Message"], 1))
    lines += [
        _line("Availability", spec["Availability"].capitalize(), 1),
        _line("Address", status.get("Addr", ""), 1),
    ]
    if manager := node.get("ManagerStatus"):
        lines += [
            "Manager Status:",
            _line("Address", manager.get("Addr", ""), 1),
            _line("Raft Status", manager.get("Reachability", "").capitalize(), 1),
            _line("Leader", "Yes" if manager.get("Leader") else "No", 1),
        ]
    platform, resources = description.get("Platform") or {}, description.get("Resources") or {}
    lines += [
        "Platform:",
        _line("OS", platform.get("OS", ""), 1),
        _line("Architecture", platform.get("Architecture", ""), 1),
        "Resources:",
        _line("CPUs", f"{resources.get('NanoCPUs', 0) / 1e9:g}", 1),
        _line("Memory", humanize.binary_size(resources.get("MemoryBytes", 0)), 1),
        _line("Engine Version", (description.get("Engine") or {}).get("EngineVersion", "")),
    ]
    return "\n".join(lines)
