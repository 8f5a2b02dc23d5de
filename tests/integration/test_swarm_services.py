"""The main job on three real nodes: services, networks, published ports, secrets, and what may go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest

from tests.commands import run
from tests.labs import Lab

pytestmark = pytest.mark.root


def fetch(swarm: Lab, node: str, url: str) -> str:
    """One request from a node's namespace; "" when it failed."""
    return swarm.inside(node, "timeout", "5", "busybox", "wget", "-q", "-O", "-", url).out.strip()


def names_behind(swarm: Lab, node: str, url: str) -> set[str]:
    return {text.split()[2] for _ in range(12) if (text := fetch(swarm, node, url))}


def test_three_copies_on_three_nodes_answer_everywhere(swarm: Lab) -> None:
    swarm.ok("n1", "network", "create", "--driver", "overlay", "front")
    words = ("--name", "web", "--replicas", "3", "--network", "front", "--publish", "8080:80")
    swarm.ok("n1", "service", "create", "--detach", *words, "hello")
    swarm.wait("3 tasks", 15, lambda: len(swarm.running("n1", "web")) == 3)
    assert sorted(swarm.running("n1", "web")) == ["n1", "n2", "n3"]
    for node in swarm.names:
        url = f"http://{swarm.node(node).address}:8080/"
        swarm.wait(
            f"all three answer through {node}", 20, lambda url=url: len(names_behind(swarm, "n1", url)) == 3
        )


def test_the_clients_address_is_kept(swarm: Lab) -> None:
    answers = [fetch(swarm, "n1", f"http://{swarm.node('n2').address}:8080/") for _ in range(6)]
    assert {text.split()[-1] for text in answers} == {swarm.node("n1").address}


def test_the_virtual_address_by_name(swarm: Lab) -> None:
    swarm.ok("n2", "service", "create", "--detach", "--name", "client", "--network", "front",
             "--constraint", "node.hostname==n2", "hello", "sleep", "10000")  # fmt: skip
    swarm.wait("the client runs", 15, lambda: swarm.running("n2", "client") == ["n2"])
    client = swarm.ok("n2", "ps", "-q", "--filter", "name=client")
    ask = ("exec", client, "wget", "-q", "-O", "-", "http://web/")
    swarm.wait("its name leads there", 20, lambda: swarm.on("n2", *ask).code == 0)
    assert len({swarm.ok("n2", *ask).split()[2] for _ in range(9)}) == 3
    tasks = swarm.ok("n2", "exec", client, "nslookup", "tasks.web")
    assert len(set(re.findall(r"Address: (10\.\d+\.\d+\.\d+)", tasks))) == 3
    swarm.ok("n2", "service", "rm", "client")


def test_any_manager_answers_and_changes(swarm: Lab) -> None:
    swarm.ok("n3", "service", "scale", "--detach", "web=5")
    swarm.wait("5 tasks", 15, lambda: len(swarm.running("n2", "web")) == 5)
    swarm.ok("n2", "service", "scale", "--detach", "web=3")
    swarm.wait("3 tasks", 15, lambda: len(swarm.running("n3", "web")) == 3)
    said = "listens on port 80"
    swarm.wait("their logs", 15, lambda: swarm.ok("n3", "service", "logs", "web").count(said) >= 3)


def test_rolling_update_replaces_every_task(swarm: Lab) -> None:
    before = set(swarm.ok("n1", "service", "ps", "-q", "--filter", "desired-state=running", "web").split())
    words = ("--env-add", "COLOUR=blue", "--update-order", "start-first")
    swarm.ok("n1", "service", "update", "--detach", *words, "web")

    def updated() -> bool:
        now = set(swarm.ok("n1", "service", "ps", "-q", "--filter", "desired-state=running", "web").split())
        return not now & before and len(swarm.running("n1", "web")) == 3

    swarm.wait("all tasks are new", 60, updated)


def test_secrets_and_configs_reach_tasks_in_memory_only(swarm: Lab) -> None:
    for kind, data in (("secret", "s3cret-value"), ("config", "colour=green")):
        swarm.ok("n1", kind, "create", f"my-{kind}", "-", text=data)
    swarm.ok("n1", "service", "create", "--detach", "--name", "vault", "--secret", "my-secret",
             "--config", "source=my-config,target=/etc/app.conf", "--constraint", "node.hostname==n1",
             "hello", "sleep", "10000")  # fmt: skip
    swarm.wait("the task runs", 15, lambda: swarm.running("n1", "vault") == ["n1"])
    container = swarm.ok("n1", "ps", "-q", "--filter", "name=vault")
    assert swarm.ok("n1", "exec", container, "cat", "/run/secrets/my-secret") == "s3cret-value"
    assert swarm.ok("n1", "exec", container, "cat", "/etc/app.conf") == "colour=green"
    for node in swarm.names:
        found = run(["grep", "-rl", "s3cret-value", str(swarm.node(node).state_dir)])
        assert found.out == "", f"a secret is on the disk of {node}: {found.out}"
    assert "s3cret-value" not in swarm.ok("n1", "secret", "inspect", "my-secret")
    refused = swarm.on("n1", "secret", "rm", "my-secret")
    assert refused.code and "in use by the following service: vault" in refused.err
    swarm.ok("n1", "service", "rm", "vault")
    swarm.wait("the secret can go", 15, lambda: swarm.on("n1", "secret", "rm", "my-secret").code == 0)
    swarm.ok("n1", "config", "rm", "my-config")


def test_a_task_that_fits_nowhere_says_why(swarm: Lab) -> None:
    words = ("--name", "picky", "--constraint", "node.labels.disk==ssd")
    swarm.ok("n1", "service", "create", "--detach", *words, "hello")
    shown = ""

    def explained() -> bool:
        nonlocal shown
        shown = swarm.ok("n1", "service", "ps", "--no-trunc", "picky")
        return "no suitable node (scheduling constraints not satisfied on 3 nodes)" in shown

    swarm.wait("the reason is shown", 10, explained)
    assert "Pending" in shown
    node_id = swarm.ok("n1", "node", "inspect", "n2", "--format", "{{.ID}}")
    swarm.ok("n1", "node", "update", "--label-add", "disk=ssd", node_id)
    swarm.wait("it runs where the label is", 15, lambda: swarm.running("n1", "picky") == ["n2"])
    swarm.ok("n1", "service", "rm", "picky")


def test_a_missing_image_is_named(swarm: Lab) -> None:
    words = ("--name", "ghost", "--restart-condition", "none")
    swarm.ok("n1", "service", "create", "--detach", *words, "no/such:image")
    swarm.wait("the failure is shown", 15, lambda: "no/such:image" in _errors(swarm, "ghost"))
    swarm.ok("n1", "service", "rm", "ghost")


def _errors(swarm: Lab, service: str) -> str:
    return swarm.ok("n1", "service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", service)


def test_refusals_say_what_to_do(swarm: Lab) -> None:
    for words, named in (
        (("service", "create", "--detach", "--name", "web", "hello"), "already exists"),
        (("service", "create", "--detach", "--name", "other", "--publish", "8080:80", "hello"), "8080"),
        (("service", "inspect", "nosuch"), "nosuch"),
        (("service", "create", "--detach", "--network", "nowhere", "hello"), "nowhere"),
        (("service", "create", "--detach", "--limit-memory", "lots", "hello"), "lots"),
        (("service", "create", "--detach", "--name", "bad name!", "hello"), "name"),
        (("network", "rm", "front"), "in use"),
        (("node", "rm", "n2"), "manager"),
        (("swarm", "init"), "already part of a swarm"),
        (("swarm", "leave"), "participating as a manager"),
    ):
        result = swarm.on("n1", *words)
        assert result.code, words
        assert named in result.err, (words, result.err)


def test_drain_and_active(swarm: Lab) -> None:
    swarm.ok("n1", "node", "update", "--availability", "drain", "n3")
    swarm.wait("n3 is empty", 30, lambda: sorted(set(swarm.running("n1", "web"))) == ["n1", "n2"])
    assert len(swarm.running("n1", "web")) == 3
    swarm.ok("n1", "node", "update", "--availability", "active", "n3")


def test_global_service_has_one_task_on_each_node(swarm: Lab) -> None:
    swarm.ok("n1", "service", "create", "--detach", "--mode", "global", "--name", "everywhere", "hello")
    swarm.wait("one each", 15, lambda: sorted(swarm.running("n1", "everywhere")) == ["n1", "n2", "n3"])
    swarm.ok("n1", "service", "rm", "everywhere")


def test_a_restart_of_a_daemon_moves_no_task(swarm: Lab) -> None:
    tasks = set(swarm.ok("n1", "service", "ps", "-q", "--filter", "desired-state=running", "web").split())
    containers = swarm.ok("n2", "ps", "-q").split()
    assert swarm.lab("kill", "n2", "--daemon-only").code == 0
    assert swarm.lab("start", "n2").code == 0
    swarm.wait("n2 is ready", 20, lambda: "Ready" in swarm.ok("n1", "node", "ls", "--filter", "name=n2"))
    time.sleep(1.5)
    assert swarm.ok("n2", "ps", "-q").split() == containers
    assert (
        set(swarm.ok("n1", "service", "ps", "-q", "--filter", "desired-state=running", "web").split())
        == tasks
    )


def test_a_dead_leader_is_replaced_and_its_tasks_run_elsewhere(swarm: Lab) -> None:
    old = _leader(swarm, "n1")
    left = next(node for node in swarm.names if node != old)
    others = sorted(node for node in swarm.names if node != old)
    assert swarm.lab("kill", old).code == 0
    swarm.wait("another leads", 15, lambda: _leader(swarm, left) not in ("", old))
    swarm.wait(
        "3 tasks elsewhere",
        20,
        lambda: len(now := swarm.running(left, "web")) == 3 and set(now) <= set(others),
    )
    url = f"http://{swarm.node(left).address}:8080/"
    swarm.wait("they answer", 20, lambda: all(fetch(swarm, left, url) for _ in range(6)))
    assert swarm.lab("start", old).code == 0
    swarm.wait("all are ready", 30, lambda: swarm.ok(left, "node", "ls").count("Ready") == 3)


def _leader(swarm: Lab, node: str) -> str:
    lines = swarm.on(node, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").out.splitlines()
    return next((line.split()[0] for line in lines if line.endswith(" Leader")), "")


def test_inspect_of_a_service_is_complete_json(swarm: Lab) -> None:
    shown = json.loads(swarm.ok("n1", "service", "inspect", "web"))[0]
    assert shown["Spec"]["Mode"] == {"Replicated": {"Replicas": 3}}
    assert shown["Endpoint"]["Ports"][0]["PublishedPort"] == 8080
    assert {vip["Addr"].split("/")[1] for vip in shown["Endpoint"]["VirtualIPs"]} == {"24"}


def test_sigterm_of_a_manager_during_traffic(swarm: Lab) -> None:
    """The daemon of one node is stopped politely: the containers go on answering."""
    row = swarm.status()["n3"]
    pids = [int(pid) for pid in row["pids"]]  # type: ignore[union-attr]
    url = f"http://{swarm.node('n1').address}:8080/"
    os.kill(pids[-1], signal.SIGTERM)
    answers = [fetch(swarm, "n1", url) for _ in range(10)]
    assert all(answers), answers
    assert swarm.lab("start", "n3").code == 0
