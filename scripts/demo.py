"""The guided tour behind `./dev demo`: a three-node swarm on this machine, command by command.

Every command is printed as the user could type it, with its output. What the tour promises is checked; the first
promise that is not kept ends it with exit status 1. All waits are bounded. Only swarmctl and busybox are used.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LAB = "demo"
NODES = ("n1", "n2", "n3")
COMMAND_SECONDS = 180.0
HEAL_SECONDS = 20.0


class BrokenPromise(Exception):
    """The tour did not show what it announced."""


class Tour:
    """Prints and runs commands. `swarmctl` is the one beside this Python."""

    def __init__(self) -> None:
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        self._environment = os.environ | {"PATH": f"{BIN}:{path}", "PYTHONUNBUFFERED": "1"}
        for name in ("DOCKER_HOST", "SWARMCTL_HOST", "SWARMCTL_LAB"):
            self._environment.pop(name, None)
        self._chapter = 0

    def say(self, text: str = "") -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self.say("\n" + self._painted(f"--- {self._chapter}. {title} ---", "1;36"))

    def explain(self, text: str) -> None:
        self.say(self._painted(f"# {text}", "2"))

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def run(self, *words: str, quiet: bool = False, check: bool = True) -> str:
        """Runs a command; prints it and what it says as it comes (not with `quiet`); returns its output."""
        if not quiet:
            self.say(self._painted("$ " + " ".join(_quoted(word) for word in words), "1;32"))
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if not quiet else subprocess.DEVNULL,
            text=True,
            env=self._environment,
            cwd=ROOT,
        )
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                if not quiet:
                    sys.stdout.write(line)
                    sys.stdout.flush()
            status = process.wait(timeout=COMMAND_SECONDS)
        finally:
            process.kill()
            process.wait()
        if status and check:
            raise BrokenPromise(f"`{' '.join(words)}` ended with status {status}")
        return "".join(lines)

    def on(self, node: str, *words: str, quiet: bool = False, check: bool = True) -> str:
        return self.run("swarmctl", "lab", "exec", node, *words, quiet=quiet, check=check)

    def expect(self, kept: bool, promise: str) -> None:
        if not kept:
            raise BrokenPromise(promise)
        self.say(self._painted(f"ok: {promise}", "32"))

    def wait(self, promise: str, seconds: float, condition: Callable[[], bool]) -> float:
        """Seconds until `condition` held."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise BrokenPromise(f"{promise} (not within {seconds:.0f} s)")
            time.sleep(0.1)
        took = time.monotonic() - start
        self.say(self._painted(f"ok: {promise} (after {took:.1f} s)", "32"))
        return took


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./-]+", word) else "'" + word.replace("'", "'\\''") + "'"


# --- looking at the cluster ---


def running_tasks(tour: Tour, node: str, service: str) -> list[str]:
    """Host names of the nodes on which tasks of the service run, one for each task."""
    form = "{{.Node}} {{.CurrentState}}"
    words = ("swarmctl", "service", "ps", service, "--filter", "desired-state=running", "--format", form)
    lines = tour.on(node, *words, quiet=True, check=False).splitlines()
    return [line.split()[0] for line in lines if " Running " in line]


def leader(tour: Tour, node: str) -> str:
    form = "{{.Hostname}} {{.ManagerStatus}}"
    lines = tour.on(node, "swarmctl", "node", "ls", "--format", form, quiet=True, check=False).splitlines()
    return next((line.split()[0] for line in lines if line.endswith(" Leader")), "")


def ready_nodes(tour: Tour, node: str) -> int:
    form = "{{.Status}}"
    lines = tour.on(node, "swarmctl", "node", "ls", "--format", form, quiet=True, check=False).splitlines()
    return lines.count("Ready")


def address(tour: Tour, node: str) -> str:
    """From the lab's own table."""
    for line in tour.run("swarmctl", "lab", "status", quiet=True).splitlines():
        if line.split()[0] == node:
            found = re.search(r"10\.\d+\.\d+\.\d+", line)
            if found:
                return found.group()
    raise BrokenPromise(f"the lab has a node {node} with an address")


def answer(tour: Tour, node: str, url: str, *, quiet: bool = True) -> str:
    """One HTTP request made on `node`; empty when it failed."""
    return tour.on(node, "timeout", "5", "busybox", "wget", "-q", "-O", "-", url, quiet=quiet, check=False)


def answering_task(text: str) -> str:
    """Which task an answer of the hello image came from."""
    found = re.search(r"web\.\d+\.\w+", text) or re.search(r"\b[0-9a-f]{12}\b", text)
    return found.group() if found else ""


def tasks_behind(tour: Tour, asking: str, url: str, expected: int, tries: int) -> set[str]:
    found: set[str] = set()
    for _ in range(tries):
        if task := answering_task(answer(tour, asking, url)):
            found.add(task)
        if len(found) >= expected:
            break
    return found


# --- the chapters ---


def build_image(tour: Tour, folder: str) -> str:
    tour.chapter("An image, built on the spot from Debian's busybox")
    archive = f"{folder}/hello.tar"
    tour.run(sys.executable, "examples/hello/build.py", archive)
    return archive


def make_lab(tour: Tour, archive: str) -> None:
    tour.chapter("Three nodes, each with a network namespace, an address and a daemon of its own")
    tour.run("swarmctl", "lab", "up", "--nodes", "3")
    tour.run("swarmctl", "lab", "status")
    for node in NODES:
        tour.on(node, "swarmctl", "load", "-i", archive)


def make_swarm(tour: Tour) -> None:
    tour.chapter("One swarm of three managers")
    first = address(tour, "n1")
    tour.on("n1", "swarmctl", "swarm", "init", "--advertise-addr", first)
    token = tour.on("n1", "swarmctl", "swarm", "join-token", "-q", "manager").strip()
    for node in NODES[1:]:
        tour.on(node, "swarmctl", "swarm", "join", "--token", token, f"{first}:2377")
    tour.wait("all three nodes are ready", 30, lambda: ready_nodes(tour, "n1") == 3)
    tour.on("n1", "swarmctl", "node", "ls")


def make_service(tour: Tour) -> None:
    tour.chapter("A network across the nodes, and a service on it")
    tour.on("n1", "swarmctl", "network", "create", "--driver", "overlay", "front")
    tour.on(
        *("n1", "swarmctl", "service", "create", "--name", "web", "--replicas", "3"),
        *("--network", "front", "--publish", "8080:80"),
        *("--env", "TASK_NAME={{.Task.Name}}", "--env", "NODE_NAME={{.Node.Hostname}}", "hello"),
    )
    tour.on("n1", "swarmctl", "service", "ps", "web")
    tour.expect(set(running_tasks(tour, "n1", "web")) == set(NODES), "one task of web runs on each node")


def show_mesh(tour: Tour) -> None:
    tour.chapter("Port 8080 of every node is answered by all tasks in turn")
    for node in NODES:
        url = f"http://{address(tour, node)}:8080/"
        answer(tour, "n1", url, quiet=False)
        found = tasks_behind(tour, "n1", url, 3, 12)
        tour.expect(len(found) == 3, f"{url} was answered by 3 different tasks")


def show_name(tour: Tour) -> None:
    tour.chapter("Inside the network the service has a name and one virtual address")
    tour.on(
        *("n1", "swarmctl", "service", "create", "--detach", "--name", "client", "--network", "front"),
        *("--constraint", "node.hostname==n1", "hello", "sleep", "86400"),
    )
    tour.wait("the client's task runs", 30, lambda: running_tasks(tour, "n1", "client") == ["n1"])
    container = tour.on("n1", "swarmctl", "ps", "-q", "--filter", "name=client").split()[0]
    tour.on("n1", "swarmctl", "exec", container, "nslookup", "web", check=False)
    fetch = ("swarmctl", "exec", container, "wget", "-q", "-O", "-", "http://web/")
    tour.on("n1", *fetch)
    found = {answering_task(tour.on("n1", *fetch, quiet=True, check=False)) for _ in range(9)} - {""}
    tour.expect(len(found) == 3, "the name web leads to all 3 tasks")


def show_scale(tour: Tour) -> None:
    tour.chapter("Twice as many")
    tour.on("n1", "swarmctl", "service", "scale", "web=6")
    tour.expect(len(running_tasks(tour, "n1", "web")) == 6, "6 tasks of web run")
    tour.on("n1", "swarmctl", "service", "logs", "--tail", "3", "web")


def lose_node(tour: Tour) -> None:
    tour.chapter("A node loses its power: kill -9 of everything on n3")
    tour.run("swarmctl", "lab", "kill", "n3")
    survivors = {"n1", "n2"}

    def healed() -> bool:
        nodes = running_tasks(tour, "n1", "web")
        return len(nodes) == 6 and set(nodes) <= survivors

    tour.wait("6 of 6 tasks run on the nodes that are left", HEAL_SECONDS, healed)
    tour.on("n1", "swarmctl", "service", "ps", "--filter", "desired-state=running", "web")
    url = f"http://{address(tour, 'n1')}:8080/"
    answers = [answering_task(answer(tour, "n2", url)) for _ in range(12)]
    tour.expect(all(answers), "12 of 12 requests are answered")
    tour.explain("the machine comes back, and joins again by itself")
    tour.run("swarmctl", "lab", "start", "n3")
    tour.wait("all three nodes are ready", 30, lambda: ready_nodes(tour, "n1") == 3)


def lose_leader(tour: Tour) -> None:
    old = leader(tour, "n1")
    tour.chapter(f"The leader loses its power: kill -9 of everything on {old}")
    left = next(node for node in NODES if node != old)
    tour.run("swarmctl", "lab", "kill", old)
    tour.wait("another manager leads", HEAL_SECONDS, lambda: leader(tour, left) not in ("", old))
    tour.on(left, "swarmctl", "node", "ls")
    tour.on(left, "swarmctl", "service", "scale", "--detach", "web=4")

    def settled() -> bool:
        nodes = running_tasks(tour, left, "web")
        return len(nodes) == 4 and old not in nodes

    tour.wait("the new leader scales web to 4 on the nodes that are left", HEAL_SECONDS, settled)
    tour.expect(
        bool(answering_task(answer(tour, left, f"http://{address(tour, left)}:8080/"))), "web still answers"
    )
    tour.run("swarmctl", "lab", "start", old)
    tour.wait("all three nodes are ready", 30, lambda: ready_nodes(tour, left) == 3)


FAREWELL = """
The lab is still up. Go on exploring (swarmctl is in .venv/bin):

  . .venv/bin/activate
  swarmctl lab status
  swarmctl lab exec n1 swarmctl service ls     # a command as if typed on n1
  eval "$(swarmctl lab env n1)"                # or let swarmctl, and docker, talk to n1
  swarmctl service update --env-add COLOUR=blue web
  swarmctl lab cut n1 n2                       # drop the packets between two nodes; lab heal restores them

Take it all down:

  swarmctl lab down
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description="A three-node swarm, step by step.")
    parser.add_argument("--down", action="store_true", help="remove the lab at the end")
    options = parser.parse_args()
    tour = Tour()
    try:
        tour.run("swarmctl", "lab", "down", "--name", LAB, quiet=True)
        with tempfile.TemporaryDirectory(prefix="swarmctl-demo-") as folder:
            make_lab(tour, build_image(tour, folder))
        for chapter in (make_swarm, make_service, show_mesh, show_name, show_scale, lose_node, lose_leader):
            chapter(tour)
    except BrokenPromise as failure:
        sys.stdout.flush()
        sys.stderr.write(f"\nthe demo stopped: this did not hold: {failure}\n")
        sys.stderr.write("the lab is left as it is: look at it with swarmctl lab status, and at\n")
        sys.stderr.write(f"/var/lib/swarmctl/labs/{LAB}/n1.log; remove it with swarmctl lab down\n")
        return 1
    if options.down:
        tour.run("swarmctl", "lab", "down")
    else:
        tour.say(FAREWELL)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
