"""`service update`: changes of an existing ServiceSpec, in place, by the flags that were given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cli import parse, parse_mounts, parse_ports
from cli.errors import UsageError
from cli.service_flags import Options
from cli.service_spec import (
    Resolver,
    Spec,
    file_references,
    generic_resources,
    network,
    preference,
    resource_kind,
    set_shared,
)


def change_spec(spec: Spec, options: Options, resolver: Resolver) -> None:
    """Applies the flags; `spec` is what GET /services/{id} gave."""
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    set_shared(spec, options)
    if options["replicas"] is not None:
        set_replicas(spec, options["replicas"])
    if options["max_concurrent"] is not None:
        job = (spec.get("Mode") or {}).get("ReplicatedJob")
        if job is None:
            raise UsageError("max-concurrent can only be used with replicated-job mode")
        job["MaxConcurrent"] = options["max_concurrent"]
    if options["image"] is not None:
        container["Image"] = parse.tagged(options["image"])
    if options["args"] is not None:
        container["Args"] = parse.command_words(options["args"])
    if options["force"]:
        task["ForceUpdate"] = task.get("ForceUpdate", 0) + 1
    _change_maps(spec, container, options)
    _change_container_lists(container, options, resolver)
    _change_placement(task, options)
    _change_networks(task, options, resolver)
    _change_ports(spec, options)
    _change_resources(task, options)


def set_replicas(spec: Spec, count: int) -> None:
    mode = spec.get("Mode") or {}
    if "Replicated" not in mode:
        raise UsageError("scale can only be used with replicated or replicated-job mode")
    mode["Replicated"] = {"Replicas": count}


def merged(
    before: Iterable[Any] | None,
    removed: Iterable[Any],
    added: Iterable[Any],
    key: Callable[[Any], Any] = lambda item: item,
) -> list[Any]:
    """`before` without what is removed (by key), with what is added in place of the same key or at the end."""
    gone = set(removed)
    kept = {key(item): item for item in before or [] if key(item) not in gone}
    kept |= {key(item): item for item in added}
    return list(kept.values())


def _edit(target: Spec, field: str, value: Any, options: Options, *names: str) -> None:
    """Sets the field when one of the flags was given, so that untouched fields stay exactly as they were."""
    if any(options[name] for name in names):
        target[field] = value


def _change_maps(spec: Spec, container: Spec, options: Options) -> None:
    for target, name in ((spec, "label"), (container, "container_label")):
        labels = {
            key: value
            for key, value in (target.get("Labels") or {}).items()
            if key not in options[f"{name}_rm"]
        }
        _edit(
            target,
            "Labels",
            labels | parse.labels(options[f"{name}_add"]),
            options,
            f"{name}_add",
            f"{name}_rm",
        )
    sysctls = {k: v for k, v in (container.get("Sysctls") or {}).items() if k not in options["sysctl_rm"]}
    sysctls |= parse.key_values(options["sysctl_add"], "sysctl-add")
    _edit(container, "Sysctls", sysctls, options, "sysctl_add", "sysctl_rm")


def _change_container_lists(container: Spec, options: Options, resolver: Resolver) -> None:
    def change(
        field: str,
        name: str,
        added: Iterable[Any],
        key: Callable[[Any], Any] = lambda item: item,
        target: Spec = container,
    ) -> None:
        value = merged(target.get(field), options[f"{name}_rm"], added, key)
        _edit(target, field, value, options, f"{name}_add", f"{name}_rm")

    change("Env", "env", parse.environment(options["env_add"]), lambda item: item.partition("=")[0])
    change("Groups", "group", options["group_add"])
    mounts = [parse_mounts.mount(text) for text in options["mount_add"]]
    change("Mounts", "mount", mounts, lambda item: item["Target"])
    change("Ulimits", "ulimit", parse.ulimits(options["ulimit_add"]), lambda item: item["Name"])
    secrets = file_references(options["secret_add"], "secret", resolver.secret)
    change("Secrets", "secret", secrets, lambda item: item["SecretName"])
    configs = file_references(options["config_add"], "config", resolver.config)
    change("Configs", "config", configs, lambda item: item["ConfigName"])
    _change_hosts(container, options)
    dns = dict(container.get("DNSConfig") or {})
    change("Nameservers", "dns", options["dns_add"], target=dns)
    change("Search", "dns_search", options["dns_search_add"], target=dns)
    change("Options", "dns_option", options["dns_option_add"], target=dns)
    if dns != (container.get("DNSConfig") or {}):
        container["DNSConfig"] = dns
    _change_capabilities(container, options)


def _change_hosts(container: Spec, options: Options) -> None:
    gone = {parse.host_entry(text)[0] if ":" in text or "=" in text else text for text in options["host_rm"]}
    lines = [line for line in container.get("Hosts") or [] if not gone & set(line.split()[1:])]
    lines += [" ".join(reversed(parse.host_entry(text))) for text in options["host_add"]]
    _edit(container, "Hosts", lines, options, "host_add", "host_rm")


def _change_capabilities(container: Spec, options: Options) -> None:
    """Adding takes a capability off the dropped ones, and the other way round."""
    for field, other, name in (
        ("CapabilityAdd", "CapabilityDrop", "cap_add"),
        ("CapabilityDrop", "CapabilityAdd", "cap_drop"),
    ):
        if named := parse.capabilities(options[name]):
            container[field] = merged(parse.capabilities(container.get(field) or ()), [], named)
            container[other] = merged(parse.capabilities(container.get(other) or ()), named, [])


def _change_placement(task: Spec, options: Options) -> None:
    placement = dict(task.get("Placement") or {})
    constraints = merged(placement.get("Constraints"), options["constraint_rm"], options["constraint_add"])
    _edit(placement, "Constraints", constraints, options, "constraint_add", "constraint_rm")
    gone = [preference(text)["Spread"]["SpreadDescriptor"] for text in options["placement_pref_rm"]]
    added = [preference(text) for text in options["placement_pref_add"]]
    preferences = merged(
        placement.get("Preferences"),
        gone,
        added,
        lambda item: (item.get("Spread") or {}).get("SpreadDescriptor"),
    )
    _edit(placement, "Preferences", preferences, options, "placement_pref_add", "placement_pref_rm")
    if placement != (task.get("Placement") or {}):
        task["Placement"] = placement


def _change_resources(task: Spec, options: Options) -> None:
    if not (options["generic_resource_add"] or options["generic_resource_rm"]):
        return
    reserved = task.setdefault("Resources", {}).setdefault("Reservations", {})
    added = generic_resources(options["generic_resource_add"])
    before = reserved.get("GenericResources")
    reserved["GenericResources"] = merged(before, options["generic_resource_rm"], added, resource_kind)


def _change_networks(task: Spec, options: Options, resolver: Resolver) -> None:
    gone = [resolver.network(name) for name in options["network_rm"]]
    added = [network(text, resolver) for text in options["network_add"]]
    value = merged(task.get("Networks"), gone, added, lambda item: item["Target"])
    _edit(task, "Networks", value, options, "network_add", "network_rm")


def _change_ports(spec: Spec, options: Options) -> None:
    def key(port: Spec) -> tuple[int, str]:
        return port["TargetPort"], port.get("Protocol", "tcp")

    gone = [parse_ports.target_port(text) for text in options["publish_rm"]]
    added = parse_ports.service_ports(list(options["publish_add"]))
    endpoint = spec.setdefault("EndpointSpec", {})
    kept = [port for port in endpoint.get("Ports") or [] if key(port) not in gone]
    taken = {(port.get("PublishedPort"), key(port)) for port in kept}
    ports = kept + [port for port in added if (port.get("PublishedPort"), key(port)) not in taken]
    _edit(endpoint, "Ports", ports, options, "publish_add", "publish_rm")
