"""The stores that are compared: each three processes on this machine, and somebody to write with at two places."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.raft import credentials, etcd
from bench.raft.processes import Process, free_ports

ELECTED_S_MAX = 30.0

# Who writes where: the process to ask for load, by place.
Writers = dict[str, Process]
System = Callable[[Path], AbstractContextManager[Writers]]
LEADER, FOLLOWER = "on the leader", "through a follower"


class Managers:
    """Three of ours, n1 first; each may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("n1", "n2", "n3"), free_ports(3), strict=True))
        self.processes: dict[str, Process] = {}
        credentials.write(folder, list(self.ports))
        try:
            self.start("n1", "bootstrap")
            for node_id in ("n2", "n3"):
                self.start(node_id, "join")
                self.processes["n1"].ask("add", node_id=node_id, address=f"127.0.0.1:{self.ports[node_id]}")
        except BaseException:
            self.stop()
            raise

    def start(self, node_id: str, how: str) -> Process:
        process = Process("bench.raft.manager", str(self.folder), node_id, str(self.ports[node_id]), how)
        self.processes[node_id] = process
        return process

    def kill(self, node_id: str) -> None:
        self.processes.pop(node_id).kill()

    def leader(self) -> str:
        """Waits until one leads and the others know it."""
        deadline = time.monotonic() + ELECTED_S_MAX
        while time.monotonic() < deadline:
            states = {node_id: process.ask("status") for node_id, process in self.processes.items()}
            found = {state["leader_id"] for state in states.values()}
            for node_id, state in states.items():
                if state["leader"] and found == {node_id}:
                    return node_id
            time.sleep(0.02)
        raise RuntimeError(f"no leader within {ELECTED_S_MAX:g} s")

    def follower(self) -> str:
        leader = self.leader()
        return next(node_id for node_id in self.processes if node_id != leader)

    def stop(self) -> None:
        for node_id in list(self.processes):
            self.kill(node_id)


@contextmanager
def ours(folder: Path) -> Iterator[Writers]:
    managers = Managers(folder)
    try:
        leader, follower = managers.leader(), managers.follower()
        yield {LEADER: managers.processes[leader], FOLLOWER: managers.processes[follower]}
    finally:
        managers.stop()


def stock(kept: str, sending: str) -> System:
    @contextmanager
    def run(folder: Path) -> Iterator[Writers]:
        folder.mkdir(parents=True)
        ports = free_ports(3)
        processes = []
        try:
            for own in ports:
                others = ",".join(str(port) for port in ports if port != own)
                processes.append(Process("bench.raft.stock", str(folder), str(own), others, kept, sending))
            yield _elected(processes)
        finally:
            for process in processes:
                process.kill()

    return run


def _elected(processes: list[Process]) -> Writers:
    deadline = time.monotonic() + ELECTED_S_MAX
    while time.monotonic() < deadline:
        states = [process.ask("status") for process in processes]
        if all(state["ready"] for state in states) and sum(state["leader"] for state in states) == 1:
            at = next(number for number, state in enumerate(states) if state["leader"])
            return {LEADER: processes[at], FOLLOWER: processes[at - 1]}
        time.sleep(0.05)
    raise RuntimeError(f"PySyncObj had no leader within {ELECTED_S_MAX:g} s")


def etcd_system(program: str) -> System:
    @contextmanager
    def run(folder: Path) -> Iterator[Writers]:
        cluster = etcd.Cluster(program, folder)
        clients = []
        try:
            for port in (cluster.leader_port, cluster.follower_port):
                clients.append(Process("bench.raft.etcd_client", str(folder), str(port)))
            yield dict(zip((LEADER, FOLLOWER), clients, strict=True))
        finally:
            for client in clients:
                client.kill()
            cluster.stop()

    return run
