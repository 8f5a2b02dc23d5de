"""The nodes of one run, what connects them, and the passing of time."""

from __future__ import annotations

from raft.membership import Configuration
from tests.sim.clock import Events, Turns
from tests.sim.invariants import Oracle
from tests.sim.manager import Manager
from tests.sim.network import Network


class Cluster:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.events = Events()
        self.turns = Turns(seed)
        self.network = Network(self.events, seed)
        self.oracle = Oracle()
        self.managers: dict[str, Manager] = {}
        self.wanted: set[str] = set()  # who is to be a manager, by the operators' will

    def manager(self, node_id: str) -> Manager:
        if node_id not in self.managers:
            self.managers[node_id] = Manager(self, node_id)
            self.network.add(node_id, self.managers[node_id])
        return self.managers[node_id]

    def start(self, node_ids: list[str]) -> None:
        """A cluster whose first configuration has all of them."""
        self.wanted.update(node_ids)
        managers = [self.manager(node_id) for node_id in node_ids]
        first = Configuration({manager.id: manager.address for manager in managers})
        for manager in managers:
            manager.start(first)

    def power_cut(self, manager: Manager) -> None:
        manager.crash()
        self.restart_later(manager, 0.3)

    def restart_later(self, manager: Manager, seconds: float) -> None:
        life = manager.life

        def restart() -> None:
            if not manager.runs and manager.life == life:  # nobody else has started it
                manager.start()

        self.events.after(seconds, restart)

    def run(self, until: float) -> int:
        """Returns how many events there were."""
        count = 0
        while (action := self.events.next(until)) is not None:
            action()
            count += 1
        return count

    def end(self) -> None:
        """Nothing of this run goes on after it."""
        for manager in self.managers.values():
            manager.loop.die()

    def leaders(self) -> list[Manager]:
        return [m for m in self.managers.values() if m.up and m.consensus.is_leader]
