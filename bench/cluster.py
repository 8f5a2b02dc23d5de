"""Three nodes: services to all running, loss of a node, loss of the leader, writes to the store."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.api import Api
from bench.measure import wait_until

BIN = Path(sys.executable).parent


class BenchLab:
    """A lab of three managers with the hello image; `api` is a client of a node's socket."""

    def __init__(self, name: str, archive: Path) -> None:
        self.name = name
        self.lab("up", "--nodes", "3", "--managers", "3", "--joined")
        for node in self.nodes().values():
            Api(node["socket"]).call("POST", "/images/load", archive.read_bytes())

    def lab(self, verb: str, *words: str) -> str:
        command = [str(BIN / "swarmctl"), "lab", verb, "--name", self.name, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(self.lab("status", "--format", "json"))}

    def api(self, node: str) -> Api:
        return Api(self.nodes()[node]["socket"])


def create(api: Api, name: str, replicas: int, network: str = "") -> str:
    body: dict[str, Any] = {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "hello", "Command": ["sleep", "100000"], "StopGracePeriod": 1}
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }
    if network:
        body["TaskTemplate"]["Networks"] = [{"Target": network}]
    return str(api.call("POST", "/services/create", body)["ID"])


def running(api: Api, service: str) -> int:
    rows = api.call("GET", '/services?status=true&filters={"id":["' + service + '"]}')
    return int(rows[0]["ServiceStatus"]["RunningTasks"]) if rows else 0


def to_running(api: Api, name: str, replicas: int, network: str = "", times: int = 1) -> float:
    """Seconds from the request to all tasks running, median; each service is removed again."""
    durations = []
    for number in range(times):
        start = time.perf_counter()
        service = create(api, f"{name}-{number}", replicas, network)
        wait_until(lambda service=service: running(api, service) == replicas, 60)  # type: ignore[misc]
        durations.append(time.perf_counter() - start)
        remove(api, service)
    return statistics.median(durations)


def remove(api: Api, service: str) -> None:
    api.call("DELETE", f"/services/{service}")
    wait_until(lambda: all(task["ServiceID"] != service for task in api.call("GET", "/tasks")), 60)


def measure(lab: BenchLab) -> dict[str, float]:
    api = lab.api("n1")
    network = api.call("POST", "/networks/create", {"Name": "bench", "Driver": "overlay"})["Id"]
    figures = {
        "replicas 3 to all running, no network (s)": to_running(api, "three", 3, times=5),
        "replicas 3 to all running, overlay (s)": to_running(api, "threeo", 3, network, times=5),
        "40 replicas, no network (s)": to_running(api, "forty", 40),
        "100 replicas, overlay (s)": to_running(api, "hundred", 100, network),
        "write to the store, p50 (ms)": _write_ms(api),
    }
    return figures | _losses(lab)


def _write_ms(api: Api, times: int = 60) -> float:
    durations = []
    for number in range(times):
        start = time.perf_counter()
        made = api.call("POST", "/configs/create", {"Name": f"bench-{number}", "Data": "eA=="})
        durations.append((time.perf_counter() - start) * 1000)
        api.call("DELETE", f"/configs/{made['ID']}")
    return statistics.median(durations)


def _losses(lab: BenchLab) -> dict[str, float]:
    """kill -9 of everything on a node, then of everything on the leader."""
    leader = _leader(lab.api("n1"))
    follower, other = (name for name in lab.nodes() if name != leader)
    api = lab.api(leader)
    service = create(api, "six", 6)
    wait_until(lambda: running(api, service) == 6, 30)
    start = time.perf_counter()
    lab.lab("kill", follower)
    killed = time.perf_counter()
    lost = {node["ID"] for node in api.call("GET", "/nodes") if node["Description"]["Hostname"] == follower}
    wait_until(lambda: _healthy_elsewhere(api, service, lost) == 6, 30)
    healed = time.perf_counter() - (start + killed) / 2
    lab.lab("start", follower)
    wait_until(lambda: all(node["Status"]["State"] == "ready" for node in api.call("GET", "/nodes")), 30)
    survivor = lab.api(other)
    start = time.perf_counter()
    lab.lab("kill", leader)
    killed = time.perf_counter()
    wait_until(lambda: _accepts(survivor), 30)
    return {
        "node killed to 6 of 6 running elsewhere (s)": healed,
        "leader killed to next accepted write (s)": time.perf_counter() - (start + killed) / 2,
    }


def _healthy_elsewhere(api: Api, service: str, lost: set[str]) -> int:
    tasks = api.call("GET", '/tasks?filters={"service":["' + service + '"],"desired-state":["running"]}')
    return sum(task["Status"]["State"] == "running" and task["NodeID"] not in lost for task in tasks)


def _accepts(api: Api) -> bool:
    try:
        api.call("POST", "/configs/create", {"Name": f"after-{time.monotonic_ns()}", "Data": "eA=="})
    except RuntimeError:
        return False
    return True


def _leader(api: Api) -> str:
    nodes = api.call("GET", "/nodes")
    return next(n["Description"]["Hostname"] for n in nodes if n.get("ManagerStatus", {}).get("Leader"))
