"""`swarmctl swarm`."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.client import Client
from cli.command import command
from cli.errors import UsageError
from cli.output import show
from cli.parse import choice, comma_fields, positive_nanoseconds
from cli.survey import survey_text

_AVAILABILITY = ("active", "pause", "drain")
_AUTOLOCK_HINT = "turn locking on first: swarmctl swarm update --autolock"
_SPEC_OPTIONS = (
    click.option(
        "--autolock", type=bool, is_flag=True, default=None, help="Require a key to start a manager"
    ),
    click.option("--cert-expiry", default="", help="Validity period for node certificates (default 2160h)"),
    click.option("--external-ca", multiple=True, help="External CA: protocol=cfssl,url=https://..."),
    click.option("--dispatcher-heartbeat", default="", help="Dispatcher heartbeat period (default 1s)"),
    click.option(
        "--max-snapshots", type=click.IntRange(min=0), help="Number of additional snapshots to retain"
    ),
    click.option("--snapshot-interval", type=click.IntRange(min=1), help="Log entries between snapshots"),
    click.option("--task-history-limit", type=int, help="Task history retention limit (default 5)"),
)


def _spec_options(function: Any) -> Any:
    for option in reversed(_SPEC_OPTIONS):
        function = option(function)
    return function


def _apply(spec: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The cluster-wide flags that were given, into a SwarmSpec."""
    if options["autolock"] is not None:
        spec.setdefault("EncryptionConfig", {})["AutoLockManagers"] = options["autolock"]
    if options["cert_expiry"]:
        spec.setdefault("CAConfig", {})["NodeCertExpiry"] = positive_nanoseconds(options["cert_expiry"])
    if options["external_ca"]:
        external = [_external_ca(text) for text in options["external_ca"]]
        spec.setdefault("CAConfig", {})["ExternalCAs"] = external
    if options["dispatcher_heartbeat"]:
        period = positive_nanoseconds(options["dispatcher_heartbeat"])
        spec.setdefault("Dispatcher", {})["HeartbeatPeriod"] = period
    if options["max_snapshots"] is not None:
        spec.setdefault("Raft", {})["KeepOldSnapshots"] = options["max_snapshots"]
    if options["snapshot_interval"] is not None:
        spec.setdefault("Raft", {})["SnapshotInterval"] = options["snapshot_interval"]
    if options["task_history_limit"] is not None:
        spec.setdefault("Orchestration", {})["TaskHistoryRetentionLimit"] = options["task_history_limit"]
    return spec


@command("")
@click.option("--advertise-addr", default="", help="Advertised address (format: <ip|interface>[:port])")
@click.option(
    "--availability", default="active", help='Availability of the node ("active", "pause", "drain")'
)
@click.option("--data-path-addr", default="", help="Address or interface to use for data path traffic")
@click.option("--data-path-port", default=0, help="Port number to use for data path traffic (default 4789)")
@click.option("--default-addr-pool", multiple=True, help="Default address pool in CIDR format")
@click.option("--default-addr-pool-mask-length", default=24, help="Default address pool subnet mask length")
@click.option(
    "--dry-run", is_flag=True, help="With --force-new-cluster: only say what it would keep and lose"
)
@click.option("--force-new-cluster", is_flag=True, help="Force create a new cluster from current state")
@click.option("--listen-addr", default="0.0.0.0:2377", help="Listen address (format: <ip|interface>[:port])")
@_spec_options
@click.pass_obj
def init(client: Client, /, **options: Any) -> None:
    """Initialize a swarm"""
    body = {
        "ListenAddr": options["listen_addr"],
        "AdvertiseAddr": options["advertise_addr"],
        "DataPathAddr": options["data_path_addr"],
        "DataPathPort": options["data_path_port"],
        "DefaultAddrPool": list(options["default_addr_pool"]),
        "SubnetSize": options["default_addr_pool_mask_length"],
        "ForceNewCluster": options["force_new_cluster"],
        "Availability": choice(options["availability"], _AVAILABILITY, "availability"),
        "Spec": _apply({}, options),
    }
    body = {name: value for name, value in body.items() if value}
    if options["dry_run"]:
        if not options["force_new_cluster"]:
            raise UsageError("--dry-run goes with --force-new-cluster", hint="swarmctl swarm init --help")
        show(survey_text(client.post("/swarm/init", body, {"dryRun": True})))
        return
    identifier = client.post("/swarm/init", body)
    show(f"Swarm initialized: current node ({identifier}) is now a manager.\n")
    _show_join(client, "worker")
    show(
        "\nTo add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.\n"
    )
    if options["autolock"]:
        _show_unlock_key(client)


def _show_join(client: Client, role: str) -> None:
    token = client.get("/swarm")["JoinTokens"][role.capitalize()]
    address = _manager_address(client)
    show(f"To add a {role} to this swarm, run the following command:\n")
    show(f"    swarmctl swarm join --token {token} {address}")


def _manager_address(client: Client) -> str:
    swarm = client.get("/info")["Swarm"]
    for manager in swarm.get("RemoteManagers") or []:
        if manager["NodeID"] == swarm["NodeID"]:
            return str(manager["Addr"])
    return f"{swarm.get('NodeAddr', '')}:2377"


@command("HOST:PORT")
@click.argument("address")
@click.option("--advertise-addr", default="", help="Advertised address (format: <ip|interface>[:port])")
@click.option(
    "--availability", default="active", help='Availability of the node ("active", "pause", "drain")'
)
@click.option("--data-path-addr", default="", help="Address or interface to use for data path traffic")
@click.option("--listen-addr", default="0.0.0.0:2377", help="Listen address (format: <ip|interface>[:port])")
@click.option("--token", default="", help="Token for entry into the swarm")
@click.pass_obj
def join(
    client: Client,
    address: str,
    advertise_addr: str,
    availability: str,
    data_path_addr: str,
    listen_addr: str,
    token: str,
) -> None:
    """Join a swarm as a node and/or manager"""
    if not token:
        raise UsageError(
            "a token is needed to join", hint="a manager shows it: swarmctl swarm join-token worker"
        )
    body = {
        "RemoteAddrs": [address],
        "JoinToken": token,
        "ListenAddr": listen_addr,
        "AdvertiseAddr": advertise_addr,
        "DataPathAddr": data_path_addr,
        "Availability": choice(availability, _AVAILABILITY, "availability"),
    }
    client.post("/swarm/join", {name: value for name, value in body.items() if value})
    is_manager = client.get("/info")["Swarm"].get("ControlAvailable")
    show(f"This node joined a swarm as a {'manager' if is_manager else 'worker'}.")


@command("(worker|manager)", name="join-token")
@click.argument("role")
@click.option("-q", "--quiet", is_flag=True, help="Only display token")
@click.option("--rotate", is_flag=True, help="Rotate join token")
@click.pass_obj
def join_token(client: Client, role: str, quiet: bool, rotate: bool) -> None:
    """Manage join tokens"""
    if role not in ("worker", "manager"):
        raise UsageError(f"unknown role {role}", hint="worker or manager")
    if rotate:
        swarm = client.get("/swarm")
        query = {"version": swarm["Version"]["Index"], f"rotate{role.capitalize()}Token": True}
        client.post("/swarm/update", swarm["Spec"], query)
        if not quiet:
            show(f"Successfully rotated {role} join token.\n")
    if quiet:
        show(client.get("/swarm")["JoinTokens"][role.capitalize()])
        return
    _show_join(client, role)
    show("")


@command("")
@click.option("-f", "--force", is_flag=True, help="Force this node to leave the swarm, ignoring warnings")
@click.pass_obj
def leave(client: Client, force: bool) -> None:
    """Leave the swarm"""
    client.post("/swarm/leave", query={"force": force})
    show("Node left the swarm.")


@command("")
@_spec_options
@click.pass_obj
def update(client: Client, /, **options: Any) -> None:
    """Update the swarm"""
    if not any(value not in (None, "", ()) for value in options.values()):
        raise UsageError("nothing to update", hint="swarmctl swarm update --help lists what can be changed")
    swarm = client.get("/swarm")
    client.post("/swarm/update", _apply(swarm["Spec"], options), {"version": swarm["Version"]["Index"]})
    show("Swarm updated.")
    if options["autolock"]:
        _show_unlock_key(client)


def _external_ca(text: str) -> dict[str, Any]:
    """protocol=cfssl,url=URL,cacert=FILE,..."""
    found: dict[str, Any] = {}
    for key, value in comma_fields(text, "external-ca"):
        if key == "protocol":
            found["Protocol"] = value
        elif key == "url":
            found["URL"] = value
        elif key == "cacert":
            found["CACert"] = _pem(value or "")
        else:
            found.setdefault("Options", {})[key] = value or ""
    if not found.get("Protocol") or not found.get("URL"):
        raise UsageError(
            "the external-ca option needs a protocol and a URL", hint="protocol=cfssl,url=https://..."
        )
    return found


def _pem(path: str) -> str:
    try:
        with open(path, encoding="ascii") as source:
            return source.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


@command("")
@click.option(
    "--ca-cert", default="", help="Path to the PEM-formatted root CA certificate for the new cluster"
)
@click.option("--ca-key", default="", help="Path to the PEM-formatted root CA key for the new cluster")
@click.option("--cert-expiry", default="", help="Validity period for node certificates (default 2160h)")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the nodes to take over the new root CA")
@click.option("--external-ca", multiple=True, help="External CA: protocol=cfssl,url=https://...")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output")
@click.option("--rotate", is_flag=True, help="Rotate the swarm CA")
@click.pass_obj
def ca(client: Client, /, rotate: bool, detach: bool, quiet: bool, **options: Any) -> None:
    """Display and rotate the root CA"""
    swarm = client.get("/swarm")
    if not rotate:
        given = [name for name, value in options.items() if value]
        if given:
            name = given[0].replace("_", "-")
            raise UsageError(f"`--{name}` flag requires the `--rotate` flag to update the CA")
        sys.stdout.write(swarm["TLSInfo"]["TrustRoot"])
        return
    wanted = swarm["Spec"].setdefault("CAConfig", {})
    wanted["ForceRotate"] = wanted.get("ForceRotate", 0) + 1
    if options["ca_cert"]:
        wanted["SigningCACert"] = _pem(options["ca_cert"])
    if options["ca_key"]:
        wanted["SigningCAKey"] = _pem(options["ca_key"])
    if options["cert_expiry"]:
        wanted["NodeCertExpiry"] = positive_nanoseconds(options["cert_expiry"])
    if options["external_ca"]:
        wanted["ExternalCAs"] = [_external_ca(text) for text in options["external_ca"]]
    client.post("/swarm/update", swarm["Spec"], {"version": swarm["Version"]["Index"]})
    if not detach:
        _wait_for_rotation(client, quiet)
    sys.stdout.write(client.get("/swarm")["TLSInfo"]["TrustRoot"])


def _wait_for_rotation(client: Client, quiet: bool) -> None:
    """Until every node has a certificate of the new root."""
    import time

    if not quiet:
        sys.stderr.write("waiting until all nodes have certificates of the new root\n")
    while client.get("/swarm").get("RootRotationInProgress"):
        time.sleep(0.5)


@command("", name="unlock-key")
@click.option("-q", "--quiet", is_flag=True, help="Only display token")
@click.option("--rotate", is_flag=True, help="Rotate unlock key")
@click.pass_obj
def unlock_key(client: Client, quiet: bool, rotate: bool) -> None:
    """Manage the unlock key"""
    if rotate:
        swarm = client.get("/swarm")
        if not swarm["Spec"]["EncryptionConfig"]["AutoLockManagers"]:
            raise UsageError("cannot rotate because autolock is not turned on", hint=_AUTOLOCK_HINT)
        query = {"version": swarm["Version"]["Index"], "rotateManagerUnlockKey": True}
        client.post("/swarm/update", swarm["Spec"], query)
        if not quiet:
            show("Successfully rotated manager unlock key.\n")
    if quiet:
        show(_unlock_key(client))
        return
    _show_unlock_key(client)


def _unlock_key(client: Client) -> str:
    key = client.get("/swarm/unlockkey").get("UnlockKey")
    if not key:
        raise UsageError("no unlock key is set", hint=_AUTOLOCK_HINT)
    return str(key)


def _show_unlock_key(client: Client) -> None:
    key = _unlock_key(client)
    show(
        "To unlock a swarm manager after it restarts, run the `swarmctl swarm unlock`\n"
        f"command and provide the following key:\n\n    {key}\n\n"
        "Remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager."
    )


@command("")
@click.pass_obj
def unlock(client: Client) -> None:
    """Unlock swarm"""
    if sys.stdin.isatty():
        import getpass

        key = getpass.getpass("Enter unlock key: ")
    else:
        key = sys.stdin.readline()
    client.post("/swarm/unlock", {"UnlockKey": key.strip()})
