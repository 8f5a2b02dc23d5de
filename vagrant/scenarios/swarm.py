"""The machines of a scenario as its author sees them: steps, commands, expectations, traffic, power and cables."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from machines.__main__ import reboot
from machines.lab import Lab

from scenarios.traffic import Traffic

COMMAND_S = 180.0
_POLL_S = 0.7
_API_S = 20
_SITE = "/opt/swarmctl/lib/python3.11/site-packages"
_SOCKET = "/run/swarmctl/swarmd.sock"
_SHOWN_LINES = 12


class Unexpected(Exception):
    """Says what was expected and what was seen instead."""


@dataclass(frozen=True)
class Task:
    """`node`: the machine's name. `state`: pending, starting, running, failed, ..."""

    id: str
    node: str
    state: str


def _described(node: dict[str, Any]) -> str:
    manager = node.get("ManagerStatus")
    role = ("leader" if manager.get("Leader") else "manager") if manager else "worker"
    return f"{node['Status']['State']} {node['Spec']['Availability']} {role}"


class Swarm:
    """Everything a scenario does is printed as it could be typed."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.names = [machine.name for machine in lab.machines()]
        self._steps = 0
        self._start = time.monotonic()

    # ---- telling ----

    def say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def step(self, text: str) -> None:
        self._steps += 1
        self.say(f"  {self._steps}. {text} [{time.monotonic() - self._start:.0f} s]")

    def note(self, text: str) -> None:
        """What was measured or seen."""
        self.say(f"     {text}")

    # ---- doing ----

    def address(self, node: str) -> str:
        return self.lab.machine(node).address

    def on(self, node: str, command: str, *, timeout_s: float = COMMAND_S, stdin: str | None = None) -> str:
        """A shell command as root in a machine; its output. MachineError when it fails."""
        self.say(f"     {node}# {command}")
        said = self.lab.machine(node).ssh([command], timeout_s=timeout_s, stdin=stdin).stdout.strip()
        for line in said.splitlines()[:_SHOWN_LINES]:
            self.say(f"       {line}")
        return said

    def on_all(self, command: str, *, stdin: str | None = None) -> None:
        """On every machine at once."""
        self.say(f"     {self.names[0]}..{len(self.names)}# {command}")
        machines = self.lab.machines()
        with ThreadPoolExecutor(len(machines)) as pool:
            list(
                pool.map(
                    lambda machine: machine.ssh([command], timeout_s=2 * COMMAND_S, stdin=stdin), machines
                )
            )

    def look(self, node: str, command: str, *, timeout_s: float = COMMAND_S) -> str:
        """As `on`, for what is only looked at: not printed, and empty when it fails."""
        return self.lab.machine(node).ssh([command], check=False, timeout_s=timeout_s).stdout.strip()

    def refused(self, node: str, command: str, *, because: str) -> None:
        """The command must fail and say why."""
        self.say(f"     {node}# {command}")
        done = self.lab.machine(node).ssh([command], check=False, timeout_s=COMMAND_S)
        self.say(f"       {done.stderr.strip()} (exit code {done.returncode})")
        if done.returncode == 0 or because not in done.stderr:
            raise Unexpected(
                f"expected `{command}` on {node} to be refused with ...{because}...; "
                f"seen: exit code {done.returncode}, {(done.stderr + done.stdout).strip()!r}"
            )

    def create_web(self, *options: str) -> None:
        """Three copies of a small web server on a network of their own, port 8080 of every machine. Copies get traffic
        once they answer."""
        self.on(self.names[0], "swarmctl network create --driver overlay front")
        self.on(
            self.names[0],
            "swarmctl service create --detach --name web --replicas 3 --network front --publish 8080:80"
            " --env TASK_NAME={{.Task.Name}} --env NODE_NAME={{.Node.Hostname}}"
            " --health-cmd 'wget -q -O /dev/null http://127.0.0.1/' --health-interval 30s --health-start-interval 1s"
            f" --health-start-period 60s {' '.join(options)} hello",
        )
        self.wait(
            "one copy runs on each machine", 120, lambda: self.running_on(self.names[0], "web"), self.names
        )

    def web_urls(self, *nodes: str) -> list[str]:
        return [f"http://{self.address(node)}:8080/" for node in nodes]

    def expect_containers(self, service: str) -> None:
        """Every running task has its container on its machine, and no machine has one more."""
        self.wait(
            f"the containers of {service} are those of its tasks, each once",
            60,
            lambda: {name: self._task_ids(name, service) for name in self.names},
            lambda seen: seen == self._wanted_ids(service),
        )

    def _task_ids(self, node: str, service: str) -> list[str]:
        """From the names of the containers: SERVICE.SLOT.TASK."""
        return sorted(name.rpartition(".")[2] for name in self.containers(node, f"{service}."))

    def _wanted_ids(self, service: str) -> dict[str, list[str]]:
        tasks = [task for task in self.tasks(self.names[0], service) if task.state == "running"]
        return {name: sorted(task.id for task in tasks if task.node == name) for name in self.names}

    def power_off(self, node: str) -> float:
        """As by pulling the plug; the moment, by time.monotonic."""
        self.say(f"     vagrant/lab kill {node}")
        self.lab.machine(node).power_off()
        return time.monotonic()

    def power_on(self, node: str) -> None:
        self.say(f"     vagrant/lab start {node}")
        self.lab.machine(node).power_on()
        self.lab.machine(node).wait_for_ssh()

    def reboot(self, node: str) -> None:
        self.say(f"     vagrant/lab reboot {node}")
        reboot(self.lab, node)

    def cut(self, node: str) -> float:
        """Off from all others; the moment, by time.monotonic."""
        self.say(f"     vagrant/lab cut {node}")
        self.lab.cut(node)
        return time.monotonic()

    def heal(self) -> float:
        self.say("     vagrant/lab heal")
        self.lab.heal()
        return time.monotonic()

    def install(self, node: str, tree: Path) -> None:
        """What `vagrant/project-tree` made, as a package manager does it: the old version's files go."""
        self.on(node, f"rm -r {_SITE}/swarmctl-*.dist-info")
        self.copy(node, tree, _SITE)

    def copy(self, node: str, folder: Path, target: str) -> None:
        """What is in a folder of the host, over what is in one of the machine."""
        self.say(f"     tar -C {folder} -c . | vagrant/lab ssh {node} tar -C {target} -x")
        self.lab.machine(node).unpack(folder, target)

    @contextmanager
    def traffic(self, node: str, *urls: str, per_second: int = 4) -> Iterator[list[Traffic]]:
        """Clients inside a machine, one per address, as long as the block lasts."""
        clients = []
        try:
            for url in urls:
                self.say(f"     {node}# curl --rate {per_second}/s {url}")
                clients.append(Traffic(self.lab.machine(node), url, per_second).start())
            yield clients
        finally:
            for client in clients:
                client.stop()
                self.note(client.summary())

    # ---- expecting ----

    def expect(self, what: str, seen: object, wanted: object) -> None:
        if seen != wanted:
            raise Unexpected(f"{what}: expected {wanted!r}, seen {seen!r}")
        self.note(f"ok: {what}")

    def expect_at_most(self, what: str, seen: float, most: float, unit: str = "s") -> None:
        if seen > most:
            raise Unexpected(f"{what}: expected at most {most:g} {unit}, seen {seen:.1f} {unit}")
        self.note(f"ok: {what}: {seen:.1f} {unit} (at most {most:g})")

    def expect_no_failure(self, clients: list[Traffic]) -> None:
        for client in clients:
            if client.failures() or not client.answers:
                told = "; ".join(answer.said for answer in client.failures()[:5])
                raise Unexpected(f"expected every request to be answered; seen: {client.summary()}: {told}")
        self.note(f"ok: {sum(len(client.answers) for client in clients)} requests, none failed")

    def wait(
        self, what: str, seconds: float, look: Callable[[], Any], wanted: Any, *, since_s: float | None = None
    ) -> float:
        """Until `look` gives `wanted` (a value, or a function that judges it). Seconds since `since_s` or now."""
        start = time.monotonic()
        since_s = start if since_s is None else since_s
        fits = wanted if callable(wanted) else lambda seen: seen == wanted
        while not fits(seen := look()):
            if time.monotonic() - start > seconds:
                told = "" if callable(wanted) else f", expected {wanted!r}"
                raise Unexpected(f"{what}: not within {seconds:g} s{told}; last seen {seen!r}")
            time.sleep(_POLL_S)
        took = time.monotonic() - since_s
        self.note(f"ok: {what} (after {took:.1f} s)")
        return took

    def quiet_s(self, seconds: float, what: str) -> None:
        """Nothing is done for a while but `what`."""
        self.note(f"{seconds:g} s of {what}")
        time.sleep(seconds)

    # ---- looking at the swarm, through any of its managers ----
    # By the API's socket: a command of an emulated Python needs seconds, curl does not.

    def api(self, node: str, *paths: str) -> list[Any]:
        """What the daemon of `node` answers to each GET; None for what fails."""
        urls = " ".join(shlex.quote(f"http://node{path}") for path in paths)
        command = f"curl -sf -m {_API_S} -w '\\n' --unix-socket {_SOCKET} {urls}"
        # A line for each, empty when it failed.
        lines = self.lab.machine(node).ssh([command], check=False, timeout_s=2 * _API_S).stdout.split("\n")
        return [json.loads(line) if line else None for line in (lines + [""] * len(paths))[: len(paths)]]

    def nodes(self, through: str) -> dict[str, str]:
        """Host name -> "ready active leader"; the last word is "worker" for workers. Empty when nobody leads."""
        (listed,) = self.api(through, "/nodes")
        return {node["Description"]["Hostname"]: _described(node) for node in listed or ()}

    def ready(self, through: str) -> list[str]:
        return sorted(name for name, said in self.nodes(through).items() if said.startswith("ready"))

    def leader(self, through: str) -> str:
        return next((name for name, said in self.nodes(through).items() if said.endswith("leader")), "")

    def tasks(self, through: str, service: str, *, ended: bool = False) -> list[Task]:
        """Those that are to run; `ended`: and those of the history."""
        wanted = {"service": [service]} if ended else {"service": [service], "desired-state": ["running"]}
        chosen = quote(json.dumps(wanted))
        nodes, tasks = self.api(through, "/nodes", f"/tasks?filters={chosen}")
        names = {node["ID"]: node["Description"]["Hostname"] for node in nodes or ()}
        return [
            Task(task["ID"], names.get(task.get("NodeID", ""), ""), task["Status"]["State"])
            for task in tasks or ()
        ]

    def running_on(self, through: str, service: str) -> list[str]:
        """The machines of the running tasks, one name per task."""
        return sorted(task.node for task in self.tasks(through, service) if task.state == "running")

    def containers(self, node: str, prefix: str = "", *, ended: bool = False) -> dict[str, str]:
        """Name -> id of the running containers (`ended`: of all) of a machine whose names begin so."""
        (listed,) = self.api(node, f"/containers/json?all={int(ended)}")
        named = {container["Names"][0].removeprefix("/"): container["Id"] for container in listed or ()}
        return {name: container for name, container in sorted(named.items()) if name.startswith(prefix)}

    def version(self, node: str) -> str:
        """Of the running daemon, "" when it does not answer."""
        (said,) = self.api(node, "/version")
        return str(said["Version"]) if said else ""

    def processes(self, node: str) -> dict[str, tuple[int, str, str]]:
        """Name of a running container -> id of its process, its start as the daemon and as the kernel (ticks) know it."""
        ids = list(self.containers(node).values())
        details = self.api(node, *(f"/containers/{container}/json" for container in ids))
        states = {said["Name"].removeprefix("/"): said["State"] for said in details if said}
        return {
            name: (
                state["Pid"],
                state["StartedAt"],
                self.look(node, f"cut -d' ' -f22 /proc/{state['Pid']}/stat"),
            )
            for name, state in states.items()
        }

    def configs(self, through: str) -> list[str]:
        (listed,) = self.api(through, "/configs")
        return sorted(config["Spec"]["Name"] for config in listed or ())

    # ---- what is left when a scenario fails ----

    def keep_evidence(self, folder: Path) -> None:
        """The journals of the daemons, what the swarm says of itself, the consoles."""
        folder.mkdir(parents=True, exist_ok=True)
        for machine in self.lab.machines():
            console = machine.folder / "console"
            if console.exists():
                (folder / f"{machine.name}.console").write_bytes(console.read_bytes())
            if not machine.is_on():
                continue
            for name, command in (
                ("journal", "journalctl --no-pager -o short-precise -u swarmd"),
                ("kernel", "journalctl --no-pager -o short-precise -k -b"),
                (
                    "swarm",
                    "swarmctl node ls; swarmctl service ls; swarmctl service ps --no-trunc $(swarmctl service ls -q)",
                ),
                (
                    "containers",
                    "swarmctl ps -a --no-trunc; ls /run/swarmctl/netns; findmnt -l | grep swarmctl",
                ),
                ("network", "ip -br address; ip route; nft list ruleset"),
                ("tests", "cat /root/failures 2>/dev/null"),
            ):
                said = machine.ssh([command], check=False, timeout_s=60)
                (folder / f"{machine.name}.{name}").write_text(said.stdout + said.stderr)
