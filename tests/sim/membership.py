"""Changes of the members as raft.consensus makes them: catch a joiner up first, keep a reachable quorum."""

from __future__ import annotations

from raft.consensus import CAUGHT_UP_ENTRIES, JOINER_CONTACT_TIMEOUT_S
from raft.errors import RaftError
from raft.membership import Configuration
from tests.sim.cluster import Cluster, Manager

POLL_S = 0.02


class Changes:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.committed = 0

    def add(self, leader: Manager, joiner: Manager) -> None:
        """Start the node when it is new, and ask the leader to take it in."""
        if joiner.life == 0:
            joiner.start()
        life, deadline = leader.life, self._cluster.events.now + JOINER_CONTACT_TIMEOUT_S

        def begin() -> None:
            members = leader.engine.configuration
            if leader.engine.is_leader() and joiner.id not in (*members.members, *members.removed):
                leader.engine.add_learner(joiner.id, joiner.id)
                poll()

        def poll() -> None:
            engine = leader.engine
            if not engine.is_leader() or joiner.id in engine.configuration.members:
                return
            match, last = engine.progress(joiner.id)
            if engine.heard_from(joiner.id) and match + CAUGHT_UP_ENTRIES >= last:
                if not self._propose(leader, engine.configuration.with_member(joiner.id, joiner.id)):
                    engine.drop_learner(joiner.id)
            elif self._cluster.events.now > deadline:
                engine.drop_learner(joiner.id)
            else:
                self._cluster.events.after(POLL_S, again)

        def again() -> None:
            if leader.up and leader.life == life:
                leader.do(poll)

        leader.do(begin)

    def remove(self, leader: Manager, node_id: str) -> None:
        def begin() -> None:
            engine = leader.engine
            members = engine.configuration.members
            if node_id not in members or len(members) == 1:
                return
            wanted = engine.configuration.without_member(node_id)
            reachable = sum(m == leader.id or engine.is_connected(m) for m in wanted.members)
            if reachable < wanted.quorum:
                return
            if node_id == leader.id:
                engine.offer_leadership()
            else:
                self._propose(leader, wanted)

        leader.do(begin)

    def _propose(self, leader: Manager, wanted: Configuration) -> bool:
        try:
            leader.engine.change_configuration(wanted, self._done)
        except RaftError:
            return False
        return True

    def _done(self, _: object, reason: int) -> None:
        self.committed += reason == 0
