"""The daemon's settings by name: which there are, what kind each is, and how the command line writes it.

One table for the command line and the configuration file, whose keys are those of Docker's daemon.json where they
mean the same. What a value means is node.config's business.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["flag", "text", "number", "size", "list", "map", "objects", "ulimits", "pools"]


class Option(NamedTuple):
    """`key` of the file. `flags` of the command line, the first is shown in messages; none: the file only.

    `only`: the one value that is honoured, and why.
    """

    key: str
    kind: Kind
    flags: tuple[str, ...]
    help: str
    metavar: str = ""
    only: tuple[object, str] | None = None


OPTIONS: tuple[Option, ...] = (
    Option(
        *("hosts", "list", ("-H", "--host"), "where the API is served; several may be given"),
        metavar="unix://PATH|tcp://ADDRESS:PORT|fd://",
    ),
    Option(
        "group", "text", ("-G", "--group"), "group that may use the unix sockets; it is root on this machine"
    ),
    Option("tls", "flag", ("--tls",), "use TLS on TCP; false allows TCP without TLS; implied by --tlsverify"),
    Option("tlsverify", "flag", ("--tlsverify",), "use TLS and ask clients for a certificate of --tlscacert"),
    Option("tlscacert", "text", ("--tlscacert",), "trust clients' certificates signed by this CA", "FILE"),
    Option("tlscert", "text", ("--tlscert",), "certificate of the API", "FILE"),
    Option("tlskey", "text", ("--tlskey",), "key of the certificate", "FILE"),
    Option("data-root", "text", ("--root", "--data-root"), "state that survives a reboot", "FOLDER"),
    Option("exec-root", "text", ("--run-dir", "--exec-root"), "sockets and namespaces", "FOLDER"),
    Option("labels", "list", ("--label",), "label of this engine", "KEY=VALUE"),
    Option("debug", "flag", ("-D", "--debug"), "log everything"),
    Option("log-level", "text", ("-l", "--log-level"), "debug, info, warn, error or fatal"),
    Option("hostname", "text", ("--hostname",), "name of this node (the machine's name)"),
    Option("advertise-addr", "text", ("--advertise-addr",), "this node's address for other nodes"),
    Option("listen-port", "number", ("--listen-port",), "port between nodes (2377)"),
    Option(
        "cgroup-parent", "text", ("--cgroup-parent",), "cgroup below which containers are made (swarmctl)"
    ),
    Option(
        "storage-driver",
        "text",
        ("-s", "--storage-driver"),
        "overlay, fuse-overlayfs, btrfs or vfs (that of last time)",
    ),
    Option("storage-opts", "list", ("--storage-opt",), "option of the storage driver", "KEY=VALUE"),
    Option("log-driver", "text", ("--log-driver",), "default log driver of new containers (json-file)"),
    Option("log-opts", "map", ("--log-opt",), "default log options of new containers", "KEY=VALUE"),
    Option(
        "default-ulimits", "ulimits", ("--default-ulimit",), "limit of new containers", "NAME=SOFT[:HARD]"
    ),
    Option("default-shm-size", "size", ("--default-shm-size",), "/dev/shm of new containers (64m)", "BYTES"),
    Option("default-ipc-mode", "text", ("--default-ipc-mode",), "private or shareable"),
    Option("default-cgroupns-mode", "text", ("--default-cgroupns-mode",), "private or host"),
    Option("default-runtime", "text", ("--default-runtime",), "runtime of new containers"),
    Option("runtimes", "objects", (), "further runtimes"),
    Option("init", "flag", ("--init",), "an init in new containers"),
    Option("no-new-privileges", "flag", ("--no-new-privileges",), "for new containers"),
    Option("seccomp-profile", "text", ("--seccomp-profile",), "builtin, unconfined or a file", "FILE"),
    Option("userns-remap", "text", ("--userns-remap",), "user namespace of containers", "USER[:GROUP]"),
    Option("registry-mirrors", "list", ("--registry-mirror",), "mirror of Docker Hub", "URL"),
    Option(
        *(
            "insecure-registries",
            "list",
            ("--insecure-registry",),
            "registry without TLS, or with any certificate",
        ),
    ),
    Option(*("max-concurrent-downloads", "number", ("--max-concurrent-downloads",), "layers of a pull (3)")),
    Option("max-concurrent-uploads", "number", ("--max-concurrent-uploads",), "layers of a push (5)"),
    Option("max-download-attempts", "number", ("--max-download-attempts",), "for one layer (5)"),
    Option("dns", "list", ("--dns",), "name server of new containers", "ADDRESS"),
    Option("dns-opts", "list", ("--dns-opt",), "resolver option of new containers"),
    Option("dns-search", "list", ("--dns-search",), "search domain of new containers"),
    Option("ip", "text", ("--ip",), "default address of published ports", "ADDRESS"),
    Option("bip", "text", ("--bip",), "address and subnet of the default bridge", "ADDRESS/BITS"),
    Option("mtu", "number", ("--mtu",), "of the default bridge (1500)"),
    Option(
        *("default-address-pools", "pools", ("--default-address-pool",), "subnets of new networks"),
        metavar="base=SUBNET,size=BITS",
    ),
    Option(
        "metrics-addr",
        "text",
        ("--metrics-addr",),
        "serve Prometheus metrics at this address",
        "ADDRESS:PORT",
    ),
    Option(
        *(
            "shutdown-timeout",
            "number",
            ("--shutdown-timeout",),
            "seconds for containers when the machine stops (40)",
        ),
    ),
    Option(
        *("live-restore", "flag", ("--live-restore",), "always: containers outlive the daemon"),
        only=(True, "containers always outlive the daemon here"),
    ),
    Option("icc", "flag", ("--icc",), "whether containers of the default bridge reach each other (true)"),
    Option("ipv6", "flag", ("--ipv6",), "IPv6 on the default bridge"),
    Option(
        "fixed-cidr-v6", "text", ("--fixed-cidr-v6",), "IPv6 subnet of the default bridge (random)", "SUBNET"
    ),
    Option("iptables", "flag", ("--iptables",), "", only=(True, "published ports need the rules")),
    Option("ip-forward", "flag", ("--ip-forward",), "", only=(True, "bridges need forwarding")),
    Option("ip-masq", "flag", ("--ip-masq",), "", only=(True, "bridges masquerade")),
    Option(
        "userland-proxy", "flag", ("--userland-proxy",), "", only=(False, "ports are published by the kernel")
    ),
    Option(
        "selinux-enabled", "flag", ("--selinux-enabled",), "", only=(False, "there is no SELinux support yet")
    ),
    Option(
        "experimental", "flag", ("--experimental",), "", only=(False, "there are no experimental features")
    ),
)

BY_KEY: Mapping[str, Option] = {option.key: option for option in OPTIONS}

# Docker's keys that mean something here can only be honoured when it is built.
REFUSED = frozenset(
    (
        *("allow-nondistributable-artifacts", "authorization-plugins", "bridge", "bridge-accept-fwmark"),
        *("builder", "cdi-spec-dirs", "containerd", "containerd-namespace", "containerd-plugins-namespace"),
        *("cpu-rt-period", "cpu-rt-runtime", "cri-containerd", "default-gateway", "default-gateway-v6"),
        *("default-network-opts", "exec-opts", "features", "firewall-backend", "fixed-cidr"),
        *("host-gateway-ip", "host-gateway-ips", "http-proxy", "https-proxy", "init-path", "ip6tables"),
        *(
            "log-format",
            "network-control-plane-mtu",
            "no-proxy",
            "node-generic-resources",
            "oom-score-adjust",
        ),
        *(
            "pidfile",
            "proxies",
            "raw-logs",
            "rootless",
            "swarm-default-advertise-addr",
            "userland-proxy-path",
        ),
    )
)


def add_to(parser: argparse.ArgumentParser) -> None:
    """A setting that is not given leaves no trace in the result."""
    for option in OPTIONS:
        if not option.flags:
            continue
        shown = argparse.SUPPRESS if option.only is not None else option.help
        words: dict[str, Any] = {"dest": option.key, "default": argparse.SUPPRESS, "help": shown}
        if option.kind == "flag":
            words |= {"nargs": "?", "const": True, "type": truth, "metavar": "true|false"}
        elif option.kind in ("list", "map", "ulimits", "pools"):
            words["action"] = "append"
        elif option.kind == "number":
            words["type"] = int
        if option.metavar:
            words["metavar"] = option.metavar
        elif option.kind != "flag":
            words["metavar"] = option.kind.upper() if option.kind in ("number", "size") else "TEXT"
        parser.add_argument(*option.flags, **words)


def truth(text: str) -> bool:
    """As Docker's command line reads it."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")


def from_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line says, in the form of the file. ValueError names a flag that is wrong."""
    return {key: _parsed(BY_KEY[key], value) for key, value in given.items() if key in BY_KEY}


def _parsed(option: Option, value: Any) -> Any:
    parse = _PARSERS.get(option.kind)
    return value if parse is None else parse(option.flags[-1], value)


def _map(flag: str, values: list[str]) -> dict[str, str]:
    pairs = [_pair(flag, value) for value in values]
    return dict(pairs)


def _pair(flag: str, value: str) -> tuple[str, str]:
    name, separator, rest = value.partition("=")
    if not name or not separator:
        raise ValueError(f"{flag} {value}: must be KEY=VALUE")
    return name, rest


def _ulimits(flag: str, values: list[str]) -> dict[str, dict[str, object]]:
    limits: dict[str, dict[str, object]] = {}
    for value in values:
        name, numbers = _pair(flag, value)
        soft, _, hard = numbers.partition(":")
        try:
            limits[name] = {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
        except ValueError as error:
            raise ValueError(f"{flag} {value}: must be NAME=SOFT[:HARD]") from error
    return limits


def _pools(flag: str, values: list[str]) -> list[dict[str, object]]:
    pools = []
    for value in values:
        words = dict(_pair(flag, word) for word in value.split(","))
        if set(words) != {"base", "size"} or not words["size"].isdecimal():
            raise ValueError(f"{flag} {value}: must be base=SUBNET,size=BITS")
        pools.append({"base": words["base"], "size": int(words["size"])})
    return pools


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {"map": _map, "ulimits": _ulimits, "pools": _pools}
