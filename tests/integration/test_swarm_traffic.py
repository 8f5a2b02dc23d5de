"""Traffic through published ports and virtual addresses that is not a short request: UDP, held connections, hairpins,
strict reverse-path filters on the hosts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.commands import SWARMCTL, Result
from tests.labs import Lab

pytestmark = pytest.mark.root

UDP_CLIENT = """
import json, socket, sys
answers = []
for _ in range(int(sys.argv[3])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        s.connect((sys.argv[1], int(sys.argv[2])))  # so that an answer from any other address is dropped
        s.send(b"who?\\n")
        answers.append(s.recv(200).decode().strip())
print(json.dumps(answers))
"""

UDP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
print("up", flush=True)
while True:
    _, client = s.recvfrom(200)
    s.sendto(sys.argv[1].encode(), client)
"""

HOLDER = """
import socket, sys
held = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) for _ in range(9)]
def ask(word):
    for s in held:
        s.settimeout(3)
        s.sendall(word)
        got = b""
        while len(got) < len(word):
            part = s.recv(100)
            assert part, "a held connection was closed"
            got += part
        assert got == word
ask(b"before\\n")
print("held", flush=True)
sys.stdin.readline()
ask(b"after\\n")
print("still held", flush=True)
"""


@pytest.fixture(scope="module")
def strict(swarm: Lab) -> Lab:
    """The swarm on hosts with strict reverse-path filters, as some distributions have them."""
    for node in swarm.names:
        for name in ("all", "default"):
            set_ = swarm.inside(node, "sh", "-c", f"echo 1 >/proc/sys/net/ipv4/conf/{name}/rp_filter")
            assert set_.code == 0, set_.err
    return swarm


def start(swarm: Lab, name: str, replicas: int, publish: str, *command: str) -> None:
    words = ("--detach", "--name", name, "--replicas", str(replicas), "--publish", publish)
    swarm.ok("n1", "service", "create", *words, "hello", *command)
    swarm.wait(f"{name} runs", 20, lambda: len(swarm.running("n1", name)) == replicas)


def told(done: Result) -> set[str]:
    return set(json.loads(done.out)) if done.code == 0 else set()


def answers_on(swarm: Lab, node: str, address: str, port: int) -> bool:
    probe = f"import socket; socket.create_connection(('{address}', {port}), 3)"
    return swarm.inside(node, sys.executable, "-c", probe).code == 0


def test_udp_is_answered_by_every_node_and_task_from_the_address_that_was_asked(strict: Lab) -> None:
    start(strict, "who", 3, "9053:53/udp", "sleep", "10000")
    nodes = strict.names
    servers = []
    try:
        for node in nodes:
            task = strict.ok(node, "ps", "-q", "--no-trunc", "--filter", "name=who")
            pin = strict.node(node).run_dir / "netns" / task
            command = ["nsenter", f"--net={pin}", sys.executable, "-c", UDP_SERVER, node]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            servers.append(server)
            assert server.stdout is not None and server.stdout.readline() == "up\n"
        for client, asked in (("n1", "n2"), ("n2", "n3"), ("n3", "n3")):
            words = (sys.executable, "-c", UDP_CLIENT, strict.node(asked).address, "9053", "9")
            strict.wait(
                f"{client} hears all tasks through {asked}",
                30,
                lambda client=client, words=words: told(strict.inside(client, *words)) == set(nodes),
            )
    finally:
        for server in servers:
            server.kill()
            server.wait()
    strict.ok("n1", "service", "rm", "who")


def test_held_connections_survive_a_change_of_backends(strict: Lab) -> None:
    start(strict, "echo", 3, "9007:7", "nc", "-ll", "-p", "7", "-e", "cat")
    address = strict.node("n2").address
    strict.wait("the port answers", 20, lambda: answers_on(strict, "n1", address, 9007))
    command = [SWARMCTL, "lab", "exec", "--name", strict.name, "n1"]
    client = subprocess.Popen(
        [*command, sys.executable, "-c", HOLDER, address, "9007"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert client.stdout is not None and client.stdout.readline() == "held\n", "nothing answers"
        strict.ok("n1", "service", "scale", "--detach", "echo=6")
        strict.wait("6 copies", 20, lambda: len(strict.running("n1", "echo")) == 6)
        out, err = client.communicate("go on\n", timeout=30)
        assert out == "still held\n", err
    finally:
        client.kill()
        client.wait()
    strict.ok("n1", "service", "rm", "echo")


def test_a_task_reaches_its_own_service_through_the_published_port(strict: Lab) -> None:
    start(strict, "self", 1, "9080:80", "httpd", "-f", "-p", "80", "-h", "/www")
    (node,) = strict.running("n1", "self")
    task = strict.ok(node, "ps", "-q", "--filter", "name=self")
    for asked in strict.names:
        words = ("exec", task, "wget", "-q", "-O", "-", f"http://{strict.node(asked).address}:9080/")
        strict.wait(
            f"an answer through {asked}",
            20,
            lambda words=words: strict.on(node, *words).out.startswith("hello from"),
        )
    strict.ok("n1", "service", "rm", "self")


def test_a_service_without_tasks_refuses_at_once_and_comes_back(strict: Lab) -> None:
    strict.ok("n1", "network", "create", "--driver", "overlay", "quiet")
    create = ("service", "create", "--detach", "--network", "quiet", "--name")
    strict.ok("n1", *create, "empty", "--replicas", "0", "hello")
    strict.ok("n1", *create, "asker", "hello", "sleep", "9999")
    strict.wait("asker runs", 20, lambda: len(strict.running("n1", "asker")) == 1)
    (node,) = strict.running("n1", "asker")
    task = strict.ok(node, "ps", "-q", "--filter", "name=asker")
    ask = ("exec", task, "wget", "-q", "-O", "-", "http://empty/")

    def is_refused() -> bool:
        answer = strict.on(node, *ask)
        return answer.code == 1 and "refused" in answer.err + answer.out

    strict.wait("it is refused", 20, is_refused)
    strict.ok("n1", "service", "scale", "--detach", "empty=1")
    strict.wait("it answers", 20, lambda: strict.on(node, *ask).code == 0)
    strict.ok("n1", "service", "rm", "empty", "asker")
