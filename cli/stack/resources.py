"""What a stack needs before its services: networks, secrets and configs of a compose file as bodies of the API."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

from cli.errors import UsageError
from cli.stack.compose_file import Document, mapping
from cli.stack.services import NAMESPACE, real_name

Body = dict[str, Any]


def networks(stack: str, document: Document) -> tuple[dict[str, Body], list[str]]:
    """(name in the swarm -> body of those to be made, names of those that must be there already)."""
    used = {
        key for service in document["services"].values() for key in service.get("networks") or {"default": 1}
    }
    made: dict[str, Body] = {}
    external = []
    for key in sorted(used):
        network = document["networks"].get(key) or {}
        name = real_name(stack, key, network)
        if network.get("external"):
            external.append(name)
        else:
            made[name] = _network(stack, name, network)
    return made, external


def _network(stack: str, name: str, network: Document) -> Body:
    body: Body = {
        "Name": name,
        "Driver": network.get("driver") or "overlay",
        "Options": _texts(network.get("driver_opts")),
        "Labels": _texts(network.get("labels")) | {NAMESPACE: stack},
        "Internal": bool(network.get("internal")),
        "Attachable": bool(network.get("attachable")),
        "EnableIPv6": True if network.get("enable_ipv6") else None,
    }
    if ipam := network.get("ipam"):
        fields = {"subnet": "Subnet", "gateway": "Gateway", "ip_range": "IPRange"}
        pools = [
            {fields[key]: str(value) for key, value in pool.items() if key in fields}
            for pool in ipam.get("config") or []
        ]
        body["IPAM"] = {"Driver": ipam.get("driver") or "default", "Config": pools}
    return {field: value for field, value in body.items() if value not in (None, {}, False)}


def _texts(value: Any) -> dict[str, str]:
    return {key: text or "" for key, text in mapping(value, "labels").items()}


def payloads(
    stack: str, kind: str, document: Document, folder: str, environment: Mapping[str, str]
) -> dict[str, Body]:
    """`kind`: secret or config. Name in the swarm -> body; external ones are left out."""
    found: dict[str, Body] = {}
    for key, item in sorted(document[f"{kind}s"].items()):
        if item.get("external"):
            continue
        name = real_name(stack, key, item)
        body: Body = {"Name": name, "Labels": _texts(item.get("labels")) | {NAMESPACE: stack}}
        if item.get("driver"):
            body["Driver"] = {"Name": item["driver"], "Options": _texts(item.get("driver_opts"))}
        else:
            body["Data"] = base64.b64encode(_content(kind, key, item, folder, environment)).decode()
        if item.get("template_driver"):
            body["Templating"] = {"Name": item["template_driver"]}
        found[name] = body
    return found


def _content(kind: str, key: str, item: Document, folder: str, environment: Mapping[str, str]) -> bytes:
    if "content" in item:
        return str(item["content"]).encode()
    if "environment" in item:
        if item["environment"] not in environment:
            raise UsageError(f"{kind} {key}: the environment has no {item['environment']}")
        return environment[item["environment"]].encode()
    if "file" not in item:
        raise UsageError(f"{kind} {key} has no content", hint="give it file:, environment: or external: true")
    path = os.path.join(folder, os.path.expanduser(str(item["file"])))
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
