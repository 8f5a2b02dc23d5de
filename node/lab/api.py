"""The few calls of the Docker API that a lab makes: is the daemon there, what is its role, make and join the swarm."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from node.lab.model import Lab, LabError, LabNode

_CALL_SECONDS = 60.0
_QUICK_SECONDS = 3.0
_READY_SECONDS = 60.0


def call(
    node: LabNode, method: str, path: str, body: object = None, *, timeout: float = _CALL_SECONDS
) -> Any:
    """The decoded answer; OSError when nobody answers, LabError with the daemon's words when it refuses."""
    # Half of what a verb would import, and most verbs ask no daemon.
    import http.client

    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout)
        connection.sock.connect(str(node.socket))
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        payload = response.read()
    except http.client.HTTPException as error:
        raise ConnectionResetError(f"{node.name}: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise LabError(f"{node.name}: {method} {path}: {_message(payload)}")
    if "json" not in response.headers.get("Content-Type", ""):
        return payload.decode(errors="replace")
    return json.loads(payload) if payload.strip() else None


def _message(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["message"])
    except (ValueError, KeyError, TypeError):
        return payload.decode(errors="replace").strip()


def answers(node: LabNode) -> bool:
    try:
        call(node, "GET", "/_ping", timeout=_QUICK_SECONDS)
    except (OSError, LabError):
        return False
    return True


def role(node: LabNode) -> str | None:
    """manager, worker or none (not in a swarm); None when the daemon does not say."""
    try:
        swarm = (call(node, "GET", "/info", timeout=_QUICK_SECONDS) or {}).get("Swarm") or {}
    except (OSError, LabError, ValueError, AttributeError):
        return None
    if swarm.get("ControlAvailable"):
        return "manager"
    return "worker" if swarm.get("NodeID") else "none"


def join_all(lab: Lab) -> None:
    """Makes node 1 a swarm, lets the others join (managers first), waits until all are ready."""
    first, *others = lab.nodes
    call(
        first,
        "POST",
        "/swarm/init",
        {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": first.address},
    )
    tokens = call(first, "GET", "/swarm")["JoinTokens"]
    for number, node in enumerate(others, start=2):
        is_manager = number <= lab.managers
        body = {
            "ListenAddr": "0.0.0.0:2377",
            "AdvertiseAddr": node.address,
            "RemoteAddrs": [f"{first.address}:2377"],
            "JoinToken": tokens["Manager" if is_manager else "Worker"],
        }
        call(node, "POST", "/swarm/join", body)
        node.role = "manager" if is_manager else "worker"
    first.role = "manager"
    _wait_ready(first, len(lab.nodes))


def _wait_ready(manager: LabNode, count: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        nodes = call(manager, "GET", "/nodes")
        waiting = [_describe(node) for node in nodes if not _is_ready(node)]
        if len(nodes) >= count and not waiting:
            return
        if time.monotonic() > deadline:
            raise LabError(
                f"{len(nodes)} of {count} nodes joined within {_READY_SECONDS:.0f} s; not ready: "
                f"{', '.join(waiting) or 'none'}"
            )
        time.sleep(0.03)


def _is_ready(node: dict[str, Any]) -> bool:
    manager = node.get("ManagerStatus")
    reachable = manager is None or manager.get("Reachability") == "reachable"
    return bool(node["Status"]["State"] == "ready" and reachable)


def _describe(node: dict[str, Any]) -> str:
    return f"{node.get('Description', {}).get('Hostname') or node['ID']} ({node['Status']['State']})"
