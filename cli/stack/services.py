"""A service of a compose file as a ServiceSpec of the API.

Pure but for env_file; names of secrets, configs and networks become ids by the caller's `Ids`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from cli import parse, parse_ports
from cli.errors import UsageError
from cli.service_spec import credential_spec
from cli.stack.compose_file import Document, mapping, scalar
from cli.stack.mounts import mount_of

NAMESPACE = "com.docker.stack.namespace"
IMAGE = "com.docker.stack.image"
Spec = dict[str, Any]


class Ids(Protocol):
    def secret(self, name: str) -> str: ...

    def config(self, name: str) -> str: ...


def scoped(stack: str, name: str) -> str:
    return f"{stack}_{name}"


def real_name(stack: str, key: str, item: Document) -> str:
    """What an object of the file is called in the swarm."""
    external = item.get("external")
    if isinstance(external, dict) and external.get("name"):
        return str(external["name"])
    if item.get("name"):
        return str(item["name"])
    return key if external else scoped(stack, key)


def service_spec(
    stack: str, name: str, document: Document, folder: str, ids: Ids, environment: Mapping[str, str]
) -> Spec:
    service = document["services"][name]
    deploy = service.get("deploy") or {}
    labels = _texts(deploy.get("labels"), "deploy.labels")
    spec: Spec = {
        "Name": scoped(stack, name),
        "Labels": labels | {NAMESPACE: stack, IMAGE: str(service["image"])},
        "Mode": _mode(deploy, name),
        "TaskTemplate": _task(stack, name, document, folder, ids, environment),
    }
    for key, field in (("update_config", "UpdateConfig"), ("rollback_config", "RollbackConfig")):
        if deploy.get(key) is not None:
            spec[field] = _update(deploy[key])
    endpoint: Spec = {}
    if deploy.get("endpoint_mode"):
        endpoint["Mode"] = str(deploy["endpoint_mode"])
    if service.get("ports"):
        ports = [port for entry in service["ports"] for port in _ports(entry)]
        endpoint["Ports"] = sorted(ports, key=lambda port: int(port.get("PublishedPort", 0)))
    if endpoint:
        spec["EndpointSpec"] = endpoint
    return spec


def _texts(value: Any, what: str) -> dict[str, str]:
    return {key: text or "" for key, text in mapping(value, what).items()}


def _mode(deploy: Document, name: str) -> Spec:
    mode = deploy.get("mode") or "replicated"
    replicas = deploy.get("replicas")
    if mode not in ("replicated", "global", "replicated-job", "global-job"):
        raise UsageError(f"service {name}: unknown deploy.mode {mode!r}", hint="replicated or global")
    if mode.startswith("global"):
        if replicas is not None:
            raise UsageError(
                f"service {name}: replicas can only be used with replicated or replicated-job mode"
            )
        return {"Global": {}} if mode == "global" else {"GlobalJob": {}}
    count = 1 if replicas is None else number(replicas, f"services.{name}.deploy.replicas")
    if mode == "replicated-job":
        return {"ReplicatedJob": {"TotalCompletions": count, "MaxConcurrent": count}}
    return {"Replicated": {"Replicas": count}}


def number(value: Any, what: str) -> int:
    """Also of a variable, which is a text."""
    try:
        return int(str(value), 0)
    except ValueError:
        raise UsageError(f"{what} must be a number, not {value!r}") from None


def _update(config: Document) -> Spec:
    found: Spec = {
        "Parallelism": number(config.get("parallelism", 1), "parallelism"),
        "Delay": _ns(config.get("delay", "0")),
        "FailureAction": config.get("failure_action") or "pause",
        "MaxFailureRatio": float(config.get("max_failure_ratio", 0)),
        "Order": config.get("order") or "stop-first",
    }
    if config.get("monitor") is not None:
        found["Monitor"] = _ns(config["monitor"])
    return found


def _ns(value: Any) -> int:
    return parse.positive_nanoseconds(str(value))


def _ports(entry: Any) -> list[Spec]:
    if not isinstance(entry, dict):
        return parse_ports.service_ports([str(entry)])
    port: Spec = {
        "Protocol": str(entry.get("protocol") or "tcp"),
        "TargetPort": number(entry.get("target", 0), "ports.target"),
        "PublishMode": str(entry.get("mode") or "ingress"),
    }
    if entry.get("published") is not None:
        port["PublishedPort"] = number(entry["published"], "ports.published")
    if not port["TargetPort"]:
        raise UsageError(f"a port needs a target: {entry}")
    return [port]


def _task(
    stack: str, name: str, document: Document, folder: str, ids: Ids, environment: Mapping[str, str]
) -> Spec:
    service = document["services"][name]
    deploy = service.get("deploy") or {}
    task: Spec = {
        "ContainerSpec": _container(stack, name, document, folder, ids, environment),
        "Networks": _networks(stack, name, document),
        "Resources": _resources(deploy.get("resources") or {}),
        "RestartPolicy": _restart(deploy.get("restart_policy"), service.get("restart")),
        "Placement": _placement(deploy.get("placement") or {}),
    }
    if logging := service.get("logging"):
        task["LogDriver"] = {
            "Name": logging.get("driver") or "",
            "Options": _texts(logging.get("options"), "logging.options"),
        }
    return {field: value for field, value in task.items() if value}


def _networks(stack: str, name: str, document: Document) -> list[Spec]:
    wanted = document["services"][name].get("networks") or {"default": None}
    found = []
    for key, settings in wanted.items():
        if key != "default" and key not in document["networks"]:
            raise UsageError(
                f"undefined network {key!r} of service {name}", hint="declare it under networks:"
            )
        network = document["networks"].get(key) or {}
        target = real_name(stack, key, network)
        attachment: Spec = {"Target": target, "Aliases": [name, *((settings or {}).get("aliases") or [])]}
        if target in ("host", "none", "bridge"):
            attachment.pop("Aliases")
        if (settings or {}).get("driver_opts"):
            attachment["DriverOpts"] = _texts(settings["driver_opts"], "driver_opts")
        found.append(attachment)
    return sorted(found, key=lambda item: str(item["Target"]))


def _resources(resources: Document) -> Spec:
    found: Spec = {}
    for key, field in (("limits", "Limits"), ("reservations", "Reservations")):
        given = resources.get(key) or {}
        values: Spec = {}
        if given.get("cpus") is not None:
            values["NanoCPUs"] = parse.nano_cpus(str(given["cpus"]))
        if given.get("memory") is not None:
            values["MemoryBytes"] = parse.size_bytes(str(given["memory"]))
        if given.get("pids") is not None and key == "limits":
            values["Pids"] = number(given["pids"], "pids")
        if given.get("generic_resources"):
            values["GenericResources"] = [
                {"DiscreteResourceSpec": {"Kind": item["kind"], "Value": number(item["value"], "value")}}
                for item in (entry["discrete_resource_spec"] for entry in given["generic_resources"])
            ]
        if values:
            found[field] = values
    return found


def _restart(policy: Document | None, restart: Any) -> Spec | None:
    """deploy.restart_policy, or else `restart` as docker run has it."""
    if policy is not None:
        found: Spec = {"Condition": policy.get("condition") or "any"}
        for key, field in (("delay", "Delay"), ("window", "Window")):
            if policy.get(key) is not None:
                found[field] = _ns(policy[key])
        if policy.get("max_attempts") is not None:
            found["MaxAttempts"] = number(policy["max_attempts"], "max_attempts")
        return found
    if restart is None:
        return None
    name, _, count = scalar(restart).partition(":")
    if name in ("no", "false", ""):
        return {"Condition": "none"}
    if name in ("always", "unless-stopped"):
        return {"Condition": "any"}
    if name != "on-failure":
        raise UsageError(
            f"unknown restart policy: {restart}", hint="no, always, unless-stopped, on-failure[:N]"
        )
    return {"Condition": "on-failure", **({"MaxAttempts": number(count, "restart")} if count else {})}


def _placement(placement: Document) -> Spec:
    found: Spec = {}
    if placement.get("constraints"):
        found["Constraints"] = [str(item) for item in placement["constraints"]]
    if placement.get("preferences"):
        found["Preferences"] = [
            {"Spread": {"SpreadDescriptor": str(item["spread"])}} for item in placement["preferences"]
        ]
    if placement.get("max_replicas_per_node"):
        found["MaxReplicas"] = number(placement["max_replicas_per_node"], "max_replicas_per_node")
    return found


def _container(
    stack: str, name: str, document: Document, folder: str, ids: Ids, environment: Mapping[str, str]
) -> Spec:
    service = document["services"][name]
    dns = {
        field: _list(service.get(key))
        for field, key in (("Nameservers", "dns"), ("Search", "dns_search"), ("Options", "dns_opt"))
        if service.get(key)
    }
    container: Spec = {
        "Image": parse.tagged(str(service["image"])),
        "Command": _words(service.get("entrypoint")),
        "Args": _words(service.get("command")),
        "Hostname": service.get("hostname"),
        "Hosts": _hosts(service.get("extra_hosts")),
        "DNSConfig": dns,
        "Healthcheck": _health(service.get("healthcheck"), name),
        "Env": _environment(service, folder, environment),
        "Labels": _texts(service.get("labels"), "labels") | {NAMESPACE: stack},
        "Dir": service.get("working_dir"),
        "User": None if service.get("user") is None else str(service["user"]),
        "Groups": [str(item) for item in service.get("group_add") or []],
        "Mounts": _mounts(stack, service, document, folder),
        "StopSignal": service.get("stop_signal"),
        "TTY": service.get("tty"),
        "OpenStdin": service.get("stdin_open"),
        "ReadOnly": service.get("read_only"),
        "Isolation": service.get("isolation"),
        "Init": service.get("init"),
        "Sysctls": _texts(service.get("sysctls"), "sysctls"),
        "CapabilityAdd": parse.capabilities(_list(service.get("cap_add"))),
        "CapabilityDrop": parse.capabilities(_list(service.get("cap_drop"))),
        "Ulimits": _ulimits(service.get("ulimits") or {}),
        "OomScoreAdj": service.get("oom_score_adj"),
        "Secrets": _files(stack, service.get("secrets"), document["secrets"], "Secret", ids.secret),
        "Configs": _files(stack, service.get("configs"), document["configs"], "Config", ids.config),
    }
    if service.get("stop_grace_period") is not None:
        container["StopGracePeriod"] = _ns(service["stop_grace_period"])
    if given := service.get("credential_spec"):
        kind, value = next(iter(given.items()))
        container["Privileges"] = {"CredentialSpec": credential_spec(f"{kind}://{value}")}
    return {field: value for field, value in container.items() if value or value is False}


def _list(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value])] if value else []


def _words(value: Any) -> list[str]:
    if value is None:
        return []
    return [scalar(item) for item in value] if isinstance(value, list) else parse.command_words(str(value))


def _hosts(value: Any) -> list[str]:
    """name:address, or a map, as the lines of a hosts file."""
    entries = (
        value.items() if isinstance(value, dict) else [parse.host_entry(str(item)) for item in value or []]
    )
    return [f"{address} {name}" for name, address in entries]


def _environment(service: Document, folder: str, environment: Mapping[str, str]) -> list[str]:
    found: dict[str, str | None] = {}
    for entry in _files_of(service.get("env_file")):
        path = os.path.join(folder, entry)
        for text in parse.environment((), [path]):
            key, _, value = text.partition("=")
            found[key] = value
    found |= mapping(service.get("environment"), "environment")
    resolved = {key: environment.get(key) if value is None else value for key, value in found.items()}
    return [key if value is None else f"{key}={value}" for key, value in sorted(resolved.items())]


def _files_of(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value] if value else []
    return [str(item["path"] if isinstance(item, dict) else item) for item in items]


def _health(check: Document | None, name: str) -> Spec | None:
    if check is None:
        return None
    test = check.get("test")
    if check.get("disable"):
        if test:
            raise UsageError(f"service {name}: test and disable of healthcheck exclude each other")
        return {"Test": ["NONE"]}
    found: Spec = {}
    if test:
        found["Test"] = (
            [scalar(item) for item in test] if isinstance(test, list) else ["CMD-SHELL", str(test)]
        )
    durations = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
    for key, field in (durations | {"start_interval": "StartInterval"}).items():
        if check.get(key) is not None:
            found[field] = _ns(check[key])
    if check.get("retries") is not None:
        found["Retries"] = number(check["retries"], "healthcheck.retries")
    return found


def _mounts(stack: str, service: Document, document: Document, folder: str) -> list[Spec]:
    def volume_name(key: str) -> tuple[str, Document]:
        if key not in document["volumes"]:
            raise UsageError(f'undefined volume "{key}"', hint="declare it under volumes:")
        return real_name(stack, key, document["volumes"][key]), document["volumes"][key]

    found = [
        mount_of(entry, folder, volume_name, {NAMESPACE: stack}) for entry in service.get("volumes") or []
    ]
    found += [{"Type": "tmpfs", "Target": str(target)} for target in _list(service.get("tmpfs"))]
    return found


def _ulimits(limits: Document) -> list[Spec]:
    found = []
    for name, value in sorted(limits.items()):
        both = value if isinstance(value, dict) else {"soft": value, "hard": value}
        soft, hard = (number(both[key], f"ulimits.{name}") for key in ("soft", "hard"))
        found.append({"Name": name, "Soft": soft, "Hard": hard})
    return found


def _files(stack: str, entries: Any, declared: Document, kind: str, resolve: Any) -> list[Spec]:
    found = []
    for entry in entries or []:
        given = entry if isinstance(entry, dict) else {"source": str(entry)}
        key = str(given["source"])
        if key not in declared:
            raise UsageError(f"undefined {kind.lower()} {key!r}", hint=f"declare it under {kind.lower()}s:")
        target = given.get("target") or key
        mode = given.get("mode")
        name = real_name(stack, key, declared[key])
        found.append(
            {
                f"{kind}ID": resolve(name),
                f"{kind}Name": name,
                "File": {
                    "Name": str(target),
                    "UID": str(given.get("uid", "0")),
                    "GID": str(given.get("gid", "0")),
                    "Mode": 0o444 if mode is None else mode if isinstance(mode, int) else int(str(mode), 8),
                },
            }
        )
    return sorted(found, key=lambda item: str(item[f"{kind}Name"]))
