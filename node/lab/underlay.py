"""The network between the nodes: one bridge in a namespace of its own, one cable to each node's namespace.

Nothing is made in the host's namespace and nothing leads out of the lab. Inside a node the cable's end is called
eth0; on the bridge it has the node's name, so that packets can be dropped by name (`cut`).
"""

from __future__ import annotations

import subprocess

from node.lab.model import NETNS_ROOT, Lab, LabError, LabNode

_BRIDGE = "underlay"
_COMMAND_SECONDS = 20.0


def command(*words: str, text: str = "", check: bool = True) -> str:
    """Runs `ip`, `nft` or `nsenter`; LabError carries the command and what it said."""
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed", hint="./dev install adds what is missing") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(words)}: no answer within {_COMMAND_SECONDS:.0f} s") from error
    if check and done.returncode:
        raise LabError(f"{' '.join(words)}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout


def create_underlay(lab: Lab) -> None:
    command("ip", "netns", "add", lab.underlay)
    batch = [
        "link set lo up",
        f"link add {_BRIDGE} type bridge forward_delay 0 mcast_snooping 0",
        f"link set {_BRIDGE} up",
    ]
    command("ip", "-n", lab.underlay, "-batch", "-", text="\n".join(batch) + "\n")


def create_node_network(lab: Lab, node: LabNode) -> None:
    """The node's namespace, its cable and its address."""
    command("ip", "netns", "add", node.netns)
    command(
        *("ip", "-n", lab.underlay, "link", "add", node.name, "type", "veth"),
        *("peer", "name", "eth0", "address", node.mac, "netns", node.netns),
    )
    command("ip", "-n", lab.underlay, "link", "set", node.name, "master", _BRIDGE, "up")
    batch = ["link set lo up", f"address add {node.address}/24 dev eth0", "link set eth0 up"]
    command("ip", "-n", node.netns, "-batch", "-", text="\n".join(batch) + "\n")


def unplug(lab: Lab, node: LabNode) -> None:
    """The cable carries nothing until the network of the node is made anew."""
    command("ip", "-n", lab.underlay, "link", "set", node.name, "down", check=False)


def delete_node_network(lab: Lab, node: LabNode) -> None:
    """Both ends of the cable go at once; a namespace that processes still hold lives on without its cable."""
    if (NETNS_ROOT / lab.underlay).exists():
        command("ip", "-n", lab.underlay, "link", "delete", node.name, check=False)
    delete_namespace(node.netns)


def delete_namespace(name: str) -> None:
    if (NETNS_ROOT / name).exists():
        command("ip", "netns", "delete", name, check=False)


def namespaces_of(lab_name: str) -> list[str]:
    """All of this lab's, also when its file is lost."""
    return sorted(path.name for path in NETNS_ROOT.glob(f"swarmctl.{lab_name}.*"))


def ruleset(cuts: list[tuple[str, str]]) -> str:
    """One table that replaces itself; (n1, n2) drops what n1 sends to n2, of any protocol."""
    rules = "".join(
        f'    iifname "{source}" oifname "{target}" drop\n' for source, target in sorted(set(cuts))
    )
    return (
        "table bridge swarmctl_lab\n"
        "delete table bridge swarmctl_lab\n"
        "table bridge swarmctl_lab {\n"
        "  chain forward {\n"
        "    type filter hook forward priority 0; policy accept;\n"
        f"{rules}"
        "  }\n"
        "}\n"
    )


def apply_cuts(lab: Lab) -> None:
    command(
        *("nsenter", f"--net={NETNS_ROOT / lab.underlay}", "--", "nft", "-f", "-"), text=ruleset(lab.cuts)
    )
