"""Joining, refusals, roles and leaving, on two real nodes that start as strangers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs import Lab, lab_of

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    """n1 has founded a swarm, n2 belongs to none."""
    with lab_of(2, kind=Lab) as lab:
        lab.ok("n1", "swarm", "init", "--advertise-addr", lab.node("n1").address)
        yield lab


def token(pair: Lab, role: str) -> str:
    return pair.ok("n1", "swarm", "join-token", "-q", role)


def join(pair: Lab, text: str) -> tuple[int, str]:
    result = pair.on("n2", "swarm", "join", "--token", text, f"{pair.node('n1').address}:2377")
    return result.code, result.err


def test_a_stranger_is_told_that_it_is_in_no_swarm(pair: Lab) -> None:
    result = pair.on("n2", "node", "ls")
    assert result.code
    assert "This node is not a swarm manager" in result.err


def test_wrong_tokens_are_refused_and_leave_nothing(pair: Lab) -> None:
    prefix, number, digest, secret = token(pair, "worker").split("-")
    other = secret[::-1] if secret[::-1] != secret else "0" * 25
    code, error = join(pair, f"{prefix}-{number}-{digest}-{other}")
    assert code
    assert "A valid join token is necessary to join this cluster" in error
    code, error = join(pair, f"{prefix}-{number}-{'0' * 50}-{secret}")
    assert code
    assert "remote CA does not match fingerprint" in error
    code, error = join(pair, "SWMTKN-1-nonsense")
    assert code
    assert "invalid join token" in error
    assert "inactive" in pair.ok("n2", "info", "--format", "{{.Swarm.LocalNodeState}}")


def test_a_rotated_token_is_refused_and_the_new_one_is_taken(pair: Lab) -> None:
    old = token(pair, "worker")
    pair.ok("n1", "swarm", "join-token", "--rotate", "worker")
    code, error = join(pair, old)
    assert code
    assert "A valid join token is necessary" in error
    code, error = join(pair, token(pair, "worker"))
    assert code == 0, error
    pair.wait("n2 is ready", 15, lambda: pair.ok("n1", "node", "ls").count("Ready") == 2)


def test_joining_twice_is_refused(pair: Lab) -> None:
    code, error = join(pair, token(pair, "worker"))
    assert code
    assert "already part of a swarm" in error


def test_a_worker_refuses_a_managers_commands(pair: Lab) -> None:
    for words in (
        ("service", "ls"),
        ("node", "ls"),
        ("secret", "ls"),
        ("network", "create", "-d", "overlay", "x"),
    ):
        result = pair.on("n2", *words)
        assert result.code, words
        assert (
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please "
            "run this command on a manager node or promote the current node to a manager."
        ) in result.err, words
    assert pair.ok("n2", "network", "prune", "-f") == ""


def test_promotion_makes_a_manager_and_demotion_a_worker(pair: Lab) -> None:
    pair.ok("n1", "node", "promote", "n2")
    pair.wait("n2 is a manager", 20, lambda: pair.on("n2", "node", "ls").out.count("Ready") == 2)
    pair.ok("n1", "node", "demote", "n2")
    pair.wait("n2 is a worker", 20, lambda: "not a swarm manager" in pair.on("n2", "node", "ls").err)
    pair.wait("n1 goes on", 10, lambda: pair.on("n1", "node", "ls").out.count("Ready") == 2)


def test_a_node_that_is_up_is_not_removed(pair: Lab) -> None:
    result = pair.on("n1", "node", "rm", "n2")
    assert result.code
    assert "is not down and can't be removed" in result.err


def test_networks_that_nothing_uses_are_pruned(pair: Lab) -> None:
    for name, label in (("kept", "keep=1"), ("used", "a=1"), ("idle", "a=1")):
        pair.ok("n1", "network", "create", "-d", "overlay", "--label", label, name)
    pair.ok("n1", "network", "create", "--label", "a=1", "local")
    pair.ok("n1", "service", "create", "-d", "--name", "s", "--replicas", "0", "--network", "used", "hello")
    assert pair.ok("n1", "network", "prune", "-f", "--filter", "until=1h").count("idle") == 0
    pruned = pair.ok("n1", "network", "prune", "-f", "--filter", "label!=keep")
    assert "idle" in pruned and "local" in pruned and "used" not in pruned and "kept" not in pruned
    names = pair.ok("n1", "network", "ls", "--format", "{{.Name}}").split()
    assert {"kept", "used", "ingress", "bridge"} <= set(names) and not {"idle", "local"} & set(names)
    pair.ok("n1", "service", "rm", "s")


def test_leaving_removal_and_joining_drained(pair: Lab) -> None:
    pair.ok("n2", "swarm", "leave")
    pair.wait("n2 is down", 15, lambda: "Down" in pair.ok("n1", "node", "ls"))
    pair.ok("n1", "node", "rm", "n2")
    assert pair.ok("n1", "node", "ls", "--format", "{{.Hostname}}").split() == ["n1"]
    remote = f"{pair.node('n1').address}:2377"
    pair.ok("n2", "swarm", "join", "--availability", "drain", "--token", token(pair, "worker"), remote)
    pair.wait("n2 is ready", 15, lambda: pair.ok("n1", "node", "ls").count("Ready") == 2)
    rows = pair.ok("n1", "node", "ls", "--format", "{{.Hostname}} {{.Availability}}").splitlines()
    assert sorted(rows) == ["n1 Active", "n2 Drain"]
    pair.ok("n2", "swarm", "leave")
    refused = pair.on("n1", "swarm", "leave")
    assert refused.code
    assert "last manager" in refused.err
    pair.ok("n1", "swarm", "leave", "--force")
    assert "inactive" in pair.ok("n1", "info", "--format", "{{.Swarm.LocalNodeState}}")
