"""Who has to acknowledge what before a task may be stopped."""

from __future__ import annotations

import math

from node.manager.draining import DRAIN_S_MAX, Draining


def test_released_by_the_last_acknowledgement_of_its_version_or_a_newer_one():
    draining = Draining()
    draining.hold("t1", {"n1": 5, "n2": 7}, now=0.0)
    draining.hold("t2", {"n1": 9}, now=0.0)
    assert draining.acknowledged("n1", 6) == set()
    assert draining.acknowledged("n2", 6) == set()
    assert draining.acknowledged("n2", 8) == {"t1"}
    assert list(draining.held) == ["t2"]


def test_gone_node_and_time_release():
    draining = Draining()
    draining.hold("t1", {"n1": 5}, now=0.0)
    draining.hold("t2", {"n2": 5}, now=0.5)
    assert draining.acknowledged("n1", math.inf) == {"t1"}
    assert draining.next_deadline() == 0.5 + DRAIN_S_MAX
    assert draining.expired(0.4 + DRAIN_S_MAX) == set()
    assert draining.expired(0.5 + DRAIN_S_MAX) == {"t2"}
    assert draining.next_deadline() == math.inf


def test_nothing_to_wait_for_is_not_held():
    draining = Draining()
    draining.hold("t1", {}, now=0.0)
    assert not draining.held
