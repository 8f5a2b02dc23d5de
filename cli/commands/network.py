"""`swarmctl network`."""

from __future__ import annotations

from typing import Any

import click

from cli import humanize
from cli.client import Client
from cli.command import (
    command,
    confirm,
    filter_option,
    for_each,
    format_option,
    no_trunc_option,
    quiet_option,
    repeated,
)
from cli.commands.container import inspect_each
from cli.errors import UsageError
from cli.output import emit, label_of, labels_text, show
from cli.parse import filters, key_values, labels
from cli.urls import quote

_COLUMNS = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))


def network_path(reference: str, verb: str = "") -> str:
    if not reference:
        raise UsageError('invalid network name or ID: value is empty ("")')
    return f"/networks/{quote(reference)}" + (f"/{verb}" if verb else "")


@command("", name="ls")
@filter_option
@format_option
@no_trunc_option
@quiet_option("Only display network IDs")
@click.pass_obj
def ls(client: Client, filter_values: tuple[str, ...], form: str, no_trunc: bool, quiet: bool) -> None:
    """List networks"""
    rows = [
        {
            "ID": network["Id"] if no_trunc else network["Id"][:12],
            "Name": network["Name"],
            "Driver": network["Driver"],
            "Scope": network["Scope"],
            "IPv6": str(bool(network.get("EnableIPv6"))).lower(),
            "IPv4": "true",
            "Internal": str(bool(network.get("Internal"))).lower(),
            "Labels": labels_text(network.get("Labels")),
            "Label": label_of(network.get("Labels")),
            "CreatedAt": humanize.local_time(network.get("Created")),
        }
        for network in sorted(
            client.get("/networks", {"filters": filters(filter_values)}), key=lambda network: network["Name"]
        )
    ]
    emit(rows, _COLUMNS, form=form, quiet="ID" if quiet else "", headers={"CreatedAt": "CREATED AT"})


@command("NETWORK")
@click.argument("name")
@click.option("--attachable", is_flag=True, help="Enable manual container attachment")
@repeated("--aux-address", help="Auxiliary addresses used by Network driver (name=address)")
@click.option("-d", "--driver", default="bridge", help="Driver to manage the Network (default bridge)")
@click.option("--config-from", default="", help="The network from which to copy the configuration")
@click.option("--config-only", is_flag=True, help="Create a configuration only network")
@repeated("--gateway", help="Gateway for the subnet, one for each --subnet")
@click.option("--ingress", is_flag=True, help="Create swarm routing-mesh network")
@click.option("--internal", is_flag=True, help="Restrict external access to the network")
@repeated("--ip-range", help="Allocate container ip from a sub-range")
@click.option("--ipam-driver", default="default", help="IP Address Management Driver")
@repeated("--ipam-opt", help="Set IPAM driver specific options")
@click.option("--ipv4/--no-ipv4", default=None, help="Enable or disable IPv4 address assignment")
@click.option("--ipv6/--no-ipv6", default=False, help="Enable or disable IPv6 address assignment")
@repeated("--label", help="Set metadata on a network")
@repeated("-o", "--opt", help="Set driver specific options")
@click.option("--scope", default="", help="Control the network's scope")
@repeated("--subnet", help="Subnet in CIDR format that represents a network segment")
@click.pass_obj
def create(client: Client, /, name: str, **options: Any) -> None:
    """Create a network"""
    body: dict[str, Any] = {
        "Name": name,
        "Driver": options["driver"],
        "Internal": options["internal"],
        "Attachable": options["attachable"],
        "Ingress": options["ingress"],
        "EnableIPv6": options["ipv6"],
        "Options": key_values(options["opt"], "opt"),
        "Labels": labels(options["label"]),
        "IPAM": {
            "Driver": options["ipam_driver"],
            "Options": key_values(options["ipam_opt"], "ipam-opt"),
            "Config": _ipam(options),
        },
        "ConfigOnly": options["config_only"],
    }
    if options["config_from"]:
        body["ConfigFrom"] = {"Network": options["config_from"]}
    if options["ipv4"] is not None:
        body["EnableIPv4"] = options["ipv4"]
    if options["scope"]:
        body["Scope"] = options["scope"]
    show(client.post("/networks/create", body)["Id"])


def _ipam(options: dict[str, Any]) -> list[dict[str, Any]]:
    """Every range, gateway and auxiliary address goes to the subnet that contains it."""
    import ipaddress

    pools: list[tuple[Any, dict[str, Any]]] = []
    for subnet in options["subnet"]:
        try:
            network = ipaddress.ip_network(subnet, strict=False)
        except ValueError as error:
            raise UsageError(f'invalid subnet "{subnet}": {error}', hint="such as 172.28.0.0/16") from error
        pools.append((network, {"Subnet": subnet}))
    auxiliary = key_values(options["aux_address"], "aux-address")
    wanted = [("IPRange", "ip-range", value, "") for value in options["ip_range"]]
    wanted += [("Gateway", "gateway", value, "") for value in options["gateway"]]
    wanted += [("AuxiliaryAddresses", "aux-address", value, name) for name, value in auxiliary.items()]
    for field, flag, value, name in wanted:
        try:
            address = ipaddress.ip_interface(value).ip
        except ValueError as error:
            raise UsageError(f'invalid argument "{value}" for "--{flag}": {error}') from error
        pool = next((config for network, config in pools if address in network), None)
        if pool is None:
            raise UsageError(f"no matching subnet for {flag} {value}", hint="give it with --subnet")
        if name:
            pool.setdefault(field, {})[name] = value
        else:
            pool[field] = value
    return [config for _, config in pools]


@command("NETWORK [NETWORK...]")
@click.argument("networks", nargs=-1, required=True)
@click.option("-f", "--format", "form", default="", help="json or a Go template such as '{{.IPAM.Config}}'")
@click.option("-v", "--verbose", is_flag=True, help="Verbose output for diagnostics")
@click.pass_obj
def inspect(client: Client, networks: tuple[str, ...], form: str, verbose: bool) -> None:
    """Display detailed information on one or more networks"""
    query = {"verbose": verbose or None}
    inspect_each(client, list(networks), form, lambda name: client.get(network_path(name), query))


@command("NETWORK [NETWORK...]")
@click.argument("networks", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Do not error if the network does not exist")
@click.pass_obj
def rm(client: Client, networks: tuple[str, ...], force: bool) -> None:
    """Remove one or more networks"""
    from cli.errors import ApiError

    def one(name: str) -> str | None:
        try:
            client.delete(network_path(name))
        except ApiError as error:
            if not (force and error.status == 404):
                raise
            return ""
        return None

    for_each(networks, one)


@command("NETWORK CONTAINER")
@click.argument("network")
@click.argument("container")
@repeated("--alias", help="Add network-scoped alias for the container")
@repeated("--driver-opt", help="Driver options for the network")
@click.option("--gw-priority", type=int, default=0, help="Highest gw-priority provides the default gateway")
@click.option("--ip", default="", help="IPv4 address (e.g., 172.30.100.104)")
@click.option("--ip6", default="", help="IPv6 address (e.g., 2001:db8::33)")
@repeated("--link", help="Add link to another container")
@repeated("--link-local-ip", help="Add a link-local address for the container")
@click.pass_obj
def connect(client: Client, /, network: str, container: str, **options: Any) -> None:
    """Connect a container to a network"""
    endpoint: dict[str, Any] = {}
    for field, name in (("Aliases", "alias"), ("Links", "link")):
        if options[name]:
            endpoint[field] = list(options[name])
    if options["driver_opt"]:
        endpoint["DriverOpts"] = key_values(options["driver_opt"], "driver-opt")
    if options["gw_priority"]:
        endpoint["GwPriority"] = options["gw_priority"]
    addresses = {"IPv4Address": options["ip"], "IPv6Address": options["ip6"]}
    ipam: dict[str, Any] = {field: value for field, value in addresses.items() if value}
    if options["link_local_ip"]:
        ipam["LinkLocalIPs"] = list(options["link_local_ip"])
    if ipam:
        endpoint["IPAMConfig"] = ipam
    client.post(network_path(network, "connect"), {"Container": container, "EndpointConfig": endpoint})


@command("NETWORK CONTAINER")
@click.argument("network")
@click.argument("container")
@click.option("-f", "--force", is_flag=True, help="Force the container to disconnect from a network")
@click.pass_obj
def disconnect(client: Client, network: str, container: str, force: bool) -> None:
    """Disconnect a container from a network"""
    client.post(network_path(network, "disconnect"), {"Container": container, "Force": force})


@command("")
@repeated("--filter", "filter_values", help="Provide filter values (e.g. until=24h)")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation")
@click.pass_obj
def prune(client: Client, filter_values: tuple[str, ...], force: bool) -> None:
    """Remove all unused networks"""
    from cli.commands.container import show_pruned

    confirm("This will remove all custom networks not used by at least one container.", force)
    answer = client.post("/networks/prune", query={"filters": filters(filter_values)})
    show_pruned("Deleted Networks:", answer.get("NetworksDeleted"), None)
