"""Driver options of this host's networks: what may be asked for, and what each one means. Pure.

Source: docs.docker.com/engine/network/drivers/bridge and macvlan, "Options". Options of Docker's that would change how
packets go and that do not exist here are refused by name; what does not begin with Docker's prefix is a remark.
"""

from __future__ import annotations

import ipaddress
import re

from overlay_net.errors import InvalidNetwork
from overlay_net.records import NetworkSpec, Record

BRIDGE_MTU = 1500
MTU = "com.docker.network.driver.mtu"
NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
BINDING = "com.docker.network.bridge.host_binding_ipv4"
PREFIX = "com.docker.network.container_iface_prefix"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
_GATEWAY_MODES = (
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
)
_BRIDGE = frozenset((MTU, NAME, ICC, MASQUERADE, BINDING, PREFIX, DEFAULT_BRIDGE, *_GATEWAY_MODES))
_DOCKERS = "com.docker.network."
_DEVICE_NAME = re.compile(r"[^\s/:]{1,15}")
_PREFIX_NAME = re.compile(r"[^\s/:%]{1,12}")
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_MTU_MIN, _MTU_MIN_IPV6, _MTU_MAX = 68, 1280, 65535
MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
_VLAN_MAX = 4094


class Macvlan(Record, frozen=True):
    """`vlan` 0: the parent is no VLAN of ours. A parent "" is a device of the network's own."""

    parent: str = ""
    mode: str = "bridge"
    vlan: int = 0


def check(spec: NetworkSpec) -> None:
    """InvalidNetwork names the option and what it may be."""
    mtu(spec)
    if spec.driver == "macvlan":
        macvlan(spec)
        _refuse_others(spec, {MTU, "parent", "macvlan_mode"})
        return
    _refuse_others(spec, _BRIDGE)
    name = spec.options.get(NAME, "")
    if name and (not _DEVICE_NAME.fullmatch(name) or name in (".", "..", "all", "default")):
        raise InvalidNetwork(f"invalid {NAME}: {name!r}: 1 to 15 characters, no space, / or :")
    for option in (ICC, MASQUERADE, DEFAULT_BRIDGE):
        _truth(spec, option, default=True)
    if spec.options.get(DEFAULT_BRIDGE, "") in _TRUE:
        raise InvalidNetwork(f"{DEFAULT_BRIDGE}: there is one default bridge: leave the option out")
    for option in _GATEWAY_MODES:
        if spec.options.get(option, "") not in ("", "nat"):
            raise InvalidNetwork(
                f"{option}={spec.options[option]}: only nat exists here: leave the option out"
            )
    prefix = spec.options.get(PREFIX, "")
    if prefix and not _PREFIX_NAME.fullmatch(prefix):
        raise InvalidNetwork(f"invalid {PREFIX}: {prefix!r}: 1 to 12 characters, no space, /, : or %")
    address = spec.options.get(BINDING, "")
    try:
        if address:
            ipaddress.IPv4Address(address)
    except ValueError as error:
        raise InvalidNetwork(f"invalid {BINDING}: {address!r}: must be an IPv4 address") from error


def mtu(spec: NetworkSpec) -> int:
    text = spec.options.get(MTU, "")
    if not text:
        return BRIDGE_MTU
    low = _MTU_MIN_IPV6 if spec.ipv6 else _MTU_MIN
    if not (text.isascii() and text.isdigit()) or (int(text) and not low <= int(text) <= _MTU_MAX):
        raise InvalidNetwork(f"invalid {MTU}: {text!r}: must be {low} to {_MTU_MAX}")
    return int(text) or BRIDGE_MTU


def lets_containers_talk(spec: NetworkSpec) -> bool:
    return _truth(spec, ICC, default=True)


def masquerades(spec: NetworkSpec) -> bool:
    return _truth(spec, MASQUERADE, default=True)


def binding(spec: NetworkSpec) -> str:
    """The host address at which ports are published that name none; "" is every address."""
    address = spec.options.get(BINDING, "")
    return "" if address == "0.0.0.0" else address


def macvlan(spec: NetworkSpec) -> Macvlan:
    """`parent=eth0.50` is VLAN 50 of eth0; `macvlan_mode` as `ip link` has it."""
    mode = spec.options.get("macvlan_mode", "") or "bridge"
    if mode not in MACVLAN_MODES:
        raise InvalidNetwork(f"invalid macvlan_mode: {mode!r}: use {', '.join(MACVLAN_MODES)}")
    parent = spec.options.get("parent", "")
    if parent and not _DEVICE_NAME.fullmatch(parent):
        raise InvalidNetwork(f"invalid parent: {parent!r}: name an interface of this host")
    if parent == "lo":
        raise InvalidNetwork("loopback interface is not a valid macvlan parent link: name another one")
    base, dot, number = parent.rpartition(".")
    if dot and base and number.isascii() and number.isdigit() and 0 < int(number) <= _VLAN_MAX:
        return Macvlan(parent=parent, mode=mode, vlan=int(number))
    return Macvlan(parent=parent, mode=mode)


def _truth(spec: NetworkSpec, option: str, *, default: bool) -> bool:
    value = spec.options.get(option, "")
    if value not in ("", *_TRUE, *_FALSE):
        raise InvalidNetwork(f"invalid {option}: {value!r}: must be true or false")
    return default if not value else value in _TRUE


def _refuse_others(spec: NetworkSpec, known: frozenset[str] | set[str]) -> None:
    for option in spec.options:
        if option not in known and option.startswith((_DOCKERS, "parent", "macvlan_", "ipvlan_")):
            raise InvalidNetwork(f"option {option} is not supported by {spec.driver} networks: leave it out")
