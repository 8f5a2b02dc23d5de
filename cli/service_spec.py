"""From flags to a ServiceSpec in the API's JSON: new ones (`create`) and changed ones (`update`).

Fields whose flag was not given stay out of a new spec (the daemon has the defaults) and stay as they are in a
changed one. Names of networks, secrets and configs are resolved by the caller's `Resolver`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from cli import parse, parse_mounts, parse_ports
from cli.container_body import healthcheck
from cli.errors import UsageError
from cli.service_flags import Options

Spec = dict[str, Any]


class Resolver(Protocol):
    def network(self, name: str) -> str:
        """The id of a network; NotFound names it."""

    def secret(self, name: str) -> str: ...

    def config(self, name: str) -> str: ...


def new_spec(options: Options, image: str, arguments: Iterable[str], resolver: Resolver) -> Spec:
    """The body of POST /services/create."""
    spec: Spec = {
        "Name": options["name"],
        "Labels": parse.labels(options["label"]),
        "TaskTemplate": {"ContainerSpec": {"Image": parse.tagged(image)}},
        "Mode": _mode(options),
    }
    container = spec["TaskTemplate"]["ContainerSpec"]
    if words := list(arguments):
        container["Args"] = words
    lists: dict[str, Any] = {
        "Env": parse.environment(options["env"], options["env_file"]),
        "Labels": parse.labels(options["container_label"]),
        "Mounts": [parse_mounts.mount(text) for text in options["mount"]],
        "Groups": list(options["group"]),
        "Hosts": [_host_line(text) for text in options["host"]],
        "Secrets": file_references(options["secret"], "secret", resolver.secret),
        "Configs": file_references(options["config"], "config", resolver.config),
        "CapabilityAdd": parse.capabilities(options["cap_add"]),
        "CapabilityDrop": parse.capabilities(options["cap_drop"]),
        "Sysctls": parse.key_values(options["sysctl"], "sysctl"),
        "Ulimits": parse.ulimits(options["ulimit"]),
    }
    container |= {field: value for field, value in lists.items() if value}
    dns = {"Nameservers": "dns", "Search": "dns_search", "Options": "dns_option"}
    if found := {field: list(options[name]) for field, name in dns.items() if options[name]}:
        container["DNSConfig"] = found
    placement = spec["TaskTemplate"].setdefault("Placement", {})
    if options["constraint"]:
        placement["Constraints"] = list(options["constraint"])
    if options["placement_pref"]:
        placement["Preferences"] = [preference(text) for text in options["placement_pref"]]
    if options["network"]:
        spec["TaskTemplate"]["Networks"] = [network(text, resolver) for text in options["network"]]
    if options["generic_resource"]:
        reserved = spec["TaskTemplate"].setdefault("Resources", {}).setdefault("Reservations", {})
        reserved["GenericResources"] = generic_resources(options["generic_resource"])
    if options["publish"]:
        spec["EndpointSpec"] = {"Ports": parse_ports.service_ports(list(options["publish"]))}
    set_shared(spec, options)
    return spec


def _mode(options: Options) -> Spec:
    mode = parse.choice(options["mode"], ("replicated", "global", "replicated-job", "global-job"), "mode")
    if options["max_concurrent"] is not None and mode != "replicated-job":
        raise UsageError("max-concurrent can only be used with replicated-job mode")
    if mode.startswith("global"):
        if options["replicas"] is not None:
            raise UsageError("replicas can only be used with replicated or replicated-job mode")
        return {"Global": {}} if mode == "global" else {"GlobalJob": {}}
    if mode == "replicated-job":
        total = 1 if options["replicas"] is None else options["replicas"]
        at_once = total if options["max_concurrent"] is None else options["max_concurrent"]
        return {"ReplicatedJob": {"MaxConcurrent": at_once, "TotalCompletions": total}}
    return {"Replicated": {"Replicas": 1 if options["replicas"] is None else options["replicas"]}}


def set_shared(spec: Spec, options: Options) -> None:
    """Every single-valued flag that `create` and `update` share."""
    task = spec["TaskTemplate"]
    _set_container(task["ContainerSpec"], options)
    _set_resources(task, options)
    _set_restart(task, options)
    if options["replicas_max_per_node"] is not None:
        task.setdefault("Placement", {})["MaxReplicas"] = options["replicas_max_per_node"]
    if options["log_driver"] is not None or options["log_opt"]:
        before = task.get("LogDriver") or {}
        name = options["log_driver"] if options["log_driver"] is not None else before.get("Name", "")
        driver_options = (before.get("Options") or {}) | parse.key_values(options["log_opt"], "log-opt")
        task["LogDriver"] = {"Name": name, "Options": driver_options}
    if options["endpoint_mode"] is not None:
        mode = parse.choice(options["endpoint_mode"], ("vip", "dnsrr"), "endpoint-mode")
        spec.setdefault("EndpointSpec", {})["Mode"] = mode
    for prefix, field in (("update", "UpdateConfig"), ("rollback", "RollbackConfig")):
        _set_update(spec, options, prefix, field)


_CONTAINER_TEXTS = {
    "hostname": "Hostname",
    "workdir": "Dir",
    "user": "User",
    "stop_signal": "StopSignal",
    "tty": "TTY",
    "isolation": "Isolation",
    "oom_score_adj": "OomScoreAdj",
    "read_only": "ReadOnly",
    "init": "Init",
}


def _set_container(container: Spec, options: Options) -> None:
    for name, field in _CONTAINER_TEXTS.items():
        if options[name] is not None:
            container[field] = options[name]
    if options["credential_spec"] is not None:
        container.setdefault("Privileges", {})["CredentialSpec"] = credential_spec(options["credential_spec"])
    if options["entrypoint"] is not None:
        container["Command"] = parse.command_words(options["entrypoint"])
    if options["stop_grace_period"] is not None:
        container["StopGracePeriod"] = parse.positive_nanoseconds(options["stop_grace_period"])
    if health := healthcheck(options):
        before = {} if options["no_healthcheck"] else container.get("Healthcheck") or {}
        container["Healthcheck"] = before | health


def _set_resources(task: Spec, options: Options) -> None:
    for prefix, field in (("limit", "Limits"), ("reserve", "Reservations")):
        values: Spec = {}
        if options[f"{prefix}_cpu"] is not None:
            values["NanoCPUs"] = parse.nano_cpus(options[f"{prefix}_cpu"])
        if options[f"{prefix}_memory"] is not None:
            values["MemoryBytes"] = parse.size_bytes(options[f"{prefix}_memory"])
        if prefix == "limit" and options["limit_pids"] is not None:
            values["Pids"] = options["limit_pids"]
        if values:
            resources = task.setdefault("Resources", {})
            resources[field] = (resources.get(field) or {}) | values


def _set_restart(task: Spec, options: Options) -> None:
    policy: Spec = {}
    if options["restart_condition"] is not None:
        allowed = ("none", "on-failure", "any")
        policy["Condition"] = parse.choice(options["restart_condition"], allowed, "restart-condition")
    for name, field in (("restart_delay", "Delay"), ("restart_window", "Window")):
        if options[name] is not None:
            policy[field] = parse.positive_nanoseconds(options[name])
    if options["restart_max_attempts"] is not None:
        policy["MaxAttempts"] = options["restart_max_attempts"]
    if policy:
        task["RestartPolicy"] = (task.get("RestartPolicy") or {}) | policy


def _set_update(spec: Spec, options: Options, prefix: str, field: str) -> None:
    config: Spec = {}
    for name, key in (("delay", "Delay"), ("monitor", "Monitor")):
        if options[f"{prefix}_{name}"] is not None:
            config[key] = parse.positive_nanoseconds(options[f"{prefix}_{name}"])
    for name, key in (("parallelism", "Parallelism"), ("max_failure_ratio", "MaxFailureRatio")):
        if options[f"{prefix}_{name}"] is not None:
            config[key] = options[f"{prefix}_{name}"]
    if (order := options[f"{prefix}_order"]) is not None:
        config["Order"] = parse.choice(order, ("start-first", "stop-first"), f"{prefix}-order")
    if (action := options[f"{prefix}_failure_action"]) is not None:
        allowed = ("pause", "continue", "rollback") if prefix == "update" else ("pause", "continue")
        config["FailureAction"] = parse.choice(action, allowed, f"{prefix}-failure-action")
    if config:
        # A config that is given must be whole: what is not said is what the daemon would have chosen.
        default = {"Parallelism": 1, "FailureAction": "pause", "Order": "stop-first"}
        spec[field] = default | (spec.get(field) or {}) | config


# --- values with a form of their own ---


def network(text: str, resolver: Resolver) -> Spec:
    """NAME or name=NAME,alias=A,driver-opt=K=V."""
    name, aliases = "", []
    driver_options: dict[str, str] = {}
    if "=" not in text:
        name = text
    else:
        for key, value in parse.comma_fields(text, "network"):
            if key == "name":
                name = value or ""
            elif key == "alias":
                aliases.append(value or "")
            elif key == "driver-opt" and value:
                driver_options |= parse.key_values([value], "network driver-opt")
            else:
                raise UsageError(
                    f'invalid field key "{key}" in --network "{text}"', hint="name, alias, driver-opt"
                )
    if not name:
        raise UsageError(f'invalid network "{text}": the name is missing', hint="name=NAME,alias=ALIAS")
    attachment: Spec = {"Target": resolver.network(name)}
    if aliases:
        attachment["Aliases"] = aliases
    if driver_options:
        attachment["DriverOpts"] = driver_options
    return attachment


def credential_spec(text: str) -> Spec:
    """config://ID, file://NAME, registry://NAME"""
    for kind, field in (("config", "Config"), ("file", "File"), ("registry", "Registry")):
        if text.startswith(f"{kind}://"):
            return {field: text.removeprefix(f"{kind}://")}
    raise UsageError(
        f'invalid credential spec "{text}"', hint='it begins with "config://", "file://" or "registry://"'
    )


def generic_resources(texts: Iterable[str]) -> list[Spec]:
    """kind=2 for a number of them, kind=name for one by name."""
    found: list[Spec] = []
    for kind, value in (
        pair for text in texts for pair in parse.key_values([text], "generic-resource").items()
    ):
        if value.isdigit():
            found.append({"DiscreteResourceSpec": {"Kind": kind, "Value": int(value)}})
        else:
            found.append({"NamedResourceSpec": {"Kind": kind, "Value": value}})
    return found


def resource_kind(resource: Spec) -> str:
    return str(next(iter(resource.values()))["Kind"])


def preference(text: str) -> Spec:
    strategy, equals, descriptor = text.partition("=")
    if strategy != "spread" or not equals or not descriptor:
        raise UsageError(
            f'invalid placement preference "{text}"', hint="only spread is supported: spread=node.labels.NAME"
        )
    return {"Spread": {"SpreadDescriptor": descriptor}}


def _host_line(text: str) -> str:
    name, address = parse.host_entry(text)
    return f"{address} {name}"


def file_references(texts: Iterable[str], what: str, resolve: Callable[[str], str]) -> list[Spec]:
    kind = what.capitalize()
    found = []
    for text in texts:
        reference = parse_mounts.file_reference(text, what)
        found.append(
            {
                f"{kind}ID": resolve(reference["Name"]),
                f"{kind}Name": reference["Name"],
                "File": reference["File"],
            }
        )
    targets = [reference["File"]["Name"] for reference in found]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"duplicate {what} target for {target} not allowed")
    return found
