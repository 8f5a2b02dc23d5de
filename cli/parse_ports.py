"""Published ports: `-p` of containers and services, short and long form."""

from __future__ import annotations

from typing import Any

from cli.errors import UsageError
from cli.parse import choice, comma_fields

_HINT = "such as 8080:80, 127.0.0.1:8080:80/udp, 8000-8002:80-82 or published=8080,target=80"
_PROTOCOLS = ("tcp", "udp", "sctp")

Mapping = tuple[str, str, str, str]  # address, host port ("" = any), container port, protocol


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f'invalid port "{text}" in "{whole}"', hint=_HINT)
    return int(text)


def _range(text: str, whole: str) -> list[int]:
    first, dash, last = text.partition("-")
    low = _port(first, whole)
    high = _port(last, whole) if dash else low
    if high < low:
        raise UsageError(f'invalid range format for port "{text}" in "{whole}"', hint=_HINT)
    return list(range(low, high + 1))


def port_mappings(text: str) -> list[Mapping]:
    """[[address:][host port(s)]:]container port(s)[/protocol], one mapping for each port."""
    body, slash, protocol = text.partition("/")
    protocol = choice(protocol.lower(), _PROTOCOLS, "publish") if slash else "tcp"
    address = ""
    if body.startswith("["):
        address, _, body = body[1:].partition("]:")
    elif body.count(":") >= 2:
        address, _, body = body.partition(":")
    host_text, _, container_text = body.rpartition(":")
    if not container_text:
        raise UsageError(f"no port specified: {text}<empty>", hint=_HINT)
    container = _range(container_text, text)
    if not host_text:
        return [(address, "", str(port), protocol) for port in container]
    host = _range(host_text, text)
    if len(container) == 1 and len(host) > 1:
        return [(address, host_text, str(container[0]), protocol)]
    if len(host) != len(container):
        raise UsageError(f"invalid ranges specified for container and host ports: {text}", hint=_HINT)
    return [(address, str(h), str(c), protocol) for h, c in zip(host, container, strict=True)]


def container_ports(publish: list[str], expose: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """ExposedPorts and HostConfig.PortBindings of a container."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in publish:
        for address, host, container, protocol in _any_form(text):
            key = f"{container}/{protocol}"
            exposed[key] = {}
            bindings.setdefault(key, []).append({"HostIp": address, "HostPort": host})
    for text in expose:
        ports, slash, protocol = text.partition("/")
        for port in _range(ports, text):
            exposed[f"{port}/{protocol.lower() if slash else 'tcp'}"] = {}
    return exposed, bindings


def _any_form(text: str) -> list[Mapping]:
    if "=" not in text:
        return port_mappings(text)
    long = _long_form(text)
    return [("", str(long.get("PublishedPort") or ""), str(long["TargetPort"]), str(long["Protocol"]))]


def _long_form(text: str) -> dict[str, Any]:
    config: dict[str, Any] = {"Protocol": "tcp", "PublishMode": "ingress"}
    for key, value in comma_fields(text, "publish"):
        if key == "target":
            config["TargetPort"] = _port(value or "", text)
        elif key == "published":
            config["PublishedPort"] = _port(value or "", text)
        elif key == "protocol":
            config["Protocol"] = choice((value or "").lower(), _PROTOCOLS, "publish")
        elif key == "mode":
            config["PublishMode"] = choice((value or "").lower(), ("ingress", "host"), "publish")
        else:
            raise UsageError(f'invalid field key "{key}" in --publish "{text}"', hint=_HINT)
    if "TargetPort" not in config:
        raise UsageError(f'missing mandatory field "target" in --publish "{text}"', hint=_HINT)
    return config


def service_ports(publish: list[str]) -> list[dict[str, Any]]:
    """EndpointSpec.Ports of a service."""
    ports: list[dict[str, Any]] = []
    for text in publish:
        if "=" in text:
            ports.append(_long_form(text))
            continue
        for address, host, container, protocol in port_mappings(text):
            if address:
                raise UsageError(
                    f'"{text}": a service\'s port cannot be bound to one address',
                    hint="leave the address out",
                )
            if "-" in host:
                raise UsageError(
                    f'"{text}": a service needs one published port for each target port', hint=_HINT
                )
            port: dict[str, Any] = {
                "Protocol": protocol,
                "TargetPort": int(container),
                "PublishMode": "ingress",
            }
            if host:
                port["PublishedPort"] = int(host)
            ports.append(port)
    return ports


def target_port(text: str) -> tuple[int, str]:
    """`service update --publish-rm`: target port[/protocol]."""
    port, slash, protocol = text.partition("/")
    return _port(port, text), choice(protocol.lower(), _PROTOCOLS, "publish-rm") if slash else "tcp"
