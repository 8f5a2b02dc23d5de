"""Compose files as one dictionary: read, variables put in, several merged, keys checked.

Owns the form of the files (YAML, sections, which keys there are); what the values mean to a swarm is in
`services` and `resources`. What a swarm cannot do is named: refused, or told as a warning where docker only warns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cli.errors import CliError, UsageError
from cli.stack.interpolation import interpolated

Document = dict[str, Any]
SECTIONS = ("services", "networks", "volumes", "secrets", "configs")
_FILE_BYTES_MAX = 10 << 20

SERVICE_KEYS = {
    *(
        "cap_add",
        "cap_drop",
        "command",
        "configs",
        "credential_spec",
        "depends_on",
        "deploy",
        "dns",
        "dns_opt",
    ),
    *(
        "dns_search",
        "entrypoint",
        "env_file",
        "environment",
        "extra_hosts",
        "healthcheck",
        "hostname",
        "image",
    ),
    *("init", "isolation", "labels", "logging", "networks", "oom_score_adj", "ports", "read_only", "restart"),
    *(
        "secrets",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
    ),
    *("volumes", "working_dir", "group_add"),
}
# Docker tells of these and goes on.
UNSUPPORTED = {
    *("build", "cgroup_parent", "cgroupns_mode", "devices", "domainname", "external_links", "ipc", "links"),
    *(
        "mac_address",
        "network_mode",
        "pid",
        "platform",
        "privileged",
        "profiles",
        "pull_policy",
        "security_opt",
    ),
    *("shm_size", "stop_timeout", "userns_mode"),
}
DEPRECATED = {
    "container_name": "Setting the container name is not supported.",
    "expose": "Exposing ports is unnecessary - services on the same network can access each other's "
    "containers on any port.",
}
FORBIDDEN = {
    "cpu_quota": "Set resource limits using deploy.resources",
    "cpu_shares": "Set resource limits using deploy.resources",
    "cpus": "Set resource limits using deploy.resources",
    "cpuset": "Set resource limits using deploy.resources",
    "extends": "Support for `extends` is not implemented yet.",
    "mem_limit": "Set resource limits using deploy.resources",
    "memswap_limit": "Set resource limits using deploy.resources",
    "volume_driver": "Instead of setting the volume driver on the service, define a volume using the top-level "
    "`volumes` option and specify the driver there.",
    "volumes_from": "To share a volume between services, define it using the top-level `volumes` option and "
    "reference it from each service that shares it using the service-level `volumes` option.",
}
_OTHER_KEYS = {
    "networks": {
        "driver",
        "driver_opts",
        "ipam",
        "external",
        "internal",
        "attachable",
        "labels",
        "name",
        "enable_ipv6",
    },
    "volumes": {"driver", "driver_opts", "external", "labels", "name"},
    "secrets": {
        "file",
        "external",
        "labels",
        "name",
        "driver",
        "driver_opts",
        "template_driver",
        "environment",
    },
    "configs": {"file", "external", "labels", "name", "template_driver", "environment", "content"},
}
# Values of a service that a later file replaces as a whole.
_REPLACED = {"command", "entrypoint", "test"}


def load(paths: Sequence[str], variables: Mapping[str, str] | None) -> Document:
    """The files, merged in their order; `variables` None leaves ${...} as it is."""
    merged: Document = {}
    for path in paths:
        document = _read(path)
        _check_sections(document, path)
        if variables is not None:
            for section in SECTIONS:
                document[section] = interpolated(document.get(section) or {}, variables, section)
        for name, service in (document.get("services") or {}).items():
            _normal_service(service, f"services.{name}")
        merged = _merge(merged, document)
    for section in SECTIONS:
        merged[section] = {name: value or {} for name, value in (merged.get(section) or {}).items()}
    _check_keys(merged)
    return merged


def folder_of(paths: Sequence[str]) -> str:
    """Relative paths in the files are relative to the first of them."""
    return os.getcwd() if paths[0] == "-" else os.path.dirname(os.path.abspath(paths[0]))


def warnings(document: Document) -> list[str]:
    """What the services ask for and a swarm does not do."""
    used = {key for service in document["services"].values() for key in service}
    found = []
    if ignored := sorted(used & UNSUPPORTED):
        found.append(f"Ignoring unsupported options: {', '.join(ignored)}\n")
    if old := sorted(used & set(DEPRECATED)):
        lines = "".join(f"{key}: {DEPRECATED[key]}\n" for key in old)
        found.append(f"Ignoring deprecated options:\n\n{lines}")
    return found


def _read(path: str) -> Document:
    import yaml

    try:
        if path == "-":
            text = sys.stdin.buffer.read(_FILE_BYTES_MAX)
        else:
            with open(path, "rb") as source:
                text = source.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path}: top-level object must be a mapping")
    return document


def _check_sections(document: Document, path: str) -> None:
    for key, value in document.items():
        if key in SECTIONS:
            if value is not None and not isinstance(value, dict):
                raise UsageError(f"{path}: {key} must be a mapping")
            for name, item in (value or {}).items():
                if item is not None and not isinstance(item, dict):
                    raise UsageError(f"{path}: {key}.{name} must be a mapping")
        elif key not in ("version", "name") and not str(key).startswith("x-"):
            raise UsageError(f"{path}: (root) Additional property {key} is not allowed")


def _check_keys(document: Document) -> None:
    for name, service in document["services"].items():
        for key in service:
            if key in FORBIDDEN:
                raise CliError(f"Compose file contains unsupported options: {key}: {FORBIDDEN[key]}")
            known = key in SERVICE_KEYS or key in UNSUPPORTED or key in DEPRECATED
            if not known and not str(key).startswith("x-"):
                raise UsageError(f"services.{name} Additional property {key} is not allowed")
        if not service.get("image"):
            raise UsageError(f"invalid image reference for service {name}: no image specified")
    for section, known_keys in _OTHER_KEYS.items():
        for name, value in document[section].items():
            for key in value:
                if key not in known_keys and not str(key).startswith("x-"):
                    raise UsageError(f"{section}.{name} Additional property {key} is not allowed")


def mapping(value: Any, what: str, separator: str = "=") -> dict[str, str | None]:
    """A map, or a list of KEY=VALUE; a key alone has None."""
    if value is None:
        return {}
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, bool | dict | list):
                raise UsageError(
                    f"{what}.{key} must be a string, number or null", hint='write "true", not true'
                )
        return {str(key): None if item is None else scalar(item) for key, item in value.items()}
    if isinstance(value, list):
        pairs = (str(item).partition(separator) for item in value)
        return {key.strip(): text if found else None for key, found, text in pairs}
    raise UsageError(f"{what} must be a mapping or a list")


def scalar(value: Any) -> str:
    """As YAML wrote it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _normal_service(service: Document | None, where: str) -> None:
    """Lists of KEY=VALUE as mappings, so that files merge key by key."""
    for key in ("environment", "labels", "sysctls"):
        if service and key in service:
            service[key] = mapping(service[key], f"{where}.{key}")
    deploy = (service or {}).get("deploy") or {}
    if "labels" in deploy:
        deploy["labels"] = mapping(deploy["labels"], f"{where}.deploy.labels")
    networks = (service or {}).get("networks")
    if service and isinstance(networks, list):
        service["networks"] = dict.fromkeys(map(str, networks))


def _merge(before: Any, after: Any, key: str = "") -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        joined = dict(before)
        for name, value in after.items():
            joined[name] = _merge(before[name], value, name) if name in before else value
        return joined
    if isinstance(before, list) and isinstance(after, list) and key not in _REPLACED:
        return [*[item for item in before if item not in after], *after]
    return before if after is None else after
